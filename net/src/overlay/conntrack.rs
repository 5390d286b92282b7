//! Flows that the kernel remembers: whom a virtual address was turned to when a flow began. A connection of TCP goes on with that task to its
//! end; datagrams know no end, so that a task which takes traffic no more would keep the flows of busy senders for good. Those
//! are forgotten here, and the next datagram is turned to somebody else.
//!
//! Of the kernel's own language for it two messages are needed: tell all, and forget one.

use std::io::{self, Read as _};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use socket2::Socket;

use super::netlink::{
    ACKNOWLEDGE, BODY_AT, BUFFER_BYTES, DUMP, ERROR, REQUEST, aligned, attribute, error, message,
    next_attribute, next_message, open, take_in,
};

/// Telling and forgetting must be done within this; what is left then is for the next time.
const TIME_MAX: Duration = Duration::from_secs(3);
/// Flows that are looked at, and that are forgotten, at once.
const FLOWS_MAX: usize = 1 << 20;
const FORGET_MAX: usize = 16_384;
/// A flow's attributes, by which it is forgotten, have no more than this.
const NAME_BYTES_MAX: usize = 512;

const SUBSYSTEM: u16 = 1 << 8;
const NEW: u16 = SUBSYSTEM;
const GET: u16 = SUBSYSTEM | 1;
const DELETE: u16 = SUBSYSTEM | 2;
const ANY_FAMILY: u8 = 0;

const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const ID: u16 = 12;
const ZONE: u16 = 18;
const TUPLE_ADDRESSES: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
const SOURCE: [u16; 2] = [1, 3];
const DESTINATION: [u16; 2] = [2, 4];
const PROTOCOL_NUMBER: u16 = 1;

/// A flow of datagrams.
#[derive(Debug, PartialEq, Eq)]
struct Flow {
    family: u8,
    /// Where its sender sends to.
    to: IpAddr,
    /// From where the answers come in fact.
    answered_by: IpAddr,
    /// The attributes by which the kernel knows it.
    name: Vec<u8>,
}

/// Forget the flows of datagrams that match: told are where the sender sends to, and whom that was turned to. Returns how many there were.
///
/// # Errors
/// The kernel does not tell its flows, or forgets none.
pub(super) fn forget(is_stale: impl Fn(IpAddr, IpAddr) -> bool) -> io::Result<usize> {
    let until = Instant::now() + TIME_MAX;
    let socket = open()?;
    let mut stale = Vec::new();
    all(&socket, until, |flow| {
        if stale.len() < FORGET_MAX && is_stale(flow.to, flow.answered_by) {
            stale.push(flow);
        }
    })?;
    let mut forgotten = 0;
    for flow in &stale {
        if Instant::now() > until {
            break;
        }
        forgotten += usize::from(forget_one(&socket, flow)?);
    }
    Ok(forgotten)
}

/// Tell each flow of datagrams: of both families at once, for the kernel looks at all that it remembers each time.
fn all(socket: &Socket, until: Instant, mut tell: impl FnMut(Flow)) -> io::Result<()> {
    socket.send(&message(GET, REQUEST | DUMP, ANY_FAMILY, &[]))?;
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut seen = 0;
    loop {
        let count = (&mut &*socket).read(&mut buffer)?;
        let is_last = take_in(&buffer[..count], |kind, body| {
            if kind == NEW {
                seen += 1;
                read_flow(body).into_iter().for_each(&mut tell);
            }
        })?;
        if is_last {
            return Ok(());
        }
        if count == 0 || seen > FLOWS_MAX || Instant::now() > until {
            return Err(io::Error::other("the kernel has too many flows to look at"));
        }
    }
}

/// Returns whether it was there still.
fn forget_one(socket: &Socket, flow: &Flow) -> io::Result<bool> {
    socket.send(&message(DELETE, REQUEST | ACKNOWLEDGE, flow.family, &flow.name))?;
    let mut buffer = vec![0; BUFFER_BYTES];
    let count = (&mut &*socket).read(&mut buffer)?;
    let mut rest = &buffer[..count];
    while let Some((kind, body)) = next_message(&mut rest) {
        if kind == ERROR {
            return match error(body) {
                Ok(()) => Ok(true),
                // It ended by itself.
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
                Err(error) => Err(error),
            };
        }
    }
    Err(io::Error::other("the kernel did not say whether a flow is forgotten"))
}

fn address(tuple: &[u8], which: [u16; 2]) -> Option<IpAddr> {
    let addresses = attribute(tuple, TUPLE_ADDRESSES)?;
    let v4 = attribute(addresses, which[0]).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
    let v6 = || attribute(addresses, which[1]).and_then(|bytes| <[u8; 16]>::try_from(bytes).ok());
    v4.map(IpAddr::from).or_else(|| v6().map(IpAddr::from))
}

/// Read a flow, if it is one of datagrams and whole.
fn read_flow(body: &[u8]) -> Option<Flow> {
    let (family, mut rest) = (*body.first()?, body.get(BODY_AT..)?);
    let (mut original, mut reply, mut name) = (None, None, Vec::new());
    while let Some((number, content, whole)) = next_attribute(&mut rest) {
        match number {
            TUPLE_ORIGINAL => original = Some(content),
            TUPLE_REPLY => reply = Some(content),
            _ => {}
        }
        if matches!(number, TUPLE_ORIGINAL | ID | ZONE) {
            name.extend(whole);
            name.resize(aligned(name.len()), 0);
        }
    }
    let (original, reply) = (original?, reply?);
    let protocol = attribute(attribute(original, TUPLE_PROTOCOL)?, PROTOCOL_NUMBER)?;
    let is_udp = protocol.first().is_some_and(|number| i32::from(*number) == libc::IPPROTO_UDP);
    let flow =
        Flow { family, to: address(original, DESTINATION)?, answered_by: address(reply, SOURCE)?, name };
    Some(flow).filter(|flow| is_udp && flow.name.len() <= NAME_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::netlink::{DONE, attribute_of};
    use super::*;

    const NESTED: u16 = 1 << 15;

    fn tuple(number: u16, from: [u8; 4], to: [u8; 4], protocol: u8) -> Vec<u8> {
        let addresses = [attribute_of(SOURCE[0], &from), attribute_of(DESTINATION[0], &to)].concat();
        let protocol =
            [attribute_of(PROTOCOL_NUMBER, &[protocol]), attribute_of(2, &[1, 2]), attribute_of(3, &[0, 53])]
                .concat();
        let inner = [
            attribute_of(TUPLE_ADDRESSES | NESTED, &addresses),
            attribute_of(TUPLE_PROTOCOL | NESTED, &protocol),
        ];
        attribute_of(number | NESTED, &inner.concat())
    }

    fn flow(protocol: u8) -> Vec<u8> {
        let attributes = [
            tuple(TUPLE_ORIGINAL, [10, 0, 0, 9], [10, 0, 0, 2], protocol),
            tuple(TUPLE_REPLY, [10, 0, 0, 3], [10, 0, 0, 9], protocol),
            attribute_of(3, &[0, 0, 1, 0x8e]),
            attribute_of(ID, &[1, 2, 3, 4]),
        ];
        message(NEW, 0, 2, &attributes.concat())
    }

    #[test]
    fn a_flow_is_read_and_named_as_the_kernel_tells_it() {
        let bytes = [flow(17), flow(6), message(DONE, 0, 0, &[])].concat();
        let mut rest = &bytes[..];
        let (kind, body) = next_message(&mut rest).unwrap();
        let read = read_flow(body).unwrap();
        assert_eq!((kind, read.family), (NEW, 2));
        assert_eq!((read.to, read.answered_by), (IpAddr::from([10, 0, 0, 2]), IpAddr::from([10, 0, 0, 3])));
        let name = [tuple(TUPLE_ORIGINAL, [10, 0, 0, 9], [10, 0, 0, 2], 17), attribute_of(ID, &[1, 2, 3, 4])]
            .concat();
        assert_eq!(read.name, name);
        let (_, tcp) = next_message(&mut rest).unwrap();
        assert_eq!(read_flow(tcp), None, "a connection of TCP goes on");
        assert_eq!(next_message(&mut rest).map(|(kind, _)| kind), Some(DONE));
        assert_eq!(next_message(&mut rest), None);
    }

    #[test]
    fn what_the_kernel_says_of_errors_is_read() {
        assert!(error(&0i32.to_ne_bytes()).is_ok());
        let absent = error(&(-libc::ENOENT).to_ne_bytes()).unwrap_err();
        assert_eq!(absent.raw_os_error(), Some(libc::ENOENT));
        assert!(error(&[1]).is_err() && error(&i32::MIN.to_ne_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_without_a_panic_and_to_its_end(mut bytes: Vec<u8>, at in 0usize..300, with: u8) {
            let mut told = flow(17);
            let place = at % told.len();
            told[place] = with;
            bytes.extend(told.iter().copied());
            for bytes in [&bytes, &told] {
                let mut rest = &bytes[..];
                let mut count = 0;
                while let Some((_, body)) = next_message(&mut rest) {
                    let _ = (read_flow(body), error(body));
                    count += 1;
                    prop_assert!(count <= bytes.len());
                }
            }
        }
    }
}
