//! What a node knows of one of its tasks, and how the outcome of a step changes that.

use std::time::Duration;

use super::{Action, ControllerError, ExitStatus, LocalContainer, RunState};
use crate::model::{ContainerStatus, Task, TaskState, TaskStatus, Timestamp};
use crate::put_back::{Bug, is_put_back};

/// Longest wait between two tries at a runtime that does not answer.
pub const RETRY_DELAY_MAX: Duration = Duration::from_secs(5);
const RETRY_DELAY_MIN: Duration = Duration::from_millis(200);

/// How long to wait after so many failures in a row: doubles up to [`RETRY_DELAY_MAX`].
#[must_use]
pub fn retry_delay(attempts: u32) -> Duration {
    let factor = 1u32 << attempts.saturating_sub(1).min(10);
    RETRY_DELAY_MIN.saturating_mul(factor).min(RETRY_DELAY_MAX)
}

/// Health of a running container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// Healthy, or not checked.
    Good,
    /// Checked, and not known to be healthy yet.
    Awaited,
    /// Found unhealthy.
    Bad,
}

/// What is known of a task's container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Container {
    /// Nothing: the runtime has to be asked.
    #[default]
    Unknown,
    /// There is none.
    Absent,
    /// Made, not started.
    Created,
    /// Runs.
    Running(Health),
    /// Ended.
    Exited(ExitStatus),
}

/// Result of a step, by action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Of `Inspect`.
    Inspected(Result<LocalContainer, ControllerError>),
    /// Of `Prepare`.
    Prepared(Result<ContainerStatus, ControllerError>),
    /// Of `Start`.
    Started(Result<ContainerStatus, ControllerError>),
    /// Of `WaitHealthy`.
    Healthy(Result<RunState, ControllerError>),
    /// Of `Wait`.
    Ended(Result<ExitStatus, ControllerError>),
    /// Of `Drain`, which always ends.
    Drained,
    /// Of `Stop`.
    Stopped(Result<ExitStatus, ControllerError>),
    /// Of `Remove`.
    Removed(Result<(), ControllerError>),
    /// This step was given up half-way, because something else is wanted now.
    Dropped(Action),
}

/// What a node knows of one task.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Local {
    /// Observed so far; its state only moves forward.
    pub status: TaskStatus,
    /// Its container.
    pub container: Container,
    /// Not assigned to this node any more: container and record shall go.
    pub removed: bool,
    /// Ended, and its container shall go though its record stays.
    pub discard: bool,
    /// It was called ended by a health check: whether it still runs has to be found out. If so it is unhealthy.
    pub verify: bool,
    /// Whether its traffic has to end before it is asked to stop.
    pub drains: bool,
    /// Why the task itself failed in a step, not yet reported.
    pub failure: Option<String>,
    /// What keeps it waiting where it stands; shown in place of the state's usual message.
    pub note: String,
    /// Failures in a row that were the runtime's.
    pub attempts: u32,
    /// Nothing is tried before.
    pub retry_at: Option<Timestamp>,
}

impl Local {
    /// A task that comes from the managers and is not known here. It has no container only if it is `new` in a session
    /// that goes on, and they have not seen it prepared. What is named as a session begins may have been taken up in an
    /// earlier life of this node, whose record was not written and which told nothing.
    #[must_use]
    pub fn assigned(task: &Task, new: bool) -> Self {
        let mut status = task.status.clone();
        status.state = status.state.max(TaskState::Assigned);
        let fresh = new && status.state < TaskState::Preparing || is_put_back(Bug::ContainerNotLookedFor);
        let container = if fresh { Container::Absent } else { Container::Unknown };
        Self { status, container, ..Self::default() }
    }

    /// A task from this node's own records: whether its container is there has to be found out.
    #[must_use]
    pub fn restored(status: TaskStatus) -> Self {
        Self { status, ..Self::default() }
    }

    /// Take in what a step brought.
    pub fn absorb(&mut self, outcome: Outcome, now: Timestamp) {
        match outcome {
            Outcome::Inspected(result) => self.take(result, now, |local, found| {
                local.keep_ids(found.status);
                local.container = match known(found.state) {
                    Container::Running(_) if local.verify => Container::Running(Health::Bad),
                    other => other,
                };
                local.verify = false;
            }),
            Outcome::Prepared(result) => self.take(result, now, |local, status| {
                // One that has run already was made in an earlier life: it must not be started anew.
                let fresh = status.pid.is_none() && status.exit_code.is_none();
                local.container = if fresh { Container::Created } else { Container::Unknown };
                local.keep_ids(status);
            }),
            Outcome::Started(result) => self.take(result, now, |local, status| {
                local.keep_ids(status);
                local.container = Container::Running(Health::Awaited);
            }),
            // After a wait that broke off, a short look tells that the runtime is back; then the wait goes on.
            Outcome::Healthy(Err(ControllerError::Unavailable(words)))
            | Outcome::Ended(Err(ControllerError::Unavailable(words))) => {
                self.container = Container::Unknown;
                let result = Err::<(), _>(ControllerError::Unavailable(words));
                self.take(result, now, |_, ()| {});
            }
            Outcome::Healthy(result) => self.take(result, now, |local, state| {
                local.container = match known(state) {
                    // Having waited for its health to the end, what is not healthy never will be.
                    Container::Running(Health::Awaited) => Container::Running(Health::Bad),
                    other => other,
                };
            }),
            Outcome::Ended(result) => self.take(result, now, |local, exit| {
                local.verify = !exit.error.is_empty();
                local.container = if local.verify { Container::Unknown } else { Container::Exited(exit) };
            }),
            Outcome::Stopped(Err(_)) if is_put_back(Bug::FailedStopCountsAsDone) => {
                self.container = Container::Exited(ExitStatus::default());
            }
            Outcome::Stopped(result) => self.take(result, now, |local, exit| {
                local.container = Container::Exited(exit);
            }),
            Outcome::Drained => self.drains = false,
            Outcome::Removed(result) => {
                self.take(result, now, |local, ()| local.container = Container::Absent);
            }
            // The runtime may still finish making the container. Whatever else was dropped only looked.
            Outcome::Dropped(Action::Prepare) => self.container = Container::Unknown,
            Outcome::Dropped(_) => {}
        }
    }

    fn take<T>(
        &mut self,
        result: Result<T, ControllerError>,
        now: Timestamp,
        apply: impl FnOnce(&mut Self, T),
    ) {
        let trouble = match result {
            Ok(value) => {
                apply(self, value);
                (self.attempts, self.retry_at) = (0, None);
                self.note.clear();
                return;
            }
            Err(ControllerError::NotFound(_)) => {
                self.verify = false;
                self.container = Container::Absent;
                (self.attempts, self.retry_at) = (0, None);
                self.note.clear();
                return;
            }
            // Once it has ended, or shall, a refusal is no longer the task's fault: try again.
            Err(ControllerError::Task(text)) if !self.removed && !self.status.state.is_terminal() => {
                self.failure = Some(text);
                return;
            }
            Err(error) => error.to_string(),
        };
        self.attempts = self.attempts.saturating_add(1);
        self.retry_at = Some(now.plus(retry_delay(self.attempts)));
        self.note = trouble;
    }

    fn keep_ids(&mut self, status: ContainerStatus) {
        self.status.container = Some(status);
    }
}

fn known(state: RunState) -> Container {
    match state {
        RunState::Created => Container::Created,
        RunState::Running { healthy: Some(false) } if !is_put_back(Bug::HealthIgnored) => {
            Container::Running(Health::Awaited)
        }
        RunState::Running { .. } => Container::Running(Health::Good),
        RunState::Exited(exit) => Container::Exited(exit),
    }
}
