//! Whether a node may have a task, found out by adding everything up.

use crate::model::constraint::normal_arch;
use crate::model::{Availability, Node, NodeState, PortConfig, PortMode, Task};
use crate::store::State;

/// What the node's nature forbids: constraints and platforms.
pub(super) fn unfit(node: &Node, task: &Task) -> Option<String> {
    unfit_for(node, &task.spec.placement)
}

/// The same for any placement.
pub(super) fn unfit_for(node: &Node, placement: &crate::model::Placement) -> Option<String> {
    for constraint in &placement.constraints {
        if !constraint.matches(node) {
            return Some(format!("constraint {constraint} does not hold"));
        }
    }
    let mut platforms = placement.platforms.iter();
    let runs = placement.platforms.is_empty()
        || platforms.any(|wanted| {
            node.description.as_ref().is_some_and(|description| {
                let os = &description.platform.os;
                let arch = &description.platform.architecture;
                (wanted.os.is_empty() || *os == wanted.os)
                    && (wanted.architecture.is_empty()
                        || normal_arch(arch) == normal_arch(&wanted.architecture))
            })
        });
    (!runs).then(|| "none of its platforms is the node's".into())
}

/// What was wrong with placing `task` on its node. `before` is the state in which that was decided, `after`
/// the state with it.
pub(super) fn forbidden(before: &State, after: &State, node: &Node, task: &Task) -> Option<String> {
    if node.status.state != NodeState::Ready {
        return Some(format!("the node is {:?}", node.status.state));
    }
    if node.spec.availability != Availability::Active {
        return Some(format!("the node's availability is {:?}", node.spec.availability));
    }
    unfit(node, task)
        .or_else(|| overfull(after, node, task))
        .or_else(|| ports_taken(after, node, task))
        .or_else(|| too_many(before, after, node, task))
}

fn overfull(after: &State, node: &Node, placed: &Task) -> Option<String> {
    let wanted = &placed.spec.resources.reservations;
    let there =
        node.description.as_ref().map(|description| description.resources.clone()).unwrap_or_default();
    let (mut cpus, mut memory) = (0u64, 0u64);
    for task in after.tasks_of_node(node.id).filter(|task| task.occupies_node()) {
        cpus = cpus.saturating_add(task.spec.resources.reservations.nano_cpus);
        memory = memory.saturating_add(task.spec.resources.reservations.memory_bytes);
    }
    if wanted.nano_cpus > 0 && cpus > there.nano_cpus {
        return Some(format!("{cpus} of {} billionths of processors are reserved", there.nano_cpus));
    }
    if wanted.memory_bytes > 0 && memory > there.memory_bytes {
        return Some(format!("{memory} of {} bytes are reserved", there.memory_bytes));
    }
    wanted.generic.iter().filter(|(_, count)| **count > 0).find_map(|(kind, _)| {
        let has = there.generic.get(kind).copied().unwrap_or_default();
        let taken: u64 = after
            .tasks_of_node(node.id)
            .filter(|task| task.occupies_node())
            .filter_map(|task| task.spec.resources.reservations.generic.get(kind))
            .sum();
        (taken > has).then(|| format!("{taken} of {has} {kind} are reserved"))
    })
}

fn ports_taken(after: &State, node: &Node, placed: &Task) -> Option<String> {
    let is_fixed = |port: &&PortConfig| port.mode == PortMode::Host && port.published_port != 0;
    let others: Vec<_> = after
        .tasks_of_node(node.id)
        .filter(|task| task.id != placed.id && task.occupies_node())
        .flat_map(|task| task.ports.iter().filter(is_fixed))
        .collect();
    placed
        .ports
        .iter()
        .filter(is_fixed)
        .find(|port| others.iter().any(|other| super::ports::clash_on_a_host(port, other)))
        .map(|port| format!("port {} is taken", port.published_port))
}

fn too_many(before: &State, after: &State, node: &Node, placed: &Task) -> Option<String> {
    let most = placed.spec.placement.max_replicas;
    let copies = |state: &State| {
        let mine = |task: &&std::sync::Arc<Task>| task.service_id == placed.service_id;
        state
            .tasks_of_node(node.id)
            .filter(mine)
            .filter(|task| task.is_live() && task.occupies_node())
            .count() as u64
    };
    (most > 0 && copies(after) > most && copies(after) > copies(before))
        .then(|| format!("{} copies, {most} at most", copies(after)))
}
