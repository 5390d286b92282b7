//! What other managers ask of this one.

use openraft::error::RaftError;
use openraft::raft::AppendEntriesResponse;
use serde::Serialize;
use serde::de::DeserializeOwned;
use shoal_core::model::NodeId;
use shoal_wire::v1::{Outcome, ReadIndexResponse};
use shoal_wire::{Kind, codec};

use super::election::{taken_for, would_grant};
use super::error::ProposeError;
use super::message::{Append, AppendReply, Ballot, BallotReply, Chunk, ChunkReply};
use super::start::Inner;
use super::types::Vote;

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    codec::decode(body).map_err(|error| error.to_string())
}

fn write<T: Serialize>(answer: &T) -> Result<Vec<u8>, String> {
    codec::encode(answer).map_err(|error| error.to_string())
}

/// A node speaks for itself alone.
fn own_vote(from: NodeId, vote: &Vote) -> Result<(), String> {
    if vote.leader_id.node_id == from {
        return Ok(());
    }
    Err(format!("node {from} speaks for node {}", vote.leader_id.node_id))
}

impl Inner {
    /// Answer a message. `from` is who the connection proved it to be, and a manager.
    pub(super) async fn answer(&self, from: NodeId, kind: Kind, body: Vec<u8>) -> Result<Vec<u8>, String> {
        match kind {
            Kind::RaftAppend => self.append(from, &body).await,
            Kind::RaftVote => self.ballot(from, &body).await,
            Kind::RaftSnapshot => self.chunk(from, &body).await,
            Kind::Propose => write(&self.answer_proposal(read(&body)?).await),
            Kind::ReadIndex => write(&self.answer_read().await),
            Kind::TakeSeat | Kind::LeaveSeat => write(&self.answer_seat(kind, read(&body)?).await),
            other => Err(format!("{other:?} is not for raft")),
        }
    }

    async fn append(&self, from: NodeId, body: &[u8]) -> Result<Vec<u8>, String> {
        let Append::V1(request) = read(body)?;
        own_vote(from, &request.vote)?;
        if !request.vote.committed {
            return Err("entries from a node that does not lead".into());
        }
        // Messages wait in openraft's core while it waits for the disk: not without a bound.
        let Ok(_permit) = self.appends.try_acquire() else {
            self.heard(from, &request.vote);
            return Err("too many appends wait already".into());
        };
        if let Some(full) = self.health.full() {
            return Err(full);
        }
        // Counted before the core has seen it: the core may be waiting for the disk.
        self.heard(from, &request.vote);
        let vote = request.vote;
        let answer = self.raft.append_entries(request).await.map_err(|error| error.to_string())?;
        if !matches!(answer, AppendEntriesResponse::HigherVote(_)) && vote.leader_id.node_id == from {
            self.reach.led_by(from);
        }
        write(&AppendReply::V1(answer))
    }

    /// A sign of life of the leader that we know.
    fn heard(&self, from: NodeId, vote: &Vote) {
        let metrics = self.raft.metrics();
        let current = metrics.borrow().vote;
        if current.committed && current == *vote {
            self.reach.led_by(from);
        }
    }

    async fn ballot(&self, from: NodeId, body: &[u8]) -> Result<Vec<u8>, String> {
        match read(body)? {
            Ballot::WouldV1(last) => write(&BallotReply::WouldV1(would_grant(self, from, last).await)),
            Ballot::V1(mut request) => {
                own_vote(from, &request.vote)?;
                if let Some(full) = self.health.full() {
                    return Err(full);
                }
                if !self.keeps_promises(request.last_log_id) {
                    return Err("this manager had entries once that the candidate has not".into());
                }
                request.last_log_id = taken_for(self, request.last_log_id).await;
                // Before the core has decided: our own election must not begin in between.
                let before = self.reach.voted_for(from);
                let answer = self.raft.vote(request).await;
                if !answer.as_ref().is_ok_and(|answer| answer.vote_granted) {
                    self.reach.restore_vote(before);
                }
                let answer = answer.map_err(|error| error.to_string())?;
                write(&BallotReply::V1(answer))
            }
        }
    }

    async fn chunk(&self, from: NodeId, body: &[u8]) -> Result<Vec<u8>, String> {
        let Chunk::V1(request) = read(body)?;
        own_vote(from, &request.vote)?;
        self.heard(from, &request.vote);
        let answer = match self.raft.install_snapshot(request).await {
            Ok(answer) => Ok(answer),
            Err(RaftError::APIError(error)) => Err(error),
            Err(RaftError::Fatal(fatal)) => return Err(fatal.to_string()),
        };
        write(&ChunkReply::V1(answer))
    }

    async fn answer_read(&self) -> ReadIndexResponse {
        if self.leader() != Some(self.me) {
            return Outcome::NotLeader(self.leader());
        }
        match self.reads.index().await {
            Ok(index) => Outcome::Done(index),
            Err(Ok(again)) if again.reason.is_empty() => Outcome::NotLeader(self.leader()),
            Err(Ok(again)) => Outcome::Unavailable(again.reason),
            Err(Err(ProposeError::Refused(error))) => Outcome::Refused(error),
            Err(Err(error)) => Outcome::Unavailable(error.to_string()),
        }
    }
}
