//! Connections of a container, as the kernel lists them.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const ESTABLISHED: &str = "01";
const LISTEN: &str = "0A";
/// Most of a list that is read; a container with more connections than fit is busy anyway.
const LIST_BYTES_MAX: u64 = 16 << 20;

/// Connections that others opened to the container of this process.
pub(super) fn inbound(pid: u32) -> usize {
    let read = |name: &str| {
        use std::io::Read as _;
        let mut text = String::new();
        let file = std::fs::File::open(format!("/proc/{pid}/net/{name}"));
        let _ = file.map(|file| file.take(LIST_BYTES_MAX).read_to_string(&mut text));
        text
    };
    count(&(read("tcp") + &read("tcp6")))
}

/// Established connections, from elsewhere, at ports that are listened on.
fn count(list: &str) -> usize {
    let sockets: Vec<(u16, IpAddr, &str)> = list.lines().filter_map(socket).collect();
    let listening: BTreeSet<u16> =
        sockets.iter().filter(|(_, _, state)| *state == LISTEN).map(|(port, _, _)| *port).collect();
    let inbound = sockets.iter().filter(|(port, from, state)| {
        *state == ESTABLISHED && listening.contains(port) && !from.to_canonical().is_loopback()
    });
    inbound.count()
}

/// The local port, the other end and the state of a line.
fn socket(line: &str) -> Option<(u16, IpAddr, &str)> {
    let mut words = line.split_whitespace().skip(1);
    let (local, remote, state) = (words.next()?, words.next()?, words.next()?);
    let port = u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?;
    Some((port, address(remote.rsplit_once(':')?.0)?, state))
}

/// Words of 32 bits each, in the order of this host.
fn address(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| Some(u32::from_str_radix(hex.get(at * 8..at * 8 + 8)?, 16).ok()?.to_ne_bytes());
    match hex.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let bytes = [word(0)?, word(1)?, word(2)?, word(3)?].concat();
            Some(Ipv6Addr::from(*bytes.first_chunk::<16>()?).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt
   0: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000
   1: 0300010A:0050 0400010A:C350 01 00000000:00000000 00:00000000 00000000
   2: 0300010A:0050 0500010A:C351 06 00000000:00000000 03:00000000 00000000
   3: 0100007F:0050 0100007F:C352 01 00000000:00000000 00:00000000 00000000
   4: 0300010A:C353 0600010A:1538 01 00000000:00000000 00:00000000 00000000
   5: 0000000000000000FFFF00000300010A:0050 0000000000000000FFFF00000400010A:C354 01 00000000:0
";

    #[test]
    fn what_others_opened_counts_and_what_the_container_opened_does_not() {
        assert_eq!(count(LIST), 2);
        assert_eq!(count(""), 0);
        assert_eq!(count("x: zz:yy a b\n1: 00:0 0 0\nshort"), 0);
    }
}
