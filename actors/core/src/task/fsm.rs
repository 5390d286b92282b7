//! The steps of a task on its node, as a decision: from what is wanted and what is known to the one next thing to do.
//!
//! It looks at levels, never at edges: asked again at any time, after any crash, it gives the step that leads on from
//! there. The observed state only moves forward, one state a report. A failure before `Starting` is a rejection, at or
//! after it a failure; a runtime that does not answer is never the task's fault and is tried again with back-off.

use super::{Container, ExitStatus, Health, Local, RETRY_DELAY_MAX};
use crate::model::{Task, TaskState, TaskStatus, Timestamp};
use crate::put_back::{Bug, is_put_back};

/// Failed stops in a row after which the container is killed and removed instead.
const STOP_ATTEMPTS_MAX: u32 = 5;
/// Most characters of an error or a note in a report.
const WORDS_MAX: usize = 1024;

/// A step of the container runtime; one at a time for each task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// Find out whether there is a container and how it fares.
    Inspect,
    /// Fetch the image, make the container.
    Prepare,
    /// Start it.
    Start,
    /// Wait for its health.
    WaitHealthy,
    /// Wait for its end.
    Wait,
    /// Let its traffic end: nothing new is given to it, what is under way may finish.
    Drain,
    /// Stop it, with grace.
    Stop,
    /// Remove it.
    Remove,
}

/// What comes next for a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Take this step.
    Do(Action),
    /// Make this the observed status, and tell the managers.
    Report(TaskStatus),
    /// Nothing, until something changes.
    Idle,
    /// Ask again then.
    RetryAt(Timestamp),
    /// Nothing is left of it: drop its record.
    Forget,
}

/// What comes next. `local.status` must be the status last reported; no step may be under way.
#[must_use]
pub fn step(task: &Task, local: &Local, now: Timestamp) -> Next {
    let gone = local.removed && local.container == Container::Absent;
    if gone {
        return Next::Forget;
    }
    let state = local.status.state;
    if !local.removed && !state.is_terminal() {
        if let Some(text) = &local.failure {
            return Next::Report(failed(local, now, text));
        }
        if let Some(status) = reworded(local, now) {
            return Next::Report(status);
        }
    }
    if let Some(at) = local.retry_at.filter(|at| *at > now && at.since(now) <= RETRY_DELAY_MAX) {
        return Next::RetryAt(at);
    }
    if local.removed {
        return clear_away(local);
    }
    if state.is_terminal() {
        return rest(local);
    }
    if task.desired >= TaskState::Shutdown {
        return wind_down(local, now);
    }
    advance(task, local, now)
}

/// Whether the step under way is to be given up, because the task shall end. Steps that only look, and a pull that may
/// take minutes, are given up; a start and a stop are short and are let finish.
#[must_use]
pub fn interrupts(task: &Task, local: &Local, under_way: Action) -> bool {
    let ends = local.removed || task.desired >= TaskState::Shutdown || local.status.state.is_terminal();
    ends && matches!(under_way, Action::Prepare | Action::WaitHealthy | Action::Wait)
}

/// Whether its traffic has to end before it is stopped.
fn drains(local: &Local) -> bool {
    local.drains && !is_put_back(Bug::StoppedUndrained)
}

/// The next step towards the end of what runs: its traffic ends first, and what cannot be stopped is removed.
fn halt(local: &Local) -> Action {
    if drains(local) {
        Action::Drain
    } else if local.attempts < STOP_ATTEMPTS_MAX {
        Action::Stop
    } else {
        Action::Remove
    }
}

/// It is not wanted here any more: stop, then remove.
fn clear_away(local: &Local) -> Next {
    match &local.container {
        Container::Running(_) if is_put_back(Bug::UnassignedNotStopped) => Next::Forget,
        Container::Unknown => Next::Do(Action::Inspect),
        Container::Running(_) => Next::Do(halt(local)),
        Container::Created | Container::Exited(_) => Next::Do(Action::Remove),
        Container::Absent => Next::Forget,
    }
}

/// It has ended. Its container is kept for its logs, but must not run.
fn rest(local: &Local) -> Next {
    match &local.container {
        Container::Unknown => Next::Do(Action::Inspect),
        Container::Exited(_) if local.verify => Next::Do(Action::Inspect),
        Container::Running(_) => Next::Do(halt(local)),
        Container::Created | Container::Exited(_) if local.discard => Next::Do(Action::Remove),
        Container::Created | Container::Exited(_) | Container::Absent => Next::Idle,
    }
}

/// It shall end, and has not.
fn wind_down(local: &Local, now: Timestamp) -> Next {
    match &local.container {
        Container::Unknown => Next::Do(Action::Inspect),
        Container::Running(_) if drains(local) => Next::Do(Action::Drain),
        Container::Running(_) => Next::Do(Action::Stop),
        Container::Absent | Container::Created => Next::Report(moved(local, now, TaskState::Shutdown)),
        Container::Exited(exit) => Next::Report(with_exit(moved(local, now, TaskState::Shutdown), exit)),
    }
}

/// It shall run. The restart delay (`start_after`) is the managers' to keep: they hold `desired` at `Ready`.
fn advance(task: &Task, local: &Local, now: Timestamp) -> Next {
    let report = |state| Next::Report(moved(local, now, state));
    let state = local.status.state;
    if state < TaskState::Accepted {
        return report(TaskState::Accepted);
    }
    if state < TaskState::Preparing {
        return report(TaskState::Preparing);
    }
    if local.status.is_sick() {
        return give_up(local, now);
    }
    match (state, &local.container) {
        (_, Container::Unknown) => Next::Do(Action::Inspect),
        (TaskState::Preparing, Container::Absent) => Next::Do(Action::Prepare),
        (TaskState::Preparing, _) => report(TaskState::Ready),
        (_, Container::Absent) => Next::Report(failed(local, now, "its container has vanished")),
        (TaskState::Ready, _) if task.desired < TaskState::Running => Next::Idle,
        (TaskState::Ready, _) => report(TaskState::Starting),
        (_, Container::Created) => Next::Do(Action::Start),
        (_, Container::Exited(exit)) => Next::Report(ended(local, now, exit)),
        (_, Container::Running(Health::Bad)) => Next::Report(sick(local, now)),
        (TaskState::Running, Container::Running(_)) => Next::Do(Action::Wait),
        (_, Container::Running(Health::Good)) => report(TaskState::Running),
        (_, Container::Running(Health::Awaited)) => Next::Do(Action::WaitHealthy),
    }
}

/// What was found unhealthy is stopped before it is called failed, so that nothing takes its place beside it. That it is
/// unhealthy is told before: from then on it gets no traffic.
fn give_up(local: &Local, now: Timestamp) -> Next {
    let why = &local.status.error;
    match &local.container {
        Container::Unknown => Next::Do(Action::Inspect),
        Container::Running(_) => Next::Do(halt(local)),
        Container::Exited(exit) => Next::Report(with_exit(failed(local, now, why), exit)),
        Container::Created | Container::Absent => Next::Report(failed(local, now, why)),
    }
}

fn sick(local: &Local, now: Timestamp) -> TaskStatus {
    TaskStatus { at: now, error: UNHEALTHY.into(), ..local.status.clone() }
}

/// The same state with other words, if what keeps the task waiting has changed.
#[must_use]
pub fn reworded(local: &Local, now: Timestamp) -> Option<TaskStatus> {
    let state = local.status.state;
    let words = if local.note.is_empty() { message(state) } else { &local.note };
    let differs = state >= TaskState::Accepted && local.status.message != clip(words);
    differs.then(|| TaskStatus { at: now, message: clip(words), ..local.status.clone() })
}

/// Why an unhealthy task is stopped, and has failed.
const UNHEALTHY: &str = "unhealthy container";

fn moved(local: &Local, now: Timestamp, state: TaskState) -> TaskStatus {
    debug_assert!(state > local.status.state, "{state:?} after {:?}", local.status.state);
    let message = message(state).to_string();
    TaskStatus { state, at: now, message, error: String::new(), container: local.status.container.clone() }
}

fn failed(local: &Local, now: Timestamp, error: &str) -> TaskStatus {
    let early = local.status.state < TaskState::Starting;
    let state = if early { TaskState::Rejected } else { TaskState::Failed };
    TaskStatus { error: clip(error), ..moved(local, now, state) }
}

fn ended(local: &Local, now: Timestamp, exit: &ExitStatus) -> TaskStatus {
    let well = exit.code == 0 && exit.error.is_empty() && !exit.oom_killed;
    let status =
        if well { moved(local, now, TaskState::Complete) } else { failed(local, now, &exit_words(exit)) };
    with_exit(status, exit)
}

fn exit_words(exit: &ExitStatus) -> String {
    let mut words = format!("task: non-zero exit ({})", exit.code);
    if exit.code == 0 {
        words = "task: failed".into();
    }
    if exit.oom_killed {
        words.push_str(": out of memory");
    }
    if !exit.error.is_empty() {
        words.push_str(": ");
        words.push_str(&exit.error);
    }
    words
}

fn with_exit(mut status: TaskStatus, exit: &ExitStatus) -> TaskStatus {
    if let Some(container) = &mut status.container {
        container.pid = None;
        container.exit_code = Some(exit.code);
        container.oom_killed = exit.oom_killed;
    }
    status
}

fn message(state: TaskState) -> &'static str {
    match state {
        TaskState::Accepted => "accepted",
        TaskState::Preparing => "preparing",
        TaskState::Ready => "prepared",
        TaskState::Starting => "starting",
        TaskState::Running => "started",
        TaskState::Complete => "finished",
        TaskState::Shutdown => "shutdown",
        TaskState::Failed => "failed",
        TaskState::Rejected => "rejected",
        _ => "",
    }
}

fn clip(words: &str) -> String {
    words.chars().take(WORDS_MAX).collect()
}

#[cfg(test)]
#[path = "fsm_tests.rs"]
pub(crate) mod tests;
