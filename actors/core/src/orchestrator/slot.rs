//! A slot of a service with its tasks.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::{ServiceId, Slot, Task, TaskState};
use crate::store::State;

/// The tasks of one slot, oldest first.
#[derive(Debug, Clone)]
pub(super) struct SlotTasks<'a> {
    /// Which slot.
    pub(super) slot: Slot,
    /// Its tasks.
    pub(super) tasks: Vec<&'a Arc<Task>>,
}

impl<'a> SlotTasks<'a> {
    /// Tasks that shall run, ended ones that were not replaced too: they hold the slot.
    pub(super) fn holders(&self) -> impl Iterator<Item = &'a Arc<Task>> + '_ {
        self.tasks.iter().copied().filter(|task| task.desired <= TaskState::Running)
    }

    /// Whether anything holds the slot.
    pub(super) fn is_held(&self) -> bool {
        self.holders().next().is_some()
    }

    /// Whether a task runs in it that shall.
    pub(super) fn is_running(&self) -> bool {
        self.holders().any(|task| task.status.state == TaskState::Running)
    }
}

/// The slots of a service that have tasks.
pub(super) fn slots_of(state: &State, id: ServiceId) -> BTreeMap<Slot, SlotTasks<'_>> {
    let mut slots = BTreeMap::new();
    for task in state.tasks_of_service(id) {
        slots
            .entry(task.slot)
            .or_insert_with(|| SlotTasks { slot: task.slot, tasks: Vec::new() })
            .tasks
            .push(task);
    }
    for slot in slots.values_mut() {
        slot.tasks.sort_by_key(|task| (task.spec_version, task.meta.created_at, task.id));
    }
    slots
}
