//! What holds between a state and a later one.

use std::collections::BTreeSet;

use super::{Violation, placement};
use crate::model::{ServiceId, ServiceMode, Slot, Task, TaskState};
use crate::store::State;

/// What went wrong from `before` to `after`. Best asked for every command, as what was decided in between
/// would be judged by a state that its decision did not know.
#[must_use]
pub fn check_transition(before: &State, after: &State) -> Vec<Violation> {
    let mut found = Vec::new();
    for task in before.tasks() {
        match after.task(task.id) {
            Some(later) => went_back(task, later, &mut found),
            None if may_run(after, task) => found.push(Violation::ForgottenAlive(task.id)),
            None => {}
        }
    }
    for task in after.tasks() {
        let waited = before.task(task.id).is_none_or(|old| old.status.state < TaskState::Assigned);
        if waited
            && task.occupies_node()
            && let Some(id) = task.node_id
        {
            let why = match before.node(id).or_else(|| after.node(id)) {
                Some(node) => placement::forbidden(before, after, node, task),
                None => Some("there is no such node".into()),
            };
            if let Some(why) = why {
                found.push(Violation::Misplaced { task: task.id, node: id, why });
            }
        }
    }
    above_count(before, after, &mut found);
    found
}

/// Whether somebody may still run the task, on a node that belongs to the cluster.
fn may_run(state: &State, task: &Task) -> bool {
    let placed = task.status.state >= TaskState::Assigned && !task.status.state.is_terminal();
    placed && task.node_id.is_some_and(|id| state.node(id).is_some())
}

fn went_back(old: &Task, new: &Task, found: &mut Vec<Violation>) {
    let mut complain = |why: String| found.push(Violation::WentBack { task: old.id, why });
    if new.status.state < old.status.state {
        complain(format!("from {} to {}", old.status.state.as_str(), new.status.state.as_str()));
    }
    if old.status.state.is_terminal() && new.status != old.status {
        complain("it had ended".into());
    }
    if new.desired < old.desired {
        complain(format!("desired {} after {}", new.desired.as_str(), old.desired.as_str()));
    }
    if old.node_id.is_some() && old.node_id != new.node_id {
        complain("its node changed".into());
    }
    if (old.service_id, old.slot, old.spec_version) != (new.service_id, new.slot, new.spec_version)
        || old.spec != new.spec
    {
        complain("it became another task".into());
    }
}

/// Slots that are taken. A task that has ended keeps its slot until it is replaced there.
fn held_slots(state: &State, id: ServiceId) -> BTreeSet<Slot> {
    state
        .tasks_of_service(id)
        .filter(|task| task.desired <= TaskState::Running)
        .map(|task| task.slot)
        .collect()
}

/// How many tasks of a replicated service are asked for.
fn asked_for(state: &State, id: ServiceId) -> Option<u64> {
    match state.service(id)?.spec.mode {
        ServiceMode::Replicated { replicas } => Some(replicas),
        ServiceMode::Global => None,
    }
}

/// A replicated service that has enough does not get more. It may have got them in the same step before fewer were asked
/// for.
fn above_count(before: &State, after: &State, found: &mut Vec<Violation>) {
    for service in after.services() {
        let Some(replicas) = asked_for(after, service.id).max(asked_for(before, service.id)) else {
            continue;
        };
        let slots = held_slots(after, service.id).len();
        if slots as u64 > replicas && slots > held_slots(before, service.id).len() {
            found.push(Violation::AboveCount { service: service.id, slots, wanted: replicas });
        }
    }
    let is_gone = |id: &ServiceId| after.service(*id).or_else(|| before.service(*id)).is_none();
    for id in after.services_with_tasks().filter(is_gone) {
        let slots = held_slots(after, id).len();
        if slots > held_slots(before, id).len() {
            found.push(Violation::AboveCount { service: id, slots, wanted: 0 });
        }
    }
}
