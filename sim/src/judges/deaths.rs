//! No node that is well is declared dead.

use std::collections::BTreeMap;
use std::time::Duration;

use shoal_core::model::{NodeId, NodeState};
use shoal_core::pace::Pace;
use shoal_core::store::State;
use tokio::time::Instant;

/// So long after the last disaster nothing excuses a death any more.
const EXCUSED: Duration = Duration::from_secs(20);

/// Deaths seen so far.
pub struct Deaths {
    pace: Pace,
    known: BTreeMap<NodeId, NodeState>,
    index: u64,
}

impl Deaths {
    /// None so far, in a cluster of this pace.
    #[must_use]
    pub fn new(pace: Pace) -> Self {
        Self { pace, known: BTreeMap::new(), index: 0 }
    }

    /// Look at a manager's state; `calm_since`: when the last disaster was over.
    pub fn look(&mut self, state: &State, calm_since: Option<Instant>) -> Vec<String> {
        if state.applied() <= self.index {
            return Vec::new();
        }
        self.index = state.applied();
        let calm = calm_since.is_some_and(|since| since.elapsed() > self.pace.of(EXCUSED));
        let mut found = Vec::new();
        for node in state.nodes() {
            let before = self.known.insert(node.id, node.status.state);
            if calm && node.status.state == NodeState::Down && before != Some(NodeState::Down) {
                found.push(format!("{} was declared dead though it is well", node.hostname()));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use shoal_core::model::{Node, NodeStatus};
    use shoal_core::store::{Command, Write};

    use super::*;

    fn state(life: NodeState) -> State {
        let status = NodeStatus { state: life, ..NodeStatus::default() };
        let node = Node { id: NodeId::from_u128(1), status, ..Node::default() };
        let mut state = State::default();
        let writes = vec![Write::NodeCreate(Box::new(node))];
        state.apply(1, 1, Command { writes, ..Command::default() }).expect("a legal command");
        state
    }

    #[tokio::test(start_paused = true)]
    async fn a_death_in_calm_is_found_and_one_in_a_storm_is_not() {
        let long_ago = Instant::now();
        tokio::time::advance(EXCUSED * 2).await;
        let judge = |life, calm| Deaths::new(Pace::USUAL).look(&state(life), calm).len();
        assert_eq!(judge(NodeState::Down, Some(long_ago)), 1);
        assert_eq!(judge(NodeState::Down, Some(Instant::now())), 0);
        assert_eq!(judge(NodeState::Down, None), 0);
        assert_eq!(judge(NodeState::Ready, Some(long_ago)), 0);
    }
}
