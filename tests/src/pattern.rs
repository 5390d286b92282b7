//! Bytes of which each tells its place, so that one that is lost, doubled or moved is noticed.

use std::io::{Read, Write};

use anyhow::{Result, ensure};

/// Written and read at once.
const PART_BYTES: usize = 64 << 10;
/// A prime: parts of no usual size begin alike.
const PERIOD: u64 = 251;

fn fill(part: &mut [u8], from: u64) {
    for (byte, place) in part.iter_mut().zip(from..) {
        *byte = (place % PERIOD) as u8;
    }
}

/// Write so many bytes; `note` hears how many are written so far.
///
/// # Errors
/// The other end does not take them.
pub fn write(to: &mut impl Write, count: u64, note: impl Fn(u64)) -> Result<()> {
    let mut part = vec![0; PART_BYTES];
    let mut sent = 0;
    while sent < count {
        let size = part.len().min(usize::try_from(count - sent)?);
        fill(&mut part[..size], sent);
        to.write_all(&part[..size])?;
        sent += size as u64;
        note(sent);
    }
    Ok(())
}

/// Read to the end; how many bytes it was.
///
/// # Errors
/// The other end breaks off, or a byte is not in its place.
pub fn check(from: &mut impl Read) -> Result<u64> {
    let (mut part, mut expected) = (vec![0; PART_BYTES], vec![0; PART_BYTES]);
    let mut got = 0;
    loop {
        let count = from.read(&mut part)?;
        if count == 0 {
            return Ok(got);
        }
        fill(&mut expected[..count], got);
        ensure!(part[..count] == expected[..count], "bytes after {got} are not in their place");
        got += count as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_and_moved_bytes_are_noticed() {
        let mut whole = Vec::new();
        write(&mut whole, 200_000, |_| {}).unwrap();
        assert_eq!(check(&mut whole.as_slice()).unwrap(), 200_000);
        whole.remove(100_000);
        assert!(check(&mut whole.as_slice()).is_err());
        whole.swap(5, 6);
        assert!(check(&mut whole.as_slice()).is_err());
    }
}
