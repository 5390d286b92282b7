//! The state machine: applies committed entries, and shows everybody the result.

use std::io::Cursor;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use openraft::storage::RaftStateMachine;
use openraft::{AnyError, EntryPayload, RaftSnapshotBuilder, Snapshot};
use shoal_core::model::Timestamp;
use shoal_core::put_back::{Bug, is_put_back};
use shoal_core::store::{Event, State};
use tokio::sync::{broadcast, watch};

use super::batch::Batch;
use super::snapshot::{self, Replicated, SnapshotError, SnapshotStore};
use super::stats::Counters;
use super::types::{
    Entry, LogId, Reply, SnapshotMeta, StorageError, StorageIoError, StoredMembership, TypeConfig,
};

/// Batches of events that a slow reader may be behind.
const EVENT_BACKLOG: usize = 1024;

/// What readers see. It changes once for each batch of applied entries: first the state, then the index, then
/// the events.
pub(super) struct View {
    state: RwLock<State>,
    last: Mutex<Option<LogId>>,
    /// Of the proposals that are remembered with this state.
    remembered: AtomicU64,
    pub(super) applied: watch::Sender<u64>,
    pub(super) events: broadcast::Sender<Arc<[Event]>>,
}

impl View {
    pub(super) fn new() -> Self {
        Self {
            state: RwLock::default(),
            last: Mutex::default(),
            remembered: AtomicU64::default(),
            applied: watch::Sender::new(0),
            events: broadcast::Sender::new(EVENT_BACKLOG),
        }
    }

    pub(super) fn state(&self) -> State {
        self.state.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The newest applied entry.
    pub(super) fn last(&self) -> Option<LogId> {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A digest of the proposals that are remembered with the state.
    pub(super) fn remembered(&self) -> u64 {
        self.remembered.load(Relaxed)
    }

    fn publish(&self, Replicated { state, recent }: &Replicated, last: Option<LogId>) {
        // The old state is dropped outside of the lock.
        let old = {
            let mut shown = self.state.write().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *shown, state.clone())
        };
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = last;
        self.remembered.store(recent.digest(), Relaxed);
        self.applied.send_replace(last.map_or(0, |last| last.index));
        drop(old);
    }
}

/// The state machine.
pub(super) struct Machine {
    view: Arc<View>,
    snapshots: Arc<SnapshotStore>,
    counters: Arc<Counters>,
    replicated: Replicated,
    last: Option<LogId>,
    membership: StoredMembership,
}

fn failed(error: &SnapshotError) -> StorageError {
    StorageIoError::write_snapshot(None, AnyError::error(error)).into()
}

impl Machine {
    pub(super) fn new(
        view: Arc<View>,
        snapshots: Arc<SnapshotStore>,
        counters: Arc<Counters>,
        found: Option<(SnapshotMeta, Replicated)>,
    ) -> Self {
        let (meta, replicated) = found.unwrap_or_default();
        view.publish(&replicated, meta.last_log_id);
        Self {
            view,
            snapshots,
            counters,
            replicated,
            last: meta.last_log_id,
            membership: meta.last_membership,
        }
    }

    fn apply_batch(
        &mut self,
        log_id: LogId,
        batch: &Batch,
        events: &mut Vec<Event>,
        batch_time: &mut Option<Timestamp>,
    ) -> Reply {
        let Replicated { state, recent } = &mut self.replicated;
        state.skip(log_id.index);
        let proposals = match batch.proposals() {
            Ok(proposals) => proposals,
            Err(reason) => {
                tracing::error!(index = log_id.index, reason, "a batch cannot be read and is skipped");
                return Reply::Unreadable(reason);
            }
        };
        let mut outcomes = Vec::with_capacity(proposals.len());
        for (id, mut command) in proposals {
            if is_put_back(Bug::TimeOfBatch) {
                command.at = *batch_time.get_or_insert(command.at);
            }
            if let Some(known) = recent.get(id).filter(|_| !is_put_back(Bug::AppliedTwice)) {
                outcomes.push(known.clone());
                continue;
            }
            let applied = state.apply(log_id.index, log_id.leader_id.term, command);
            let outcome = (log_id.index, applied.map(|applied| events.extend(applied.events)));
            recent.insert(id, outcome.clone());
            outcomes.push(outcome);
        }
        Reply::Proposals(outcomes)
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), StorageError> {
        Ok((self.last, self.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Reply>, StorageError>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let mut replies = Vec::new();
        let mut events = Vec::new();
        let mut batch_time = None;
        for entry in entries {
            if is_put_back(Bug::EventsDropped) {
                events.clear();
            }
            let log_id = entry.log_id;
            self.last = Some(log_id);
            replies.push(match entry.payload {
                EntryPayload::Normal(batch) => self.apply_batch(log_id, &batch, &mut events, &mut batch_time),
                EntryPayload::Blank => {
                    self.replicated.state.skip(log_id.index);
                    Reply::Nothing
                }
                EntryPayload::Membership(membership) => {
                    self.membership = StoredMembership::new(Some(log_id), membership);
                    self.replicated.state.skip(log_id.index);
                    Reply::Nothing
                }
            });
        }
        self.view.publish(&self.replicated, self.last);
        if !events.is_empty() {
            // Nobody may be listening.
            let _ = self.view.events.send(events.into());
        }
        Ok(replies)
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder {
            snapshots: Arc::clone(&self.snapshots),
            counters: Arc::clone(&self.counters),
            replicated: self.replicated.clone(),
            last: self.last,
            membership: self.membership.clone(),
        }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, StorageError> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        received: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), StorageError> {
        let image = received.into_inner();
        let replicated = snapshot::decode(&image).map_err(|error| failed(&error))?;
        self.snapshots.save(meta.clone(), image).await.map_err(|error| failed(&error))?;
        self.replicated = replicated;
        self.last = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.view.publish(&self.replicated, self.last);
        Counters::add(&self.counters.snapshots_installed, 1);
        // No events tell how it came to this state: an empty batch means "read everything anew".
        let _ = self.view.events.send(Arc::new([]));
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<TypeConfig>>, StorageError> {
        let found = self.snapshots.load().await.map_err(|error| {
            StorageError::from(StorageIoError::read_snapshot(None, AnyError::error(&error)))
        })?;
        Ok(found.map(|(meta, image)| Snapshot { meta, snapshot: Box::new(Cursor::new(image)) }))
    }
}

/// Makes a snapshot of the state as it was when this was made.
pub(super) struct Builder {
    snapshots: Arc<SnapshotStore>,
    counters: Arc<Counters>,
    replicated: Replicated,
    last: Option<LogId>,
    membership: StoredMembership,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    async fn build_snapshot(&mut self) -> Result<Snapshot<TypeConfig>, StorageError> {
        let last_membership = match is_put_back(Bug::SnapshotWithoutMembers) {
            true => StoredMembership::default(),
            false => self.membership.clone(),
        };
        let meta = SnapshotMeta {
            last_log_id: self.last,
            last_membership,
            snapshot_id: self.last.map_or_else(|| "empty".to_owned(), |last| last.to_string()),
        };
        let encoded = snapshot::encode(self.snapshots.disk(), self.replicated.clone()).await;
        let image = encoded.map_err(|error| failed(&error))?;
        let image = self.snapshots.save(meta.clone(), image).await.map_err(|error| failed(&error))?;
        Counters::add(&self.counters.snapshots_built, 1);
        Ok(Snapshot { meta, snapshot: Box::new(Cursor::new(image)) })
    }
}
