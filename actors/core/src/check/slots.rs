//! What holds in every state: tasks make sense, and no slot runs twice.

use std::collections::BTreeMap;

use super::Violation;
use crate::model::{NodeState, ServiceId, Slot, Task, TaskState};
use crate::store::State;

/// No task contradicts itself.
pub(super) fn tasks_make_sense(state: &State, found: &mut Vec<Violation>) {
    for task in state.tasks() {
        let placed = task.status.state >= TaskState::Assigned && task.status.state <= TaskState::Running;
        let complaint = if placed && task.node_id.is_none() {
            Some("it is on its way without a node")
        } else if !matches!(
            task.desired,
            TaskState::Ready | TaskState::Running | TaskState::Shutdown | TaskState::Remove
        ) {
            Some("nobody can want it to be in its desired state")
        } else if task.status.state == TaskState::Remove {
            Some("to be removed is no state that is observed")
        } else if matches!(task.slot, Slot::Node(node) if task.node_id != Some(node)) {
            Some("it is a node's copy elsewhere")
        } else if matches!(task.slot, Slot::Replica(_))
            && task.status.state < TaskState::Assigned
            && task.node_id.is_some()
        {
            Some("it waits for a place and has one")
        } else if task.slot == Slot::Replica(0) {
            Some("slots begin at 1")
        } else {
            None
        };
        if let Some(why) = complaint {
            found.push(Violation::Senseless { task: task.id, why: why.into() });
        }
    }
}

/// Whether the task shall run, and nobody has lost sight of it.
fn runs_in_sight(state: &State, task: &Task) -> bool {
    let in_sight =
        task.node_id.is_none_or(|id| state.node(id).is_some_and(|node| node.status.state != NodeState::Down));
    matches!(task.desired, TaskState::Ready | TaskState::Running)
        && task.status.state <= TaskState::Running
        && in_sight
}

/// A slot has one task that shall run, or two of different versions while the one takes over from the other.
pub(super) fn no_slot_runs_twice(state: &State, found: &mut Vec<Violation>) {
    let mut slots: BTreeMap<(ServiceId, Slot), Vec<&Task>> = BTreeMap::new();
    for task in state.tasks().filter(|task| runs_in_sight(state, task)) {
        slots.entry((task.service_id, task.slot)).or_default().push(task);
    }
    for ((service, slot), tasks) in slots {
        let takes_over = tasks.len() == 2 && tasks[0].spec_version != tasks[1].spec_version;
        if tasks.len() > 1 && !takes_over {
            let tasks = tasks.iter().map(|task| task.id).collect();
            found.push(Violation::SlotTwice { service, slot, tasks });
        }
    }
}
