//! Statuses on their way to the managers: the latest of each task, kept until acknowledged.
//!
//! The bound is one status a task: a newer one takes the place of the older, which nobody needs any more.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shoal_core::model::{TaskId, TaskStatus};
use tokio::sync::Notify;

/// Statuses to send, and the mark to acknowledge them by.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// Hand this to `ack` once the statuses are committed.
    pub mark: u64,
    /// Latest status of each task that changed.
    pub reports: Vec<(TaskId, TaskStatus)>,
}

#[derive(Debug, Default)]
struct Pending {
    /// Grows with each status put in.
    last: u64,
    by_mark: BTreeMap<u64, TaskId>,
    by_task: BTreeMap<TaskId, (u64, TaskStatus)>,
}

#[derive(Debug, Default)]
pub(super) struct Outbox {
    pending: Mutex<Pending>,
    changed: Notify,
}

impl Outbox {
    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn put(&self, id: TaskId, status: TaskStatus) {
        {
            let mut pending = self.pending();
            pending.last += 1;
            let mark = pending.last;
            if let Some((old, _)) = pending.by_task.insert(id, (mark, status)) {
                pending.by_mark.remove(&old);
            }
            pending.by_mark.insert(mark, id);
        }
        self.changed.notify_waiters();
    }

    /// The task is not ours any more: nobody wants to hear of it.
    pub(super) fn forget(&self, id: TaskId) {
        let mut pending = self.pending();
        if let Some((mark, _)) = pending.by_task.remove(&id) {
            pending.by_mark.remove(&mark);
        }
    }

    pub(super) fn ack(&self, mark: u64) {
        let mut pending = self.pending();
        let newer = pending.by_mark.split_off(&mark.saturating_add(1));
        for id in std::mem::replace(&mut pending.by_mark, newer).into_values() {
            pending.by_task.remove(&id);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.pending().by_task.len()
    }

    fn after(&self, mark: u64, max: usize) -> Option<Batch> {
        let pending = self.pending();
        let next = pending.by_mark.range(mark.saturating_add(1)..).take(max);
        let mut batch = Batch { mark, reports: Vec::new() };
        for (mark, id) in next {
            let Some((_, status)) = pending.by_task.get(id) else { continue };
            batch.mark = *mark;
            batch.reports.push((*id, status.clone()));
        }
        (!batch.reports.is_empty()).then_some(batch)
    }
}

/// Reads statuses for one session with a manager: a new reader begins with all that was never acknowledged.
#[derive(Debug)]
pub struct Reports {
    outbox: Arc<Outbox>,
    sent: u64,
}

impl Reports {
    pub(super) fn new(outbox: Arc<Outbox>) -> Self {
        Self { outbox, sent: 0 }
    }

    /// At most `max` statuses that this reader has not given out yet, if there are any.
    pub fn take(&mut self, max: usize) -> Option<Batch> {
        let batch = self.outbox.after(self.sent, max)?;
        self.sent = batch.mark;
        Some(batch)
    }

    /// Wait for statuses. May be dropped at any point without losing one.
    pub async fn next(&mut self, max: usize) -> Batch {
        let outbox = self.outbox.clone();
        loop {
            let changed = outbox.changed.notified();
            tokio::pin!(changed);
            // Registered before the look, so that a status put in between is not slept over.
            changed.as_mut().enable();
            if let Some(batch) = self.take(max) {
                return batch;
            }
            changed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shoal_core::model::TaskState;

    use super::*;

    fn status(state: TaskState) -> TaskStatus {
        TaskStatus { state, ..TaskStatus::default() }
    }

    #[test]
    fn lower_states_are_dropped_and_a_new_reader_repeats_what_was_not_acknowledged() {
        let outbox = Arc::new(Outbox::default());
        let (a, b) = (TaskId::from_u128(1), TaskId::from_u128(2));
        outbox.put(a, status(TaskState::Accepted));
        outbox.put(b, status(TaskState::Accepted));
        outbox.put(a, status(TaskState::Running));
        let mut reader = Reports::new(outbox.clone());
        let batch = reader.take(10).unwrap();
        assert_eq!(batch.reports, [(b, status(TaskState::Accepted)), (a, status(TaskState::Running))]);
        assert_eq!(reader.take(10), None);
        assert_eq!(Reports::new(outbox.clone()).take(10), Some(batch.clone()));
        outbox.put(b, status(TaskState::Failed));
        outbox.ack(batch.mark);
        let left = Reports::new(outbox.clone()).take(10).unwrap();
        assert_eq!(left.reports, [(b, status(TaskState::Failed))]);
        outbox.forget(b);
        assert_eq!(outbox.len(), 0);
    }

    proptest! {
        #[test]
        fn after_all_is_acknowledged_the_last_status_of_each_task_was_sent(
            story in prop::collection::vec((0u128..4, 0usize..8, 1usize..4, any::<bool>()), 1..60),
        ) {
            let outbox = Arc::new(Outbox::default());
            let mut reader = Reports::new(outbox.clone());
            let (mut put, mut sent) = (BTreeMap::new(), BTreeMap::new());
            for (id, state, max, take) in story {
                let (id, status) = (TaskId::from_u128(id), status(TaskState::ALL[state]));
                outbox.put(id, status.clone());
                put.insert(id, status);
                if take && let Some(batch) = reader.take(max) {
                    sent.extend(batch.reports);
                    outbox.ack(batch.mark);
                }
            }
            while let Some(batch) = reader.take(3) {
                sent.extend(batch.reports);
                outbox.ack(batch.mark);
            }
            prop_assert_eq!(put, sent);
            prop_assert_eq!(outbox.len(), 0);
        }
    }
}
