//! The restart policy: whether, and after how long, a task that ended is replaced.

use std::sync::Arc;
use std::time::Duration;

use crate::model::{RestartCondition, Service, Task, TaskState};
use crate::put_back::{Bug, is_put_back};

/// What becomes of a slot whose task ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Restart {
    /// A new task, to be started after this long.
    After(Duration),
    /// It stays as it is.
    Never,
}

/// Whether the task came to an end that the restart policy counts.
pub(super) fn ended_by_itself(task: &Task) -> bool {
    matches!(task.status.state, TaskState::Complete | TaskState::Failed | TaskState::Rejected)
}

/// Whether two tasks were made on the same side of the last change of the task specification: attempts are
/// counted anew after it.
pub(super) fn same_generation(service: &Service, a: &Task, b: &Task) -> bool {
    (a.spec_version >= service.task_spec_version) == (b.spec_version >= service.task_spec_version)
}

/// Decide on `ended`, a task of the slot that shall run but has ended. `tasks` are all of the slot's.
pub(super) fn restart(service: &Service, tasks: &[&Arc<Task>], ended: &Task) -> Restart {
    let policy = &service.spec.task.restart;
    let wanted = match policy.condition {
        RestartCondition::Any => true,
        RestartCondition::OnFailure => ended.status.state != TaskState::Complete,
        RestartCondition::None => false,
    };
    if !wanted || (policy.max_attempts > 0 && attempts(service, tasks, ended) >= policy.max_attempts) {
        return Restart::Never;
    }
    let delay = if is_put_back(Bug::NoRestartDelay) { Duration::ZERO } else { policy.delay };
    Restart::After(delay)
}

/// How often the slot was restarted within the policy's window before `ended` came to its end. All times are
/// the managers' own: when the end was noted, and when the former tasks were replaced. Which came first is not asked:
/// clocks of managers differ, and go back.
fn attempts(service: &Service, tasks: &[&Arc<Task>], ended: &Task) -> u64 {
    if is_put_back(Bug::AttemptsForgotten) {
        return 0;
    }
    let window = service.spec.task.restart.window;
    let end = ended.meta.updated_at;
    let counted = tasks
        .iter()
        .filter(|task| task.id != ended.id && is_attempt(service, task, ended))
        .filter(|task| window.is_zero() || task.meta.updated_at.plus(window) > end)
        .count();
    u64::try_from(counted).unwrap_or(u64::MAX)
}

/// Whether `task` ended by itself and was then replaced, in the same generation as `ended`.
pub(super) fn is_attempt(service: &Service, task: &Task, ended: &Task) -> bool {
    ended_by_itself(task) && task.desired > TaskState::Running && same_generation(service, task, ended)
}
