//! The scheduler: gives each waiting task a node.
//!
//! Filters say which nodes may take a task ([`Filter`]), the strategy which of them does. Both work on
//! the [`NodeTable`], flat vectors over all nodes that are kept up to date event by event.
//!
//! A placement counts as soon as it is decided, as if it were committed. If the commit of a step then
//! fails, its tasks must be handed back with [`Scheduler::refused`], or the scheduler be made anew from
//! the state with [`Scheduler::new`]; until then they count as placed.

mod attributes;
mod bits;
mod column;
mod decide;
mod demand;
mod explain;
mod failures;
mod filter;
mod heaps;
mod node_info;
mod queue;
mod spread;
mod strategy;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use demand::Demand;
pub use explain::{NodeVerdict, Refusal};
pub use filter::{Filter, Refusals};
pub use node_info::NodeTable;
pub use strategy::Placed;

use self::demand::{host_ports, taken_ports};
use self::node_info::Held;
use self::queue::{Queue, waits};
use crate::model::{NodeId, Service, Task, TaskId, TaskSpec};
use crate::plan::Step;
use crate::store::{Event, ObjectId, State, Write};

/// Places tasks. Built from a state, then told of each event.
#[derive(Debug, Clone, Default)]
pub struct Scheduler {
    table: NodeTable,
    held: BTreeMap<TaskId, Held>,
    queue: Queue,
}

impl Scheduler {
    /// The scheduler for this state.
    #[must_use]
    pub fn new(state: &State) -> Self {
        let mut scheduler =
            Self { table: NodeTable::new(state), held: BTreeMap::new(), queue: Queue::default() };
        for task in state.tasks() {
            scheduler.look_at(state, task.id);
        }
        scheduler
    }

    /// Take in a change. The state may be newer than the event.
    pub fn observe(&mut self, state: &State, event: &Event) {
        match event.object {
            ObjectId::Node(id) => self.look_at_node(state, id),
            ObjectId::Task(id) => self.look_at(state, id),
            ObjectId::Service(_) | ObjectId::Cluster | ObjectId::Network(_) | ObjectId::Attachment(_) => {}
        }
    }

    /// A step of an earlier plan was refused: its tasks are where the state says.
    pub fn refused(&mut self, state: &State, step: &Step) {
        for write in &step.writes {
            if let Write::TaskAssign { id, .. } | Write::TaskStatus(id, _) = write {
                self.release(*id);
                self.look_at(state, *id);
            }
        }
    }

    /// How many tasks wait for a node.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// For a task of this specification, every node's verdict, by node id. The service need not exist yet.
    #[must_use]
    pub fn explain(&self, state: &State, spec: &TaskSpec, service: &Service) -> Vec<NodeVerdict> {
        let demand = Demand::new(service.id, service.meta.spec_version, spec, &host_ports(service));
        let mut verdicts = self.table.verdicts(&demand);
        for verdict in &mut verdicts {
            let node = verdict.node;
            for refusal in verdict.refusals.iter_mut().filter(|r| r.filter == Filter::HostPort) {
                let holders: Vec<String> = state
                    .tasks_of_node(node)
                    .filter(|task| task.occupies_node())
                    .filter(|task| {
                        let taken = taken_ports(&task.ports);
                        taken.iter().any(|taken| demand.ports.iter().any(|port| port.clashes(taken)))
                    })
                    .map(|task| task.slot_name())
                    .collect();
                if !holders.is_empty() {
                    refusal.why = format!("{} by {}", refusal.why, holders.join(", "));
                }
            }
        }
        verdicts
    }

    fn look_at_node(&mut self, state: &State, id: NodeId) {
        if let Some(node) = state.node(id) {
            if self.table.put(node) {
                for task in state.tasks_of_node(id) {
                    self.look_at(state, task.id);
                }
            }
            return;
        }
        let Some(slot) = self.table.slot(id) else { return };
        // Rare: a node is removed by hand.
        let lost: Vec<TaskId> =
            self.held.iter().filter(|(_, held)| held.slot == slot).map(|(id, _)| *id).collect();
        lost.iter().for_each(|task| self.release(*task));
        self.table.remove(id);
        lost.iter().for_each(|task| self.look_at(state, *task));
    }

    /// Take in what the state says of a task.
    fn look_at(&mut self, state: &State, id: TaskId) {
        let Some(task) = state.task(id) else {
            self.release(id);
            self.queue.remove(id);
            return;
        };
        if waits(task) && self.held.get(&id).is_some_and(|held| held.proposed) {
            // Whatever became of it otherwise, the placement is on its way: its node has no room for another until it is
            // committed or refused.
            return;
        }
        self.table.note_failure(task, id, task.status.at);
        self.release(id);
        if let Some(held) = self.holding(task) {
            self.table.hold(&held);
            self.held.insert(id, held);
        }
        if waits(task) {
            self.queue.put(task);
        } else {
            self.queue.remove(id);
        }
    }

    fn holding(&self, task: &Task) -> Option<Held> {
        let slot = task.node_id.filter(|_| task.occupies_node()).and_then(|node| self.table.slot(node))?;
        Some(Held {
            slot,
            service: task.service_id,
            spec: Arc::clone(&task.spec),
            ports: taken_ports(&task.ports).into(),
            live: task.is_live(),
            proposed: false,
        })
    }

    fn release(&mut self, id: TaskId) {
        if let Some(held) = self.held.remove(&id) {
            self.table.release(&held);
        }
    }
}
