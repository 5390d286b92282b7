//! What the leader must have done after a while: tasks leave nodes that are down or drained.

use std::collections::BTreeMap;
use std::time::Duration;

use shoal_core::model::{Availability, Node, NodeId, NodeState, TaskState};
use shoal_core::pace::Pace;
use shoal_core::store::State;
use tokio::time::Instant;

/// For so long one and the same leader must have led, and the node must have been as it is.
const DONE_AFTER: Duration = Duration::from_secs(20);

/// Since when duties are open.
#[derive(Default)]
pub(super) struct Duties {
    pace: Pace,
    leader: Option<(usize, u64, Instant)>,
    open: BTreeMap<NodeId, Instant>,
}

fn must_go(node: &Node) -> bool {
    node.status.state == NodeState::Down || node.spec.availability == Availability::Drain
}

impl Duties {
    /// None open so far, in a cluster of this pace.
    pub(super) fn new(pace: Pace) -> Self {
        Self { pace, ..Self::default() }
    }

    /// Nobody leads as far as is known.
    pub(super) fn nobody_leads(&mut self) {
        self.leader = None;
    }

    /// Look at the state of who leads in this term.
    pub(super) fn look(&mut self, leader: usize, term: u64, state: &State) -> Vec<String> {
        if self.leader.is_none_or(|(who, when, _)| (who, when) != (leader, term)) {
            self.leader = Some((leader, term, Instant::now()));
            self.open.clear();
        }
        let (mut found, done_after) = (Vec::new(), self.pace.of(DONE_AFTER));
        for node in state.nodes() {
            if !must_go(node) {
                self.open.remove(&node.id);
                continue;
            }
            let since = *self.open.entry(node.id).or_insert_with(Instant::now);
            let held = state.tasks_of_node(node.id).find(|task| {
                task.desired <= TaskState::Running
                    && (TaskState::Assigned..=TaskState::Running).contains(&task.status.state)
            });
            if since.elapsed() > done_after
                && let Some(task) = held
            {
                let (name, how) = (node.hostname(), (node.status.state, node.spec.availability));
                found.push(format!(
                    "{name} is {how:?} for {done_after:?}, and task {} shall run on it",
                    task.id
                ));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use shoal_core::model::{Task, TaskId, TaskStatus};
    use shoal_core::store::{Command, Write};

    use super::*;
    use crate::sample;

    #[tokio::test(start_paused = true)]
    async fn a_task_that_stays_on_a_drained_node_is_found() {
        let id = NodeId::from_u128(1);
        let mut node = Node { id, ..Node::default() };
        node.spec.availability = Availability::Drain;
        let task = Task {
            node_id: Some(id),
            status: TaskStatus { state: TaskState::Running, ..TaskStatus::default() },
            ..sample::task(1)
        };
        let mut state = State::default();
        let mut apply = |write| {
            let index = state.applied() + 1;
            state.apply(index, 1, Command { writes: vec![write], ..Command::default() }).expect("legal");
            state.clone()
        };
        apply(Write::NodeCreate(Box::new(node)));
        let held = apply(Write::TaskCreate(Arc::new(task)));
        let gone = apply(Write::TaskDesired(TaskId::from_u128(1), TaskState::Shutdown));
        let mut duties = Duties::default();
        assert!(duties.look(1, 1, &held).is_empty());
        tokio::time::advance(DONE_AFTER * 2).await;
        assert_eq!(duties.look(1, 1, &held).len(), 1);
        assert!(duties.look(1, 1, &gone).is_empty());
        assert!(duties.look(2, 2, &held).is_empty(), "a new leader has its own time");
    }
}
