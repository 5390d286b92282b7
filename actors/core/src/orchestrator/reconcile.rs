//! One service: which slots it shall have, and what each of them needs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::model::{Service, ServiceId, ServiceMode, Slot, Task, TaskState};
use crate::put_back::{Bug, is_put_back};

use super::fate::{Fate, fate};
use super::outdated::outdated;
use super::restart::{Restart, restart};
use super::round::{Round, Successor};
use super::slot::{SlotTasks, slots_of};
use super::update::{self, Progress};
use super::{global, replicated, task_reaper};

/// What shall become of a slot that has tasks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wish {
    /// It stays.
    Keep,
    /// Its tasks stop, for this reason; the slot may be filled again later.
    Stop(String),
    /// It goes, with its history.
    Remove,
}

/// Look at one service, which may be gone while its tasks are not.
pub(super) fn reconcile(round: &mut Round<'_>, id: ServiceId) {
    let slots = slots_of(round.state, id);
    match round.state.service(id) {
        None => slots.values().for_each(|slot| remove_all(round, slot, "its service was removed")),
        Some(service) => {
            round.relies_on(service);
            serve(round, service, &slots);
        }
    }
    task_reaper::reap(round, round.state.service(id).map(Arc::as_ref), &slots);
}

fn serve(round: &mut Round<'_>, service: &Service, slots: &BTreeMap<Slot, SlotTasks<'_>>) {
    let (wishes, fill) = match service.spec.mode {
        ServiceMode::Replicated { replicas } => replicated::divide(replicas, slots),
        ServiceMode::Global => global::divide(round.state, service, slots),
    };
    let mut progress = Vec::new();
    for (key, wish) in &wishes {
        let Some(slot) = slots.get(key) else { continue };
        match wish {
            Wish::Keep => progress.extend(settle(round, service, slot)),
            Wish::Stop(why) => {
                for task in slot.holders().filter(|task| !task.status.state.is_terminal()) {
                    round.shut_down(task, why);
                }
            }
            Wish::Remove => remove_all(round, slot, "its slot is not wanted any more"),
        }
    }
    update::advance(round, service, &progress);
    for waiting in &progress {
        // What the update does not replace yet (it may be paused) runs on as it is.
        if let Some(old) = waiting.outdated {
            round.release(waiting.slot, old);
        }
    }
    for slot in fill {
        if !round.may_create() {
            break;
        }
        round.fill(service, slot, slots.get(&slot).map_or(&[], |slot| &slot.tasks));
    }
}

fn remove_all(round: &mut Round<'_>, slot: &SlotTasks<'_>, why: &str) {
    for task in slot.tasks.iter().filter(|task| task.desired < TaskState::Remove) {
        round.because(|| format!("{}: task {} goes: {why}", task.slot_name(), task.id));
        round.stop(task.id, TaskState::Remove);
    }
}

/// The tasks that hold a slot, by what they need.
struct Holders<'a> {
    /// Live, where it may stay, of the present version; the best first.
    current: Vec<&'a Arc<Task>>,
    /// Live, where it may stay, but of an older version; the best first.
    old: Vec<&'a Arc<Task>>,
    /// Not where it may stay.
    misplaced: Vec<(&'a Arc<Task>, Fate)>,
    /// Ended and not replaced, oldest first.
    ended: Vec<&'a Arc<Task>>,
}

fn sort_out<'a>(round: &Round<'_>, service: &Service, slot: &SlotTasks<'a>) -> Holders<'a> {
    let mut holders =
        Holders { current: Vec::new(), old: Vec::new(), misplaced: Vec::new(), ended: Vec::new() };
    for task in slot.holders() {
        if task.status.state == TaskState::Orphaned {
            holders.misplaced.push((task, Fate::Lost("its node is lost".into())));
        } else if task.status.state.is_terminal() {
            holders.ended.push(task);
        } else {
            match fate(round.state, service, task, round.evicted) {
                Fate::Stay if outdated(round.state, service, task) => holders.old.push(task),
                Fate::Stay => holders.current.push(task),
                other => holders.misplaced.push((task, other)),
            }
        }
    }
    // Slots are sorted oldest first, and sorting is stable: of equals the oldest is the best.
    holders.current.sort_by_key(|task| std::cmp::Reverse((task.desired, task.status.state)));
    holders.old.sort_by_key(|task| std::cmp::Reverse((task.desired, task.status.state)));
    holders
}

/// Give a wanted slot what it needs at once, and say how far it is in the update.
fn settle<'a>(round: &mut Round<'_>, service: &Service, slot: &'a SlotTasks<'a>) -> Option<Progress<'a>> {
    let holders = sort_out(round, service, slot);
    for extra in holders.current.iter().skip(1).chain(holders.old.iter().skip(1)) {
        round.shut_down(extra, "its slot has another task");
    }
    let current = holders.current.first().copied();
    let old = holders.old.first().copied();
    // The old task of a slot stops once another one runs, whatever has become of the update until then.
    round.awaits_running |= old.is_some();
    let mut progress = Progress::new(slot, current);
    if let Some(current) = current {
        for task in holders.misplaced.iter().map(|(task, _)| task).chain(&holders.ended) {
            round.shut_down(task, "its slot has another task");
        }
        if let Some(old) = old
            && (current.runs_well() || is_put_back(Bug::PredecessorNotKept))
        {
            round.shut_down(old, "its successor runs");
        }
        round.release(slot, current);
        return Some(progress);
    }
    let chosen = choose(round, service, &holders, old.is_some());
    let others = holders.misplaced.iter().map(|(task, _)| *task).chain(holders.ended.iter().copied());
    for task in others.filter(|task| chosen.as_ref().is_none_or(|(chosen, _)| chosen.id != task.id)) {
        round.shut_down(task, "its slot has another task");
    }
    match chosen {
        None if old.is_none() => return None,
        None => progress.outdated = old,
        Some((task, Some(Fate::Lost(why)))) => {
            progress.replaced = true;
            round.replace(service, slot, task, Successor { delay: Duration::ZERO, shaky: false }, &why);
        }
        Some((task, Some(Fate::Leave(why)))) => {
            progress.replaced = true;
            round.replace(service, slot, task, Successor { delay: Duration::ZERO, shaky: true }, &why);
        }
        Some((task, _)) => match restart(service, &slot.tasks, task) {
            Restart::After(delay) => {
                progress.replaced = true;
                let why = format!("it is {}", task.status.state.as_str());
                round.replace(service, slot, task, Successor { delay, shaky: false }, &why);
            }
            // It stays as it is until the specification changes.
            Restart::Never if outdated(round.state, service, task) => progress.outdated = Some(task),
            Restart::Never => {}
        },
    }
    Some(progress)
}

/// The task that is replaced in a slot without a live current one: a misplaced one rather than an ended one,
/// the newest of them. Beside a live old task only those of its successor's version count: the rest was replaced by it.
fn choose<'a>(
    round: &Round<'_>,
    service: &Service,
    holders: &Holders<'a>,
    beside_old: bool,
) -> Option<(&'a Arc<Task>, Option<Fate>)> {
    let counts = |task: &Task| !beside_old || !outdated(round.state, service, task);
    let misplaced = holders.misplaced.iter().rev().find(|(task, _)| counts(task));
    if let Some((task, fate)) = misplaced {
        return Some((task, Some(fate.clone())));
    }
    holders.ended.iter().rev().find(|task| counts(task)).map(|task| (*task, None))
}
