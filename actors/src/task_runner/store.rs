//! Where a node keeps its tasks, so that it goes on after a restart without any manager.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use shoal_core::model::{Task, TaskId, TaskStatus};
use shoal_core::task::BoxFuture;

/// The records cannot be read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("task records {path}: {words}")]
pub struct StoreError {
    /// File.
    pub path: String,
    /// What went wrong.
    pub words: String,
}

/// A task as assigned, and how far this node got with it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoredTask {
    /// As assigned.
    pub task: Arc<Task>,
    /// As observed.
    pub status: TaskStatus,
}

/// One change of the records.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// Add or replace.
    Put(Box<StoredTask>),
    /// Drop.
    Remove(TaskId),
}

impl Change {
    /// The task it is about.
    #[must_use]
    pub fn task_id(&self) -> TaskId {
        match self {
            Self::Put(stored) => stored.task.id,
            Self::Remove(id) => *id,
        }
    }
}

/// A node's records of its tasks.
pub trait TaskStore: Send + Sync + 'static {
    /// All of them.
    fn load(&self) -> BoxFuture<'_, Result<Vec<StoredTask>, StoreError>>;
    /// Apply the changes, all or none, durably before it returns.
    fn save(&self, changes: Vec<Change>) -> BoxFuture<'_, Result<(), StoreError>>;
}

/// Records in memory, for the simulator and tests: a clone sees the same records, as a restarted node its disk.
#[derive(Debug, Clone, Default)]
pub struct MemoryTaskStore {
    tasks: Arc<Mutex<BTreeMap<TaskId, StoredTask>>>,
}

impl MemoryTaskStore {
    /// Apply the changes at once.
    pub fn apply(&self, changes: Vec<Change>) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        for change in changes {
            match change {
                Change::Put(stored) => drop(tasks.insert(stored.task.id, *stored)),
                Change::Remove(id) => drop(tasks.remove(&id)),
            }
        }
    }
}

impl TaskStore for MemoryTaskStore {
    fn load(&self) -> BoxFuture<'_, Result<Vec<StoredTask>, StoreError>> {
        let tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        Box::pin(async move { Ok(tasks) })
    }

    fn save(&self, changes: Vec<Change>) -> BoxFuture<'_, Result<(), StoreError>> {
        self.apply(changes);
        Box::pin(async { Ok(()) })
    }
}
