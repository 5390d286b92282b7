//! What a log entry carries: commands that were proposed together, as bytes, so that a clone costs nothing.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use shoal_core::store::Command;
use shoal_wire::codec;

/// Most bytes that one command may have.
pub(super) const COMMAND_BYTES_MAX: usize = 1 << 20;
/// Bytes from which on no further command joins a batch.
pub(super) const BATCH_BYTES: usize = 256 << 10;
/// Most commands in a batch.
pub(super) const BATCH_COMMANDS: usize = 1024;

const VERSION: u8 = 1;

/// Encoded commands: a version, then each proposal's id (u128), its command's length (u32) and its bytes, numbers
/// little endian.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Batch(Bytes);

impl Batch {
    pub(super) fn of<'a>(proposals: impl IntoIterator<Item = (u128, &'a [u8])>) -> Self {
        let mut bytes = BytesMut::new();
        bytes.put_u8(VERSION);
        for (id, command) in proposals {
            bytes.put_u128_le(id);
            // A command is at most COMMAND_BYTES_MAX long: it was checked when it was proposed.
            bytes.put_u32_le(u32::try_from(command.len()).unwrap_or(u32::MAX));
            bytes.put_slice(command);
        }
        Self(bytes.freeze())
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The proposals, or why they cannot be read: the same on each manager.
    pub(super) fn proposals(&self) -> Result<Vec<(u128, Command)>, String> {
        let Some((&VERSION, mut rest)) = self.0.split_first() else {
            return Err(format!("a batch of an unknown version: {:?}", self.0.first()));
        };
        let mut proposals = Vec::new();
        while !rest.is_empty() {
            let (id, tail) = rest.split_first_chunk::<16>().ok_or("a batch that ends in an id")?;
            let (len, tail) = tail.split_first_chunk::<4>().ok_or("a batch that ends in a length")?;
            let len = u32::from_le_bytes(*len) as usize;
            let (command, tail) = tail.split_at_checked(len).ok_or("a batch that ends in a command")?;
            let command = codec::decode(command).map_err(|error| error.to_string())?;
            proposals.push((u128::from_le_bytes(*id), command));
            rest = tail;
        }
        Ok(proposals)
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Batch({} bytes)", self.0.len())
    }
}

impl Serialize for Batch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

struct BatchVisitor;

impl Visitor<'_> for BatchVisitor {
    type Value = Batch;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the bytes of a batch")
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Batch, E> {
        Ok(Batch(Bytes::copy_from_slice(bytes)))
    }

    fn visit_byte_buf<E: Error>(self, bytes: Vec<u8>) -> Result<Batch, E> {
        Ok(Batch(bytes.into()))
    }
}

impl<'de> Deserialize<'de> for Batch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_byte_buf(BatchVisitor)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn arbitrary_batches_never_panic(bytes: Vec<u8>) {
            let _ = Batch(bytes.clone().into()).proposals();
            let _ = codec::decode::<Batch>(&bytes);
        }
    }

    #[test]
    fn a_batch_reads_back_as_written() {
        let commands = vec![Command::default(), Command { term: Some(3), ..Command::default() }];
        let bytes: Vec<_> = commands.iter().map(|c| codec::encode(c).unwrap()).collect();
        let batch = Batch::of((1..).zip(bytes.iter().map(Vec::as_slice)));
        let again: Batch = codec::decode(&codec::encode(&batch).unwrap()).unwrap();
        assert_eq!(again.proposals().unwrap(), (1..).zip(commands).collect::<Vec<_>>());
    }

    #[test]
    fn a_batch_cut_short_is_refused() {
        let bytes = codec::encode(&Command::default()).unwrap();
        let Batch(whole) = Batch::of([(1, bytes.as_slice())]);
        for end in 2..whole.len() {
            assert!(Batch(whole.slice(..end)).proposals().is_err(), "{end}");
        }
    }
}
