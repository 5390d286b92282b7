//! Which nodes a global service runs on: every one that is ready, active and meets its placement.

use std::collections::BTreeMap;

use crate::model::{Availability, Node, NodeState, Service, Slot};
use crate::store::State;

use super::fate::misfit;
use super::reconcile::Wish;
use super::slot::SlotTasks;

/// What shall become of the slots, and those to be filled anew.
pub(super) fn divide(
    state: &State,
    service: &Service,
    slots: &BTreeMap<Slot, SlotTasks<'_>>,
) -> (BTreeMap<Slot, Wish>, Vec<Slot>) {
    let mut wishes = BTreeMap::new();
    let mut fill = Vec::new();
    for slot in slots.keys() {
        let wish = match slot {
            // The service was a replicated one: its mode cannot change, but its tasks would be strays.
            Slot::Replica(_) => Wish::Remove,
            Slot::Node(id) => match state.node(*id) {
                None => Wish::Remove,
                Some(node) => unwanted(service, node).map_or(Wish::Keep, Wish::Stop),
            },
        };
        wishes.insert(*slot, wish);
    }
    for node in state.nodes().filter(|node| node.is_schedulable()) {
        let slot = Slot::Node(node.id);
        if !slots.get(&slot).is_some_and(SlotTasks::is_held) && unwanted(service, node).is_none() {
            fill.push(slot);
        }
    }
    (wishes, fill)
}

/// Why the node shall not have a task of the service, if so. A paused or silent node keeps the one it has.
fn unwanted(service: &Service, node: &Node) -> Option<String> {
    if node.status.state == NodeState::Down {
        return Some(format!("its node {} is down", node.name()));
    }
    if node.spec.availability == Availability::Drain {
        return Some(format!("its node {} is drained", node.name()));
    }
    misfit(node, &service.spec.task.placement)
        .map(|why| format!("its node {} does not meet its placement: {why}", node.name()))
}
