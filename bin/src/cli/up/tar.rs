//! A tar archive, in the form that every reader knows (ustar), with fixed times and owners: the same files give the same bytes.

/// The archive, as it grows.
#[derive(Debug, Default)]
pub(crate) struct Tar {
    bytes: Vec<u8>,
}

const BLOCK: usize = 512;

/// The path does not fit into a header.
#[derive(Debug, thiserror::Error)]
#[error("the path {0:?} is too long for the image")]
pub(crate) struct PathTooLong(String);

impl Tar {
    /// Add a folder, `usr/lib`.
    pub(crate) fn folder(&mut self, path: &str, mode: u32) -> Result<(), PathTooLong> {
        self.header(&format!("{path}/"), mode, 0, b'5')
    }

    /// Add a file.
    pub(crate) fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<(), PathTooLong> {
        self.header(path, mode, content.len(), b'0')?;
        self.bytes.extend_from_slice(content);
        self.bytes.resize(self.bytes.len().next_multiple_of(BLOCK), 0);
        Ok(())
    }

    /// The whole archive.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 2 * BLOCK, 0);
        self.bytes
    }

    fn header(&mut self, path: &str, mode: u32, size: usize, kind: u8) -> Result<(), PathTooLong> {
        let (prefix, name) = split(path).ok_or_else(|| PathTooLong(path.to_owned()))?;
        let mut block = [0u8; BLOCK];
        let mut put = |at: usize, text: &str| block[at..at + text.len()].copy_from_slice(text.as_bytes());
        put(0, name);
        put(100, &format!("{mode:07o}"));
        put(108, "0000000");
        put(116, "0000000");
        put(124, &format!("{size:011o}"));
        put(136, "00000000000");
        // The checksum is taken with blanks in its own place.
        put(148, "        ");
        put(257, "ustar\u{0}00");
        put(345, prefix);
        block[156] = kind;
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.bytes.extend_from_slice(&block);
        Ok(())
    }
}

/// A long path is kept in two parts, broken at a slash.
fn split(path: &str) -> Option<(&str, &str)> {
    if path.len() <= 100 {
        return Some(("", path));
    }
    path.match_indices('/')
        .map(|(at, _)| (&path[..at], &path[at + 1..]))
        .find(|(prefix, name)| prefix.len() <= 155 && name.len() <= 100 && !name.is_empty())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn the_systems_tar_unpacks_what_was_packed() {
        let dir = tempfile::tempdir().expect("tempdir");
        let deep = format!("{}/{}/file", "a".repeat(80), "b".repeat(60));
        let mut tar = Tar::default();
        tar.folder("etc", 0o755).expect("fits");
        tar.file("etc/hello", 0o755, b"hello").expect("fits");
        tar.file(&deep, 0o644, &[7; 1000]).expect("fits");
        std::fs::write(dir.path().join("x.tar"), tar.finish()).expect("write");
        let status =
            Command::new("tar").args(["-xf", "x.tar"]).current_dir(dir.path()).status().expect("tar");
        assert!(status.success());
        assert_eq!(std::fs::read(dir.path().join("etc/hello")).expect("there"), b"hello");
        assert_eq!(std::fs::read(dir.path().join(deep)).expect("there"), [7; 1000]);
    }

    #[test]
    fn a_path_that_cannot_be_written_is_refused() {
        assert!(Tar::default().file(&"x".repeat(101), 0o644, b"").is_err());
        assert!(Tar::default().file(&format!("{}/x", "y/".repeat(200)), 0o644, b"").is_err());
    }
}
