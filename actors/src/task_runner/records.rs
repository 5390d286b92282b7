//! Writes the records behind the runner's back: changes are gathered for some milliseconds and go to disk as one write.
//!
//! Nothing waits for a write but the word that a task has ended: what a crash loses is found again by looking at the
//! containers and at what managers say, and a node that had told of an end and forgot it would go on with the task.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actix::{AsyncContext, Context, Handler, Message};
use shoal_core::model::{TaskId, TaskStatus};

use super::actor::TaskRunner;
use super::messages::Saved;
use super::{Change, StoredTask, TaskStore};

const RETRY_DELAY_MAX: Duration = Duration::from_secs(5);

/// Changes that are not on disk yet: one a task at most.
pub(super) struct Records {
    store: Arc<dyn TaskStore>,
    changes: BTreeMap<TaskId, Change>,
    /// Ends that are told once they are on disk.
    ended: BTreeMap<TaskId, TaskStatus>,
    /// Those whose write is under way.
    ended_now: BTreeMap<TaskId, TaskStatus>,
    /// A write is under way, or its timer runs.
    busy: bool,
    failures: u32,
}

#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Flush;

impl Records {
    pub(super) fn new(store: Arc<dyn TaskStore>) -> Self {
        Self {
            store,
            changes: BTreeMap::new(),
            ended: BTreeMap::new(),
            ended_now: BTreeMap::new(),
            busy: false,
            failures: 0,
        }
    }

    pub(super) fn store(&self) -> Arc<dyn TaskStore> {
        self.store.clone()
    }

    pub(super) fn take_all(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes).into_values().collect()
    }
}

impl TaskRunner {
    /// Write a task as it stands now.
    pub(super) fn keep(&mut self, id: TaskId, ctx: &mut Context<Self>) {
        let Some(entry) = self.tasks.get(&id) else { return };
        let stored = StoredTask { task: entry.task.clone(), status: entry.local.status.clone() };
        self.records.changes.insert(id, Change::Put(Box::new(stored)));
        self.arm_flush(ctx);
    }

    /// Write a task that has ended, and tell the managers then.
    pub(super) fn keep_and_tell(&mut self, id: TaskId, status: TaskStatus, ctx: &mut Context<Self>) {
        self.records.ended.insert(id, status);
        self.keep(id, ctx);
    }

    /// Drop a task's record.
    pub(super) fn drop_record(&mut self, id: TaskId, ctx: &mut Context<Self>) {
        self.records.changes.insert(id, Change::Remove(id));
        self.arm_flush(ctx);
    }

    fn arm_flush(&mut self, ctx: &mut Context<Self>) {
        if self.records.busy || self.records.changes.is_empty() {
            return;
        }
        self.records.busy = true;
        let backoff = match self.records.failures {
            0 => Duration::ZERO,
            failures => Duration::from_millis(100 << failures.min(6)).min(RETRY_DELAY_MAX),
        };
        ctx.notify_later(Flush, self.limits.flush_delay.max(backoff));
    }
}

impl Handler<Flush> for TaskRunner {
    type Result = ();

    fn handle(&mut self, _: Flush, ctx: &mut Self::Context) {
        self.records.ended_now = std::mem::take(&mut self.records.ended);
        let (changes, store, runner) = (self.records.take_all(), self.records.store(), ctx.address());
        actix_rt::spawn(async move {
            let result = store.save(changes.clone()).await;
            runner.do_send(Saved(result.map_err(|error| (error, changes))));
        });
    }
}

impl Handler<Saved> for TaskRunner {
    type Result = ();

    fn handle(&mut self, Saved(result): Saved, ctx: &mut Self::Context) {
        self.records.busy = false;
        // A disk that refuses must not hide an end for ever: it is told all the same.
        for (id, status) in std::mem::take(&mut self.records.ended_now) {
            if self.tasks.contains_key(&id) {
                self.shared.outbox.put(id, status);
            }
        }
        match result {
            Ok(()) => self.records.failures = 0,
            Err((error, changes)) => {
                self.records.failures = self.records.failures.saturating_add(1);
                tracing::warn!(%error, failures = self.records.failures, "task records not written; trying again");
                self.shared.count(|stats| stats.store_failures_total += 1);
                for change in changes {
                    // What changed since then is newer.
                    self.records.changes.entry(change.task_id()).or_insert(change);
                }
            }
        }
        self.arm_flush(ctx);
    }
}
