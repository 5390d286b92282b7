//! Seats: managers come and go while the cluster runs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft::ChangeMembers;
use openraft::error::{ChangeMembershipError, ClientWriteError, RaftError};
use shoal_core::model::{NodeId, Role};
use shoal_core::put_back::{Bug, is_put_back};
use shoal_wire::Kind;
use shoal_wire::v1::{Outcome, SeatRequest, SeatResponse};
use tokio::time::{Instant, timeout_at};

use super::error::{ProposeError, SeatError};
use super::propose::{self, TryAgain};
use super::reach::REACHABLE_WITHIN;
use super::start::Inner;
use super::types::Seat;

/// Most managers that a cluster may have.
const MANAGERS_MAX: usize = 7;
/// Time for the whole change.
const TIME: Duration = Duration::from_secs(30);
/// How often a newcomer's progress is looked at.
const TICK: Duration = Duration::from_millis(10);

type Changes = ChangeMembers<NodeId, Seat>;
/// An index, or whether the leader was another one, or why not.
type Change = Result<u64, Result<TryAgain, SeatError>>;

impl Inner {
    /// Give a node a seat, or change the address of one that has it. Returns the membership's index.
    pub(super) async fn take_seat(&self, node: NodeId, addr: String) -> Result<u64, SeatError> {
        let request = SeatRequest { node_id: node, addr };
        self.change_seat(Kind::TakeSeat, request).await
    }

    /// Take a node's seat away.
    pub(super) async fn leave_seat(&self, node: NodeId) -> Result<u64, SeatError> {
        let request = SeatRequest { node_id: node, addr: String::new() };
        self.change_seat(Kind::LeaveSeat, request).await
    }

    async fn change_seat(&self, kind: Kind, request: SeatRequest) -> Result<u64, SeatError> {
        let deadline = Instant::now() + self.timing.pace.of(TIME);
        // A cluster without a leader is told so within the usual time.
        let mut leaderless = Instant::now() + self.timing.pace.of(propose::TIME);
        loop {
            let attempt = match self.leader() {
                Some(leader) if leader == self.me => {
                    self.change_seat_here(kind, request.clone(), deadline).await
                }
                Some(leader) => self.change_seat_there(leader, kind, &request, deadline).await,
                None => Err(Ok(TryAgain::nothing(""))),
            };
            let reason = match attempt {
                Ok(index) => return Ok(index),
                Err(Err(error)) => return Err(error),
                Err(Ok(again)) => again.reason,
            };
            if self.leader().is_some() {
                leaderless = leaderless
                    .max(Instant::now() + self.timing.pace.of(Duration::from_secs(1)))
                    .min(deadline);
            }
            self.wait_for_leader(&reason, leaderless).await.map_err(seat_error)?;
        }
    }

    async fn change_seat_there(
        &self,
        leader: NodeId,
        kind: Kind,
        request: &SeatRequest,
        deadline: Instant,
    ) -> Change {
        let answer: Result<SeatResponse, _> = self.ask(leader, kind, request, deadline).await;
        match answer.map_err(Ok)? {
            Outcome::Done(index) => Ok(index),
            Outcome::NotLeader(_) => Err(Ok(TryAgain::nothing(""))),
            Outcome::Refused(error) => Err(Err(SeatError::Conflict(error.to_string()))),
            Outcome::Conflict(reason) => Err(Err(SeatError::Conflict(reason))),
            Outcome::Unavailable(reason) => Err(Err(SeatError::Unavailable(reason))),
        }
    }

    /// The leader's answer to another manager's request.
    pub(super) async fn answer_seat(&self, kind: Kind, request: SeatRequest) -> SeatResponse {
        if self.leader() != Some(self.me) {
            return Outcome::NotLeader(self.leader());
        }
        match self.change_seat_here(kind, request, Instant::now() + self.timing.pace.of(TIME)).await {
            Ok(index) => Outcome::Done(index),
            Err(Ok(_)) => Outcome::NotLeader(self.leader()),
            Err(Err(error @ (SeatError::Unavailable(_) | SeatError::NotCaughtUp { .. }))) => {
                Outcome::Unavailable(error.to_string())
            }
            Err(Err(error)) => Outcome::Conflict(error.to_string()),
        }
    }

    async fn change_seat_here(&self, kind: Kind, request: SeatRequest, deadline: Instant) -> Change {
        let late = || Err(Err(SeatError::Unavailable("another change of managers takes too long".into())));
        let Ok(_alone) = timeout_at(deadline, self.seats.lock()).await else { return late() };
        match kind {
            Kind::TakeSeat => self.seat(request.node_id, Seat { addr: request.addr }, deadline).await,
            _ => self.unseat(request.node_id, deadline).await,
        }
    }

    async fn seat(&self, node: NodeId, seat: Seat, deadline: Instant) -> Change {
        let (voters, known, at) = self.membership();
        let is_voter = voters.contains(&node);
        if is_voter && known.get(&node) == Some(&seat) {
            return Ok(at);
        }
        if !is_voter && voters.len() >= MANAGERS_MAX {
            return Err(Err(SeatError::TooMany(MANAGERS_MAX)));
        }
        self.is_wanted(node).await?;
        let entry = BTreeMap::from([(node, seat)]);
        let at = self.change(ChangeMembers::SetNodes(entry), deadline).await?;
        if is_voter {
            return Ok(at);
        }
        if let Err(error) = self.may_vote(node, deadline).await {
            if !known.contains_key(&node) {
                let gone = ChangeMembers::RemoveNodes(BTreeSet::from([node]));
                let _ = self.change(gone, Instant::now() + self.timing.pace.of(Duration::from_secs(2))).await;
            }
            return Err(error);
        }
        self.change(ChangeMembers::AddVoterIds(BTreeSet::from([node])), deadline).await
    }

    /// Wait until a newcomer's vote may count.
    async fn may_vote(&self, node: NodeId, deadline: Instant) -> Result<(), Result<TryAgain, SeatError>> {
        let caught_up = self.caught_up(node, deadline).await;
        caught_up.map_err(|error| error.map_err(|reason| SeatError::NotCaughtUp { node, reason }))?;
        // It may have been demoted meanwhile. If it is from now on, its seat is taken before it may forget the log.
        self.is_wanted(node).await
    }

    /// Refuse a seat to a node that is to be a worker or is gone, by the newest that is committed.
    async fn is_wanted(&self, node: NodeId) -> Result<(), Result<TryAgain, SeatError>> {
        self.leads_still().await?;
        let state = self.view.state();
        if state.is_removed(node) {
            return Err(Err(SeatError::Conflict(format!("node {node} was removed from the cluster"))));
        }
        if state.node(node).is_some_and(|node| node.spec.role == Role::Worker) {
            return Err(Err(SeatError::Conflict(format!("node {node} is to be a worker"))));
        }
        Ok(())
    }

    /// Be sure that no other leads, and have applied what was committed until now.
    async fn leads_still(&self) -> Result<(), Result<TryAgain, SeatError>> {
        let deadline = Instant::now() + self.timing.pace.of(propose::TIME);
        let index = self.index_here(deadline).await.map_err(|again| again.map_err(seat_error))?;
        self.wait_applied(index, deadline).await.map_err(|error| Err(seat_error(error)))?;
        Ok(())
    }

    /// Wait until a newcomer has what the log held when it came.
    async fn caught_up(&self, node: NodeId, deadline: Instant) -> Result<(), Result<TryAgain, String>> {
        let goal = self.raft.metrics().borrow().last_log_index.unwrap_or(0);
        let (patience, silence) =
            (self.timing.pace.of(Duration::from_secs(5)), self.timing.pace.of(Duration::from_secs(2)));
        let mut best = None;
        let mut progress_by = Instant::now() + patience;
        loop {
            let matched = {
                let metrics = self.raft.metrics();
                let metrics = metrics.borrow();
                let Some(replication) = &metrics.replication else { return Err(Ok(TryAgain::nothing(""))) };
                replication.get(&node).copied().flatten().map(|id| id.index)
            };
            if matched.is_some_and(|at| at >= goal) {
                return Ok(());
            }
            let now = Instant::now();
            let heard = self.reach.last_answer(node).is_some_and(|at| at.elapsed() < silence);
            if matched > best || heard {
                best = best.max(matched);
                progress_by = now + patience;
            }
            if now >= progress_by {
                return Err(Err("it does not answer".into()));
            }
            if now >= deadline {
                return Err(Err(format!("it has {best:?} of {goal} entries")));
            }
            tokio::time::sleep(TICK).await;
        }
    }

    async fn unseat(&self, node: NodeId, deadline: Instant) -> Change {
        let (mut remaining, known, at) = self.membership();
        if !remaining.remove(&node) {
            let gone = BTreeSet::from([node]);
            if self.is_voter(node) {
                // Half done: its vote still counts in the older group.
                return self.change(ChangeMembers::RemoveVoters(gone), deadline).await;
            }
            if known.contains_key(&node) {
                return self.change(ChangeMembers::RemoveNodes(gone), deadline).await;
            }
            self.leads_still().await?;
            return Ok(at);
        }
        if remaining.is_empty() {
            return Err(Err(SeatError::LastManager));
        }
        if !is_put_back(Bug::DemotionLosesQuorum) {
            self.are_there(&remaining, deadline).await.map_err(Err)?;
        }
        self.change(ChangeMembers::RemoveVoters(BTreeSet::from([node])), deadline).await
    }

    /// Wait until a majority of these has answered once more: one that was lost just now is missed by nobody yet, and what is
    /// begun without it may never end.
    async fn are_there(&self, remaining: &BTreeSet<NodeId>, deadline: Instant) -> Result<(), SeatError> {
        let (began, majority) = (Instant::now(), remaining.len() / 2 + 1);
        let until = deadline.min(began + self.timing.pace.of(REACHABLE_WITHIN));
        loop {
            let reachable = remaining.iter().filter(|node| self.hears(**node, began.elapsed())).count();
            if reachable >= majority {
                return Ok(());
            }
            if Instant::now() >= until {
                return Err(SeatError::QuorumLoss { remaining: remaining.len(), reachable, majority });
            }
            tokio::time::sleep(TICK).await;
        }
    }

    fn membership(&self) -> (BTreeSet<NodeId>, BTreeMap<NodeId, Seat>, u64) {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        let stored = &metrics.membership_config;
        let voters = stored.membership().get_joint_config().last().cloned().unwrap_or_default();
        let nodes = stored.nodes().map(|(id, seat)| (*id, seat.clone())).collect();
        (voters, nodes, stored.log_id().map_or(0, |id| id.index))
    }

    /// Commit a change of the membership. The one before may still be on its way.
    async fn change(&self, changes: Changes, deadline: Instant) -> Change {
        loop {
            let change = self.raft.change_membership(changes.clone(), false);
            let answer = timeout_at(deadline, change).await.map_err(|_| {
                Err(SeatError::Unavailable("no majority of the managers agreed in time".into()))
            })?;
            match answer {
                Ok(done) => return Ok(done.log_id.index),
                Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_))) => {
                    return Err(Ok(TryAgain::nothing("")));
                }
                Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(
                    ChangeMembershipError::InProgress(_),
                ))) if Instant::now() < deadline => tokio::time::sleep(TICK).await,
                Err(RaftError::APIError(error)) => return Err(Err(SeatError::Conflict(error.to_string()))),
                Err(RaftError::Fatal(fatal)) => return Err(Err(SeatError::Stopped(fatal.to_string()))),
            }
        }
    }
}

fn seat_error(error: ProposeError) -> SeatError {
    match error {
        ProposeError::NoLeader(reason) => SeatError::NoLeader(reason),
        ProposeError::Stopped(reason) => SeatError::Stopped(reason),
        other => SeatError::Unavailable(other.to_string()),
    }
}
