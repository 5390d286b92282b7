//! Proposing from anywhere: here if this node leads, else through the leader.

use std::time::Duration;

use bytes::Bytes;
use shoal_core::model::NodeId;
use shoal_core::put_back::{Bug, is_put_back};
use shoal_core::store::{ApplyError, Command};
use shoal_wire::v1::{Outcome, ProposeRequest, ProposeResponse};
use shoal_wire::{Kind, codec};
use tokio::time::{Instant, timeout_at};

use super::batch::COMMAND_BYTES_MAX;
use super::error::ProposeError;
use super::proposer::Failure;
use super::start::Inner;
use super::transport::TransportError;

/// A proposal is done, or has failed, after this time.
pub(super) const TIME: Duration = Duration::from_millis(4_500);
/// Time between two attempts.
const PAUSE: Duration = Duration::from_millis(20);

/// An attempt that may be repeated: a proposal under the same id counts once, and reads and seats may be asked for
/// any number of times.
pub(super) struct TryAgain {
    pub(super) reason: String,
    /// Whether it may have been done all the same.
    pub(super) maybe: bool,
}

impl TryAgain {
    /// Nothing was done.
    pub(super) fn nothing(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), maybe: false }
    }

    fn maybe(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), maybe: true }
    }
}

pub(super) type Attempt<E> = Result<u64, Result<TryAgain, E>>;

impl Inner {
    /// Commit a command; it is applied here, too, when this returns its index.
    pub(super) async fn propose(&self, command: Command) -> Result<u64, ProposeError> {
        let deadline = Instant::now() + self.timing.pace.of(TIME);
        let bytes: Bytes =
            codec::encode(&command).map_err(|e| ProposeError::Unavailable(e.to_string()))?.into();
        if bytes.len() > COMMAND_BYTES_MAX {
            return Err(ProposeError::TooLarge { bytes: bytes.len(), limit: COMMAND_BYTES_MAX });
        }
        let Ok(_permit) = self.permits.try_acquire() else {
            return Err(ProposeError::Overloaded(self.proposals_max));
        };
        // A term names one reign of one leader: such a command is never passed on nor repeated.
        let fenced = command.term.is_some() && !is_put_back(Bug::StaleTermTaken);
        let request = ProposeRequest { id: self.proposal_ids.next(), command };
        let mut maybe = false;
        let index = loop {
            let attempt = match self.leader() {
                Some(leader) if leader == self.me => {
                    self.propose_here(request.id, bytes.clone(), deadline).await
                }
                other if fenced => return Err(ProposeError::NotLeader(other)),
                Some(leader) => self.propose_there(leader, &request, deadline).await,
                None => Err(Ok(TryAgain::nothing(""))),
            };
            let again = match attempt {
                Ok(index) => break index,
                Err(Err(error)) => return Err(error),
                Err(Ok(again)) if fenced && again.maybe => {
                    return Err(ProposeError::Unavailable(again.reason));
                }
                Err(Ok(_)) if fenced => return Err(ProposeError::NotLeader(self.leader())),
                Err(Ok(again)) => again,
            };
            maybe |= again.maybe;
            match self.wait_for_leader(&again.reason, deadline).await {
                Err(ProposeError::NoLeader(_)) if maybe => {
                    return Err(ProposeError::Unavailable(self.no_majority()));
                }
                other => other?,
            }
        };
        self.wait_applied(index, deadline).await
    }

    /// Wait until another node than this one is known to lead.
    async fn led_by_other_than(&self, leader: NodeId) {
        let mut leadership = self.leadership.subscribe();
        let known = leadership.wait_for(|now| now.leader.is_some_and(|now| now != leader)).await.is_ok();
        if !known {
            std::future::pending::<()>().await;
        }
    }

    /// The leader as far as it is known.
    pub(super) fn leader(&self) -> Option<NodeId> {
        self.leadership.borrow().leader
    }

    /// Wait a moment, or until somebody leads.
    ///
    /// # Errors
    /// If nobody leads by the deadline, or consensus has stopped.
    pub(super) async fn wait_for_leader(&self, reason: &str, deadline: Instant) -> Result<(), ProposeError> {
        if let Some(why) = self.stopped() {
            return Err(ProposeError::Stopped(why));
        }
        let mut leadership = self.leadership.subscribe();
        let pause = Instant::now() + self.timing.pace.of(PAUSE);
        if timeout_at(pause.min(deadline), leadership.changed()).await.is_err() && Instant::now() >= deadline
        {
            return Err(ProposeError::NoLeader(self.no_leader(reason)));
        }
        Ok(())
    }

    /// Why nobody leads, as far as this node can tell.
    pub(super) fn no_leader(&self, reason: &str) -> String {
        if let Some(full) = self.health.full() {
            return full;
        }
        let voters = self.voters();
        let reached = voters.keys().filter(|node| self.reachable().contains(node)).count();
        let needed = voters.len() / 2 + 1;
        let mut text = format!(
            "the cluster has no leader: too few managers may be online (this one reaches {reached} of {}, \
             itself included, and {needed} are needed)",
            voters.len()
        );
        if !reason.is_empty() {
            text.push_str(": ");
            text.push_str(reason);
        }
        text
    }

    /// Why nothing was committed in time.
    fn no_majority(&self) -> String {
        self.health.full().unwrap_or_else(|| {
            let reachable = self.reachable();
            let voters = self.voters();
            let reached = voters.keys().filter(|node| reachable.contains(node)).count();
            format!(
                "not committed in time: {reached} of {} managers are reachable, {} are needed; it may still be \
                 committed later",
                voters.len(),
                voters.len() / 2 + 1
            )
        })
    }

    /// Propose as the leader.
    pub(super) async fn propose_here(
        &self,
        id: u128,
        command: Bytes,
        deadline: Instant,
    ) -> Attempt<ProposeError> {
        let early = is_put_back(Bug::DoneBeforeCommit);
        let deadline = if early { Instant::now() + self.timing.pace.of(PAUSE * 10) } else { deadline };
        let answer = self.proposer.offer(id, command);
        let answer = tokio::select! {
            biased;
            answer = timeout_at(deadline, answer) => answer,
            () = self.led_by_other_than(self.me) => {
                return Err(Ok(TryAgain::maybe("this manager no longer leads; it may still be committed")));
            }
        };
        match answer {
            Ok(Ok(Ok(index))) => Ok(index),
            Ok(Ok(Err(failure))) => Err(match failure {
                Failure::NotLeader(_) => Ok(TryAgain::nothing("")),
                Failure::Refused(error) => Err(ProposeError::Refused(error)),
                Failure::Unknown(reason) => Err(ProposeError::Unavailable(reason)),
                Failure::Overloaded => Err(ProposeError::Overloaded(self.proposals_max)),
                Failure::Stopped(reason) => Err(ProposeError::Stopped(reason)),
            }),
            Ok(Err(_)) => Err(Err(ProposeError::Unavailable("raft stopped".into()))),
            Err(_) if early => Ok(0),
            Err(_) => Err(Err(ProposeError::Unavailable(self.no_majority()))),
        }
    }

    async fn propose_there(
        &self,
        leader: NodeId,
        request: &ProposeRequest,
        deadline: Instant,
    ) -> Attempt<ProposeError> {
        let answer: ProposeResponse = self.ask(leader, Kind::Propose, request, deadline).await.map_err(Ok)?;
        match answer {
            Outcome::Done(index) => Ok(index),
            Outcome::NotLeader(_) => Err(Ok(TryAgain::nothing(""))),
            Outcome::Refused(error) => Err(Err(ProposeError::Refused(error))),
            Outcome::Unavailable(reason) | Outcome::Conflict(reason) => {
                Err(Err(ProposeError::Unavailable(reason)))
            }
        }
    }

    /// Put a question to the leader, for as long as it is the leader.
    pub(super) async fn ask<Q, A>(
        &self,
        leader: NodeId,
        kind: Kind,
        request: &Q,
        deadline: Instant,
    ) -> Result<A, TryAgain>
    where
        Q: serde::Serialize,
        A: serde::de::DeserializeOwned + Send + 'static,
    {
        let Some(addr) = self.address(leader) else {
            return Err(TryAgain::nothing(format!("the address of the leader {leader} is unknown")));
        };
        let time = deadline.saturating_duration_since(Instant::now());
        let answer = tokio::select! {
            biased;
            answer = self.net.call(leader, &addr, kind, request, time) => answer,
            () = self.led_by_other_than(leader) => return Err(TryAgain::maybe("the leader was lost")),
        };
        match answer {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(TransportError::Unreachable(reason))) => Err(TryAgain::nothing(reason)),
            Ok(Err(error)) => Err(TryAgain::maybe(format!("the leader {leader}: {error}"))),
            Err(_) => Err(TryAgain::maybe("the call was given up")),
        }
    }

    pub(super) async fn wait_applied(&self, index: u64, deadline: Instant) -> Result<u64, ProposeError> {
        let mut applied = self.view.applied.subscribe();
        let waited = timeout_at(deadline, applied.wait_for(|applied| *applied >= index)).await;
        match waited {
            Ok(Ok(_)) => Ok(index),
            _ => Err(ProposeError::NotAppliedHere { index }),
        }
    }

    /// The leader's answer to a proposal of another manager.
    pub(super) async fn answer_proposal(&self, request: ProposeRequest) -> ProposeResponse {
        if let Some(proposed) = request.command.term
            && !is_put_back(Bug::StaleTermTaken)
        {
            let committed = self.leadership.borrow().term;
            return Outcome::Refused(ApplyError::StaleTerm { proposed, committed });
        }
        if self.leader() != Some(self.me) {
            return Outcome::NotLeader(self.leader());
        }
        let bytes: Bytes = match codec::encode(&request.command) {
            Ok(bytes) if bytes.len() <= COMMAND_BYTES_MAX => bytes.into(),
            Ok(bytes) => {
                let error = ProposeError::TooLarge { bytes: bytes.len(), limit: COMMAND_BYTES_MAX };
                return Outcome::Conflict(error.to_string());
            }
            Err(error) => return Outcome::Conflict(error.to_string()),
        };
        let Ok(_permit) = self.permits.try_acquire() else {
            return Outcome::Conflict(ProposeError::Overloaded(self.proposals_max).to_string());
        };
        match self.propose_here(request.id, bytes, Instant::now() + self.timing.pace.of(TIME)).await {
            Ok(index) => Outcome::Done(index),
            Err(Ok(again)) if again.maybe => Outcome::Unavailable(again.reason),
            Err(Ok(_)) => Outcome::NotLeader(self.leader()),
            Err(Err(ProposeError::Refused(error))) => Outcome::Refused(error),
            Err(Err(error)) => Outcome::Unavailable(error.to_string()),
        }
    }
}
