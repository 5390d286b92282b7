//! The layout of every encrypted file: a header, then frames that are sealed one by one.
//!
//! ```text
//! file   magic 8 | version 2, zeros 6 | key id 8 | salt 32 | number 8        64 bytes
//! frame  magic 4 | kind 1, zeros 3 | sealed bytes 4, zeros 4 | counter 8 | index 8     32 bytes, authenticated
//!        sealed content and tag (AES-256-GCM, the file's own key, the counter as nonce)
//! ```
//!
//! Numbers are little endian. A frame is only written once the frame before it is durable, so an unreadable
//! frame with a readable one behind it is damage, and one with nothing behind it is a torn tail: a write
//! that nobody was told of.

use std::sync::Arc;

use ring::aead::{Aad, LessSafeKey, NONCE_LEN, Nonce};
use ring::rand::{SecureRandom, SystemRandom};
use shoal_core::put_back::{Bug, is_put_back};

use super::error::{KeyError, OpenError};
use super::key::DataKey;

const FILE_MAGIC: &[u8; 8] = b"SHOALRF1";
const FRAME_MAGIC: &[u8; 4] = b"\xF7sF1";
const VERSION: u16 = 1;
const TAG: usize = 16;
pub(super) const FILE_HEADER: usize = 64;
const FRAME_HEADER: usize = 32;
/// Most bytes of a frame in the log; a snapshot's may be larger.
const FRAME_MAX: usize = 1 << 30;

/// A number from the random salt of a file's header.
pub(super) fn salt_number(header: &[u8]) -> u64 {
    header.get(24..32).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes)
}

/// The number in a file's header: a segment's own, or the newest entry of a snapshot.
pub(super) fn file_number(header: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(header.get(56..FILE_HEADER)?.try_into().ok()?))
}

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// What was known when the file was begun.
    Head = 1,
    /// Log entries.
    Entries = 2,
    /// A vote.
    Vote = 3,
    /// Entries from an index on are gone.
    Truncate = 4,
    /// Entries up to a log id are gone.
    Purge = 5,
    /// The newest committed log id.
    Committed = 6,
    /// A snapshot.
    Snapshot = 7,
}

impl Kind {
    fn from_tag(tag: u8) -> Option<Self> {
        [Self::Head, Self::Entries, Self::Vote, Self::Truncate, Self::Purge, Self::Committed, Self::Snapshot]
            .into_iter()
            .find(|kind| *kind as u8 == tag)
    }
}

fn nonce(counter: u64) -> Nonce {
    let mut bytes = [0; NONCE_LEN];
    bytes[4..].copy_from_slice(&counter.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}

/// Seals frames for one file.
pub(super) struct Sealer {
    key: Arc<LessSafeKey>,
    counter: u64,
}

impl Sealer {
    /// A new file: its header and what seals its frames.
    pub(super) fn new(key: &DataKey, number: u64) -> Result<(Vec<u8>, Self), KeyError> {
        let mut salt = [0; 32];
        SystemRandom::new().fill(&mut salt).map_err(|_| KeyError::Random)?;
        let file_key = key.for_file(&salt).ok_or(KeyError::Random)?;
        let mut header = Vec::with_capacity(FILE_HEADER);
        header.extend_from_slice(FILE_MAGIC);
        header.extend_from_slice(&VERSION.to_le_bytes());
        header.extend_from_slice(&[0; 6]);
        header.extend_from_slice(&key.id());
        header.extend_from_slice(&salt);
        header.extend_from_slice(&number.to_le_bytes());
        Ok((header, Self { key: file_key, counter: 0 }))
    }

    pub(super) fn key(&self) -> Arc<LessSafeKey> {
        Arc::clone(&self.key)
    }

    /// A frame with this content. No two frames of a file share a counter, written or not.
    pub(super) fn seal(&mut self, kind: Kind, index: u64, content: &[u8]) -> Result<Vec<u8>, KeyError> {
        self.counter += 1;
        let mut frame = Vec::with_capacity(FRAME_HEADER + content.len() + TAG);
        let sealed = u32::try_from(content.len() + TAG).map_err(|_| KeyError::Random)?;
        frame.extend_from_slice(FRAME_MAGIC);
        frame.extend_from_slice(&[kind as u8, 0, 0, 0]);
        frame.extend_from_slice(&sealed.to_le_bytes());
        frame.extend_from_slice(&[0; 4]);
        frame.extend_from_slice(&self.counter.to_le_bytes());
        frame.extend_from_slice(&index.to_le_bytes());
        frame.extend_from_slice(content);
        let (header, body) = frame.split_at_mut(FRAME_HEADER);
        let tag = self
            .key
            .seal_in_place_separate_tag(nonce(self.counter), Aad::from(&*header), body)
            .map_err(|_| KeyError::Random)?;
        frame.extend_from_slice(tag.as_ref());
        Ok(frame)
    }
}

/// A frame that was read.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) kind: Kind,
    pub(super) index: u64,
    pub(super) offset: u64,
    /// Bytes in the file, header and tag included.
    pub(super) len: usize,
    pub(super) content: Vec<u8>,
    pub(super) counter: u64,
}

/// Read the frame at the beginning of `bytes`, if there is a valid one.
pub(super) fn open(key: &LessSafeKey, bytes: &[u8], offset: u64) -> Option<Frame> {
    let (header, rest) = bytes.split_at_checked(FRAME_HEADER)?;
    if &header[..4] != FRAME_MAGIC {
        return None;
    }
    let kind = Kind::from_tag(header[4])?;
    let sealed = u32::from_le_bytes(header[8..12].try_into().ok()?) as usize;
    let counter = u64::from_le_bytes(header[16..24].try_into().ok()?);
    let index = u64::from_le_bytes(header[24..32].try_into().ok()?);
    if !(TAG..=FRAME_MAX).contains(&sealed) || rest.len() < sealed {
        return None;
    }
    let mut content = rest[..sealed].to_vec();
    let len = key.open_in_place(nonce(counter), Aad::from(header), &mut content).ok()?.len();
    content.truncate(len);
    Some(Frame { kind, index, offset, len: FRAME_HEADER + sealed, content, counter })
}

/// Reads a file's frames in order.
pub(super) struct Scan<'a> {
    name: &'a str,
    bytes: &'a [u8],
    key: Arc<LessSafeKey>,
    offset: usize,
    counter: u64,
    pub(super) number: u64,
}

impl<'a> Scan<'a> {
    /// Check a file's header.
    pub(super) fn new(name: &'a str, bytes: &'a [u8], key: &DataKey) -> Result<Self, OpenError> {
        let corrupt = |offset: usize, reason: &str| OpenError::Corrupt {
            file: name.to_owned(),
            offset: offset as u64,
            reason: reason.to_owned(),
        };
        let header = bytes.get(..FILE_HEADER).ok_or_else(|| corrupt(0, "the header is incomplete"))?;
        if &header[..8] != FILE_MAGIC {
            return Err(corrupt(0, "it is not a raft file"));
        }
        let version = u16::from_le_bytes([header[8], header[9]]);
        if version != VERSION {
            return Err(OpenError::Version { file: name.to_owned(), version });
        }
        if header[16..24] != key.id() {
            return Err(OpenError::WrongKey { file: name.to_owned() });
        }
        let file_key = key.for_file(&header[24..56]).ok_or_else(|| corrupt(24, "no key"))?;
        let number = file_number(header).ok_or_else(|| corrupt(56, "no number"))?;
        Ok(Self { name, bytes, key: file_key, offset: FILE_HEADER, counter: 0, number })
    }

    pub(super) fn key(&self) -> Arc<LessSafeKey> {
        Arc::clone(&self.key)
    }

    /// Behind the last frame that was read.
    pub(super) fn end(&self) -> u64 {
        self.offset as u64
    }

    fn valid_at(&self, offset: usize) -> Option<Frame> {
        let frame = open(&self.key, self.bytes.get(offset..)?, offset as u64)?;
        (frame.counter > self.counter).then_some(frame)
    }

    /// The next frame; none at the end or where the tail is torn.
    ///
    /// # Errors
    /// If the frame here is unreadable though a later one is readable.
    pub(super) fn next_frame(&mut self) -> Result<Option<Frame>, OpenError> {
        if let Some(frame) = self.valid_at(self.offset) {
            self.offset += frame.len;
            self.counter = frame.counter;
            return Ok(Some(frame));
        }
        if is_put_back(Bug::DamageTakenForTornTail) {
            return Ok(None);
        }
        let rest = self.bytes.get(self.offset + 1..).unwrap_or_default();
        for (at, window) in rest.windows(FRAME_MAGIC.len()).enumerate() {
            let later = self.offset + 1 + at;
            if window == FRAME_MAGIC && self.valid_at(later).is_some() {
                return Err(OpenError::Corrupt {
                    file: self.name.to_owned(),
                    offset: self.offset as u64,
                    reason: format!("a record is damaged, though there is a good one at byte {later}"),
                });
            }
        }
        Ok(None)
    }
}
