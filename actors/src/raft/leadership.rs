//! Who leads, as everybody else is told.

use std::sync::Arc;
use std::time::Duration;

use openraft::ServerState;
use shoal_core::model::NodeId;
use shoal_core::put_back::{Bug, is_put_back};
use tokio::time::Instant;

use super::reach::REACHABLE_WITHIN;
use super::start::Inner;

/// How often it is looked at when nothing happens.
const TICK: Duration = Duration::from_millis(100);

/// Who leads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leadership {
    /// The current term. A command that carries a term is only accepted from the leader of just that term.
    pub term: u64,
    /// The leader, if one is known that a majority (or this node) heard lately.
    pub leader: Option<NodeId>,
    /// Whether it is this node, and its state holds all that was committed under earlier leaders.
    pub is_me: bool,
}

/// What has to be applied before this node's own leadership counts.
#[derive(Default)]
struct Reign {
    term: u64,
    began: Option<Instant>,
    barrier: u64,
}

/// Tell of each change, until consensus stops.
pub(super) async fn follow(inner: Arc<Inner>) {
    let mut reign = Reign::default();
    let mut server = inner.raft.server_metrics();
    let mut applied = inner.view.applied.subscribe();
    loop {
        let now = inner.leadership_now(&mut reign);
        let waiting = now.leader == Some(inner.me) && !now.is_me;
        inner.leadership.send_if_modified(|known| {
            let changed = *known != now;
            if changed {
                tracing::info!(node = %inner.me, term = now.term, leader = ?now.leader, is_me = now.is_me, "leadership");
                *known = now;
            }
            changed
        });
        tokio::select! {
            biased;
            stopping = inner.health.pause(inner.timing.pace.of(TICK)) => if stopping { break },
            changed = server.changed() => if changed.is_err() { break },
            _ = applied.changed(), if waiting => {}
        }
        if inner.raft.metrics().borrow().running_state.is_err() {
            break;
        }
    }
    inner.leadership.send_modify(|known| *known = Leadership { term: known.term, ..Leadership::default() });
}

impl Inner {
    /// Whether a majority of the managers answered a call made within this time.
    pub(super) fn hears_majority(&self, within: Duration) -> bool {
        let membership = Arc::clone(&self.raft.metrics().borrow().membership_config);
        super::reach::majority(membership.membership().get_joint_config(), |node| self.hears(node, within))
    }

    /// Whether a manager answered a call made within this time. That it said something is not enough: that may have waited
    /// here while this node stood still.
    pub(super) fn hears(&self, node: NodeId, within: Duration) -> bool {
        node == self.me || self.reach.last_answer(node).is_some_and(|at| at.elapsed() < within)
    }

    fn leadership_now(&self, reign: &mut Reign) -> Leadership {
        let (state, term, leader, last) = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow();
            (metrics.state, metrics.current_term, metrics.current_leader, metrics.last_log_index.unwrap_or(0))
        };
        if state != ServerState::Leader {
            *reign = Reign::default();
            let heard = self.reach.leader_silence() < self.timing.pace.of(REACHABLE_WITHIN);
            return Leadership { term, leader: leader.filter(|id| *id != self.me && heard), is_me: false };
        }
        if reign.term != term || reign.began.is_none() {
            *reign = Reign { term, began: Some(Instant::now()), barrier: last };
        }
        let young = reign.began.is_some_and(|began| began.elapsed() < self.timing.quorum_lost);
        let deaf = is_put_back(Bug::LeadsWithoutMajority);
        if !young && !deaf && !self.hears_majority(self.timing.quorum_lost) {
            return Leadership { term, leader: None, is_me: false };
        }
        let ours = self.view.last().is_some_and(|last| {
            last.index >= reign.barrier && last.leader_id.term == term && last.leader_id.node_id == self.me
        });
        Leadership { term, leader: Some(self.me), is_me: ours || is_put_back(Bug::LeadsBeforeCaughtUp) }
    }
}
