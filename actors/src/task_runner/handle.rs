//! The way to a node's task runner, from any thread.

use std::sync::{Arc, Mutex, PoisonError};

use actix::{Actor, Addr};
use shoal_core::model::{Task, TaskId};
use shoal_core::task::Controller;

use super::actor::TaskRunner;
use super::messages::{ChangeAssignments, Leave, SetComplete, Shutdown};
use super::outbox::Outbox;
use super::{Clock, Limits, Reports, Stats, TaskStore};

/// The task runner has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the task runner has stopped")]
pub struct RunnerStopped;

/// What the runner and its handles see both.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) outbox: Arc<Outbox>,
    stats: Mutex<Stats>,
}

impl Shared {
    pub(super) fn count(&self, change: impl FnOnce(&mut Stats)) {
        change(&mut self.stats.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Speaks to a node's task runner. Cheap to clone.
#[derive(Clone)]
pub struct TaskRunnerHandle {
    addr: Addr<TaskRunner>,
    shared: Arc<Shared>,
}

impl TaskRunnerHandle {
    /// Start the runner on the current actix system. It loads its records before it hears any message, and goes on
    /// with the tasks found there.
    #[must_use]
    pub fn start(
        controller: Arc<dyn Controller>,
        store: Arc<dyn TaskStore>,
        clock: Clock,
        limits: Limits,
    ) -> Self {
        let shared = Arc::new(Shared::default());
        let addr = TaskRunner::new(controller, store, clock, limits, shared.clone()).start();
        Self { addr, shared }
    }

    /// All tasks of this node, as a manager knows them. What is not among them is stopped and removed, and from the
    /// first such message on containers that belong to no task are removed too.
    ///
    /// # Errors
    /// If the runner has stopped.
    pub async fn set_complete(&self, tasks: Vec<Arc<Task>>) -> Result<(), RunnerStopped> {
        self.addr.send(SetComplete(tasks)).await.map_err(|_| RunnerStopped)
    }

    /// The node leaves its cluster: all tasks are stopped and removed, and none is taken any more.
    ///
    /// # Errors
    /// If the runner has stopped.
    pub async fn leave(&self) -> Result<(), RunnerStopped> {
        self.addr.send(Leave).await.map_err(|_| RunnerStopped)
    }

    /// New and changed tasks, and tasks to stop and remove.
    ///
    /// # Errors
    /// If the runner has stopped.
    pub async fn change(&self, changed: Vec<Arc<Task>>, removed: Vec<TaskId>) -> Result<(), RunnerStopped> {
        self.addr.send(ChangeAssignments { changed, removed }).await.map_err(|_| RunnerStopped)
    }

    /// Statuses for a new session: begins with all that were never acknowledged.
    #[must_use]
    pub fn reports(&self) -> Reports {
        Reports::new(self.shared.outbox.clone())
    }

    /// The batch with this mark, and those before it, are committed.
    pub fn ack(&self, mark: u64) {
        self.shared.outbox.ack(mark);
    }

    /// Write the records and stop. Containers go on running.
    pub async fn shutdown(&self) {
        // A runner that has stopped already is what was asked for.
        let _ = self.addr.send(Shutdown).await;
    }

    /// Its counters now.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let mut stats = *self.shared.stats.lock().unwrap_or_else(PoisonError::into_inner);
        stats.reports_pending = self.shared.outbox.len() as u64;
        stats
    }
}
