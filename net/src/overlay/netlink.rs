//! The kernel's own language for its packet filter (netlink, `NETLINK_NETFILTER`): messages, and what is in them.

use std::io;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

/// The kernel answers within this.
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// The kernel's messages come in pieces no larger than this.
pub(super) const BUFFER_BYTES: usize = 64 << 10;

const NETLINK_HEADER_BYTES: usize = 16;
/// Behind it: family, version, resource. A message's own attributes begin so far into its body.
pub(super) const BODY_AT: usize = 4;
const HEADER_BYTES: usize = NETLINK_HEADER_BYTES + BODY_AT;
pub(super) const ATTRIBUTE_HEADER_BYTES: usize = 4;
/// What of an attribute's type is its number.
const ATTRIBUTE_NUMBER: u16 = 0x3fff;

pub(super) const ERROR: u16 = 2;
pub(super) const DONE: u16 = 3;
pub(super) const REQUEST: u16 = 1;
pub(super) const ACKNOWLEDGE: u16 = 4;
pub(super) const DUMP: u16 = 0x300;

/// A socket on which the kernel is spoken to.
pub(super) fn open() -> io::Result<Socket> {
    let protocol = Protocol::from(libc::NETLINK_NETFILTER);
    let socket = Socket::new(Domain::from(libc::AF_NETLINK), Type::RAW.cloexec(), Some(protocol))?;
    socket.set_read_timeout(Some(ANSWER_MAX))?;
    Ok(socket)
}

pub(super) fn message(kind: u16, flags: u16, family: u8, attributes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER_BYTES + attributes.len()).unwrap_or(u32::MAX);
    let mut bytes = Vec::with_capacity(HEADER_BYTES + attributes.len());
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend([family, 0, 0, 0]);
    bytes.extend(attributes);
    bytes
}

pub(super) fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

/// Take a message from the front: its kind and what is behind netlink's own header.
pub(super) fn next_message<'a>(rest: &mut &'a [u8]) -> Option<(u16, &'a [u8])> {
    let length = usize::try_from(u32::from_ne_bytes(*rest.first_chunk()?)).ok()?;
    let message = rest.get(..length).filter(|message| message.len() >= NETLINK_HEADER_BYTES)?;
    *rest = rest.get(aligned(length)..).unwrap_or_default();
    Some((u16::from_ne_bytes([message[4], message[5]]), &message[NETLINK_HEADER_BYTES..]))
}

/// What the kernel says of an error; 0 is none.
pub(super) fn error(body: &[u8]) -> io::Result<()> {
    match body.first_chunk().map(|code| i32::from_ne_bytes(*code)) {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(code.saturating_neg())),
        None => Err(io::Error::other("the kernel's answer is cut off")),
    }
}

/// Take in a piece of what the kernel tells of all it has: each message by its kind and body. Returns whether it is the last piece.
pub(super) fn take_in(mut piece: &[u8], mut tell: impl FnMut(u16, &[u8])) -> io::Result<bool> {
    while let Some((kind, body)) = next_message(&mut piece) {
        match kind {
            DONE => return Ok(true),
            ERROR => error(body)?,
            _ => tell(kind, body),
        }
    }
    Ok(false)
}

/// An attribute, as it stands in a message.
pub(super) fn attribute_of(number: u16, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(ATTRIBUTE_HEADER_BYTES + content.len()).unwrap_or(u16::MAX);
    let mut bytes = [length.to_ne_bytes(), number.to_ne_bytes()].concat();
    bytes.extend(content);
    bytes.resize(aligned(bytes.len()), 0);
    bytes
}

/// Take an attribute from the front: its number, its content, and all of it.
pub(super) fn next_attribute<'a>(rest: &mut &'a [u8]) -> Option<(u16, &'a [u8], &'a [u8])> {
    let head: [u8; ATTRIBUTE_HEADER_BYTES] = *rest.first_chunk()?;
    let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
    let whole = rest.get(..length).filter(|whole| whole.len() >= ATTRIBUTE_HEADER_BYTES)?;
    *rest = rest.get(aligned(length)..).unwrap_or_default();
    let number = u16::from_ne_bytes([head[2], head[3]]) & ATTRIBUTE_NUMBER;
    Some((number, &whole[ATTRIBUTE_HEADER_BYTES..], whole))
}

pub(super) fn attribute(mut of: &[u8], wanted: u16) -> Option<&[u8]> {
    while let Some((number, content, _)) = next_attribute(&mut of) {
        if number == wanted {
            return Some(content);
        }
    }
    None
}
