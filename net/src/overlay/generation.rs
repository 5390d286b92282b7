//! How often the rules of this host were changed, by whomever: the kernel counts it, and tells it at once however many rules there are.

use std::io::{self, Read as _};

use super::netlink::{BODY_AT, BUFFER_BYTES, ERROR, REQUEST, attribute, error, message, next_message, open};

const SUBSYSTEM: u16 = 10 << 8;
const TOLD: u16 = SUBSYSTEM | 15;
const GET: u16 = SUBSYSTEM | 16;
const NUMBER: u16 = 1;

/// The number of the last change.
///
/// # Errors
/// The kernel does not tell it.
pub(super) fn of_rules() -> io::Result<u32> {
    let socket = open()?;
    socket.send(&message(GET, REQUEST, 0, &[]))?;
    let mut buffer = vec![0; BUFFER_BYTES];
    let count = (&mut &socket).read(&mut buffer)?;
    read(&buffer[..count])
}

fn read(mut answer: &[u8]) -> io::Result<u32> {
    while let Some((kind, body)) = next_message(&mut answer) {
        match kind {
            TOLD => {
                let number = attribute(body.get(BODY_AT..).unwrap_or_default(), NUMBER);
                let number = number.and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
                return number.map(u32::from_be_bytes).ok_or_else(|| io::Error::other("no number was told"));
            }
            ERROR => error(body)?,
            _ => {}
        }
    }
    Err(io::Error::other("the kernel did not answer"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_is_read_as_the_kernel_tells_it() {
        let told = message(TOLD, 0, 0, &[8, 0, 1, 0, 0, 0, 2, 7]);
        let (other, short) = (message(TOLD + 9, 0, 0, &[]), message(TOLD, 0, 0, &[6, 0, 1, 0, 1, 1, 0, 0]));
        assert_eq!(read(&[other.clone(), told].concat()).unwrap(), 519);
        assert!(read(&short).is_err() && read(&other).is_err() && read(&[]).is_err());
        let refused = message(ERROR, 0, 0, &[]);
        assert!(read(&refused).is_err());
    }
}
