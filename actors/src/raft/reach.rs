//! Who was heard of, and when.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shoal_core::model::NodeId;
use shoal_core::pace::Pace;
use tokio::time::Instant;

/// A manager that answered within this time can be reached.
pub(super) const REACHABLE_WITHIN: Duration = Duration::from_millis(1_500);

struct Inner {
    pace: Pace,
    answered: BTreeMap<NodeId, Instant>,
    leader: Option<NodeId>,
    leader_at: Instant,
    /// For whom this node voted last, and when.
    voted: Option<(NodeId, Instant)>,
}

/// For whom this node voted before.
pub(super) struct LastVote(Option<(NodeId, Instant)>);

/// Signs of life of the other managers.
pub(super) struct Reach(Mutex<Inner>);

impl Reach {
    pub(super) fn new(pace: Pace) -> Self {
        // Nobody was heard yet; a leader gets the usual time to show itself.
        Self(Mutex::new(Inner {
            pace,
            answered: BTreeMap::new(),
            leader: None,
            leader_at: Instant::now(),
            voted: None,
        }))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A node answered a call that was made then.
    pub(super) fn answered(&self, node: NodeId, called_at: Instant) {
        let mut inner = self.inner();
        let at = inner.answered.entry(node).or_insert(called_at);
        *at = called_at.max(*at);
    }

    /// The leader showed itself.
    pub(super) fn led_by(&self, leader: NodeId) {
        let mut inner = self.inner();
        inner.leader = Some(leader);
        inner.leader_at = Instant::now();
    }

    /// This node votes for that one. Returns what [`Reach::restore_vote`] wants should it not do so after all.
    pub(super) fn voted_for(&self, candidate: NodeId) -> LastVote {
        LastVote(self.inner().voted.replace((candidate, Instant::now())))
    }

    /// The vote was not given.
    pub(super) fn restore_vote(&self, LastVote(before): LastVote) {
        self.inner().voted = before;
    }

    /// Whether this node voted for another one within this time: that one should be given the chance.
    pub(super) fn voted_for_other_than(&self, node: NodeId, within: Duration) -> bool {
        self.inner().voted.is_some_and(|(candidate, at)| candidate != node && at.elapsed() < within)
    }

    /// For how long no leader showed itself.
    pub(super) fn leader_silence(&self) -> Duration {
        self.inner().leader_at.elapsed()
    }

    /// When the newest answered call of this node to `node` was made.
    pub(super) fn last_answer(&self, node: NodeId) -> Option<Instant> {
        self.inner().answered.get(&node).copied()
    }

    /// All who answered, or led us, lately.
    pub(super) fn reachable(&self) -> BTreeSet<NodeId> {
        let inner = self.inner();
        let within = inner.pace.of(REACHABLE_WITHIN);
        let answered = inner.answered.iter().filter(|(_, at)| at.elapsed() < within);
        let leader = inner.leader.filter(|_| inner.leader_at.elapsed() < within);
        answered.map(|(node, _)| *node).chain(leader).collect()
    }
}

/// Whether `in_favour` holds for more than half of each group.
pub(super) fn majority(groups: &[BTreeSet<NodeId>], in_favour: impl Fn(NodeId) -> bool) -> bool {
    groups.iter().all(|group| group.iter().filter(|node| in_favour(**node)).count() * 2 > group.len())
}
