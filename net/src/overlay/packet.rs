//! What is read of a packet before it is passed on: where it comes from, where it goes, and which flow it is of.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Bytes of the virtio header that the kernel puts before each packet.
pub(super) const VIRTIO_HEADER: usize = 10;
/// The largest packet with its header.
pub(super) const PACKET_MAX: usize = VIRTIO_HEADER + 65_535;
/// Bytes of the length before each packet on a stream.
pub(super) const LENGTH: usize = 4;

/// What a packet says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ends {
    pub(super) from: IpAddr,
    pub(super) to: IpAddr,
    /// Equal for all packets of a flow, one way.
    pub(super) flow: u32,
}

/// Read a packet behind its virtio header. None if it is none of IP.
pub(super) fn ends(bytes: &[u8]) -> Option<Ends> {
    let packet = bytes.get(VIRTIO_HEADER..)?;
    match packet.first()? >> 4 {
        4 => {
            let header: &[u8; 20] = packet.first_chunk()?;
            let from = Ipv4Addr::from(*header[12..16].first_chunk::<4>()?);
            let to = Ipv4Addr::from(*header[16..20].first_chunk::<4>()?);
            let length = usize::from(header[0] & 15) * 4;
            if length < header.len() {
                return None;
            }
            // Later fragments carry no ports, and their first does: all of a packet go by their addresses alone.
            let fragment = u16::from_be_bytes([header[6], header[7]]) & 0x3fff != 0;
            let ports = if fragment { None } else { packet.get(length..length + 4) };
            Some(Ends {
                from: from.into(),
                to: to.into(),
                flow: mix(&[&header[9..10], &header[12..20], ports.unwrap_or_default()]),
            })
        }
        6 => {
            let header: &[u8; 40] = packet.first_chunk()?;
            let from = Ipv6Addr::from(*header[8..24].first_chunk::<16>()?);
            let to = Ipv6Addr::from(*header[24..40].first_chunk::<16>()?);
            let ports = packet.get(40..44).filter(|_| matches!(header[6], 6 | 17));
            Some(Ends {
                from: from.into(),
                to: to.into(),
                flow: mix(&[&header[6..7], &header[8..40], ports.unwrap_or_default()]),
            })
        }
        _ => None,
    }
}

/// FNV-1a.
fn mix(parts: &[&[u8]]) -> u32 {
    let bytes = parts.iter().flat_map(|part| part.iter());
    let hash = bytes.fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    hash ^ hash >> 15
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn v4(protocol: u8, port: u16) -> Vec<u8> {
        let mut bytes = vec![0; VIRTIO_HEADER];
        bytes.extend([0x45, 0, 0, 24, 0, 0, 0, 0, 64, protocol, 0, 0, 10, 1, 0, 1, 10, 1, 0, 2]);
        bytes.extend(port.to_be_bytes());
        bytes.extend([0, 80]);
        bytes
    }

    #[test]
    fn a_packets_ends_are_read_and_its_flow_goes_by_its_ports() {
        let one = ends(&v4(6, 1000)).unwrap();
        assert_eq!((one.from, one.to), ("10.1.0.1".parse().unwrap(), "10.1.0.2".parse().unwrap()));
        assert_ne!(one.flow, ends(&v4(6, 1001)).unwrap().flow);
        let mut fragment = v4(17, 1000);
        fragment[VIRTIO_HEADER + 6] = 0x20;
        let mut later = v4(17, 7);
        later[VIRTIO_HEADER + 7] = 1;
        assert_eq!(ends(&fragment).unwrap().flow, ends(&later).unwrap().flow);
    }

    #[test]
    fn what_is_no_packet_is_none() {
        for bytes in [&[][..], &[0; VIRTIO_HEADER], &[0; 30], &v4(6, 1)[..20]] {
            assert_eq!(ends(bytes), None);
        }
        let mut short = v4(6, 1);
        short[VIRTIO_HEADER] = 0x44;
        assert_eq!(ends(&short), None);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = ends(&bytes);
        }
    }
}
