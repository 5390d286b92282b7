//! What really runs of a slot: one container, or two while an update has the new one start first.

use std::collections::{BTreeMap, BTreeSet};

use shoal_core::model::{
    NodeId, NodeState, ServiceId, Slot, Task, TaskId, TaskState, Timestamp, UpdateOrder,
};
use shoal_core::orchestrator::STOP_LIMIT;
use shoal_core::store::State;
use tokio::time::Instant;

/// What is known of the tasks that were seen.
#[derive(Default)]
pub(super) struct Slots {
    of: BTreeMap<TaskId, (ServiceId, Slot)>,
    /// Tasks whose node was lost or removed, or whose service may have two for a while: nobody could wait for them.
    excused: BTreeSet<TaskId>,
    /// When each task was seen to be asked to stop: its successor waits for it long, but not for ever.
    stopping: BTreeMap<TaskId, Instant>,
    /// What each node is, and since when, by its leader's word.
    since: BTreeMap<NodeId, (NodeState, Timestamp)>,
    index: u64,
}

fn starts_first(state: &State, id: ServiceId) -> bool {
    state.service(id).is_none_or(|service| {
        let first = |spec: &shoal_core::model::ServiceSpec| {
            [&spec.update, &spec.rollback]
                .into_iter()
                .flatten()
                .any(|config| config.order == UpdateOrder::StartFirst)
        };
        first(&service.spec) || service.previous_spec.as_ref().is_some_and(first)
    })
}

fn is_lost(state: &State, task: &Task) -> bool {
    let Some(id) = task.node_id else { return false };
    state.node(id).is_none_or(|node| node.status.state == NodeState::Down)
}

/// Whether a node may have been lost and found between two looks, of which the second is the next state or a later one.
/// One that others hear is not lost.
fn hides(before: (NodeState, Timestamp), now: (NodeState, Timestamp), next: bool) -> bool {
    before.1 != now.1 && !next && now.0 != NodeState::Disconnected
}

impl Slots {
    /// Take in what a manager's state says.
    pub(super) fn learn(&mut self, state: &State) {
        if state.applied() <= self.index {
            return;
        }
        let next = self.index + 1 == state.applied();
        self.index = state.applied();
        let mut found_again = BTreeSet::new();
        for node in state.nodes() {
            let now = (node.status.state, node.status.since);
            if self.since.insert(node.id, now).is_some_and(|before| hides(before, now, next)) {
                found_again.insert(node.id);
            }
        }
        for task in state.tasks() {
            self.of.insert(task.id, (task.service_id, task.slot));
            // A task that ended by its node's word runs no more; if it does, others find it.
            let again = task.node_id.is_some_and(|node| found_again.contains(&node));
            if again || is_lost(state, task) || starts_first(state, task.service_id) {
                self.excused.insert(task.id);
            }
            if task.desired > TaskState::Running {
                self.stopping.entry(task.id).or_insert_with(Instant::now);
            }
        }
    }

    /// Whether a task was asked to stop so long ago that its successor may have been started all the same.
    fn is_overdue(&self, task: TaskId) -> bool {
        self.stopping.get(&task).is_some_and(|since| since.elapsed() >= STOP_LIMIT)
    }

    /// Look at all tasks whose containers run, on hosts that are in order.
    #[must_use]
    pub(super) fn look(&self, running: &[TaskId]) -> Vec<String> {
        let mut by_slot: BTreeMap<(ServiceId, Slot), Vec<TaskId>> = BTreeMap::new();
        for id in running.iter().filter(|id| !self.excused.contains(id) && !self.is_overdue(**id)) {
            if let Some(slot) = self.of.get(id) {
                by_slot.entry(*slot).or_default().push(*id);
            }
        }
        let twice = by_slot.into_iter().filter(|(_, tasks)| tasks.len() > 1);
        twice.map(|((_, slot), tasks)| format!("{slot:?} has two containers at once: {tasks:?}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_may_have_been_lost_unseen_only_if_states_were_missed() {
        let (ready, later) = ((NodeState::Ready, Timestamp(1)), (NodeState::Ready, Timestamp(2)));
        let others_hear_it = (NodeState::Disconnected, Timestamp(2));
        assert!(hides(ready, later, false) && !hides(ready, ready, false) && !hides(ready, later, true));
        assert!(hides(others_hear_it, (NodeState::Ready, Timestamp(3)), false));
        assert!(!hides(ready, others_hear_it, false));
    }

    /// Two tasks of one slot.
    fn two() -> (Slots, TaskId, TaskId) {
        let mut slots = Slots::default();
        let (one, two) = (TaskId::from_u128(1), TaskId::from_u128(2));
        for id in [one, two] {
            slots.of.insert(id, (ServiceId::from_u128(9), Slot::Replica(1)));
        }
        (slots, one, two)
    }

    #[test]
    fn two_containers_of_a_slot_are_found_unless_one_was_lost() {
        let (mut slots, one, two) = two();
        assert!(slots.look(&[one]).is_empty() && slots.look(&[two]).is_empty());
        assert_eq!(slots.look(&[one, two]).len(), 1);
        slots.excused.insert(one);
        assert!(slots.look(&[one, two]).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_does_not_stop_is_not_waited_for_for_ever() {
        let (mut slots, one, two) = two();
        slots.stopping.insert(one, Instant::now());
        tokio::time::sleep(STOP_LIMIT / 2).await;
        assert_eq!(slots.look(&[one, two]).len(), 1);
        tokio::time::sleep(STOP_LIMIT / 2).await;
        assert!(slots.look(&[one, two]).is_empty());
    }
}
