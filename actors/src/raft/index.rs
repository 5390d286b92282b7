//! Where each log entry is, and the newest entries themselves.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use openraft::EntryPayload;
use ring::aead::LessSafeKey;

use super::types::{Entry, LogId};

/// Bytes of the newest entries that stay in memory.
const CACHE_BYTES: usize = 4 << 20;

/// A frame in a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) segment: u64,
    pub(super) offset: u64,
    pub(super) len: usize,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Slot {
    pub(super) log_id: LogId,
    pub(super) place: Place,
    pub(super) bytes: usize,
}

/// The log's index.
#[derive(Default)]
pub(super) struct Index {
    pub(super) purged: Option<LogId>,
    slots: VecDeque<Slot>,
    cache: VecDeque<Entry>,
    cached: usize,
    bytes: usize,
    /// The segments that are there.
    pub(super) segments: BTreeMap<u64, Segment>,
}

/// A segment of the log.
#[derive(Clone)]
pub(super) struct Segment {
    pub(super) key: Arc<LessSafeKey>,
    /// Whether it ever held entries.
    pub(super) entries: bool,
}

/// About how many bytes an entry takes.
pub(super) fn size(entry: &Entry) -> usize {
    match &entry.payload {
        EntryPayload::Normal(batch) => 64 + batch.len(),
        EntryPayload::Blank => 64,
        EntryPayload::Membership(_) => 1024,
    }
}

impl Index {
    fn first(&self) -> Option<u64> {
        self.slots.front().map(|slot| slot.log_id.index)
    }

    pub(super) fn last(&self) -> Option<LogId> {
        self.slots.back().map(|slot| slot.log_id).or(self.purged)
    }

    /// Bytes of all entries, and their number.
    pub(super) fn volume(&self) -> (usize, usize) {
        (self.bytes, self.slots.len())
    }

    pub(super) fn slot(&self, index: u64) -> Option<&Slot> {
        let at = usize::try_from(index.checked_sub(self.first()?)?).ok()?;
        self.slots.get(at)
    }

    /// Whether it has this entry, or is purged up to just it.
    pub(super) fn is_at(&self, log_id: LogId) -> bool {
        self.slot(log_id.index).map(|slot| slot.log_id).or(self.purged) == Some(log_id)
    }

    pub(super) fn cached(&self, index: u64) -> Option<&Entry> {
        let first = self.cache.front()?.log_id.index;
        self.cache.get(usize::try_from(index.checked_sub(first)?).ok()?)
    }

    /// Indexes present within `start..end`.
    pub(super) fn clip(&self, start: u64, end: u64) -> std::ops::Range<u64> {
        let Some(first) = self.first() else { return 0..0 };
        let next = first + self.slots.len() as u64;
        start.max(first)..end.min(next).max(start.max(first))
    }

    /// Index range of the entries, if there are any.
    pub(super) fn range(&self) -> Option<(u64, u64)> {
        Some((self.first()?, self.slots.back()?.log_id.index))
    }

    /// Entries that were written at a place; they replace whatever was there from their first index on.
    pub(super) fn append(&mut self, entries: Vec<Entry>, place: Place) {
        if let Some(segment) = self.segments.get_mut(&place.segment) {
            segment.entries = true;
        }
        if let Some(first) = entries.first() {
            self.truncate(first.log_id.index);
        }
        for entry in entries {
            let bytes = size(&entry);
            self.slots.push_back(Slot { log_id: entry.log_id, place, bytes });
            self.bytes += bytes;
            self.cached += bytes;
            self.cache.push_back(entry);
        }
        while self.cached > CACHE_BYTES && self.cache.len() > 1 {
            if let Some(old) = self.cache.pop_front() {
                self.cached -= size(&old);
            }
        }
    }

    /// Forget entries from `since` on.
    pub(super) fn truncate(&mut self, since: u64) {
        while self.slots.back().is_some_and(|slot| slot.log_id.index >= since) {
            if let Some(slot) = self.slots.pop_back() {
                self.bytes -= slot.bytes;
            }
        }
        while self.cache.back().is_some_and(|entry| entry.log_id.index >= since) {
            if let Some(entry) = self.cache.pop_back() {
                self.cached -= size(&entry);
            }
        }
    }

    /// Forget entries up to `upto`.
    pub(super) fn purge(&mut self, upto: LogId) {
        while self.slots.front().is_some_and(|slot| slot.log_id.index <= upto.index) {
            if let Some(slot) = self.slots.pop_front() {
                self.bytes -= slot.bytes;
            }
        }
        while self.cache.front().is_some_and(|entry| entry.log_id.index <= upto.index) {
            if let Some(entry) = self.cache.pop_front() {
                self.cached -= size(&entry);
            }
        }
        self.purged = self.purged.max(Some(upto));
    }

    /// Segments, other than `active`, that nobody needs: the oldest ones as long as they hold no entry any
    /// more, and all that never held one. (A later segment's head repeats what else they said. One in the
    /// middle whose entries were all replaced stays: the heads behind it refer to those.)
    pub(super) fn dead_segments(&self, active: u64) -> Vec<u64> {
        let oldest = self.slots.iter().map(|slot| slot.place.segment).min().unwrap_or(active);
        self.segments
            .iter()
            .filter(|(number, segment)| **number != active && (**number < oldest || !segment.entries))
            .map(|(number, _)| *number)
            .collect()
    }
}
