//! The actor: holds the tasks, asks core for each one's next step, begins it, takes in its outcome.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actix::{
    Actor, ActorFutureExt, AsyncContext, Context, ContextFutureSpawner, Handler, ResponseActFuture,
    SpawnHandle, WrapFuture,
};
use shoal_core::model::{Task, TaskId, TaskState, TaskStatus, Timestamp};
use shoal_core::put_back::{Bug, is_put_back};
use shoal_core::task::{
    Action, Container, Controller, ControllerError, Local, Next, Outcome, interrupts, step,
};

use super::handle::Shared;
use super::messages::{ChangeAssignments, Leave, SetComplete, Shutdown, StepDone, StepProgress, Wake};
use super::records::Records;
use super::steps::{Gates, SICK_DRAIN_MAX, Step};
use super::sweep::Sweep;
use super::{Clock, Limits, StoredTask, TaskStore};

/// A task held here.
pub(super) struct Entry {
    pub(super) task: Arc<Task>,
    pub(super) local: Local,
    step: Option<Step>,
    timer: Option<SpawnHandle>,
    /// From the records, and not looked at since.
    restored: bool,
}

impl Entry {
    fn new(task: Arc<Task>, local: Local, restored: bool) -> Self {
        Self { task, local, step: None, timer: None, restored }
    }
}

/// Holds this node's tasks.
pub(super) struct TaskRunner {
    pub(super) tasks: BTreeMap<TaskId, Entry>,
    pub(super) controller: Arc<dyn Controller>,
    pub(super) records: Records,
    pub(super) sweep: Sweep,
    pub(super) gates: Gates,
    pub(super) limits: Limits,
    pub(super) shared: Arc<Shared>,
    clock: Clock,
    steps: u64,
    /// The node leaves: what the managers still say of its tasks changes nothing any more.
    leaving: bool,
}

impl TaskRunner {
    pub(super) fn new(
        controller: Arc<dyn Controller>,
        store: Arc<dyn TaskStore>,
        clock: Clock,
        limits: Limits,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            tasks: BTreeMap::new(),
            controller,
            records: Records::new(store),
            sweep: Sweep::default(),
            gates: Gates::new(&limits),
            limits,
            shared,
            clock,
            steps: 0,
            leaving: false,
        }
    }

    fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// Take up the tasks of the records, and tell anew how each fares: nobody knows what was acknowledged.
    fn restore(&mut self, stored: Vec<StoredTask>, ctx: &mut Context<Self>) {
        let ids: Vec<TaskId> = stored.iter().map(|stored| stored.task.id).collect();
        for StoredTask { task, status } in stored {
            self.shared.outbox.put(task.id, status.clone());
            self.track(None, Some(status.state));
            let local = Local { drains: self.controller.drains(), ..Local::restored(status) };
            self.tasks.insert(task.id, Entry::new(task, local, true));
        }
        for id in ids {
            self.drive(id, ctx);
        }
    }

    /// A task from a manager; new or changed.
    fn assign(&mut self, task: Arc<Task>, complete: bool, ctx: &mut Context<Self>) {
        let id = task.id;
        if self.leaving {
            return;
        }
        let Some(entry) = self.tasks.get_mut(&id) else {
            if self.tasks.len() >= self.limits.tasks {
                tracing::error!(task = %id, limit = self.limits.tasks, "too many tasks; this one is not taken");
                return;
            }
            let local = Local { drains: self.controller.drains(), ..Local::assigned(&task, !complete) };
            self.track(None, Some(local.status.state));
            self.tasks.insert(id, Entry::new(task, local, false));
            self.keep(id, ctx);
            self.drive(id, ctx);
            return;
        };
        let mut task = task;
        entry.local.removed = false;
        if task.desired < entry.task.desired {
            // A late message of an old session: what shall end never shall run again.
            Arc::make_mut(&mut task).desired = entry.task.desired;
        }
        let (theirs, ours) = (task.status.clone(), entry.local.status.state);
        let changed = *task != *entry.task;
        entry.task = task;
        if theirs.state > ours {
            // They know better: an earlier life of this node told them, or they gave the task up.
            entry.local.container = Container::Unknown;
            entry.local.status = theirs;
            self.track(Some(ours), self.tasks.get(&id).map(|e| e.local.status.state));
        } else if complete && theirs.state < ours && !is_put_back(Bug::ReportAckedEarly) {
            let status = entry.local.status.clone();
            self.shared.outbox.put(id, status);
        }
        if changed {
            self.keep(id, ctx);
        }
        self.drive(id, ctx);
    }

    fn unassign(&mut self, id: TaskId, ctx: &mut Context<Self>) {
        if let Some(entry) = self.tasks.get_mut(&id) {
            entry.local.removed = true;
            self.drive(id, ctx);
        }
    }

    /// Go on with a task as far as can be without waiting.
    pub(super) fn drive(&mut self, id: TaskId, ctx: &mut Context<Self>) {
        loop {
            let now = self.now();
            let Some(entry) = self.tasks.get_mut(&id) else { return };
            if let Some(action) = entry.step.as_ref().map(|step| step.action) {
                if !interrupts(&entry.task, &entry.local, action) {
                    return;
                }
                entry.step = None;
                entry.local.absorb(Outcome::Dropped(action), now);
            }
            if let Some(timer) = entry.timer.take() {
                ctx.cancel_future(timer);
            }
            match step(&entry.task, &entry.local, now) {
                Next::Idle => return,
                Next::Report(status) => self.observe(id, status, ctx),
                Next::Do(action) => return self.begin(id, action, ctx),
                Next::RetryAt(at) => {
                    // A wall clock that jumps must not stretch the wait.
                    let delay = at.since(now).min(shoal_core::task::RETRY_DELAY_MAX);
                    entry.timer = Some(ctx.notify_later(Wake(id), delay.max(Duration::from_millis(1))));
                    return;
                }
                Next::Forget => return self.forget(id, ctx),
            }
        }
    }

    fn begin(&mut self, id: TaskId, action: Action, ctx: &mut Context<Self>) {
        use actix::AsyncContext as _;
        self.steps += 1;
        let Some(entry) = self.tasks.get_mut(&id) else { return };
        tracing::debug!(task = %id, ?action, "step");
        let (task, controller) = (entry.task.clone(), self.controller.clone());
        let drain_max = entry.local.status.is_sick().then_some(SICK_DRAIN_MAX);
        entry.step =
            Some(Step::begin((action, drain_max), self.steps, task, controller, &self.gates, ctx.address()));
    }

    fn observe(&mut self, id: TaskId, status: TaskStatus, ctx: &mut Context<Self>) {
        let Some(entry) = self.tasks.get_mut(&id) else { return };
        let (before, after) = (entry.local.status.state, status.state);
        assert!(after >= before, "task {id} moved back from {before:?} to {after:?}");
        entry.local.status = status.clone();
        entry.local.failure = None;
        if after.is_terminal() && after != before {
            self.keep_and_tell(id, status, ctx);
        } else {
            self.shared.outbox.put(id, status);
        }
        if after == before {
            return;
        }
        self.track(Some(before), Some(after));
        if after.is_terminal() {
            self.bound_ended(ctx);
        } else {
            self.keep(id, ctx);
        }
    }

    fn forget(&mut self, id: TaskId, ctx: &mut Context<Self>) {
        if let Some(entry) = self.tasks.remove(&id) {
            self.track(Some(entry.local.status.state), None);
            self.shared.outbox.forget(id);
            self.drop_record(id, ctx);
        }
    }

    /// Count the tasks by what they became.
    fn track(&self, before: Option<TaskState>, after: Option<TaskState>) {
        self.shared.count(|stats| {
            stats.tasks = (stats.tasks + u64::from(before.is_none())) - u64::from(after.is_none());
            let running = |state| u64::from(state == Some(TaskState::Running));
            stats.running = (stats.running + running(after)) - running(before);
            // Only what ended here, not what came from records or managers as ended.
            match (before, after) {
                (Some(_), Some(TaskState::Complete)) => stats.completed_total += 1,
                (Some(_), Some(TaskState::Failed)) => stats.failed_total += 1,
                (Some(_), Some(TaskState::Rejected)) => stats.rejected_total += 1,
                _ => {}
            }
        });
    }

    /// Keep no more containers of ended tasks than allowed; the oldest go.
    fn bound_ended(&mut self, ctx: &mut Context<Self>) {
        let mut ended: Vec<(Timestamp, TaskId)> = self
            .tasks
            .iter()
            .filter(|(_, entry)| {
                let kept = !matches!(entry.local.container, Container::Absent) && !entry.local.discard;
                kept && entry.local.status.state.is_terminal()
            })
            .map(|(id, entry)| (entry.local.status.at, *id))
            .collect();
        let Some(excess) = ended.len().checked_sub(self.limits.ended_containers).filter(|n| *n > 0) else {
            return;
        };
        ended.sort_unstable();
        for (_, id) in ended.into_iter().take(excess) {
            if let Some(entry) = self.tasks.get_mut(&id) {
                entry.local.discard = true;
                // Not at once: the caller is in the midst of driving a task.
                ctx.notify(Wake(id));
            }
        }
    }

    fn count_outcome(&self, outcome: &Outcome, adopted: bool) {
        self.shared.count(|stats| match outcome {
            Outcome::Prepared(Ok(_)) => stats.prepared_total += 1,
            Outcome::Started(Ok(_)) => stats.started_total += 1,
            Outcome::Stopped(Ok(_)) => stats.stopped_total += 1,
            Outcome::Removed(Ok(())) => stats.removed_total += 1,
            Outcome::Inspected(Ok(_)) if adopted => stats.adopted_total += 1,
            Outcome::Inspected(Err(ControllerError::Unavailable(_)))
            | Outcome::Prepared(Err(ControllerError::Unavailable(_)))
            | Outcome::Started(Err(ControllerError::Unavailable(_)))
            | Outcome::Healthy(Err(ControllerError::Unavailable(_)))
            | Outcome::Ended(Err(ControllerError::Unavailable(_)))
            | Outcome::Stopped(Err(ControllerError::Unavailable(_)))
            | Outcome::Removed(Err(ControllerError::Unavailable(_))) => stats.runtime_unavailable_total += 1,
            _ => {}
        });
    }
}

impl Actor for TaskRunner {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let store = self.records.store();
        // Nothing is heard before the records are read.
        async move { store.load().await }
            .into_actor(self)
            .map(|result, runner, ctx| match result {
                Ok(stored) => runner.restore(stored, ctx),
                // Running containers stay until a manager tells what belongs here.
                Err(error) => {
                    tracing::error!(%error, "the node's task records are unreadable; going on without")
                }
            })
            .wait(ctx);
        self.arm_sweep(ctx);
    }
}

impl Handler<SetComplete> for TaskRunner {
    type Result = ();

    fn handle(&mut self, SetComplete(tasks): SetComplete, ctx: &mut Self::Context) {
        let wanted: std::collections::BTreeSet<TaskId> = tasks.iter().map(|task| task.id).collect();
        let surplus: Vec<TaskId> = self.tasks.keys().filter(|id| !wanted.contains(id)).copied().collect();
        for id in surplus.into_iter().filter(|_| !is_put_back(Bug::SurplusKept)) {
            self.unassign(id, ctx);
        }
        for task in tasks {
            self.assign(task, true, ctx);
        }
        self.allow_sweep(ctx);
    }
}

impl Handler<Leave> for TaskRunner {
    type Result = ();

    fn handle(&mut self, _: Leave, ctx: &mut Self::Context) {
        self.leaving = true;
        for id in self.tasks.keys().copied().collect::<Vec<_>>() {
            self.unassign(id, ctx);
        }
        self.allow_sweep(ctx);
    }
}

impl Handler<ChangeAssignments> for TaskRunner {
    type Result = ();

    fn handle(&mut self, message: ChangeAssignments, ctx: &mut Self::Context) {
        for id in message.removed {
            self.unassign(id, ctx);
        }
        for task in message.changed {
            self.assign(task, false, ctx);
        }
    }
}

impl Handler<StepDone> for TaskRunner {
    type Result = ();

    fn handle(&mut self, done: StepDone, ctx: &mut Self::Context) {
        let now = self.now();
        let Some(entry) = self.tasks.get_mut(&done.task_id) else { return };
        if entry.step.as_ref().map(|step| step.number) != Some(done.number) {
            return;
        }
        entry.step = None;
        entry.local.absorb(done.outcome.clone(), now);
        let runs = matches!(entry.local.container, Container::Running(_));
        let adopted = std::mem::take(&mut entry.restored) && runs;
        self.count_outcome(&done.outcome, adopted);
        self.drive(done.task_id, ctx);
    }
}

impl Handler<StepProgress> for TaskRunner {
    type Result = ();

    fn handle(&mut self, progress: StepProgress, ctx: &mut Self::Context) {
        let now = self.now();
        let Some(entry) = self.tasks.get_mut(&progress.task_id) else { return };
        if entry.step.as_ref().map(|step| step.number) != Some(progress.number) {
            return;
        }
        entry.local.note = progress.line;
        if let Some(status) = shoal_core::task::reworded(&entry.local, now) {
            self.observe(progress.task_id, status, ctx);
        }
    }
}

impl Handler<Wake> for TaskRunner {
    type Result = ();

    fn handle(&mut self, Wake(id): Wake, ctx: &mut Self::Context) {
        self.drive(id, ctx);
    }
}

impl Handler<Shutdown> for TaskRunner {
    type Result = ResponseActFuture<Self, ()>;

    fn handle(&mut self, _: Shutdown, _: &mut Self::Context) -> Self::Result {
        // Steps are given up where they are: containers stay, and the records say how far each task got.
        for entry in self.tasks.values_mut() {
            entry.step = None;
        }
        self.sweep.give_up();
        let last = self.records.take_all();
        let store = self.records.store();
        let write = async move {
            if !last.is_empty()
                && let Err(error) = store.save(last).await
            {
                tracing::error!(%error, "the node's task records are not up to date");
            }
        };
        Box::pin(write.into_actor(self).map(|(), _, ctx: &mut Context<Self>| {
            use actix::ActorContext;
            ctx.stop();
        }))
    }
}
