//! What is still missing until everything is as it was asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::placement;
use crate::model::{
    Availability, NodeState, RestartCondition, Service, ServiceId, ServiceMode, Slot, Task, TaskState,
    UpdateState,
};
use crate::store::State;

/// Something that is not yet as it shall be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Missing {
    /// Of which service.
    pub service: ServiceId,
    /// What.
    pub what: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "service {}: {}", self.service, self.what)
    }
}

/// What is missing; empty if the cluster is as its users want it. What waits for a node that is down is not
/// counted: nobody can do it.
#[must_use]
pub fn converged(state: &State) -> Vec<Missing> {
    let mut missing = Vec::new();
    for service in state.services() {
        let mut say = |what: String| missing.push(Missing { service: service.id, what });
        slots(state, service, &mut say);
        if service.update.as_ref().is_some_and(|update| update.state == UpdateState::Updating) {
            say("its update is under way".into());
        }
    }
    for task in state.tasks() {
        let out_of_reach = task
            .node_id
            .and_then(|id| state.node(id))
            .is_some_and(|node| node.status.state == NodeState::Down);
        let leftover = if task.desired == TaskState::Remove {
            !(out_of_reach && task.occupies_node())
        } else {
            task.desired == TaskState::Shutdown && task.occupies_node() && !out_of_reach
        };
        if leftover || state.service(task.service_id).is_none() && !out_of_reach {
            let what = format!("task {} is still there as {}", task.id, task.status.state.as_str());
            missing.push(Missing { service: task.service_id, what });
        }
    }
    missing
}

fn slots(state: &State, service: &Service, say: &mut impl FnMut(String)) {
    let paused = service.update.as_ref().is_some_and(|update| update.state == UpdateState::Paused);
    let mut served: BTreeMap<Slot, bool> = BTreeMap::new();
    for task in state.tasks_of_service(service.id) {
        if task.desired > TaskState::Running {
            continue;
        }
        let good = is_good(state, service, task, paused, say);
        let slot = served.entry(task.slot).or_default();
        *slot |= good;
    }
    let good: BTreeSet<Slot> = served.iter().filter(|(_, good)| **good).map(|(slot, _)| *slot).collect();
    match service.spec.mode {
        ServiceMode::Replicated { replicas } => {
            if good.len() as u64 != replicas {
                say(format!("{} of {replicas} slots are served", good.len()));
            }
        }
        ServiceMode::Global => {
            for node in state.nodes() {
                let may = node.status.state == NodeState::Ready
                    && node.spec.availability == Availability::Active
                    && placement::unfit_for(node, &service.spec.task.placement).is_none();
                if may && !good.contains(&Slot::Node(node.id)) {
                    say(format!("node {} has no task", node.id));
                }
            }
        }
    }
}

/// Whether a task that shall run is as it shall be, or has ended as it may.
fn is_good(
    state: &State,
    service: &Service,
    task: &Task,
    paused: bool,
    say: &mut impl FnMut(String),
) -> bool {
    let policy = &service.spec.task.restart;
    let may_end = match policy.condition {
        RestartCondition::None => true,
        RestartCondition::OnFailure => task.status.state == TaskState::Complete || policy.max_attempts > 0,
        RestartCondition::Any => policy.max_attempts > 0,
    };
    let is_old = task.spec_version < service.task_spec_version
        && !task.spec.container.runs_as(&service.spec.task.container);
    // The successor failed beside it, and must not be tried again: better the old one than none.
    let is_last_resort = state.tasks_of_service(service.id).any(|other| {
        other.slot == task.slot
            && other.desired <= TaskState::Running
            && other.status.state.is_terminal()
            && other.spec_version >= service.task_spec_version
    });
    if is_old && !paused && !is_last_resort {
        say(format!("task {} is of an older version", task.id));
    }
    if task.status.state.is_terminal() {
        if !may_end || task.status.state == TaskState::Orphaned {
            say(format!("task {} is {} and was not replaced", task.id, task.status.state.as_str()));
        }
        return may_end;
    }
    let node = task.node_id.and_then(|id| state.node(id));
    let stays = node.is_some_and(|node| {
        node.status.state != NodeState::Down
            && node.spec.availability != Availability::Drain
            && (placement::unfit(node, task).is_none()
                || placement::unfit_for(node, &service.spec.task.placement).is_none())
    });
    let runs = task.status.state == TaskState::Running && task.desired == TaskState::Running;
    if !(runs && stays) {
        say(format!("task {} is {}: {}", task.id, task.status.state.as_str(), task.status.message));
    }
    runs && stays
}
