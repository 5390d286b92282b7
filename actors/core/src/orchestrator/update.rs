//! Rolling updates. How far one is, is read from the tasks: a slot takes part if it has tasks from before the
//! change, and is done once its new task runs. So the next leader goes on where the last one stopped.
//!
//! Whether the status on the service belongs to the present specification is told by the service's versions:
//! writing a status moves the revision alone, a new specification moves both.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::mesh::{OptionsError, seconds};
use crate::model::{
    FailureAction, PortMode, ROLLBACK_STARTED, RestartCondition, Service, ServiceSpec, Slot, Task, TaskState,
    Timestamp, UpdateConfig, UpdateOrder, UpdateState, UpdateStatus,
};
use crate::put_back::{Bug, is_put_back};
use crate::store::Write;

use super::round::{Round, Successor};
use super::slot::SlotTasks;

const IN_PROGRESS: &str = "update in progress";
const ROLLBACK_IN_PROGRESS: &str = "rollback in progress";
/// How the words end for what an update waits for.
const UNPLACED: &str = " waits for a node that fits";
/// How the words begin for what made an update fail.
const CAUSES: [&str; 2] = ["due to ", "because "];

/// How far a slot is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Progress<'a> {
    /// The slot.
    pub(super) slot: &'a SlotTasks<'a>,
    /// The live task of the present version.
    current: Option<&'a Arc<Task>>,
    /// The task that waits to be replaced, if nothing of the present version is in the slot.
    pub(super) outdated: Option<&'a Arc<Task>>,
    /// Whether this look replaces the slot's task for another reason than the update.
    pub(super) replaced: bool,
}

impl<'a> Progress<'a> {
    /// A slot that holds `current`.
    pub(super) fn new(slot: &'a SlotTasks<'a>, current: Option<&'a Arc<Task>>) -> Self {
        Self { slot, current, outdated: None, replaced: false }
    }

    fn takes_part(&self, service: &Service) -> bool {
        self.slot.tasks.iter().any(|task| task.spec_version < service.task_spec_version)
    }
}

/// An update that is under way.
struct Run {
    config: UpdateConfig,
    started_at: Timestamp,
    is_rollback: bool,
    /// Of a rollback that nobody asked for: why it began. Who reads the service later must still learn it.
    cause: Option<String>,
    /// How long a new task may show no progress.
    patience: Duration,
    /// Whether it began in this look, which has written its status already.
    is_new: bool,
}

/// Begin, continue, pause, roll back or complete the service's update.
pub(super) fn advance(round: &mut Round<'_>, service: &Service, progress: &[Progress<'_>]) {
    let Some(run) = run(round, service, progress) else { return };
    let stuck: Vec<&Task> = progress.iter().filter_map(|slot| stuck(round, service, &run, slot)).collect();
    let failed: Vec<&Task> = progress
        .iter()
        .filter_map(|slot| failure(service, &run, slot))
        .chain(stuck.iter().copied())
        .collect();
    let too_many = failed.len() as u128 * 1_000_000
        > u128::from(run.config.max_failure_millionths) * progress.len() as u128;
    if too_many && run.config.failure_action != FailureAction::Continue {
        let cause = cause(failed[0], stuck.first().is_some_and(|first| first.id == failed[0].id));
        fail(round, service, &run, &cause);
        return;
    }
    let busy: Vec<&Progress<'_>> =
        progress.iter().filter(|slot| is_busy(round, service, &run, slot)).collect();
    let waiting: Vec<&Progress<'_>> = progress.iter().filter(|slot| slot.outdated.is_some()).collect();
    if waiting.is_empty() && busy.is_empty() {
        if is_settled(round, service, &run, progress) {
            complete(round, service, &run, failed.len());
            return;
        }
    } else {
        replace_next(round, service, &run, waiting, busy.len());
    }
    report(round, service, &run, &busy);
}

/// The update that is to be looked after, begun here if need be.
fn run(round: &mut Round<'_>, service: &Service, progress: &[Progress<'_>]) -> Option<Run> {
    let is_fresh = service.meta.revision == service.meta.spec_version;
    let outdated = progress.iter().any(|slot| slot.outdated.is_some());
    let patience = progress_deadline(&service.spec.labels).unwrap_or(PROGRESS_DEFAULT);
    let status = service.update.as_ref();
    if let Some(status) = status {
        let is_rollback = status.message.starts_with("rollback");
        let goes_on = !is_fresh || status.message.starts_with(ROLLBACK_STARTED);
        match status.state {
            UpdateState::Paused if !is_fresh => return None,
            UpdateState::Updating if goes_on => {
                let config = if is_rollback { &service.spec.rollback } else { &service.spec.update };
                return Some(Run {
                    config: config.clone().unwrap_or_default(),
                    started_at: status.started_at,
                    is_rollback,
                    cause: cause_of_rollback(&status.message).map(str::to_owned),
                    patience,
                    is_new: false,
                });
            }
            UpdateState::Completed if !outdated => return None,
            _ => {}
        }
    } else if !outdated {
        return None;
    }
    round.because(|| format!("{}: an update begins", service.spec.name));
    let run = Run {
        config: service.spec.update.clone().unwrap_or_default(),
        started_at: round.now,
        is_rollback: false,
        cause: None,
        patience,
        is_new: true,
    };
    write(round, service, &run, UpdateState::Updating, IN_PROGRESS.into());
    Some(run)
}

fn write(round: &mut Round<'_>, service: &Service, run: &Run, state: UpdateState, message: String) {
    let status = UpdateStatus {
        state,
        started_at: run.started_at,
        completed_at: (state == UpdateState::Completed).then_some(round.now),
        message,
    };
    round.on_service(vec![Write::ServiceUpdate(service.id, Some(status))]);
}

/// A task of the slot that failed since the update began. Its end is a failure also where it ends well but
/// shall always run.
fn failure<'a>(service: &Service, run: &Run, slot: &Progress<'a>) -> Option<&'a Task> {
    let always = service.spec.task.restart.condition == RestartCondition::Any;
    slot.slot.tasks.iter().map(|task| task.as_ref()).find(|task| {
        let failed = task.is_sick()
            || match task.status.state {
                TaskState::Failed | TaskState::Rejected => true,
                TaskState::Complete => always,
                _ => false,
            };
        failed && task.spec_version == service.meta.spec_version && task.meta.created_at >= run.started_at
    })
}

/// Label of a service: how long a new task may show no progress on its way to run.
const PROGRESS_LABEL: &str = "shoal.progress-deadline";
const PROGRESS_DEFAULT: Duration = Duration::from_secs(600);

/// How long a new task of the service may show no progress before an update takes it for failed.
///
/// # Errors
/// The label cannot be read.
pub fn progress_deadline(labels: &BTreeMap<String, String>) -> Result<Duration, OptionsError> {
    let Some(text) = labels.get(PROGRESS_LABEL) else { return Ok(PROGRESS_DEFAULT) };
    seconds(text).filter(|time| !time.is_zero()).ok_or_else(|| OptionsError {
        label: PROGRESS_LABEL.to_owned(),
        problem: format!("{text:?} is no time: seconds are wanted, such as 300s"),
    })
}

/// The slot's new task, if it has not come to run and made no progress for as long as the service allows: an update does not
/// wait for ever, neither for a container nor for a node that fits. One that is held back for its predecessor is not late.
fn stuck<'a>(round: &mut Round<'_>, service: &Service, run: &Run, slot: &Progress<'a>) -> Option<&'a Task> {
    let task = slot.current.filter(|task| {
        let on_its_way = task.status.state < TaskState::Running && task.desired == TaskState::Running;
        on_its_way && task.spec_version == service.meta.spec_version
    })?;
    match silent_since(slot.slot, task).waits(run.patience, round.now) {
        Some(end) => {
            round.wake(end);
            None
        }
        None => Some(task),
    }
}

/// Since when a task has made no progress. To be told once more why it waits for a node is none: one that waits has done so
/// since it was made, or since it is no longer held back.
fn silent_since(slot: &SlotTasks<'_>, task: &Task) -> Timestamp {
    if task.status.state > TaskState::Pending {
        return task.meta.updated_at;
    }
    let others = slot.tasks.iter().filter(|other| other.id != task.id).map(|other| other.meta.updated_at);
    others.chain(task.start_after).fold(task.meta.created_at, Timestamp::max)
}

/// Why an update fails, in words.
fn cause(task: &Task, stuck: bool) -> String {
    match (stuck, task.status.state <= TaskState::Pending) {
        (true, true) => format!("because task {} finds no node: {}", task.id, task.status.message),
        (true, false) => format!("because task {} shows no progress: {}", task.id, task.status.message),
        (false, _) => format!("due to failure or early termination of task {}", task.id),
    }
}

/// Why a rollback began that nobody asked for, from the words of its status.
pub(super) fn cause_of_rollback(message: &str) -> Option<&str> {
    let begun =
        [ROLLBACK_STARTED, ROLLBACK_IN_PROGRESS].iter().find_map(|what| message.strip_prefix(what))?;
    let cause = match begun.strip_suffix(UNPLACED) {
        Some(waits) => waits.rsplit_once(": ")?.0,
        None => begun,
    };
    let cause = cause.trim_start();
    CAUSES.iter().any(|words| cause.starts_with(words)).then_some(cause)
}

/// Whether the slot counts against the parallelism: its new task has not come to run yet, or has only since
/// less than the delay.
fn is_busy(round: &mut Round<'_>, service: &Service, run: &Run, slot: &Progress<'_>) -> bool {
    if !slot.takes_part(service) || slot.outdated.is_some() {
        return false;
    }
    if slot.replaced {
        return true;
    }
    let Some(current) = slot.current else { return false };
    if failure(service, run, slot).is_some() || stuck(round, service, run, slot).is_some() {
        return false;
    }
    if current.status.state < TaskState::Running {
        return true;
    }
    let rests_to = current.meta.updated_at.waits(run.config.delay, round.now);
    if let Some(end) = rests_to {
        round.wake(end);
    }
    rests_to.is_some()
}

/// Replace as many of the waiting slots' tasks as the parallelism allows, those that do not run first.
fn replace_next(
    round: &mut Round<'_>,
    service: &Service,
    run: &Run,
    mut waiting: Vec<&Progress<'_>>,
    busy: usize,
) {
    let parallelism = match run.config.parallelism {
        0 => usize::MAX,
        _ if is_put_back(Bug::UpdateAllAtOnce) => usize::MAX,
        some => usize::try_from(some).unwrap_or(usize::MAX),
    };
    waiting.sort_by_key(|slot| {
        Reverse(slot.outdated.is_some_and(|task| task.status.state != TaskState::Running))
    });
    for slot in waiting.into_iter().take(parallelism.saturating_sub(busy)) {
        let Some(old) = slot.outdated else { continue };
        if !round.may_create() {
            break;
        }
        let why = "its service was updated";
        if starts_first(service, run, old) {
            round.precede(service, old, why);
        } else {
            let shaky = old.occupies_node();
            round.replace(service, slot.slot, old, Successor { delay: Duration::ZERO, shaky }, why);
        }
    }
}

/// A new task can run beside the old one, unless both need the same port of the same node.
fn starts_first(service: &Service, run: &Run, old: &Task) -> bool {
    let same_port =
        matches!(old.slot, Slot::Node(_)) && service.spec.endpoint.ports_in(PortMode::Host).next().is_some();
    run.config.order == UpdateOrder::StartFirst && old.status.state == TaskState::Running && !same_port
}

/// Whether every new task has run for as long as it is watched.
fn is_settled(round: &mut Round<'_>, service: &Service, run: &Run, progress: &[Progress<'_>]) -> bool {
    let watched_to = progress
        .iter()
        .filter(|slot| slot.takes_part(service) && failure(service, run, slot).is_none())
        .filter_map(|slot| slot.current)
        .filter_map(|task| task.meta.updated_at.waits(run.config.monitor, round.now))
        .max();
    if let Some(end) = watched_to {
        round.wake(end);
    }
    watched_to.is_none() && !is_put_back(Bug::UpdateNeverEnds)
}

fn complete(round: &mut Round<'_>, service: &Service, run: &Run, failed: usize) {
    let what = if run.is_rollback { "rollback" } else { "update" };
    let mut message = format!("{what} completed");
    if let Some(cause) = &run.cause {
        message.push_str(&format!(", begun {cause}"));
    }
    match failed {
        0 => {}
        1 => message.push_str("; a task failed on the way"),
        more => message.push_str(&format!("; tasks of {more} slots failed on the way")),
    }
    round.because(|| format!("{}: {message}", service.spec.name));
    write(round, service, run, UpdateState::Completed, message);
}

/// Too many tasks failed: stop there, or go back if that is asked for and was not just done.
fn fail(round: &mut Round<'_>, service: &Service, run: &Run, cause: &str) {
    let back = service.previous_spec.as_ref().filter(|previous| {
        run.config.failure_action == FailureAction::Rollback
            && !run.is_rollback
            && previous.task != service.spec.task
    });
    let Some(previous) = back else {
        let what = if run.is_rollback { "rollback" } else { "update" };
        let message = format!("{what} paused {cause}");
        round.because(|| format!("{}: {message}", service.spec.name));
        write(round, service, run, UpdateState::Paused, message);
        return;
    };
    let message = format!("{ROLLBACK_STARTED} {cause}");
    round.because(|| format!("{}: {message}", service.spec.name));
    let status =
        UpdateStatus { state: UpdateState::Updating, started_at: round.now, completed_at: None, message };
    // The name may be another service's by now, so it stays.
    let spec = ServiceSpec { name: service.spec.name.clone(), ..previous.clone() };
    round.on_specification(vec![
        Write::ServiceSpec(service.id, spec),
        Write::ServiceUpdate(service.id, Some(status)),
    ]);
}

/// Say on the service what the update waits for.
fn report(round: &mut Round<'_>, service: &Service, run: &Run, busy: &[&Progress<'_>]) {
    let Some(status) = service.update.as_ref().filter(|_| !run.is_new) else { return };
    let what = match &run.cause {
        Some(cause) => format!("{ROLLBACK_IN_PROGRESS} {cause}"),
        None if run.is_rollback => ROLLBACK_IN_PROGRESS.to_owned(),
        None => IN_PROGRESS.to_owned(),
    };
    let unplaced = busy
        .iter()
        .filter_map(|slot| slot.current)
        .find(|task| task.status.state <= TaskState::Pending && task.desired == TaskState::Running);
    let message = match unplaced {
        Some(task) => format!("{what}: {}{UNPLACED}", task.slot_name()),
        None => what,
    };
    if message != status.message {
        write(round, service, run, UpdateState::Updating, message);
    }
}
