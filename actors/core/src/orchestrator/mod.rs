//! Reconciling: what the user asks for against what there is, service by service and slot by slot.
//!
//! Every decision on a service is a function of the state and the time alone (`reconcile`): what it has to
//! know about the past (attempts to restart, progress of an update) it counts from the tasks that the state
//! keeps. The [`Orchestrator`] only remembers which services have to be looked at, and when, so that a new
//! leader begins with `new(&state)` and decides as the old one would have.

mod batch;
mod fate;
mod global;
mod outdated;
mod reconcile;
mod replicated;
mod restart;
mod round;
mod slot;
mod task_reaper;
mod update;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rand::RngCore;

use crate::model::{Node, NodeId, ServiceId, ServiceMode, Task, TaskId, TaskState, Timestamp, UpdateState};
use crate::plan::Plan;
use crate::put_back::{Bug, is_put_back};
use crate::store::{Event, EventKind, ObjectId, State};

pub use outdated::outdated;
pub use round::STOP_LIMIT;
use round::{Round, Times};
pub use update::progress_deadline;

/// Steps after which a plan is closed; what is left waits for the next one.
const STEPS_PER_PLAN: usize = 256;
/// A plan that got lost is made again after this long.
const RETRY: Duration = Duration::from_secs(1);

/// Keeps services as they shall be. Knows which of them have to be looked at; everything else is in the state.
///
/// The shell proposes all steps of a plan and waits until each is committed or refused before it calls
/// [`Orchestrator::decide`] again: a decision on a state that lacks the former plan's writes would make the
/// same tasks twice. (Should that happen all the same, after a lost answer, the extra task of the slot is shut
/// down again.)
#[derive(Debug, Default)]
pub struct Orchestrator {
    services: BTreeSet<ServiceId>,
    /// When this leader's reign began, by its clock.
    since: Timestamp,
    /// Nodes whose reservations have to be added up again.
    nodes: BTreeSet<NodeId>,
    /// Nodes as they were when they were last looked at.
    known: BTreeMap<NodeId, Arc<Node>>,
    globals: BTreeSet<ServiceId>,
    /// Services whose tasks' progress has to be looked at also outside of updates.
    watched: BTreeSet<ServiceId>,
    history_limit: u64,
    wake_of: BTreeMap<ServiceId, Timestamp>,
    wakes: BTreeSet<(Timestamp, ServiceId)>,
    /// The services before it had their turn in the last plan, which was full.
    resume_at: Option<ServiceId>,
}

impl Orchestrator {
    /// Begin from a state, in a reign that began at that time: everything is looked at once.
    #[must_use]
    pub fn new(state: &State, since: Timestamp) -> Self {
        let is_global = |id: &ServiceId| {
            state.service(*id).is_some_and(|service| matches!(service.spec.mode, ServiceMode::Global))
        };
        let services: BTreeSet<_> =
            state.services().map(|service| service.id).chain(state.services_with_tasks()).collect();
        Self {
            since,
            globals: services.iter().copied().filter(is_global).collect(),
            services,
            nodes: state.nodes().map(|node| node.id).collect(),
            known: state.nodes().map(|node| (node.id, Arc::clone(node))).collect(),
            history_limit: history_limit(state),
            ..Self::default()
        }
    }

    /// Note what a change may have made necessary. `state` is the state after it.
    pub fn observe(&mut self, state: &State, event: &Event) {
        match event.object {
            ObjectId::Cluster => {
                if self.history_limit != history_limit(state) {
                    self.history_limit = history_limit(state);
                    self.services.extend(state.services_with_tasks());
                }
            }
            ObjectId::Network(_) | ObjectId::Attachment(_) => {}
            ObjectId::Node(id) => self.observe_node(state, id),
            ObjectId::Service(id) => {
                self.services.insert(id);
                match state.service(id) {
                    Some(service) if matches!(service.spec.mode, ServiceMode::Global) => {
                        self.globals.insert(id)
                    }
                    _ => self.globals.remove(&id),
                };
            }
            // Only this orchestrator removes tasks, and it looks again at what it has changed anyway.
            ObjectId::Task(id) => {
                if let Some(task) = state.task(id)
                    && (event.kind == EventKind::Created
                        || self.watched.contains(&task.service_id)
                        || matters(state, task))
                {
                    self.services.insert(task.service_id);
                }
            }
        }
    }

    fn observe_node(&mut self, state: &State, id: NodeId) {
        let now = state.node(id);
        let before = match now {
            Some(node) => self.known.insert(id, Arc::clone(node)),
            None => self.known.remove(&id),
        };
        if let (Some(before), Some(now)) = (&before, now)
            && !fate::differs(before, now)
        {
            return;
        }
        self.nodes.insert(id);
        self.services.extend(state.tasks_of_node(id).map(|task| task.service_id));
        if !is_put_back(Bug::GlobalMissesNodes) {
            self.services.extend(self.globals.iter().copied());
        }
    }

    /// What is to be done now. Services that needed something are looked at again in the next call, so that
    /// a plan that is refused or lost is made anew; on a state in which all is done the plan is empty.
    pub fn decide(&mut self, state: &State, now: Timestamp, rng: &mut dyn RngCore) -> Plan {
        self.take_due(now);
        let evicted = self.evict(state);
        let mut plan = Plan::default();
        for id in self.turn() {
            if plan.steps.len() >= STEPS_PER_PLAN {
                self.resume_at = Some(id);
                plan.wake(now);
                break;
            }
            let mut round = Round::new(state, Times { since: self.since, now }, rng, &evicted);
            reconcile::reconcile(&mut round, id);
            if round.awaits_running {
                self.watched.insert(id);
            } else {
                self.watched.remove(&id);
            }
            let part = round.finish();
            if part.is_empty() {
                self.services.remove(&id);
            } else {
                plan.wake(now.plus(RETRY));
            }
            self.set_wake(id, part.wake_at);
            plan.steps.extend(part.steps);
            plan.reasons.extend(part.reasons);
        }
        if let Some((at, _)) = self.wakes.first() {
            plan.wake(*at);
        }
        plan
    }

    /// The services to look at, beginning where the last plan was full.
    fn turn(&mut self) -> Vec<ServiceId> {
        let from = self.resume_at.take().unwrap_or_default();
        self.services.range(from..).chain(self.services.range(..from)).copied().collect()
    }

    fn take_due(&mut self, now: Timestamp) {
        while let Some((at, id)) = self.wakes.first().copied()
            && at <= now
        {
            self.set_wake(id, None);
            self.services.insert(id);
        }
    }

    fn set_wake(&mut self, id: ServiceId, at: Option<Timestamp>) {
        if let Some(old) = self.wake_of.remove(&id) {
            self.wakes.remove(&(old, id));
        }
        if let Some(at) = at {
            self.wake_of.insert(id, at);
            self.wakes.insert((at, id));
        }
    }

    /// Tasks that their nodes can no longer hold; their services are looked at.
    fn evict(&mut self, state: &State) -> BTreeMap<TaskId, String> {
        let mut evicted = BTreeMap::new();
        self.nodes.retain(|id| {
            let before = evicted.len();
            fate::overcommitted(state, *id, &mut evicted);
            evicted.len() > before
        });
        self.services.extend(evicted.keys().filter_map(|id| state.task(*id)).map(|task| task.service_id));
        evicted
    }
}

fn history_limit(state: &State) -> u64 {
    state.cluster().map_or(5, |cluster| cluster.spec.task_history_limit)
}

/// Whether a task's change can call for a decision. Progress towards running does only during an update.
fn matters(state: &State, task: &Task) -> bool {
    task.status.state.is_terminal()
        || task.desired > TaskState::Running
        || state
            .service(task.service_id)
            .and_then(|service| service.update.as_ref())
            .is_some_and(|update| update.state != UpdateState::Completed)
}
