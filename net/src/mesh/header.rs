//! The PROXY protocol, version 2: tells a backend who its client is. Only written here, never believed from outside.

use std::net::{IpAddr, SocketAddr};

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, and that the connection is another's.
const VERSION_PROXY: u8 = 0x21;
const STREAM: u8 = 1;
const INET: u8 = 0x10;
const INET6: u8 = 0x20;

/// The header of a TCP connection from `client` to `server`.
pub(super) fn proxy_v2(client: SocketAddr, server: SocketAddr) -> Vec<u8> {
    let mut bytes = SIGNATURE.to_vec();
    bytes.push(VERSION_PROXY);
    let (client_ip, server_ip) = (client.ip().to_canonical(), server.ip().to_canonical());
    let addresses: Vec<u8> = match (client_ip, server_ip) {
        (IpAddr::V4(client), IpAddr::V4(server)) => {
            bytes.push(INET | STREAM);
            [client.octets(), server.octets()].concat()
        }
        (client, server) => {
            let v6 = |ip: IpAddr| match ip {
                IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
                IpAddr::V6(ip) => ip.octets(),
            };
            bytes.push(INET6 | STREAM);
            [v6(client), v6(server)].concat()
        }
    };
    let length = u16::try_from(addresses.len() + 4).unwrap_or_default();
    bytes.extend(length.to_be_bytes());
    bytes.extend(addresses);
    bytes.extend(client.port().to_be_bytes());
    bytes.extend(server.port().to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_are_those_of_the_specification() {
        let v4 = proxy_v2("[::ffff:192.0.2.1]:50000".parse().unwrap(), "192.0.2.9:80".parse().unwrap());
        let head = [&SIGNATURE[..], &[0x21, 0x11, 0, 12]].concat();
        assert_eq!(v4, [&head[..], &[192, 0, 2, 1, 192, 0, 2, 9, 0xc3, 0x50, 0, 80]].concat());
        let v6 = proxy_v2("[2001:db8::1]:1".parse().unwrap(), "[2001:db8::2]:2".parse().unwrap());
        assert_eq!((v6[13], v6.len(), &v6[14..16]), (0x21, 16 + 36, &[0u8, 36][..]));
        assert_eq!(v6[48..], [0, 1, 0, 2]);
    }
}
