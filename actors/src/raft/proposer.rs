//! Groups proposals that wait together into one log entry.
//!
//! openraft's core writes one append at a time and waits until it is durable. While it does, proposals gather
//! here; the next entry takes all of them. One client alone never waits for company.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::ServerState;
use openraft::error::{ClientWriteError, Fatal};
use shoal_core::model::NodeId;
use shoal_core::store::ApplyError;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use super::batch::{BATCH_BYTES, BATCH_COMMANDS, Batch};
use super::runtime::Scope;
use super::stats::Counters;
use super::types::{Raft, Reply};

/// Entries under way at once: one is written here while the one before is written there.
const PIPELINE: usize = 3;

/// Who no longer leads waits so long for answers to what it wrote.
const LATE_ANSWER: Duration = Duration::from_secs(1);

/// Why a proposal at this node came to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// This node does not lead; it was not committed and will not be.
    NotLeader(Option<NodeId>),
    /// The state refused it.
    Refused(ApplyError),
    /// Whether it will be committed is unknown.
    Unknown(String),
    /// Too many wait.
    Overloaded,
    /// Consensus stopped.
    Stopped(String),
}

pub(super) type Answer = Result<u64, Failure>;

struct Item {
    id: u128,
    command: Bytes,
    since: Instant,
    answer: oneshot::Sender<Answer>,
}

/// Takes proposals at the leader.
pub(super) struct Proposer(mpsc::Sender<Item>);

impl Proposer {
    pub(super) fn start(raft: Raft, scope: &Scope, counters: Arc<Counters>, limit: usize) -> Self {
        let (tx, rx) = mpsc::channel(limit);
        scope.spawn(run(raft, rx, scope.clone(), counters));
        Self(tx)
    }

    /// Propose an encoded command under an id.
    pub(super) fn offer(&self, id: u128, command: Bytes) -> oneshot::Receiver<Answer> {
        let (answer, rx) = oneshot::channel();
        let item = Item { id, command, since: Instant::now(), answer };
        match self.0.try_send(item) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(item)) => {
                let _ = item.answer.send(Err(Failure::Overloaded));
            }
            Err(mpsc::error::TrySendError::Closed(item)) => {
                let _ = item.answer.send(Err(Failure::Stopped("raft has stopped".into())));
            }
        }
        rx
    }
}

async fn run(raft: Raft, mut rx: mpsc::Receiver<Item>, scope: Scope, counters: Arc<Counters>) {
    let pipeline = Arc::new(Semaphore::new(PIPELINE));
    let mut held_over: Option<Item> = None;
    loop {
        let first = match held_over.take() {
            Some(item) => item,
            None => match rx.recv().await {
                Some(item) => item,
                None => return,
            },
        };
        // Others gather while this waits.
        let Ok(permit) = Arc::clone(&pipeline).acquire_owned().await else { return };
        let items = gather(first, &mut rx, &mut held_over);
        if items.is_empty() {
            continue;
        }
        let batch = Batch::of(items.iter().map(|item| (item.id, &item.command[..])));
        Counters::add(&counters.proposals, items.len() as u64);
        Counters::add(&counters.batches, 1);
        let term = raft.metrics().borrow().current_term;
        let written = raft.client_write_ff(batch).await;
        let (counters, raft) = (Arc::clone(&counters), raft.clone());
        scope.spawn(async move {
            let _permit = permit;
            let outcome = match written {
                Ok(answer) => match until_deposed(&raft, term, answer).await {
                    Some(Ok(Ok(done))) => Ok((done.log_id.index, done.data)),
                    Some(Ok(Err(error))) => Err(not_written(error)),
                    Some(Err(_)) => {
                        Err(Failure::Unknown("raft stopped before the change was committed".into()))
                    }
                    None => Err(Failure::Unknown(
                        "this manager leads no more; the change may still be committed".into(),
                    )),
                },
                Err(fatal) => Err(stopped(&fatal)),
            };
            distribute(items, outcome, &counters);
        });
    }
}

/// openraft answers for an entry when it is applied or cut off, but never if a snapshot takes its place. None once this
/// node no longer leads in this term and no answer comes: else the pipeline would be full for ever.
async fn until_deposed<T>(raft: &Raft, term: u64, answer: impl Future<Output = T>) -> Option<T> {
    let mut answer = std::pin::pin!(answer);
    let mut server = raft.server_metrics();
    tokio::select! {
        biased;
        answer = &mut answer => return Some(answer),
        _ = server.wait_for(|server| {
            server.state != ServerState::Leader || server.vote.leader_id.term != term
        }) => {}
    }
    tokio::time::timeout(LATE_ANSWER, answer).await.ok()
}

/// All that wait, as far as they fit. Who has gone away meanwhile is left out: nothing was proposed for them.
fn gather(first: Item, rx: &mut mpsc::Receiver<Item>, held_over: &mut Option<Item>) -> Vec<Item> {
    let mut items = Vec::new();
    let mut bytes = 0;
    let mut next = Some(first);
    while let Some(item) = next {
        if !item.answer.is_closed() {
            if !items.is_empty() && bytes + item.command.len() > BATCH_BYTES {
                *held_over = Some(item);
                break;
            }
            bytes += item.command.len();
            items.push(item);
        }
        if items.len() >= BATCH_COMMANDS {
            break;
        }
        next = rx.try_recv().ok();
    }
    items
}

fn not_written(error: ClientWriteError<NodeId, super::types::Seat>) -> Failure {
    match error {
        ClientWriteError::ForwardToLeader(forward) => Failure::NotLeader(forward.leader_id),
        ClientWriteError::ChangeMembershipError(error) => Failure::Unknown(error.to_string()),
    }
}

pub(super) fn stopped(fatal: &Fatal<NodeId>) -> Failure {
    Failure::Stopped(fatal.to_string())
}

fn distribute(items: Vec<Item>, outcome: Result<(u64, Reply), Failure>, counters: &Counters) {
    match outcome {
        Ok((_, Reply::Proposals(results))) if results.len() == items.len() => {
            for (item, (index, result)) in items.into_iter().zip(results) {
                counters.commit.record(item.since.elapsed());
                let _ = item.answer.send(result.map(|()| index).map_err(Failure::Refused));
            }
        }
        Ok((_, reply)) => {
            let reason = match reply {
                Reply::Unreadable(reason) => reason,
                _ => "the results do not match the batch".to_owned(),
            };
            fail(items, &Failure::Unknown(reason), counters);
        }
        Err(failure) => fail(items, &failure, counters),
    }
}

fn fail(items: Vec<Item>, failure: &Failure, counters: &Counters) {
    Counters::add(&counters.proposals_failed, items.len() as u64);
    for item in items {
        let _ = item.answer.send(Err(failure.clone()));
    }
}
