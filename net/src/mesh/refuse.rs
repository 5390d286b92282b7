//! Tells the clients of a UDP port that nobody takes what they sent: as a host does where nothing listens, by ICMP.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::listen::step;

/// Refusals in a row, and in each [`REFILL`] from then on: whoever forges clients has others told no more than that.
const BURST: u32 = 1_000;
const REFILL: Duration = Duration::from_secs(1);

/// *Port unreachable*, of ICMP and of ICMPv6.
const UNREACHABLE_V4: [u8; 2] = [3, 3];
const UNREACHABLE_V6: [u8; 2] = [1, 4];
const UDP: u8 = 17;
const UDP_HEADER: u16 = 8;
const TTL: u8 = 64;

/// What tells clients; the sockets for it are opened when the first one is told.
#[derive(Default)]
pub(super) struct Refusals {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    v4: Option<Socket>,
    v6: Option<Socket>,
    spent: Option<(Instant, u32)>,
}

impl Refusals {
    /// Tell a client that its datagram of so many bytes to one of this host's addresses was not taken. A client that asked by an address
    /// that is not known is not told.
    pub(super) fn tell(&self, client: SocketAddr, asked: Option<IpAddr>, port: u16, length: usize) {
        let Some(asked) = asked.map(|ip| ip.to_canonical()) else { return };
        let client = SocketAddr::new(client.ip().to_canonical(), client.port());
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.may(Instant::now()) {
            return;
        }
        let told = match (client.ip(), asked) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let packet = unreachable_v4((from, client.port()), (to, port), length);
                send(&mut state.v4, Domain::IPV4, Protocol::ICMPV4, client, &packet)
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let packet = unreachable_v6((from, client.port()), (to, port), length);
                send(&mut state.v6, Domain::IPV6, Protocol::ICMPV6, client, &packet)
            }
            _ => return,
        };
        if let Err(error) = told {
            tracing::debug!(%client, port, %error, "a client was not told that its datagram was refused");
        }
    }
}

impl State {
    /// Whether one more may be told.
    fn may(&mut self, now: Instant) -> bool {
        let spent = match self.spent {
            Some((since, spent)) if now.saturating_duration_since(since) < REFILL => (since, spent + 1),
            _ => (now, 1),
        };
        let may = spent.1 <= BURST;
        if may {
            self.spent = Some(spent);
        }
        may
    }
}

fn send(
    socket: &mut Option<Socket>,
    domain: Domain,
    protocol: Protocol,
    client: SocketAddr,
    packet: &[u8],
) -> io::Result<()> {
    let socket = match socket {
        Some(socket) => socket,
        None => socket.insert(open(domain, protocol)?),
    };
    let to = match client {
        SocketAddr::V4(to) => SockAddr::from(to),
        // Such a socket takes a protocol where others have a port; the scope of a link-local address stays.
        SocketAddr::V6(mut to) => {
            to.set_port(0);
            SockAddr::from(to)
        }
    };
    socket.send_to(packet, &to).map(drop)
}

/// It only tells: of what comes, the kernel keeps nothing for it.
fn open(domain: Domain, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
    socket.set_nonblocking(true)?;
    socket.attach_filter(&[step(libc::BPF_RET | libc::BPF_K, 0, 0, 0)])?;
    Ok(socket)
}

/// An ICMP message with as much of a datagram as its sender needs to know it again: the headers.
fn unreachable_v4(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), length: usize) -> Vec<u8> {
    const HEADER: u16 = 20;
    let udp = udp_header(from.1, to.1, length);
    let mut ip = Vec::with_capacity(usize::from(HEADER));
    ip.extend([0x45, 0]);
    ip.extend(u16::from_be_bytes([udp[4], udp[5]]).saturating_add(HEADER).to_be_bytes());
    ip.extend([0, 0, 0, 0, TTL, UDP, 0, 0]);
    ip.extend(from.0.octets());
    ip.extend(to.0.octets());
    let sum = checksum(&ip);
    ip[10..12].copy_from_slice(&sum);
    let mut packet = message(UNREACHABLE_V4, &ip, &udp);
    let sum = checksum(&packet);
    packet[2..4].copy_from_slice(&sum);
    packet
}

/// The same for ICMPv6, whose checksum the kernel makes.
fn unreachable_v6(from: (Ipv6Addr, u16), to: (Ipv6Addr, u16), length: usize) -> Vec<u8> {
    let udp = udp_header(from.1, to.1, length);
    let mut ip = Vec::with_capacity(40);
    ip.extend([0x60, 0, 0, 0]);
    ip.extend([udp[4], udp[5], UDP, TTL]);
    ip.extend(from.0.octets());
    ip.extend(to.0.octets());
    message(UNREACHABLE_V6, &ip, &udp)
}

fn message(kind: [u8; 2], ip: &[u8], udp: &[u8]) -> Vec<u8> {
    [&kind[..], &[0; 6], ip, udp].concat()
}

fn udp_header(from: u16, to: u16, length: usize) -> [u8; 8] {
    let length = u16::try_from(length).unwrap_or(u16::MAX).saturating_add(UDP_HEADER).to_be_bytes();
    let (from, to) = (from.to_be_bytes(), to.to_be_bytes());
    [from[0], from[1], to[0], to[1], length[0], length[1], 0, 0]
}

/// The checksum of the Internet (RFC 1071), of an even number of bytes.
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let sum: u32 = bytes.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    (!u16::try_from(sum).unwrap_or(u16::MAX)).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a message says, read by the rules of RFC 792 and RFC 768.
    fn read_v4(packet: &[u8]) -> (SocketAddr, SocketAddr, u16) {
        assert_eq!(packet[..2], [3, 3]);
        assert_eq!((checksum(packet), checksum(&packet[8..28])), ([0, 0], [0, 0]), "sums over all are zero");
        let ip = &packet[8..];
        assert_eq!((ip[0], ip[9]), (0x45, 17));
        let number = |at: usize| u16::from_be_bytes([ip[at], ip[at + 1]]);
        assert_eq!(number(2), number(24) + 20, "one length holds the other");
        let address =
            |at: usize, port| SocketAddr::from(([ip[at], ip[at + 1], ip[at + 2], ip[at + 3]], number(port)));
        (address(12, 20), address(16, 22), number(24) - 8)
    }

    #[test]
    fn a_refusal_names_the_datagram_that_it_is_about() {
        let packet =
            unreachable_v4((Ipv4Addr::new(192, 0, 2, 7), 40_001), (Ipv4Addr::new(203, 0, 113, 9), 5353), 29);
        assert_eq!(
            read_v4(&packet),
            (SocketAddr::from(([192, 0, 2, 7], 40_001)), SocketAddr::from(([203, 0, 113, 9], 5353)), 29)
        );
    }

    #[test]
    fn a_refusal_of_ipv6_has_its_headers_in_their_places() {
        let (from, to) = (Ipv6Addr::LOCALHOST, "2001:db8::9".parse().unwrap());
        let packet = unreachable_v6((from, 7), (to, 9), 4);
        assert_eq!(packet[..2], [1, 4]);
        assert_eq!((packet[8] >> 4, packet[14], packet.len()), (6, 17, 8 + 40 + 8));
        assert_eq!((&packet[16..32], &packet[32..48]), (&from.octets()[..], &to.octets()[..]));
        assert_eq!(packet[48..], [0, 7, 0, 9, 0, 12, 0, 0]);
        assert_eq!(packet[12..14], [0, 12], "one length holds the other");
    }

    #[test]
    fn the_largest_datagram_overflows_nothing() {
        for length in [65_507, usize::MAX] {
            unreachable_v4((Ipv4Addr::LOCALHOST, u16::MAX), (Ipv4Addr::LOCALHOST, 1), length);
            unreachable_v6((Ipv6Addr::LOCALHOST, u16::MAX), (Ipv6Addr::LOCALHOST, 1), length);
        }
    }

    #[test]
    fn so_many_are_told_in_a_second_and_no_more() {
        let (mut state, start) = (State::default(), Instant::now());
        let told = |state: &mut State, at| (0..2 * BURST).filter(|_| state.may(at)).count();
        assert_eq!(told(&mut state, start), BURST as usize);
        assert_eq!(told(&mut state, start + REFILL / 2), 0);
        assert_eq!(told(&mut state, start + REFILL), BURST as usize);
    }
}
