//! What the scheduler knows of all nodes, in flat vectors over a dense index.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::attributes::Masks;
use super::bits::Bits;
use super::column::Column;
use super::demand::HostPort;
use super::failures::Failures;
use super::spread::Trees;
use crate::model::{Node, NodeId, NodeState, Resources, ServiceId, TaskId, TaskSpec, TaskState, Timestamp};
use crate::put_back::{Bug, is_put_back};
use crate::store::State;

/// One task in [`NodeTable::order`].
const ONE_TASK: u64 = 1 << 32;

/// A task that counts on its node.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) slot: u32,
    pub(super) service: ServiceId,
    pub(super) spec: Arc<TaskSpec>,
    pub(super) ports: Arc<[HostPort]>,
    /// Whether it shall go on running: only such tasks count for spread and for the maximum per node.
    pub(super) live: bool,
    /// The placement is on its way, and was not seen committed yet.
    pub(super) proposed: bool,
}

/// All nodes with what is free on them. Placing a task on it takes effect at once.
///
/// Nodes have a dense index (a slot), reused after a removal. Ties are broken by node id, never
/// by slot, so that two tables of the same state decide alike however they came about.
#[derive(Debug, Clone, Default)]
pub struct NodeTable {
    pub(super) nodes: Vec<Option<Arc<Node>>>,
    index: BTreeMap<NodeId, u32>,
    spare: Vec<u32>,
    /// Each node's live tasks (upper half) and its place in the order of ids (lower half; stale after a node
    /// came): as one number, the order of nodes that are alike to a service.
    pub(super) order: Vec<u64>,
    pub(super) by_rank: Vec<u32>,
    rank_stale: bool,
    pub(super) known: Bits,
    pub(super) ready: Bits,
    pub(super) cpus: Column,
    pub(super) memory: Column,
    pub(super) generic: BTreeMap<String, Column>,
    /// Live tasks of each service on the nodes that have any.
    pub(super) services: BTreeMap<ServiceId, BTreeMap<u32, u32>>,
    /// How many tasks take a port on the nodes where any does.
    pub(super) ports: BTreeMap<HostPort, BTreeMap<u32, u32>>,
    pub(super) failures: Failures,
    pub(super) masks: Masks,
    pub(super) trees: Trees,
}

impl NodeTable {
    /// The nodes of the state, without their tasks.
    #[must_use]
    pub fn new(state: &State) -> Self {
        let mut table = Self::default();
        for node in state.nodes() {
            table.put(node);
        }
        table
    }

    /// How many nodes it knows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether it knows none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// The node at a slot.
    #[must_use]
    pub fn node(&self, slot: u32) -> Option<&Arc<Node>> {
        self.nodes.get(slot as usize).and_then(Option::as_ref)
    }

    /// The slot of a node.
    #[must_use]
    pub fn slot(&self, id: NodeId) -> Option<u32> {
        self.index.get(&id).copied()
    }

    /// All nodes with their slots, by id.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Arc<Node>)> {
        self.index.values().filter_map(|slot| Some((*slot, self.node(*slot)?)))
    }

    /// Take in a node, or what changed of it. Returns whether it is new.
    pub(super) fn put(&mut self, node: &Arc<Node>) -> bool {
        let known = self.slot(node.id);
        let slot = known.unwrap_or_else(|| self.add(node.id));
        let at = slot as usize;
        if self.nodes[at].as_ref().is_some_and(|old| Arc::ptr_eq(old, node)) {
            return false;
        }
        self.set_capacity(slot, node.description.as_ref().map(|d| &d.resources));
        let blind = is_put_back(Bug::AvailabilityIgnored) && node.status.state == NodeState::Ready;
        self.ready.set(slot, blind || node.is_schedulable());
        self.masks.update(slot, Some(node));
        self.trees.update(slot, node);
        self.nodes[at] = Some(Arc::clone(node));
        known.is_none()
    }

    fn add(&mut self, id: NodeId) -> u32 {
        let slot = self.spare.pop().unwrap_or_else(|| {
            self.nodes.push(None);
            self.order.push(0);
            u32::try_from(self.nodes.len() - 1).unwrap_or(u32::MAX)
        });
        self.index.insert(id, slot);
        self.known.set(slot, true);
        self.rank_stale = true;
        slot
    }

    fn set_capacity(&mut self, slot: u32, has: Option<&Resources>) {
        let none = Resources::default();
        let has = has.unwrap_or(&none);
        self.cpus.set_capacity(slot, has.nano_cpus);
        self.memory.set_capacity(slot, has.memory_bytes);
        for kind in has.generic.keys() {
            if !self.generic.contains_key(kind) {
                self.generic.insert(kind.clone(), Column::default());
            }
        }
        for (kind, column) in &mut self.generic {
            column.set_capacity(slot, has.generic.get(kind).copied().unwrap_or_default());
        }
    }

    /// Forget a node; what was held there must be released beforehand. Returns its slot.
    pub(super) fn remove(&mut self, id: NodeId) -> Option<u32> {
        let slot = self.index.remove(&id)?;
        self.nodes[slot as usize] = None;
        self.known.set(slot, false);
        self.ready.set(slot, false);
        self.cpus.clear(slot);
        self.memory.clear(slot);
        self.generic.values_mut().for_each(|column| column.clear(slot));
        self.masks.update(slot, None);
        self.trees.remove(slot);
        self.failures.forget(slot);
        self.spare.push(slot);
        Some(slot)
    }

    /// Count a task on its node.
    pub(super) fn hold(&mut self, held: &Held) {
        let (slot, reserved) = (held.slot, &held.spec.resources.reservations);
        self.cpus.reserve(slot, reserved.nano_cpus);
        self.memory.reserve(slot, reserved.memory_bytes);
        for (kind, count) in &reserved.generic {
            self.generic.entry(kind.clone()).or_default().reserve(slot, *count);
        }
        for port in held.ports.iter() {
            *self.ports.entry(port.clone()).or_default().entry(slot).or_default() += 1;
        }
        if held.live {
            self.count_task(slot);
            *self.services.entry(held.service).or_default().entry(slot).or_default() += 1;
        }
    }

    /// Count a task no more.
    pub(super) fn release(&mut self, held: &Held) {
        let (slot, reserved) = (held.slot, &held.spec.resources.reservations);
        self.cpus.release(slot, reserved.nano_cpus);
        self.memory.release(slot, reserved.memory_bytes);
        for (kind, count) in &reserved.generic {
            if let Some(column) = self.generic.get_mut(kind) {
                column.release(slot, *count);
            }
        }
        for port in held.ports.iter() {
            decrease(&mut self.ports, port, slot);
        }
        if held.live {
            let order = &mut self.order[slot as usize];
            *order = order.checked_sub(ONE_TASK).unwrap_or(*order);
            decrease(&mut self.services, &held.service, slot);
        }
    }

    /// One more live task on a node.
    pub(super) fn count_task(&mut self, slot: u32) {
        self.order[slot as usize] += ONE_TASK;
    }

    /// Live tasks on a node.
    pub(super) fn tasks_on(&self, slot: u32) -> u32 {
        (self.order[slot as usize] >> 32) as u32
    }

    /// The nodes on which a task takes a port that leaves no room for this one.
    pub(super) fn port_takers(&self, port: &HostPort) -> impl Iterator<Item = u32> {
        let alike = self.ports.range(port.first_alike()..);
        let alike =
            alike.take_while(|(taken, _)| (taken.protocol, taken.number) == (port.protocol, port.number));
        alike.filter(|(taken, _)| taken.clashes(port)).flat_map(|(_, nodes)| nodes.keys().copied())
    }

    /// Live tasks of a service on a node.
    pub(super) fn tasks_of(&self, service: ServiceId, slot: u32) -> u32 {
        self.services.get(&service).and_then(|nodes| nodes.get(&slot)).copied().unwrap_or_default()
    }

    /// Remember that a task failed on a node.
    pub(super) fn note_failure(&mut self, task: &crate::model::Task, id: TaskId, at: Timestamp) {
        let failed = matches!(task.status.state, TaskState::Failed | TaskState::Rejected);
        // The copies of a global service are not placed by choice.
        let chosen = matches!(task.slot, crate::model::Slot::Replica(_));
        if failed
            && chosen
            && let Some(slot) = task.node_id.and_then(|node| self.slot(node))
        {
            self.failures.note(task.service_id, task.spec_version, slot, id, at);
        }
    }

    /// Bring the order of ids up to date.
    pub(super) fn refresh_ranks(&mut self) {
        if !self.rank_stale {
            return;
        }
        self.by_rank.clear();
        for (rank, slot) in (0u32..).zip(self.index.values()) {
            let order = &mut self.order[*slot as usize];
            *order = *order & !u64::from(u32::MAX) | u64::from(rank);
            self.by_rank.push(*slot);
        }
        self.rank_stale = false;
    }
}

fn decrease<K: Ord>(counts: &mut BTreeMap<K, BTreeMap<u32, u32>>, key: &K, slot: u32) {
    let Some(nodes) = counts.get_mut(key) else { return };
    if let Some(count) = nodes.get_mut(&slot) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            nodes.remove(&slot);
        }
    }
    if nodes.is_empty() {
        counts.remove(key);
    }
}
