//! Forgetting tasks: those that shall be removed, and history beyond the limit. Never one that may still run.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::model::{NodeState, Service, Slot, Task, TaskState, UpdateState};
use crate::put_back::{Bug, is_put_back};
use crate::store::Write;

use super::restart::is_attempt;
use super::round::Round;
use super::slot::SlotTasks;

/// A node that has been down for so long is not waited for: its tasks count as lost.
const DOWN_LIMIT: Duration = Duration::from_secs(24 * 3600);

/// Forget what can be forgotten of a service's tasks.
pub(super) fn reap(round: &mut Round<'_>, service: Option<&Service>, slots: &BTreeMap<Slot, SlotTasks<'_>>) {
    let limit = super::history_limit(round.state);
    for slot in slots.values() {
        let mut ended = Vec::new();
        for task in &slot.tasks {
            if !is_over(round, task) {
                continue;
            }
            if task.desired == TaskState::Remove {
                forget(round, task);
            } else if task.desired == TaskState::Shutdown {
                ended.push(*task);
            }
        }
        if let Some(service) = service {
            trim(round, service, slot, &ended, limit);
        }
    }
}

/// Whether a task that shall not run is known not to run, now and ever. Says so of lost ones.
fn is_over(round: &mut Round<'_>, task: &Task) -> bool {
    if task.status.state.is_terminal() {
        return true;
    }
    if task.desired <= TaskState::Running {
        return false;
    }
    // Only tasks that shall run are placed, so this one never will be.
    if task.status.state < TaskState::Assigned || is_put_back(Bug::ForgottenAlive) {
        return true;
    }
    let Some(id) = task.node_id else { return true };
    let Some(node) = round.state.node(id) else {
        round.orphan(task, "its node was removed");
        return false;
    };
    if node.status.state == NodeState::Down {
        let limit = node.status.since.plus(DOWN_LIMIT);
        if limit <= round.now {
            round.orphan(task, "its node has been down for a day");
        } else {
            round.wake(limit);
        }
    }
    false
}

/// Forget the oldest of the replaced tasks, but for those that the restart policy still counts, and the
/// newest predecessor of a slot under update, which tells that the slot takes part in it.
fn trim(round: &mut Round<'_>, service: &Service, slot: &SlotTasks<'_>, ended: &[&Arc<Task>], limit: u64) {
    let limit = if is_put_back(Bug::HistoryNotTrimmed) { u64::MAX } else { limit };
    let keep = usize::try_from(limit).unwrap_or(usize::MAX);
    let updating = service.update.as_ref().is_some_and(|update| update.state == UpdateState::Updating);
    let predecessor = ended
        .iter()
        .rev()
        .find(|task| updating && task.spec_version < service.task_spec_version)
        .map(|task| task.id);
    let newest = slot.tasks.last();
    let mut attempts = service.spec.task.restart.max_attempts;
    let mut kept = 0;
    for task in ended.iter().rev() {
        let counts = attempts > 0 && newest.is_some_and(|newest| is_attempt(service, task, newest));
        if counts {
            attempts -= 1;
        }
        let ran = task.status.state >= TaskState::Assigned;
        if ran && kept < keep {
            kept += 1;
        } else if !counts && predecessor != Some(task.id) {
            forget(round, task);
        }
    }
}

fn forget(round: &mut Round<'_>, task: &Task) {
    round.because(|| format!("{}: task {} is forgotten", task.slot_name(), task.id));
    round.always(Write::TaskRemove(task.id));
}
