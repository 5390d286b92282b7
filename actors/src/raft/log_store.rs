//! The log on disk, as openraft wants it.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use openraft::storage::{LogFlushed, LogState, RaftLogStorage};
use openraft::{AnyError, RaftLogReader};
use serde::Serialize;
use shoal_core::model::NodeId;
use shoal_core::put_back::{Bug, is_put_back};
use shoal_wire::codec;
use tokio::time::Instant;

use super::error::{KeyError, OpenError};
use super::frame::{self, Kind, Sealer};
use super::health::Health;
use super::index::{Index, Place, Segment};
use super::key::DataKey;
use super::replay::{COMMITTED, Entries, Head, Marks, Noted, replay, segment_name};
use super::snapshot::SnapshotStore;
use super::stats::Counters;
use super::types::{Entry, LogId, StorageError, StorageIoError, TypeConfig, Vote};
use crate::disk::{Disk, is_full};

/// A segment that has grown to this size is followed by a new one.
const SEGMENT_BYTES: u64 = 8 << 20;
/// Most bytes of entries that are sent to a follower at once (one entry is always sent).
const READ_BYTES: usize = 1 << 20;

/// What the log shares with its readers.
pub(super) struct LogShared {
    index: Mutex<Index>,
    disk: Arc<dyn Disk>,
}

impl LogShared {
    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes of all entries, and their number.
    pub(super) fn volume(&self) -> (usize, usize) {
        self.index().volume()
    }

    /// Entries within `start..end` that are there, and at most about `limit` bytes of them, but at least one.
    async fn read(&self, start: u64, end: u64, limit: usize) -> Result<Vec<Entry>, StorageError> {
        let mut entries = Vec::new();
        let mut bytes = 0;
        let range = self.index().clip(start, end);
        let mut frame: Option<(Place, Vec<Entry>)> = None;
        for index in range {
            let slot = {
                let log = self.index();
                let Some(slot) = log.slot(index).copied() else { break };
                bytes += slot.bytes;
                if bytes > limit && !entries.is_empty() {
                    break;
                }
                if let Some(entry) = log.cached(index) {
                    entries.push(entry.clone());
                    continue;
                }
                slot
            };
            if frame.as_ref().is_none_or(|(place, _)| *place != slot.place) {
                frame = Some((slot.place, self.read_frame(slot.place).await.map_err(read_error)?));
            }
            let found = frame.iter().flat_map(|(_, frame)| frame).find(|entry| entry.log_id == slot.log_id);
            let Some(entry) = found else {
                return Err(read_error(format!("entry {index} is not where the index says")));
            };
            entries.push(entry.clone());
        }
        Ok(entries)
    }

    async fn read_frame(&self, place: Place) -> Result<Vec<Entry>, String> {
        let name = segment_name(place.segment);
        let key = self.index().segments.get(&place.segment).map(|segment| Arc::clone(&segment.key));
        let key = key.ok_or_else(|| format!("segment {name} is gone"))?;
        let bytes = self.disk.read_at(&name, place.offset, place.len).await.map_err(|e| e.to_string())?;
        let frame = frame::open(&key, &bytes, place.offset)
            .ok_or_else(|| format!("raft/{name} is corrupt at byte {}", place.offset))?;
        let Entries::V1(entries) = codec::decode_record(&frame.content).map_err(|e| e.to_string())?;
        Ok(entries)
    }
}

fn read_error(reason: impl ToString) -> StorageError {
    StorageIoError::read_logs(AnyError::error(reason.to_string())).into()
}

/// Reads entries for replication.
#[derive(Clone)]
pub(super) struct LogReader(Arc<LogShared>);

/// The log. It is written by openraft's core alone, one operation after the other.
pub(super) struct LogStore {
    shared: Arc<LogShared>,
    key: DataKey,
    node: NodeId,
    health: Arc<Health>,
    counters: Arc<Counters>,
    vote: Option<Vote>,
    committed: Option<LogId>,
    /// What was committed when it was in the log.
    noted: Option<LogId>,
    segment: u64,
    sealer: Sealer,
    offset: u64,
    /// Whether the segment can take no more: it is long enough, or a write to it failed.
    closed: bool,
    note: (Vec<u8>, Sealer),
    /// What takes the place of entries that are purged.
    snapshots: Option<Arc<SnapshotStore>>,
    /// What a bug that is put back keeps from the disk; else empty.
    held_back: Vec<u8>,
}

/// Why a write failed for good.
#[derive(Debug, thiserror::Error)]
pub(super) enum WriteError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Codec(#[from] codec::CodecError),
    #[error("stopping while the disk is full")]
    Stopping,
}

impl From<WriteError> for io::Error {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Io(error) => error,
            other => Self::other(other.to_string()),
        }
    }
}

/// A vote as a node starts with it: one by which it led itself is no longer a reign, or openraft would lead on in that term at
/// once. What it knows to be committed may be older than what it had told, so that its reads would be stale, and the end of its
/// log may be lost. It has to be elected anew, by managers who compare their logs with its.
fn resigned(vote: Vote, node: NodeId) -> Vote {
    Vote { committed: vote.committed && vote.leader_id.node_id != node, ..vote }
}

impl LogStore {
    /// Read what is on the disk and begin a new segment.
    pub(super) async fn open(
        disk: Arc<dyn Disk>,
        key: DataKey,
        node: NodeId,
        health: Arc<Health>,
        counters: Arc<Counters>,
    ) -> Result<Self, OpenError> {
        let replayed = replay(&disk, &key, node).await?;
        let (_, sealer) = Sealer::new(&key, 0)?;
        let note = Sealer::new(&key, 0)?;
        let mut store = Self {
            shared: Arc::new(LogShared { index: Mutex::new(replayed.index), disk }),
            key,
            node,
            health,
            counters,
            vote: replayed.vote.map(|vote| resigned(vote, node)),
            committed: replayed.committed,
            noted: replayed.noted,
            segment: replayed.newest,
            sealer,
            offset: 0,
            closed: true,
            note,
            snapshots: None,
            held_back: Vec::new(),
        };
        // A segment is never continued after a restart, so a torn tail stays where it is and no nonce is used
        // twice.
        store.rotate().await.map_err(|error| OpenError::io(&segment_name(store.segment), error.into()))?;
        store.remove_dead().await;
        Ok(store)
    }

    /// An entry that was durable and committed, and is neither in the log nor in a snapshot that ends with this one: a
    /// damaged record at the log's end looks like a torn one, but for this.
    pub(super) fn lost(&self, snapshot: Option<LogId>) -> Option<LogId> {
        let has = |last: Option<LogId>| last.map(|last| last.index);
        self.noted.filter(|noted| Some(noted.index) > has(self.last()).max(has(snapshot)))
    }

    /// From now on entries are purged once these snapshots hold them, not before.
    pub(super) fn purge_behind(&mut self, snapshots: Arc<SnapshotStore>) {
        self.snapshots = Some(snapshots);
    }

    pub(super) fn shared(&self) -> Arc<LogShared> {
        Arc::clone(&self.shared)
    }

    /// A random number of this start: a part of a file's salt.
    pub(super) fn start_id(&self) -> u64 {
        frame::salt_number(&self.note.0)
    }

    /// It had voted so before there was this log.
    pub(super) fn has_voted(&mut self, vote: Option<Vote>) {
        if vote > self.vote {
            self.vote = vote;
        }
    }

    pub(super) fn last(&self) -> Option<LogId> {
        self.shared.index().last()
    }

    pub(super) fn purged(&self) -> Option<LogId> {
        self.shared.index().purged
    }

    /// Begin a new segment.
    async fn rotate(&mut self) -> Result<(), WriteError> {
        let number = self.segment + 1;
        let (mut bytes, mut sealer) = Sealer::new(&self.key, number)?;
        let (purged, last) = {
            let index = self.shared.index();
            (index.purged, index.last())
        };
        let head = Head::V1 { node: self.node, vote: self.vote, purged, last };
        bytes.extend(sealer.seal(Kind::Head, 0, &codec::encode(&head)?)?);
        let offset = bytes.len() as u64;
        self.shared.disk.replace(&segment_name(number), bytes).await?;
        let segment = Segment { key: sealer.key(), entries: false };
        self.shared.index().segments.insert(number, segment);
        (self.segment, self.sealer, self.offset, self.closed) = (number, sealer, offset, false);
        Ok(())
    }

    async fn try_write(&mut self, kind: Kind, index: u64, content: &[u8]) -> Result<Place, WriteError> {
        if self.closed || self.offset >= SEGMENT_BYTES {
            self.rotate().await?;
        }
        let bytes = self.sealer.seal(kind, index, content)?;
        let place = Place { segment: self.segment, offset: self.offset, len: bytes.len() };
        // Should the write fail, or we be dropped in it, something of it may be there: go on elsewhere.
        self.closed = true;
        let (at, bytes) = match is_put_back(Bug::AckBeforeSync) {
            true => match self.hold_back(kind, bytes) {
                Some(all) => ((self.offset + place.len as u64).saturating_sub(all.len() as u64), all),
                None => {
                    self.closed = false;
                    self.offset += place.len as u64;
                    return Ok(place);
                }
            },
            false => (self.offset, bytes),
        };
        self.shared.disk.write(&segment_name(self.segment), at, bytes).await?;
        self.closed = false;
        self.offset += place.len as u64;
        Ok(place)
    }

    /// The bug: entries are written some at a time, and not at once.
    fn hold_back(&mut self, kind: Kind, bytes: Vec<u8>) -> Option<Vec<u8>> {
        self.held_back.extend(bytes);
        let holds = kind == Kind::Entries && self.held_back.len() < 8192;
        (!holds).then(|| std::mem::take(&mut self.held_back))
    }

    /// Make a record durable; while the disk is full, wait for space.
    async fn write(&mut self, kind: Kind, index: u64, content: &[u8]) -> Result<Place, WriteError> {
        let began = Instant::now();
        let mut pause = Duration::from_millis(100);
        self.health.busy(Some(began));
        let written = loop {
            match self.try_write(kind, index, content).await {
                Err(WriteError::Io(error)) if is_full(&error) => {
                    self.health.set_full(Some(format!("the manager's disk is full: {error}")));
                    if self.health.pause(pause).await {
                        break Err(WriteError::Stopping);
                    }
                    pause = (pause * 2).min(Duration::from_secs(1));
                }
                other => break other,
            }
        };
        self.health.busy(None);
        match &written {
            Ok(place) => {
                self.health.set_full(None);
                self.note();
                self.counters.fsync.record(began.elapsed());
                Counters::add(&self.counters.bytes_written, place.len as u64);
            }
            Err(error) => self.health.fail(error.to_string()),
        }
        written
    }

    /// Note what is durable.
    fn note(&mut self) {
        let noted = Noted { committed: self.noted, segment: self.segment, end: self.offset };
        let (header, sealer) = &mut self.note;
        let noted = codec::encode(&Marks::Noted(noted)).ok();
        if let Some(frame) = noted.and_then(|content| sealer.seal(Kind::Committed, 0, &content).ok()) {
            // Not durable: after a power cut the state is older until a leader says what is committed.
            self.shared.disk.note(COMMITTED, [header.as_slice(), &frame].concat());
        }
    }

    async fn mark<T: Serialize>(&mut self, kind: Kind, mark: &T) -> Result<(), WriteError> {
        let content = codec::encode(mark)?;
        self.write(kind, 0, &content).await.map(|_| ())
    }

    /// Append entries durably.
    pub(super) async fn write_entries(&mut self, entries: Vec<Entry>) -> Result<(), WriteError> {
        let Some(first) = entries.first().map(|entry| entry.log_id.index) else { return Ok(()) };
        let record = Entries::V1(entries);
        let place = self.write(Kind::Entries, first, &codec::encode(&record)?).await?;
        let Entries::V1(entries) = record;
        self.shared.index().append(entries, place);
        Ok(())
    }

    /// Remove the files that nobody needs any more.
    async fn remove_dead(&self) {
        let dead = self.shared.index().dead_segments(self.segment);
        for number in dead {
            match self.shared.disk.remove(&segment_name(number)).await {
                Ok(()) => {
                    self.shared.index().segments.remove(&number);
                }
                // It is tried again with the next purge; the newer ones stay too, so that there is no gap.
                Err(error) => {
                    tracing::warn!(%error, number, "a segment could not be removed");
                    break;
                }
            }
        }
    }

    /// Give the log a membership of this node alone, in a term of its own, behind all that is there.
    pub(super) async fn force_membership(
        &mut self,
        membership: openraft::Membership<NodeId, super::types::Seat>,
    ) -> Result<(), io::Error> {
        let last = self.last();
        let term =
            self.vote.map_or(0, |vote| vote.leader_id.term).max(last.map_or(0, |l| l.leader_id.term)) + 1;
        let vote = Vote::new(term, self.node);
        self.mark(Kind::Vote, &Marks::Vote(vote)).await?;
        self.vote = Some(vote);
        let log_id = LogId::new(vote.leader_id, last.map_or(0, |last| last.index + 1));
        let entry = Entry { log_id, payload: openraft::EntryPayload::Membership(membership) };
        Ok(self.write_entries(vec![entry]).await?)
    }
}

impl RaftLogReader<TypeConfig> for LogReader {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, StorageError> {
        let start = match range.start_bound() {
            Bound::Included(at) => *at,
            Bound::Excluded(at) => at + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(at) => at + 1,
            Bound::Excluded(at) => *at,
            Bound::Unbounded => u64::MAX,
        };
        self.0.read(start, end, usize::MAX).await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, StorageError> {
        self.0.read(start, end, READ_BYTES).await
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, StorageError> {
        LogReader(self.shared()).try_get_log_entries(range).await
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogReader;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, StorageError> {
        let index = self.shared.index();
        Ok(LogState { last_purged_log_id: index.purged, last_log_id: index.last() })
    }

    async fn get_log_reader(&mut self) -> LogReader {
        LogReader(self.shared())
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        let written = match is_put_back(Bug::VoteNotPersisted) {
            true => Ok(()),
            false => self.mark(Kind::Vote, &Marks::Vote(*vote)).await,
        };
        written.map_err(|error| StorageIoError::write_vote(AnyError::error(error)))?;
        self.vote = Some(*vote);
        Ok(())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        Ok(self.vote)
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        self.committed = committed;
        if committed.is_some_and(|committed| self.shared.index().is_at(committed)) {
            self.noted = committed;
            self.note();
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        Ok(self.committed)
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<TypeConfig>) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let written = self.write_entries(entries).await;
        callback.log_io_completed(written.map_err(Into::into));
        Ok(())
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError> {
        let written = self.write(Kind::Truncate, log_id.index, &[]).await.map(|_| ());
        written.map_err(|error| StorageIoError::write_logs(AnyError::error(error)))?;
        self.shared.index().truncate(log_id.index);
        Ok(())
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError> {
        // openraft purges what a snapshot holds as soon as it has handed that to the state machine, which may not have
        // saved it yet: a crash between the two would leave neither.
        if let Some(snapshots) = self.snapshots.clone() {
            self.health.busy(Some(Instant::now()));
            let saved = snapshots.holds(log_id).await;
            self.health.busy(None);
            saved.map_err(|error| StorageIoError::write_logs(AnyError::error(error)))?;
        }
        let written = self.mark(Kind::Purge, &Marks::Purge(log_id)).await;
        written.map_err(|error| StorageIoError::write_logs(AnyError::error(error)))?;
        self.shared.index().purge(log_id);
        self.remove_dead().await;
        Ok(())
    }
}
