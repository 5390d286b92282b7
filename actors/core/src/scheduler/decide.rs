//! The decision: waiting tasks in, a plan out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::Scheduler;
use super::demand::{Demand, host_ports};
use super::filter::Refusals;
use super::node_info::Held;
use super::queue::{Group, GroupKey};
use crate::model::{NetworkId, PortConfig, TaskId, TaskSpec, TaskState, TaskStatus, Timestamp};
use crate::plan::{Plan, Step};
use crate::put_back::{Bug, is_put_back};
use crate::store::{Expect, State, Write};

/// Writes in one step at most.
pub(super) const STEP_WRITES_MAX: usize = 256;
/// A task is told a changed reason no sooner than this after the last: while nodes come and go the numbers
/// in it change all the time, and each change is a write for each waiting task.
const RETELL_AFTER: Duration = Duration::from_secs(5);
const ASSIGNED: &str = "scheduler assigned task to node";
const CONFIRMED: &str = "scheduler confirmed task can run on preassigned node";

/// What a round of decisions came to.
#[derive(Default)]
struct Outcome {
    assigned: Vec<(TaskId, u32, Write)>,
    waiting: Vec<Write>,
    reasons: Vec<String>,
    wake_at: Option<Timestamp>,
    /// Addresses that were counted on, by network.
    addresses: BTreeMap<NetworkId, usize>,
}

/// One group at work.
struct Round<'a> {
    demand: Demand,
    group: &'a mut Group,
    ports: Vec<PortConfig>,
    now: Timestamp,
    /// So many of its tasks find addresses, and what the others are told.
    room: (usize, String),
}

impl Scheduler {
    /// Place what waits. Tasks whose service is gone are left to the orchestrator.
    ///
    /// A step with assignments expects that no user changed any of its nodes (availability, labels)
    /// and none went down since; it is then to be given to [`Scheduler::refused`] and decided anew.
    pub fn decide(&mut self, state: &State, now: Timestamp) -> Plan {
        self.table.failures.prune(now);
        let mut outcome = Outcome::default();
        let keys: Vec<GroupKey> = self.queue.groups.keys().cloned().collect();
        // Copies of global services first: they have no other node to go to.
        for given in [true, false] {
            for key in &keys {
                self.decide_group(state, key, given, now, &mut outcome);
            }
        }
        self.plan(outcome)
    }

    fn decide_group(
        &mut self,
        state: &State,
        key: &GroupKey,
        given: bool,
        now: Timestamp,
        outcome: &mut Outcome,
    ) {
        let Some(service) = state.service(key.0) else { return };
        let Some(mut group) = self.queue.take(key) else { return };
        let ports = if group.ports.is_empty() { host_ports(service) } else { group.ports.clone() };
        let demand = Demand::new(key.0, key.1, &group.spec, &ports);
        let first = outcome.assigned.len();
        let room = room(state, &group.spec, &outcome.addresses);
        let mut round = Round { demand, group: &mut group, ports, now, room };
        if given {
            self.confirm(&mut round, outcome);
        } else {
            self.spread(&mut round, outcome);
        }
        let count = outcome.assigned.len() - first;
        for wish in group.spec.networks.iter().filter(|_| count > 0) {
            *outcome.addresses.entry(wish.network).or_default() += count;
        }
        let placed = outcome.assigned[first..].iter().map(|(id, _, _)| *id);
        self.queue.put_back(key.clone(), group, placed);
    }

    /// Tasks whose node was chosen by their orchestrator: only check it.
    fn confirm(&mut self, round: &mut Round<'_>, outcome: &mut Outcome) {
        let given: Vec<_> =
            round.group.tasks.iter().filter_map(|(id, waiting)| Some((*id, waiting.node?))).collect();
        for (id, node_id) in given {
            let found = self.table.slot(node_id).and_then(|slot| Some((slot, self.table.node(slot)?)));
            let Some((slot, node)) = found else {
                let why = format!("no suitable node (its node {node_id} is not part of the cluster)");
                round.wait(&[id], &why, outcome);
                continue;
            };
            let refusals = self.table.refusals(slot, node, &round.demand);
            if let Some(first) = refusals.first() {
                let whys: Vec<&str> = refusals.iter().map(|refusal| refusal.why.as_str()).collect();
                let why = format!("{}: {} {}", Refusals::one(first.filter), node.name(), whys.join(", "));
                round.wait(&[id], &why, outcome);
            } else if round.room.0 == 0 {
                let why = round.room.1.clone();
                round.wait(&[id], &why, outcome);
            } else {
                round.room.0 -= 1;
                self.table.place_on(&round.demand, slot);
                self.assign(round, id, slot, CONFIRMED, outcome);
            }
        }
    }

    /// Tasks that may run anywhere.
    fn spread(&mut self, round: &mut Round<'_>, outcome: &mut Outcome) {
        let free: Vec<TaskId> =
            round.group.tasks.iter().filter(|(_, w)| w.node.is_none()).map(|(id, _)| *id).collect();
        if free.is_empty() {
            return;
        }
        let (free, homeless) = free.split_at(free.len().min(round.room.0));
        let why = round.room.1.clone();
        round.wait(homeless, &why, outcome);
        if free.is_empty() {
            return;
        }
        let placed = self.table.place(&round.demand, free.len(), round.now);
        for (id, slot) in free.iter().zip(&placed.slots) {
            self.assign(round, *id, *slot, ASSIGNED, outcome);
        }
        let (done, all) = (placed.slots.len(), free.len());
        let name = &round.group.service_name;
        if done < all {
            let why = placed.refusals.to_string();
            outcome.reasons.push(format!("service {name}: {done} of {all} tasks placed, {why}"));
            round.wait(&free[done..], &why, outcome);
        } else {
            outcome.reasons.push(format!("service {name}: {done} tasks placed"));
        }
    }

    /// Record a placement that the table counts already.
    fn assign(&mut self, round: &mut Round<'_>, id: TaskId, slot: u32, message: &str, outcome: &mut Outcome) {
        if round.group.tasks.remove(&id).is_none() {
            return;
        }
        let Some(node) = self.table.node(slot).map(|node| node.id) else { return };
        self.held.insert(
            id,
            Held {
                slot,
                service: round.demand.service,
                spec: Arc::clone(&round.group.spec),
                ports: round.demand.ports.as_slice().into(),
                live: true,
                proposed: true,
            },
        );
        let (ports, at) = (round.ports.clone(), round.now);
        let write = Write::TaskAssign { id, node, ports, message: message.to_owned(), at };
        outcome.assigned.push((id, slot, write));
    }

    fn plan(&self, outcome: Outcome) -> Plan {
        let mut plan = Plan { reasons: outcome.reasons, wake_at: outcome.wake_at, ..Plan::default() };
        let mut assigned = outcome.assigned.into_iter().peekable();
        while assigned.peek().is_some() {
            let mut step = Step::default();
            let mut slots = Vec::with_capacity(STEP_WRITES_MAX);
            for (_, slot, write) in assigned.by_ref().take(STEP_WRITES_MAX) {
                slots.push(slot);
                step.writes.push(write);
            }
            // By id, so that plans are alike however the table came about.
            slots.sort_unstable_by_key(|slot| self.table.node(*slot).map(|node| node.id));
            slots.dedup();
            // What the user says of a node must not have changed meanwhile, nor must it have gone down: a paused node
            // takes no task, and one that is lost least of all. Nor must it have another role, which constraints may name.
            step.expects = slots
                .into_iter()
                .filter(|_| !is_put_back(Bug::PlacementNotChecked))
                .filter_map(|slot| self.table.node(slot))
                .flat_map(|node| {
                    [Expect::Placeable(node.id, node.meta.spec_version), Expect::Role(node.id, node.role)]
                })
                .collect();
            plan.steps.push(step);
        }
        let mut waiting = outcome.waiting.into_iter().peekable();
        while waiting.peek().is_some() {
            let writes = waiting.by_ref().take(STEP_WRITES_MAX).collect();
            plan.steps.push(Step { expects: Vec::new(), writes });
        }
        plan
    }
}

/// How many tasks of this specification find addresses in all of their networks, beside those counted on, and what the
/// others wait for.
fn room(state: &State, spec: &TaskSpec, counted: &BTreeMap<NetworkId, usize>) -> (usize, String) {
    let rooms = spec.networks.iter().map(|wish| {
        let (room, why) = state.room_in(wish.network);
        (room.saturating_sub(counted.get(&wish.network).copied().unwrap_or_default()), why)
    });
    rooms.min().unwrap_or((usize::MAX, String::new()))
}

impl Round<'_> {
    /// Tell tasks why they wait, unless they know or were told something else only now.
    fn wait(&mut self, ids: &[TaskId], why: &str, outcome: &mut Outcome) {
        let why: Arc<str> = why.into();
        for id in ids {
            let Some(waiting) = self.group.tasks.get_mut(id) else { continue };
            if let Some((told, at)) = &waiting.told {
                if *told == why {
                    continue;
                }
                let due = at.plus(RETELL_AFTER);
                // A time that lies ahead was told by another leader's clock.
                if !told.is_empty() && *at <= self.now && self.now < due {
                    outcome.wake_at = Some(outcome.wake_at.map_or(due, |known| known.min(due)));
                    continue;
                }
            }
            waiting.told = Some((Arc::clone(&why), self.now));
            let status = TaskStatus {
                state: TaskState::Pending,
                at: self.now,
                message: why.to_string(),
                error: why.to_string(),
                container: None,
            };
            outcome.waiting.push(Write::TaskStatus(*id, status));
        }
    }
}
