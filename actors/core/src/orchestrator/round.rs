//! One look at one service: gathers what is to be written, why, and when to look again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rand::RngCore;

use crate::mesh::Options;
use crate::model::{Meta, PortMode, Service, Slot, Task, TaskId, TaskState, TaskStatus, Timestamp};
use crate::plan::Plan;
use crate::put_back::{Bug, is_put_back};
use crate::store::{Expect, ObjectId, State, Write};

use super::batch::{Batch, WRITES_PER_SHAKY_STEP, WRITES_PER_STEP};
use super::fate::may_run;
use super::outdated::host_ports;
use super::slot::SlotTasks;

/// Tasks made in one look at a service; the next look makes more.
pub(super) const CREATED_PER_ROUND: usize = 8192;
/// Reasons given in one look at a service: the rest would say the same.
const REASONS_PER_ROUND: usize = 64;
/// A task that was asked to stop holds its successor back for its drain, its grace period and this long at most.
pub const STOP_LIMIT: Duration = Duration::from_secs(60);

/// How long a task's traffic may go on before it is stopped.
fn drain_of(service: &Service) -> Duration {
    let published = service.spec.endpoint.ports_in(PortMode::Ingress).next().is_some();
    if published { Options::of(service).drain } else { Duration::ZERO }
}

/// How a task is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Successor {
    /// Hold it back this long.
    pub(super) delay: Duration,
    /// Whether the old task is on a node that can still report on it: then a step may be refused.
    pub(super) shaky: bool,
}

/// By the leader's clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    /// When its reign began.
    pub(super) since: Timestamp,
    /// The time of this look.
    pub(super) now: Timestamp,
}

/// See the module.
pub(super) struct Round<'a> {
    /// The state looked at.
    pub(super) state: &'a State,
    /// The time of this look.
    pub(super) now: Timestamp,
    since: Timestamp,
    /// Tasks that their nodes cannot hold any more, and why.
    pub(super) evicted: &'a BTreeMap<TaskId, String>,
    rng: &'a mut dyn RngCore,
    created: usize,
    handled: BTreeSet<TaskId>,
    stops: Batch,
    lost: Batch,
    fills: Batch,
    moves: Batch,
    updates: Batch,
    last: Batch,
    unconditional: Batch,
    reasons: Vec<String>,
    wake_at: Option<Timestamp>,
    /// Whether something in the service waits for a task to run.
    pub(super) awaits_running: bool,
}

impl<'a> Round<'a> {
    /// Begin. [`Round::relies_on`] must follow if the service exists.
    pub(super) fn new(
        state: &'a State,
        times: Times,
        rng: &'a mut dyn RngCore,
        evicted: &'a BTreeMap<TaskId, String>,
    ) -> Self {
        let batch = |most| Batch::new(Vec::new(), most);
        Self {
            state,
            now: times.now,
            since: times.since,
            evicted,
            rng,
            created: 0,
            handled: BTreeSet::new(),
            stops: batch(WRITES_PER_STEP),
            lost: batch(WRITES_PER_STEP),
            fills: batch(WRITES_PER_STEP),
            moves: batch(WRITES_PER_SHAKY_STEP),
            updates: batch(WRITES_PER_STEP),
            last: batch(WRITES_PER_STEP),
            unconditional: batch(WRITES_PER_STEP),
            reasons: Vec::new(),
            wake_at: None,
            awaits_running: false,
        }
    }

    /// All that is written from now on holds only for this version of the service's specification.
    pub(super) fn relies_on(&mut self, service: &Service) {
        let mut base = vec![Expect::SpecVersion(ObjectId::Service(service.id), service.meta.spec_version)];
        if is_put_back(Bug::PlanForOldVersion) {
            base.clear();
        }
        let batch = |most| Batch::new(base.clone(), most);
        self.stops = batch(WRITES_PER_STEP);
        self.lost = batch(WRITES_PER_STEP);
        self.fills = batch(WRITES_PER_STEP);
        self.moves = batch(WRITES_PER_SHAKY_STEP);
        self.updates = batch(WRITES_PER_STEP);
        self.last = batch(WRITES_PER_STEP);
    }

    /// What came of it.
    pub(super) fn finish(self) -> Plan {
        let mut plan = Plan { reasons: self.reasons, wake_at: self.wake_at, ..Plan::default() };
        // What goes comes first, so that at no time there is more than asked for; a change of the
        // specification comes last, as the other steps rely on the present one.
        let (early, late) = ([self.stops, self.lost, self.unconditional], [self.updates, self.fills]);
        for batch in early.into_iter().chain(late).chain([self.moves, self.last]) {
            plan.steps.extend(batch.finish());
        }
        plan
    }

    /// Say why.
    pub(super) fn because(&mut self, reason: impl FnOnce() -> String) {
        if self.reasons.len() < REASONS_PER_ROUND {
            self.reasons.push(reason());
        }
    }

    /// Look again at that time.
    pub(super) fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |known| known.min(at)));
    }

    /// Whether this look may make more tasks. The look after it goes on.
    pub(super) fn may_create(&self) -> bool {
        self.created < CREATED_PER_ROUND
    }

    /// A write that is right whatever the service has become.
    pub(super) fn always(&mut self, write: Write) {
        self.unconditional.add(None, vec![write]);
    }

    /// A task goes, as this specification of the service wants it.
    pub(super) fn stop(&mut self, id: TaskId, desired: TaskState) {
        self.stops.add(None, vec![Write::TaskDesired(id, desired)]);
    }

    /// Writes on the service itself, in a step of their own.
    pub(super) fn on_service(&mut self, writes: Vec<Write>) {
        self.updates.add(None, writes);
    }

    /// Writes that change the service's specification, after all that relies on the present one.
    pub(super) fn on_specification(&mut self, writes: Vec<Write>) {
        self.last.add(None, writes);
    }

    /// The task shall stop.
    pub(super) fn shut_down(&mut self, task: &Task, why: &str) {
        self.because(|| format!("{}: task {} shuts down: {why}", task.slot_name(), task.id));
        self.stop(task.id, TaskState::Shutdown);
    }

    /// The task's node is gone, and the task with it.
    pub(super) fn orphan(&mut self, task: &Task, why: &str) {
        if self.handled.insert(task.id) {
            self.unconditional.add(None, vec![orphaned(task, self.now, why)]);
        }
    }

    /// A task for a slot that nothing holds. It waits for those in the slot that still stop.
    pub(super) fn fill(&mut self, service: &Service, slot: Slot, tasks: &[&Arc<Task>]) {
        let held_back = tasks.iter().any(|task| may_run(self.state, task));
        let task = self.make(service, slot, held_back, None);
        self.because(|| format!("{}: a task is missing, {} is made", task.slot_name(), task.id));
        self.fills.add(None, vec![Write::TaskCreate(task)]);
    }

    /// Put a new task in the old one's place: both or none. It is held back until the delay is over and the
    /// old one has stopped, unless that one cannot be waited for.
    pub(super) fn replace(
        &mut self,
        service: &Service,
        slot: &SlotTasks<'_>,
        old: &Arc<Task>,
        how: Successor,
        why: &str,
    ) {
        let start_after = (!how.delay.is_zero()).then(|| self.now.plus(how.delay));
        let stopping =
            |task: &&Arc<Task>| may_run(self.state, task) && !is_put_back(Bug::SuccessorNotHeldBack);
        let held_back = start_after.is_some() || slot.tasks.iter().any(stopping);
        let new = self.make(service, old.slot, held_back, start_after);
        self.because(|| format!("{}: task {} replaces {}: {why}", old.slot_name(), new.id, old.id));
        let mut writes = vec![Write::TaskDesired(old.id, TaskState::Shutdown)];
        if let Some(node) = old.node_id
            && old.occupies_node()
        {
            if self.state.node(node).is_none() {
                writes.push(orphaned(old, self.now, why));
            } else if how.shaky && !why.is_empty() {
                writes.push(explained(old, why));
            }
        }
        self.handled.insert(old.id);
        writes.push(Write::TaskCreate(new));
        let expect = Some(Expect::Revision(ObjectId::Task(old.id), old.meta.revision));
        let batch = if how.shaky { &mut self.moves } else { &mut self.lost };
        batch.add(expect, writes);
    }

    /// Put a new task beside the old one, which stays until the new one runs.
    pub(super) fn precede(&mut self, service: &Service, old: &Arc<Task>, why: &str) {
        let new = self.make(service, old.slot, false, None);
        self.because(|| format!("{}: task {} will replace {}: {why}", old.slot_name(), new.id, old.id));
        let expect = Expect::Revision(ObjectId::Task(old.id), old.meta.revision);
        self.moves.add(Some(expect), vec![Write::TaskCreate(new)]);
    }

    /// Let a task that is held back start, once its delay is over and its predecessors have stopped.
    pub(super) fn release(&mut self, slot: &SlotTasks<'_>, task: &Task) {
        let is_held = task.desired == TaskState::Ready && !task.status.state.is_terminal();
        if !is_held || self.handled.contains(&task.id) {
            return;
        }
        let began = task.meta.created_at;
        let delayed_to = task.start_after.and_then(|at| began.waits(at.since(began), self.now));
        // What another leader's clock said cannot be compared: then it begins with this reign.
        let held_since = if (self.since..=self.now).contains(&began) { began } else { self.since };
        let drain = self.state.service(task.service_id).map_or(Duration::ZERO, |service| drain_of(service));
        let blocked_to = slot
            .tasks
            .iter()
            .filter(|other| other.desired > TaskState::Running && may_run(self.state, other))
            // One that waits too long does no harm, and two that run do.
            .map(|other| held_since.plus(STOP_LIMIT + drain + other.spec.container.stop_grace()))
            .filter(|at| *at > self.now)
            .max();
        match delayed_to.max(blocked_to) {
            Some(at) => self.wake(at),
            None => {
                self.because(|| format!("{}: task {} may start", task.slot_name(), task.id));
                self.always(Write::TaskDesired(task.id, TaskState::Running));
            }
        }
    }

    fn make(
        &mut self,
        service: &Service,
        slot: Slot,
        held_back: bool,
        start_after: Option<Timestamp>,
    ) -> Arc<Task> {
        self.created += 1;
        let node_id = match slot {
            Slot::Replica(_) => None,
            Slot::Node(id) => Some(id),
        };
        Arc::new(Task {
            meta: Meta::default(),
            id: TaskId::random(self.rng),
            service_id: service.id,
            service_name: service.spec.name.as_str().into(),
            slot,
            node_id,
            spec: Arc::clone(&service.spec.task),
            spec_version: service.meta.spec_version,
            ports: host_ports(service),
            networks: Vec::new(),
            desired: if held_back { TaskState::Ready } else { TaskState::Running },
            start_after,
            status: TaskStatus {
                state: TaskState::Pending,
                at: self.now,
                message: "pending task scheduling".into(),
                ..TaskStatus::default()
            },
        })
    }
}

fn orphaned(task: &Task, now: Timestamp, why: &str) -> Write {
    let message = format!("orphaned: {why}");
    Write::TaskStatus(
        task.id,
        TaskStatus { state: TaskState::Orphaned, at: now, message, ..TaskStatus::default() },
    )
}

/// The task's own state, with the reason why it has to go.
fn explained(task: &Task, why: &str) -> Write {
    Write::TaskStatus(task.id, TaskStatus { message: format!("shuts down: {why}"), ..task.status.clone() })
}
