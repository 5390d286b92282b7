//! Takes one step of one task through the container runtime: waits for its turn, bounds its time, passes progress on.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix::Addr;
use shoal_core::model::Task;
use shoal_core::task::{Action, Controller, ControllerError, Outcome, Progress};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::Limits;
use super::actor::TaskRunner;
use super::messages::{StepDone, StepProgress};

/// A pull tells its progress no more often than this.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);
/// What is under way at an unhealthy task may go on for so long: whoever waits for it may wait for ever.
pub(super) const SICK_DRAIN_MAX: Duration = Duration::from_secs(10);
/// The runtime bounds its own calls; these catch one that does not.
const START_TIME_MAX: Duration = Duration::from_secs(300);
const STOP_TIME_MAX: Duration = Duration::from_secs(60);
const LOOK_TIME_MAX: Duration = Duration::from_secs(120);

/// Turns for the steps that burden the runtime.
pub(super) struct Gates {
    prepares: Arc<Semaphore>,
    starts: Arc<Semaphore>,
    stops: Arc<Semaphore>,
}

impl Gates {
    pub(super) fn new(limits: &Limits) -> Self {
        let gate = |places: usize| Arc::new(Semaphore::new(places.max(1)));
        Self { prepares: gate(limits.prepares), starts: gate(limits.starts), stops: gate(limits.stops) }
    }

    /// Where a removal that is no task's step queues.
    pub(super) fn stops(&self) -> Arc<Semaphore> {
        self.stops.clone()
    }

    fn of(&self, action: Action) -> Option<Arc<Semaphore>> {
        match action {
            Action::Prepare => Some(self.prepares.clone()),
            Action::Start => Some(self.starts.clone()),
            Action::Stop | Action::Remove | Action::Inspect => Some(self.stops.clone()),
            Action::Wait | Action::WaitHealthy | Action::Drain => None,
        }
    }
}

/// A step under way; dropping it gives it up.
pub(super) struct Step {
    pub(super) action: Action,
    pub(super) number: u64,
    work: JoinHandle<()>,
}

impl Drop for Step {
    fn drop(&mut self) {
        self.work.abort();
    }
}

impl Step {
    /// Begin a step; its outcome comes as a message that carries `number`.
    pub(super) fn begin(
        (action, drain_max): (Action, Option<Duration>),
        number: u64,
        task: Arc<Task>,
        controller: Arc<dyn Controller>,
        gates: &Gates,
        runner: Addr<TaskRunner>,
    ) -> Self {
        let gate = gates.of(action);
        let work = actix_rt::spawn(async move {
            let turn = match gate {
                Some(gate) => gate.acquire_owned().await.ok(),
                None => None,
            };
            let outcome = match action {
                Action::Prepare => {
                    let progress = progress(&task, number, turn, runner.clone());
                    Outcome::Prepared(controller.prepare(&task, progress).await)
                }
                _ => perform((action, drain_max), &task, &*controller, turn).await,
            };
            runner.do_send(StepDone { task_id: task.id, number, outcome });
        });
        Self { action, number, work }
    }
}

async fn perform(
    (action, drain_max): (Action, Option<Duration>),
    task: &Task,
    controller: &dyn Controller,
    _turn: Option<OwnedSemaphorePermit>,
) -> Outcome {
    let stop_time = task.spec.container.stop_grace().saturating_add(STOP_TIME_MAX);
    match action {
        Action::Inspect => Outcome::Inspected(bounded(LOOK_TIME_MAX, controller.inspect(task.id)).await),
        Action::Prepare => Outcome::Prepared(controller.prepare(task, Arc::new(|_| {})).await),
        Action::Start => Outcome::Started(bounded(START_TIME_MAX, controller.start(task)).await),
        Action::WaitHealthy => Outcome::Healthy(controller.wait_healthy(task.id).await),
        Action::Wait => Outcome::Ended(controller.wait(task.id).await),
        Action::Drain => {
            let drained = controller.drain(task);
            match drain_max {
                Some(most) => drop(tokio::time::timeout(most, drained).await),
                None => drained.await,
            }
            Outcome::Drained
        }
        Action::Stop => Outcome::Stopped(bounded(stop_time, controller.stop(task)).await),
        Action::Remove => Outcome::Removed(bounded(LOOK_TIME_MAX, controller.remove(task.id)).await),
    }
}

async fn bounded<T>(
    time: Duration,
    call: impl Future<Output = Result<T, ControllerError>>,
) -> Result<T, ControllerError> {
    tokio::time::timeout(time, call).await.unwrap_or_else(|_| {
        Err(ControllerError::Unavailable(format!("no answer within {} s", time.as_secs())))
    })
}

/// Progress means that the step is a long one: it gives its turn away, so that a slow registry holds up nobody else.
fn progress(
    task: &Task,
    number: u64,
    turn: Option<OwnedSemaphorePermit>,
    runner: Addr<TaskRunner>,
) -> Progress {
    let task_id = task.id;
    let state = Mutex::new((turn, None::<Instant>));
    Arc::new(move |line| {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 = None;
        let now = Instant::now();
        if state.1.is_none_or(|last| now.duration_since(last) >= PROGRESS_INTERVAL) {
            state.1 = Some(now);
            runner.do_send(StepProgress { task_id, number, line });
        }
    })
}
