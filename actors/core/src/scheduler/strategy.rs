//! Which of the fitting nodes a task gets: the emptiest branch of each spread preference, and there
//! the node that fails the service least, has the fewest of its tasks, then the fewest in all, then
//! the lowest id.

use std::collections::BTreeMap;

use super::demand::Demand;
use super::filter::Refusals;
use super::heaps::Heaps;
use super::node_info::NodeTable;
use super::spread::Tree;
use crate::model::Timestamp;
use crate::put_back::{Bug, is_put_back};

/// The order of nodes: failing (1 bit) | tasks of the service (31) | tasks in all (32) | rank (32).
type Key = u128;
/// A branch among its siblings: tasks of the service on it, its best node, its number.
type Bough = (u32, Key, u32);

/// Set in a node's count of the service's tasks while it keeps failing the service.
const FAILING: u32 = 1 << 31;

fn key(of_service: u32, order: u64) -> Key {
    u128::from(of_service) << 64 | u128::from(order)
}

/// The fitting nodes of one group, arranged so that the best is always on top.
struct Choice {
    leaves: Heaps<Key>,
    boughs: Heaps<Bough>,
    is_leaf: Vec<bool>,
}

impl Choice {
    /// Hang the leaves on their tree. `counts` are the service's tasks by slot, on unfit nodes too.
    fn new(tree: &Tree, mut leaves: Heaps<Key>, counts: Option<&BTreeMap<u32, u32>>) -> Self {
        let branches = tree.parents.len();
        let mut tasks = vec![0u32; branches];
        for (slot, count) in counts.into_iter().flatten() {
            tasks[tree.leaf_of[*slot as usize] as usize] += count;
        }
        let mut children = vec![0u32; branches];
        tree.parents.iter().skip(1).for_each(|parent| children[*parent as usize] += 1);
        let mut boughs = Heaps::with_room(children, (0, 0, 0));
        // Children follow their parents, so backwards each branch is whole before it is hung up.
        for branch in (0..branches).rev() {
            let best = if tree.is_leaf[branch] {
                leaves.order(branch);
                leaves.top(branch)
            } else {
                boughs.order(branch);
                boughs.top(branch).map(|(_, best, _)| best)
            };
            let parent = tree.parents[branch] as usize;
            if branch > 0 {
                tasks[parent] += tasks[branch];
                if let Some(best) = best {
                    boughs.push(parent, (tasks[branch], best, u32::try_from(branch).unwrap_or(u32::MAX)));
                }
            }
        }
        Self { leaves, boughs, is_leaf: tree.is_leaf.clone() }
    }

    /// Give one task to the best node below `branch`: `take` accounts for it and returns the node's
    /// new key, or none when the node is full.
    fn next(&mut self, branch: usize, take: &mut impl FnMut(Key) -> Option<Key>) -> bool {
        if self.is_leaf[branch] {
            let Some(top) = self.leaves.top(branch) else { return false };
            let again = take(top);
            self.leaves.replace_top(branch, again);
            return true;
        }
        let Some((tasks, _, child)) = self.boughs.top(branch) else { return false };
        if !self.next(child as usize, take) {
            return false;
        }
        let again = self.best(child as usize).map(|best| (tasks + 1, best, child));
        self.boughs.replace_top(branch, again);
        true
    }

    fn best(&self, branch: usize) -> Option<Key> {
        if self.is_leaf[branch] {
            self.leaves.top(branch)
        } else {
            self.boughs.top(branch).map(|(_, best, _)| best)
        }
    }
}

/// Where the tasks of a group went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Placed {
    /// The slot of each task's node, in the order of choice; shorter than asked when no node was left.
    pub slots: Vec<u32>,
    /// If it is shorter: which filters refuse the nodes now.
    pub refusals: Refusals,
}

impl NodeTable {
    /// Place up to `count` tasks with this demand. They count on their nodes at once.
    pub fn place(&mut self, demand: &Demand, count: usize, now: Timestamp) -> Placed {
        if count == 0 {
            return Placed::default();
        }
        self.refresh_ranks();
        let mut of_service = vec![0u32; self.nodes.len()];
        for (slot, tasks) in self.services.get(&demand.service).into_iter().flatten() {
            of_service[*slot as usize] = *tasks;
        }
        for slot in self.failures.failing(demand.service, demand.version, now) {
            of_service[slot as usize] |= FAILING;
        }
        let mut choice = self.arrange(demand, count, &of_service);
        let mut slots = Vec::with_capacity(count.min(1 << 20));
        let mut take = |key: Key| {
            let slot = self.by_rank[key as u32 as usize];
            slots.push(slot);
            let tasks = &mut of_service[slot as usize];
            let fits = self.take(demand, slot, tasks);
            fits.then(|| super::strategy::key(*tasks, self.order[slot as usize]))
        };
        for _ in 0..count {
            if !choice.next(0, &mut take) {
                break;
            }
        }
        self.settle(demand, &slots, |slot| of_service[slot as usize] & !FAILING);
        let refusals = if slots.len() < count { self.pipeline(demand).1 } else { Refusals::default() };
        Placed { slots, refusals }
    }

    /// The fitting nodes in order. `count` tasks cannot use more than the `count` best nodes of any leaf, so
    /// a node that is worse than those is dropped before its resources, the costly filter, are looked at.
    fn arrange(&mut self, demand: &Demand, count: usize, of_service: &[u32]) -> Choice {
        let candidates = self.candidates(demand);
        let tree = self.trees.tree(&self.nodes, &demand.spread);
        let (cpus, memory, generic) = (&self.cpus, &self.memory, &self.generic);
        let (nano_cpus, memory_bytes) = (demand.nano_cpus, demand.memory_bytes);
        let enough = |at: usize| {
            is_put_back(Bug::ResourcesIgnored)
                || (nano_cpus == 0 || cpus.free(at) >= nano_cpus)
                    && (memory_bytes == 0 || memory.free(at) >= memory_bytes)
                    && demand.generic.iter().all(|(kind, count)| {
                        generic.get(kind).is_some_and(|column| column.free(at) >= *count)
                    })
        };
        let most = u32::try_from(count.saturating_mul(2)).unwrap_or(u32::MAX);
        let mut leaves = Heaps::with_room(tree.sizes.iter().map(|size| *size.min(&most)).collect(), 0);
        let mut worst = vec![Key::MAX; tree.parents.len()];
        let (leaf_of, order) = (&tree.leaf_of[..], &self.order[..]);
        candidates.each(|at| {
            let (leaf, key) = (leaf_of[at] as usize, key(of_service[at], order[at]));
            if key < worst[leaf] && enough(at) {
                leaves.push(leaf, key);
                if let Some(greatest) = leaves.cut(leaf, count) {
                    worst[leaf] = greatest;
                }
            }
        });
        Choice::new(tree, leaves, self.services.get(&demand.service))
    }

    /// Count one more task on a node that has so many of the service. Returns whether yet another would fit.
    fn take(&mut self, demand: &Demand, slot: u32, of_service: &mut u32) -> bool {
        let at = slot as usize;
        self.count_task(slot);
        *of_service += 1;
        let mut fits = demand.ports.is_empty()
            && (demand.max_replicas == 0 || u64::from(*of_service & !FAILING) < demand.max_replicas);
        if demand.nano_cpus > 0 {
            self.cpus.reserve(slot, demand.nano_cpus);
            fits &= self.cpus.free(at) >= demand.nano_cpus;
        }
        if demand.memory_bytes > 0 {
            self.memory.reserve(slot, demand.memory_bytes);
            fits &= self.memory.free(at) >= demand.memory_bytes;
        }
        for (kind, count) in &demand.generic {
            if let Some(column) = self.generic.get_mut(kind) {
                column.reserve(slot, *count);
                fits &= column.free(at) >= *count;
            }
        }
        fits
    }

    /// Write down what is kept by service and by port.
    fn settle(&mut self, demand: &Demand, slots: &[u32], of_service: impl Fn(u32) -> u32) {
        if slots.is_empty() {
            return;
        }
        let nodes = self.services.entry(demand.service).or_default();
        let mut touched = slots.to_vec();
        touched.sort_unstable();
        touched.dedup();
        for slot in &touched {
            nodes.insert(*slot, of_service(*slot));
        }
        for port in &demand.ports {
            let nodes = self.ports.entry(port.clone()).or_default();
            for slot in &touched {
                *nodes.entry(*slot).or_default() += 1;
            }
        }
    }

    /// Place one task on a node that is given, without asking the filters.
    pub(super) fn place_on(&mut self, demand: &Demand, slot: u32) {
        let mut of_service = self.tasks_of(demand.service, slot);
        self.take(demand, slot, &mut of_service);
        self.settle(demand, &[slot], |_| of_service);
    }
}
