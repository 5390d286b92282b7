//! What the files of a log say, for whoever looks at them from outside: record by record, as they were written. Nothing is
//! written here, nothing repaired, and no record compared with another.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hasher as _};
use std::sync::Arc;

use openraft::EntryPayload;
use ring::aead::LessSafeKey;
use shoal_core::model::NodeId;
use shoal_wire::codec;

use super::frame::{self, FILE_HEADER, Kind, Scan};
use super::key::DataKey;
use super::replay::{self, Entries, Head, Marks};
use super::types::{Entry, LogId};

/// The file with the key of all others.
pub const KEY: &str = super::key::FILE;
/// The file with the newest snapshot.
pub const SNAPSHOT: &str = super::snapshot::FILE;
/// The note of the newest committed entry.
pub const COMMITTED: &str = replay::COMMITTED;

/// Where an entry is in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct At {
    /// Which one it is.
    pub index: u64,
    /// Who wrote it.
    pub reign: Reign,
}

/// A leader in a term. A term may see two: one that nobody followed any more, and then another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reign {
    /// The term.
    pub term: u64,
    /// The leader.
    pub leader: NodeId,
}

impl std::fmt::Display for Reign {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.term.fmt(f)
    }
}

impl From<LogId> for At {
    fn from(id: LogId) -> Self {
        let leader = id.leader_id;
        Self { index: id.index, reign: Reign { term: leader.term, leader: leader.node_id } }
    }
}

/// An entry as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Where.
    pub at: At,
    /// A hash of what it says.
    pub says: u64,
    /// Who votes from it on, if it is about that: two groups while the second takes the first's place.
    pub voters: Option<Vec<BTreeSet<NodeId>>>,
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// A segment begins where the log ended with `last`, and was gone up to `purged`.
    Begins {
        /// Whose log it is.
        node: NodeId,
        /// Up to here it is gone.
        purged: Option<At>,
        /// Up to here it goes.
        last: Option<At>,
    },
    /// Entries, in the place of all from the first of them on.
    Entries(Vec<Written>),
    /// Entries from this index on are gone.
    Truncated(u64),
    /// Entries up to here are gone.
    Purged(At),
    /// Something that is not about entries.
    Other,
}

fn says(entry: &Entry) -> u64 {
    let mut hash = DefaultHasher::new();
    match &entry.payload {
        EntryPayload::Blank => {}
        EntryPayload::Normal(batch) => hash.write(batch.bytes()),
        membership @ EntryPayload::Membership(_) => {
            hash.write(&codec::encode(membership).unwrap_or_default());
        }
    }
    hash.finish()
}

fn written(entry: &Entry) -> Written {
    let voters = match &entry.payload {
        EntryPayload::Membership(membership) => Some(membership.get_joint_config().clone()),
        _ => None,
    };
    Written { at: entry.log_id.into(), says: says(entry), voters }
}

/// Reads a segment as it grows.
pub struct Segment {
    key: Arc<LessSafeKey>,
    offset: usize,
    counter: u64,
}

impl Segment {
    /// Whether this is the name of one.
    #[must_use]
    pub fn is_one(name: &str) -> bool {
        replay::segment_number(name).is_some()
    }

    /// Begin with a segment; none if it is none, or under another key.
    #[must_use]
    pub fn open(name: &str, bytes: &[u8], key: &DataKey) -> Option<Self> {
        let scan = Scan::new(name, bytes, key).ok()?;
        Some(Self { key: scan.key(), offset: FILE_HEADER, counter: 0 })
    }

    /// The next record of it; none if no other is there yet, or it cannot be read.
    pub fn next(&mut self, bytes: &[u8]) -> Option<Record> {
        let frame = frame::open(&self.key, bytes.get(self.offset..)?, self.offset as u64)?;
        if frame.counter <= self.counter {
            return None;
        }
        let record = match frame.kind {
            Kind::Head => {
                let Head::V1 { node, purged, last, .. } = codec::decode_record(&frame.content).ok()?;
                Record::Begins { node, purged: purged.map(At::from), last: last.map(At::from) }
            }
            Kind::Entries => {
                let Entries::V1(entries) = codec::decode_record(&frame.content).ok()?;
                Record::Entries(entries.iter().map(written).collect())
            }
            Kind::Truncate => Record::Truncated(frame.index),
            Kind::Purge => match codec::decode_record(&frame.content).ok()? {
                Marks::Purge(upto) => Record::Purged(upto.into()),
                Marks::Vote(_) | Marks::Noted(_) => return None,
            },
            Kind::Vote | Kind::Committed | Kind::Snapshot => Record::Other,
        };
        self.offset += frame.len;
        self.counter = frame.counter;
        Some(record)
    }
}

/// The entry that the note calls committed.
#[must_use]
pub fn committed(bytes: &[u8], key: &DataKey) -> Option<At> {
    replay::read_note(bytes, key)?.committed.map(At::from)
}

/// Index of the newest entry in a snapshot.
#[must_use]
pub fn snapshot_index(bytes: &[u8]) -> Option<u64> {
    frame::file_number(bytes)
}
