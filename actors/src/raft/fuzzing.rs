//! What the fuzz targets reach into: decoders of other managers' messages and of records on the disk.

use serde::de::DeserializeOwned;
use shoal_wire::codec;

use super::batch::Batch;
use super::message::{Append, AppendReply, Ballot, BallotReply, Chunk, ChunkReply};
use super::replay::Entries;
use super::snapshot;

fn read<T: DeserializeOwned>(bytes: &[u8]) {
    let _ = codec::decode::<T>(bytes);
}

/// A message of raft; the first byte chooses which.
pub fn message(data: &[u8]) {
    let Some((kind, body)) = data.split_first() else { return };
    match kind % 7 {
        0 => read::<Append>(body),
        1 => read::<AppendReply>(body),
        2 => read::<Ballot>(body),
        3 => read::<BallotReply>(body),
        4 => read::<Chunk>(body),
        5 => read::<ChunkReply>(body),
        _ => read::<Batch>(body),
    }
}

/// A record of the log or a snapshot, as it is once it was unsealed.
pub fn record(data: &[u8]) {
    let _ = codec::decode_record::<Entries>(data);
    let _ = snapshot::decode(data);
}
