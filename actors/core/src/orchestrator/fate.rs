//! What a node means for the tasks on it: they stay, they are lost with it, or they have to leave it.

use std::collections::BTreeMap;

use crate::model::constraint::normal_arch;
use crate::model::{
    Availability, Node, NodeId, NodeState, Placement, Platform, Resources, Service, Task, TaskId,
};
use crate::put_back::{Bug, is_put_back};
use crate::store::State;

/// What becomes of a task on its node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fate {
    /// It stays (or is not placed yet).
    Stay,
    /// Its node is down or gone.
    Lost(String),
    /// It must leave a node that lives.
    Leave(String),
}

/// The fate of a task that shall run.
pub(super) fn fate(
    state: &State,
    service: &Service,
    task: &Task,
    evicted: &BTreeMap<TaskId, String>,
) -> Fate {
    let Some(id) = task.node_id else { return Fate::Stay };
    let Some(node) = state.node(id) else { return Fate::Lost("its node was removed".into()) };
    if is_lost(node) && !is_put_back(Bug::LostNeverReplaced) {
        return Fate::Lost(format!("its node {} is down", node.name()));
    }
    if node.spec.availability == Availability::Drain && !is_put_back(Bug::DrainIgnored) {
        return Fate::Leave(format!("its node {} is drained", node.name()));
    }
    if let Some(why) = evicted.get(&task.id) {
        return Fate::Leave(why.clone());
    }
    // A service whose new constraints the node does not meet is updated in its own time; only a node that
    // turned away from what the task was placed for loses it at once.
    match (misfit(node, &service.spec.task.placement), misfit(node, &task.spec.placement)) {
        (Some(_), Some(why)) => {
            Fate::Leave(format!("its node {} no longer meets its placement: {why}", node.name()))
        }
        _ => Fate::Stay,
    }
}

/// Why a node does not meet a placement's constraints or platforms, if it does not.
pub(super) fn misfit(node: &Node, placement: &Placement) -> Option<String> {
    if let Some(constraint) = placement.constraints.iter().find(|c| !c.matches(node)) {
        return Some(format!("constraint {constraint}"));
    }
    if placement.platforms.is_empty() {
        return None;
    }
    let Some(description) = &node.description else { return Some("its platform is not known".into()) };
    let runs = placement.platforms.iter().any(|wanted| same_platform(wanted, &description.platform));
    (!runs).then(|| format!("platform {}/{}", description.platform.os, description.platform.architecture))
}

fn same_platform(wanted: &Platform, actual: &Platform) -> bool {
    (wanted.os.is_empty() || wanted.os.eq_ignore_ascii_case(&actual.os))
        && (wanted.architecture.is_empty()
            || normal_arch(&wanted.architecture) == normal_arch(&actual.architecture))
}

/// Whether a change of a node can change the fate of tasks.
pub(super) fn differs(before: &Node, now: &Node) -> bool {
    before.status.state != now.status.state
        || (now.status.state == NodeState::Down && before.status.since != now.status.since)
        || before.spec != now.spec
        || before.role != now.role
        || before.description != now.description
}

/// The tasks beyond what the node's resources hold, the newest first to go.
pub(super) fn overcommitted(state: &State, id: NodeId, evicted: &mut BTreeMap<TaskId, String>) {
    let Some(node) = state.node(id) else { return };
    let Some(description) = &node.description else { return };
    let mut tasks: Vec<_> =
        state.tasks_of_node(id).filter(|task| task.is_live() && task.occupies_node()).collect();
    tasks.sort_by_key(|task| (task.meta.created_at, task.id));
    let mut left = description.resources.clone();
    for task in tasks {
        let wanted = &task.spec.resources.reservations;
        if left.covers(wanted) {
            take(&mut left, wanted);
        } else {
            evicted.insert(
                task.id,
                format!("its node {} has no longer the resources that it reserves", node.name()),
            );
        }
    }
}

fn take(left: &mut Resources, wanted: &Resources) {
    left.nano_cpus = left.nano_cpus.saturating_sub(wanted.nano_cpus);
    left.memory_bytes = left.memory_bytes.saturating_sub(wanted.memory_bytes);
    for (kind, count) in &wanted.generic {
        if let Some(there) = left.generic.get_mut(kind) {
            *there = there.saturating_sub(*count);
        }
    }
}

/// Whether nobody hears the node any more.
fn is_lost(node: &Node) -> bool {
    let unreachable = node.status.state == NodeState::Disconnected;
    node.status.state == NodeState::Down || unreachable && is_put_back(Bug::UnreachableCountsAsLost)
}

/// Whether a task's container may still be running where somebody can stop it.
pub(super) fn may_run(state: &State, task: &Task) -> bool {
    task.occupies_node() && task.node_id.and_then(|id| state.node(id)).is_some_and(|node| !is_lost(node))
}
