//! What a manager had promised when its seat was taken from it and its log was forgotten.
//!
//! It may be given a seat again, under the same id. One that has been away all the time still counts on its former vote, by a
//! membership that is no more; if it had forgotten everything, the two could elect a leader that knows nothing of what was
//! committed since. So it votes as if it had its former log still.

use std::io;
use std::path::Path;
use std::sync::Arc;

use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use serde::{Deserialize, Serialize};
use shoal_core::model::NodeId;
use shoal_core::put_back::{Bug, is_put_back};
use shoal_wire::codec;

use super::error::OpenError;
use super::health::Health;
use super::key::{FileKey, KeySource};
use super::replay::{is_fresh, replay};
use super::snapshot::SnapshotStore;
use super::stats::Counters;
use super::types::{LogId, Vote};
use crate::disk::{Disk, FileDisk};

/// The file of it.
const NAME: &str = "former";

#[derive(Serialize, Deserialize)]
enum Stored {
    V1(Former),
}

/// What was promised in former lives as a manager.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Former {
    /// For whom it voted last.
    vote: Option<Vote>,
    /// Where its log ended.
    last: Option<LogId>,
    /// Whether there was more, and nobody can tell what.
    unknown: bool,
}

impl Former {
    /// What is known on this disk.
    pub(super) async fn read(disk: &dyn Disk) -> io::Result<Self> {
        let bytes = match disk.read(NAME).await {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error),
        };
        let (sum, content) = bytes.split_at(SHA256_OUTPUT_LEN.min(bytes.len()));
        let sound = digest(&SHA256, content).as_ref() == sum;
        match sound.then(|| codec::decode_record(content)) {
            Some(Ok(Stored::V1(former))) => Ok(former),
            _ => {
                tracing::warn!(file = NAME, "it is damaged: this manager votes once it has its seat again");
                Ok(Self { unknown: true, ..Self::default() })
            }
        }
    }

    async fn write(self, disk: &dyn Disk) -> io::Result<()> {
        let content = codec::encode(&Stored::V1(self)).map_err(io::Error::other)?;
        let sum = digest(&SHA256, &content);
        disk.replace(NAME, [sum.as_ref(), &content].concat()).await
    }

    /// With what else was promised.
    fn and(self, other: Self) -> Self {
        let newer = |a: Option<Vote>, b: Option<Vote>| if a >= b { a } else { b };
        Self {
            vote: newer(self.vote, other.vote),
            last: self.last.max(other.last),
            unknown: self.unknown || other.unknown,
        }
    }

    /// The vote as one may begin with it: whoever led by it has to say so again.
    pub(super) fn vote(&self) -> Option<Vote> {
        self.vote.map(|vote| Vote { committed: false, ..vote })
    }

    /// Whether one whose log ends there may have this node's vote. It has a seat or not, by its own log.
    pub(super) fn allows(&self, theirs: Option<LogId>, has_seat: bool) -> bool {
        is_put_back(Bug::PromisesForgotten) || theirs >= self.last && (has_seat || !self.unknown)
    }
}

/// Forget log, snapshot and key of a node that lost its seat, in this folder if not on another disk, and remember what was
/// promised by them.
///
/// # Errors
/// If the disk fails. It may then be tried again.
pub async fn forget(dir: &Path, disk: Option<&Arc<dyn Disk>>, node: NodeId) -> io::Result<()> {
    match disk {
        Some(disk) => forget_on(disk, node).await,
        None if !dir.exists() => Ok(()),
        None => forget_on(&(Arc::new(FileDisk::open(dir)?) as Arc<dyn Disk>), node).await,
    }
}

async fn forget_on(disk: &Arc<dyn Disk>, node: NodeId) -> io::Result<()> {
    let names = disk.list().await?;
    if !is_fresh(&names) {
        let former = Former::read(&**disk).await?;
        let lost = promised(disk, node).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "what this manager had promised cannot be read");
            Former { unknown: true, ..Former::default() }
        });
        former.and(lost).write(&**disk).await?;
    }
    for name in names.iter().filter(|name| *name != NAME) {
        disk.remove(name).await?;
    }
    Ok(())
}

async fn promised(disk: &Arc<dyn Disk>, node: NodeId) -> Result<Former, OpenError> {
    let key = FileKey.key(Arc::clone(disk), false).await?;
    let log = replay(disk, &key, node).await?;
    let (health, counters) = (Arc::<Health>::default(), Arc::<Counters>::default());
    let (snapshots, _) = SnapshotStore::open(Arc::clone(disk), key, health, counters).await?;
    Ok(Former { vote: log.vote, last: log.index.last().max(snapshots.newest()), unknown: false })
}

#[cfg(test)]
mod tests {
    use openraft::CommittedLeaderId;

    use super::*;

    fn id(term: u64, index: u64) -> Option<LogId> {
        Some(LogId::new(CommittedLeaderId::new(term, NodeId::from_u128(1)), index))
    }

    #[test]
    fn only_a_log_that_holds_all_of_the_former_one_gets_the_vote() {
        let former = Former { last: id(2, 5), ..Former::default() };
        for (theirs, allowed) in
            [(None, false), (id(1, 9), false), (id(2, 4), false), (id(2, 5), true), (id(3, 1), true)]
        {
            assert_eq!(former.allows(theirs, false), allowed, "{theirs:?}");
        }
        assert!(Former::default().allows(None, false));
        let unknown = former.and(Former { unknown: true, ..Former::default() });
        assert!(!unknown.allows(id(9, 9), false) && unknown.allows(id(9, 9), true));
    }

    #[test]
    fn several_lives_promise_what_each_of_them_did() {
        let voted = |term| Some(Vote::new_committed(term, NodeId::from_u128(term.into())));
        let one = Former { vote: voted(3), last: id(1, 7), unknown: false };
        let other = Former { vote: voted(2), last: id(2, 3), unknown: false };
        let both = Former { vote: voted(3), last: id(2, 3), unknown: false };
        assert_eq!((one.and(other), other.and(one)), (both, both));
        assert_eq!(both.vote(), Some(Vote::new(3, NodeId::from_u128(3))));
    }
}
