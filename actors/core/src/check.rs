//! An independent judge of states and of the steps between them, for tests and the simulator.
//!
//! It shares no code with the orchestrator and the scheduler that it judges: it says what must hold, not how
//! that is reached, and returns what does not as data.

mod addresses;
mod converged;
mod placement;
mod ports;
mod slots;
mod transition;

#[cfg(test)]
mod tests;

use std::fmt;
use std::net::IpAddr;

use crate::model::{NodeId, ServiceId, Slot, TaskId};
use crate::store::State;

pub use converged::{Missing, converged};
pub use transition::check_transition;

/// Something that must never be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Violation {
    /// More than one task of a slot shall run where they can.
    SlotTwice {
        /// The service.
        service: ServiceId,
        /// The slot.
        slot: Slot,
        /// The tasks.
        tasks: Vec<TaskId>,
    },
    /// A service got further tasks though it had all that were asked for.
    AboveCount {
        /// The service.
        service: ServiceId,
        /// Slots that shall run.
        slots: usize,
        /// Slots asked for.
        wanted: u64,
    },
    /// A task was placed where it must not be.
    Misplaced {
        /// The task.
        task: TaskId,
        /// Where.
        node: NodeId,
        /// What forbids it.
        why: String,
    },
    /// A task contradicts itself.
    Senseless {
        /// The task.
        task: TaskId,
        /// What is wrong.
        why: String,
    },
    /// A task went back, or changed what never changes.
    WentBack {
        /// The task.
        task: TaskId,
        /// What went back.
        why: String,
    },
    /// A port of the mesh was handed out twice.
    PortTwice {
        /// The port.
        published: u16,
        /// Who has it.
        services: Vec<ServiceId>,
    },
    /// An address has several owners, or its network does not have it.
    AddressTwice {
        /// The address.
        address: IpAddr,
        /// Who has it.
        owners: Vec<String>,
    },
    /// A task was forgotten that may still run.
    ForgottenAlive(TaskId),
    /// An index tells another story than the objects.
    Index(String),
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SlotTwice { service, slot, tasks } => {
                write!(
                    f,
                    "slot {slot:?} of service {service} has {} tasks that shall run: {tasks:?}",
                    tasks.len()
                )
            }
            Self::AboveCount { service, slots, wanted } => {
                write!(f, "service {service} grew to {slots} slots, {wanted} are wanted")
            }
            Self::Misplaced { task, node, why } => write!(f, "task {task} was placed on node {node}: {why}"),
            Self::Senseless { task, why } => write!(f, "task {task}: {why}"),
            Self::WentBack { task, why } => write!(f, "task {task} went back: {why}"),
            Self::PortTwice { published, services } => {
                write!(f, "port {published} was handed out to {services:?}")
            }
            Self::AddressTwice { address, owners } => {
                write!(f, "address {address} was handed out wrongly, to {owners:?}")
            }
            Self::ForgottenAlive(task) => write!(f, "task {task} was forgotten though it may still run"),
            Self::Index(what) => f.write_str(what),
        }
    }
}

/// What is wrong with a state, however it came to be.
#[must_use]
pub fn check(state: &State) -> Vec<Violation> {
    let mut found = Vec::new();
    indexes(state, &mut found);
    slots::tasks_make_sense(state, &mut found);
    slots::no_slot_runs_twice(state, &mut found);
    ports::are_handed_out_once(state, &mut found);
    addresses::are_handed_out_once(state, &mut found);
    found
}

fn indexes(state: &State, found: &mut Vec<Violation>) {
    for service in state.services() {
        let named = state.service_named(&service.spec.name).map(|named| named.id);
        if named != Some(service.id) {
            found.push(Violation::Index(format!(
                "the name {} does not lead to its service",
                service.spec.name
            )));
        }
    }
    let by_service: usize = state.services_with_tasks().map(|id| state.tasks_of_service(id).count()).sum();
    if by_service != state.tasks().len() {
        found
            .push(Violation::Index(format!("{by_service} tasks by service, {} in all", state.tasks().len())));
    }
    for task in state.tasks() {
        if !state.tasks_of_service(task.service_id).any(|other| other.id == task.id) {
            found.push(Violation::Index(format!("task {} is not among its service's", task.id)));
        }
        if let Some(node) = task.node_id
            && !state.tasks_of_node(node).any(|other| other.id == task.id)
        {
            found.push(Violation::Index(format!("task {} is not among its node's", task.id)));
        }
    }
    for attachment in state.attachments() {
        if state.node(attachment.node).is_none() || attachment.networks.is_empty() {
            found.push(Violation::Index(format!(
                "container {} is on no node or in no network",
                attachment.id
            )));
        }
    }
    for node in state.nodes() {
        if let Some(task) = state.tasks_of_node(node.id).find(|task| task.node_id != Some(node.id)) {
            found.push(Violation::Index(format!("task {} is among another node's", task.id)));
        }
    }
}
