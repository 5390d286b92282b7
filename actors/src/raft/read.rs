//! Confirmed reads: the leader asks a majority whether it still leads. Reads that wait together share a question.

use std::time::Duration;

use openraft::error::{CheckIsLeaderError, RaftError};
use shoal_core::put_back::{Bug, is_put_back};
use shoal_wire::Kind;
use shoal_wire::v1::Outcome;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use super::error::ProposeError;
use super::propose::{Attempt, TryAgain};
use super::runtime::Scope;
use super::start::Inner;
use super::types::Raft;

/// Reads that may wait.
const QUEUE: usize = 4096;

type Asker = oneshot::Sender<Attempt<ProposeError>>;

/// Confirms reads at the leader.
pub(super) struct Reads(mpsc::Sender<Asker>);

impl Reads {
    pub(super) fn start(raft: Raft, scope: &Scope) -> Self {
        let (tx, rx) = mpsc::channel(QUEUE);
        scope.spawn(run(raft, rx));
        Self(tx)
    }

    /// The index that a read beginning now must have applied.
    pub(super) async fn index(&self) -> Attempt<ProposeError> {
        let (asker, rx) = oneshot::channel();
        match self.0.try_send(asker) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => return Err(Err(ProposeError::Overloaded(QUEUE))),
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(stopped()),
        }
        rx.await.unwrap_or_else(|_| Err(stopped()))
    }
}

fn stopped() -> Result<TryAgain, ProposeError> {
    Err(ProposeError::Stopped("raft has stopped".into()))
}

async fn run(raft: Raft, mut rx: mpsc::Receiver<Asker>) {
    while let Some(first) = rx.recv().await {
        // Only those who asked before the question is put may have its answer.
        let mut askers = vec![first];
        while let Ok(asker) = rx.try_recv() {
            askers.push(asker);
        }
        let answer = match is_put_back(Bug::ReadWithoutQuorum) {
            true => Ok((raft.metrics().borrow().last_applied, None)),
            false => raft.get_read_log_id().await,
        };
        for asker in askers {
            let _ = asker.send(match &answer {
                Ok((index, _)) => Ok(index.map_or(0, |id| id.index)),
                Err(RaftError::APIError(CheckIsLeaderError::ForwardToLeader(_))) => {
                    Err(Ok(TryAgain::nothing("")))
                }
                Err(RaftError::APIError(CheckIsLeaderError::QuorumNotEnough(_))) => {
                    Err(Ok(TryAgain::nothing("no majority of the managers answered")))
                }
                Err(RaftError::Fatal(fatal)) => Err(Err(ProposeError::Stopped(fatal.to_string()))),
            });
        }
    }
}

impl Inner {
    /// An index; a state that has it applied is no older than this call. It is applied here on return.
    pub(super) async fn read_index(&self) -> Result<u64, ProposeError> {
        const TIME: Duration = Duration::from_millis(1_500);
        let deadline = Instant::now() + self.timing.pace.of(TIME);
        let index = loop {
            let attempt = match self.leader() {
                Some(leader) if leader == self.me => self.index_here(deadline).await,
                Some(leader) => match self.ask(leader, Kind::ReadIndex, &(), deadline).await {
                    Ok(Outcome::Done(index)) => Ok(index),
                    Ok(Outcome::NotLeader(_)) => Err(Ok(TryAgain::nothing(""))),
                    Ok(Outcome::Unavailable(why) | Outcome::Conflict(why)) => Err(Ok(TryAgain::nothing(why))),
                    Ok(Outcome::Refused(error)) => Err(Err(ProposeError::Refused(error))),
                    Err(again) => Err(Ok(again)),
                },
                None => Err(Ok(TryAgain::nothing(""))),
            };
            let reason = match attempt {
                Ok(index) => break index,
                Err(Err(error)) => return Err(error),
                Err(Ok(again)) => again.reason,
            };
            self.wait_for_leader(&reason, deadline).await?;
            if Instant::now() >= deadline {
                return Err(ProposeError::NoLeader(self.no_leader(&reason)));
            }
        };
        self.wait_applied(index, deadline).await
    }

    /// The index that a read beginning now must have applied, if this node leads still.
    pub(super) async fn index_here(&self, deadline: Instant) -> Attempt<ProposeError> {
        let late = |_| Err(Err(ProposeError::Unavailable(self.no_leader(""))));
        timeout_at(deadline, self.reads.index()).await.unwrap_or_else(late)
    }
}
