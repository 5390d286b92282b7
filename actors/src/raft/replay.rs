//! Reads the log back from its segments.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use shoal_core::model::NodeId;
use shoal_core::put_back::{Bug, is_put_back};
use shoal_wire::codec::{self, CodecError};

use super::error::OpenError;
use super::frame::{Frame, Kind, Scan};
use super::index::{Index, Place, Segment};
use super::key::DataKey;
use super::snapshot;
use super::types::{Entry, LogId, Vote};
use crate::disk::Disk;

const PREFIX: &str = "log-";
/// Name of the note of what is committed and where the log ends.
pub(super) const COMMITTED: &str = "committed";

pub(super) fn segment_name(number: u64) -> String {
    format!("{PREFIX}{number:016x}")
}

pub(super) fn segment_number(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(PREFIX)?;
    (digits.len() == 16).then(|| u64::from_str_radix(digits, 16).ok())?
}

/// Whether a disk with these files holds nothing of consensus yet.
pub(super) fn is_fresh(names: &[String]) -> bool {
    !names.iter().any(|name| segment_number(name).is_some() || name == snapshot::FILE)
}

/// What a segment begins with: all that earlier segments say besides entries.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Head {
    V1 { node: NodeId, vote: Option<Vote>, purged: Option<LogId>, last: Option<LogId> },
}

#[derive(Serialize, Deserialize)]
pub(super) enum Entries {
    V1(Vec<Entry>),
}

#[derive(Serialize, Deserialize)]
pub(super) enum Marks {
    Vote(Vote),
    Purge(LogId),
    Noted(Noted),
}

/// What is noted, though not durably, each time that something is durable: a log that ends before it has lost something. A
/// damaged record at the end of a log looks like a torn one, but for this.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Noted {
    /// The newest entry that was in the log and committed.
    pub(super) committed: Option<LogId>,
    /// The newest segment.
    pub(super) segment: u64,
    /// Where it ended.
    pub(super) end: u64,
}

/// What the disk held.
#[derive(Default)]
pub(super) struct Replayed {
    pub(super) index: Index,
    pub(super) vote: Option<Vote>,
    pub(super) committed: Option<LogId>,
    /// What was noted as committed, whether the log holds it or not.
    pub(super) noted: Option<LogId>,
    /// Number of the newest segment.
    pub(super) newest: u64,
    /// Entries below this were in segments older than the oldest that is left. In the end all of them must have
    /// been purged.
    floor: u64,
}

/// The index behind this entry.
fn after(log_id: Option<LogId>) -> u64 {
    log_id.map_or(0, |id| id.index + 1)
}

/// Read everything.
pub(super) async fn replay(disk: &Arc<dyn Disk>, key: &DataKey, node: NodeId) -> Result<Replayed, OpenError> {
    let mut names = disk.list().await.map_err(|source| OpenError::io("", source))?;
    names.sort();
    let mut replayed = Replayed::default();
    let mut ends = BTreeMap::new();
    for name in &names {
        let Some(number) = segment_number(name) else { continue };
        let bytes = disk.read(name).await.map_err(|source| OpenError::io(name, source))?;
        let end = replayed.segment(name, number, &bytes, key, node)?;
        ends.insert(number, end);
    }
    replayed.check_floor()?;
    if let Ok(bytes) = disk.read(COMMITTED).await
        && let Some(noted) = read_note(&bytes, key)
    {
        check_end(&noted, &ends)?;
        replayed.noted = noted.committed;
        replayed.committed = noted.committed.filter(|committed| replayed.index.is_at(*committed));
    }
    Ok(replayed)
}

/// The noted segment goes at least as far as it did then, if nothing newer has made it superfluous.
fn check_end(noted: &Noted, ends: &BTreeMap<u64, u64>) -> Result<(), OpenError> {
    let newer = ends.range(noted.segment + 1..).next().is_some();
    let found = ends.get(&noted.segment).copied().or_else(|| newer.then_some(noted.end)).unwrap_or_default();
    if found >= noted.end || is_put_back(Bug::DamageTakenForTornTail) {
        return Ok(());
    }
    Err(OpenError::Corrupt {
        file: segment_name(noted.segment),
        offset: found,
        reason: format!(
            "nothing can be read from here on, though it went on to byte {}: its end is damaged",
            noted.end
        ),
    })
}

/// The note is not durable and may be anything; what it says was durable when it was written.
pub(super) fn read_note(bytes: &[u8], key: &DataKey) -> Option<Noted> {
    let frame = Scan::new(COMMITTED, bytes, key).ok()?.next_frame().ok()??;
    let Ok(Marks::Noted(noted)) = codec::decode_record(&frame.content) else { return None };
    Some(noted)
}

impl Replayed {
    /// Take in a segment. Returns where it ends.
    fn segment(
        &mut self,
        name: &str,
        number: u64,
        bytes: &[u8],
        key: &DataKey,
        node: NodeId,
    ) -> Result<u64, OpenError> {
        let corrupt =
            |offset: u64, reason: String| OpenError::Corrupt { file: name.to_owned(), offset, reason };
        let mut scan = Scan::new(name, bytes, key)?;
        if scan.number != number {
            return Err(corrupt(56, format!("it says that it is segment {}", scan.number)));
        }
        let oldest = self.index.segments.is_empty();
        self.index.segments.insert(number, Segment { key: scan.key(), entries: false });
        self.newest = number;
        let Some(head) = scan.next_frame()? else {
            // A segment appears as a whole with its head, so this is no torn tail.
            return Err(corrupt(64, "the segment's first record is damaged".into()));
        };
        if head.kind != Kind::Head {
            return Err(corrupt(head.offset, "the segment does not begin with a head".into()));
        }
        let Head::V1 { node: owner, vote, purged, last } =
            codec::decode_record(&head.content).map_err(|e| corrupt(head.offset, e.to_string()))?;
        if owner != node {
            return Err(OpenError::OtherNode { found: owner, expected: node });
        }
        self.vote = vote;
        if oldest {
            self.floor = after(last);
        }
        self.head(purged, last).map_err(|reason| corrupt(head.offset, reason))?;
        while let Some(frame) = scan.next_frame()? {
            let offset = frame.offset;
            self.frame(number, frame).map_err(|reason| corrupt(offset, reason))?;
        }
        Ok(scan.end())
    }

    /// What older segments held must have been purged, or a segment is missing.
    fn check_floor(&self) -> Result<(), OpenError> {
        let purged = after(self.index.purged);
        if self.floor <= purged {
            return Ok(());
        }
        let first = self.index.segments.keys().next().copied().unwrap_or_default();
        Err(OpenError::Corrupt {
            file: segment_name(first),
            offset: 0,
            reason: format!(
                "the segments before it are missing: entries {purged} to {} are nowhere",
                self.floor - 1
            ),
        })
    }

    /// Bring the log to where it was when the segment was begun.
    fn head(&mut self, purged: Option<LogId>, last: Option<LogId>) -> Result<(), String> {
        if let Some(purged) = purged {
            self.index.purge(purged);
        }
        self.truncate(after(last));
        let in_older_segments = self.index.range().is_none() && self.floor > after(self.index.purged);
        let fits = if in_older_segments { self.floor == after(last) } else { self.index.last() == last };
        if fits {
            return Ok(());
        }
        Err(format!(
            "the log ended with {last:?} here, but the segments before end with {:?}",
            self.index.last()
        ))
    }

    fn truncate(&mut self, since: u64) {
        self.index.truncate(since);
        self.floor = self.floor.min(since);
    }

    /// Whether entries that begin here continue the log, or replace a part of it.
    fn fits(&self, index: u64) -> bool {
        match self.index.range() {
            // The oldest segment may have replaced entries that older, removed segments held.
            Some((first, last)) => index <= last + 1 && (index >= first || index <= self.floor),
            None => index <= self.floor.max(after(self.index.purged)),
        }
    }

    fn frame(&mut self, segment: u64, frame: Frame) -> Result<(), String> {
        let text = |error: CodecError| error.to_string();
        match frame.kind {
            Kind::Entries => {
                let Entries::V1(entries) = codec::decode_record(&frame.content).map_err(text)?;
                let first = entries.first().map(|entry| entry.log_id.index);
                if first != Some(frame.index) || !self.fits(frame.index) {
                    return Err(format!(
                        "entries from {first:?} on do not follow {:?}",
                        self.index.last().map(|last| last.index)
                    ));
                }
                let place = Place { segment, offset: frame.offset, len: frame.len };
                self.truncate(frame.index);
                self.index.append(entries, place);
            }
            Kind::Truncate => self.truncate(frame.index),
            Kind::Vote | Kind::Purge => match codec::decode_record(&frame.content).map_err(text)? {
                Marks::Vote(vote) => self.vote = Some(vote),
                Marks::Purge(upto) => self.index.purge(upto),
                Marks::Noted(_) => return Err("a record of another kind than it says".into()),
            },
            Kind::Head | Kind::Committed | Kind::Snapshot => {
                return Err(format!("a record of kind {:?} does not belong here", frame.kind));
            }
        }
        Ok(())
    }
}
