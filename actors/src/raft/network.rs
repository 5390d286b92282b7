//! openraft's calls to one other manager.
//!
//! openraft gives up on a call after one heartbeat interval and makes it again. Our call goes on: it runs in a
//! task of its own, and the next attempt waits for it instead of sending the same entries once more; meanwhile
//! empty heartbeats keep the other side calm. So neither a large batch on a slow line nor a slow disk over there
//! leads to an election or to endless repetition.

use std::sync::Arc;
use std::time::Duration;

use openraft::error::{InstallSnapshotError, RPCError, RaftError, RemoteError, Unreachable};
use openraft::network::{Backoff, RPCOption};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
    VoteRequest, VoteResponse,
};
use openraft::{RaftNetwork, RaftNetworkFactory};
use serde::Serialize;
use serde::de::DeserializeOwned;
use shoal_core::model::NodeId;
use shoal_core::pace::Pace;
use shoal_core::put_back::{Bug, is_put_back};
use shoal_wire::{Kind, codec};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::message::{Append, AppendReply, Ballot, BallotReply, Chunk, ChunkReply};
use super::reach::Reach;
use super::runtime::Scope;
use super::stats::Counters;
use super::transport::{RaftTransport, TransportError};
use super::types::{LogId, Seat, TypeConfig, Vote};

/// Time for entries to arrive and become durable over there.
const APPEND_TIMEOUT: Duration = Duration::from_secs(3);
/// Time for an empty heartbeat.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(1);

type Answer<T> = oneshot::Receiver<Result<T, TransportError>>;

/// All that calls need.
pub(super) struct Net {
    pub(super) transport: Arc<dyn RaftTransport>,
    pub(super) reach: Arc<Reach>,
    pub(super) scope: Scope,
    pub(super) counters: Arc<Counters>,
    pub(super) pace: Pace,
}

impl Net {
    /// Make a call in a task of its own, so that it is not given up with its caller.
    pub(super) fn call<Q: Serialize, A: DeserializeOwned + Send + 'static>(
        &self,
        target: NodeId,
        addr: &str,
        kind: Kind,
        request: &Q,
        timeout: Duration,
    ) -> Answer<A> {
        let (tx, rx) = oneshot::channel();
        let body = match codec::encode(request) {
            Ok(body) => body,
            Err(error) => {
                let _ = tx.send(Err(TransportError::Failed(error.to_string())));
                return rx;
            }
        };
        let called_at = Instant::now();
        let call = self.transport.send(target, addr.to_owned(), kind, body, timeout);
        let (reach, counters) = (Arc::clone(&self.reach), Arc::clone(&self.counters));
        self.scope.spawn(async move {
            let answer = call.await.and_then(|bytes| {
                codec::decode(&bytes).map_err(|error| TransportError::Failed(error.to_string()))
            });
            match &answer {
                Ok(_) => reach.answered(target, called_at),
                Err(_) => Counters::add(&counters.rpcs_failed, 1),
            }
            let _ = tx.send(answer);
        });
        rx
    }

    /// A bare sign of life of the leader with this vote. It says nothing of the log.
    pub(super) fn pulse(&self, target: NodeId, addr: &str, vote: Vote) -> Answer<AppendReply> {
        let request =
            AppendEntriesRequest { vote, prev_log_id: None, entries: Vec::new(), leader_commit: None };
        self.call(target, addr, Kind::RaftAppend, &Append::V1(request), HEARTBEAT_TIMEOUT)
    }
}

/// A heartbeat that is not answered after so many intervals is followed by another.
const HEARTBEAT_PATIENCE: Duration = Duration::from_millis(100);
/// Entries that are not answered after this time, though a later heartbeat was, are sent again; then after twice
/// the time, and so on.
const APPEND_PATIENCE: Duration = Duration::from_millis(300);

/// A heartbeat that was sent.
struct Heartbeat {
    at: Instant,
    answer: Answer<AppendReply>,
}

/// An append that was sent and is not answered yet.
struct Inflight {
    at: Instant,
    vote: Vote,
    prev: Option<LogId>,
    last: Option<LogId>,
    answer: Answer<AppendReply>,
}

/// Makes clients.
pub(super) struct Factory(pub(super) Arc<Net>);

/// Calls one other manager.
pub(super) struct Client {
    net: Arc<Net>,
    target: NodeId,
    addr: String,
    inflight: Option<Inflight>,
    heartbeat: Option<Heartbeat>,
    patience: Duration,
}

impl RaftNetworkFactory<TypeConfig> for Factory {
    type Network = Client;

    async fn new_client(&mut self, target: NodeId, node: &Seat) -> Client {
        Client {
            net: Arc::clone(&self.0),
            target,
            addr: node.addr.clone(),
            inflight: None,
            heartbeat: None,
            patience: APPEND_PATIENCE,
        }
    }
}

type RpcError<E = openraft::error::Infallible> = RPCError<NodeId, Seat, RaftError<NodeId, E>>;

fn unreachable<E: std::error::Error>(error: &TransportError) -> RpcError<E> {
    // Every kind of failure backs off: openraft repeats the others at once.
    RPCError::Unreachable(Unreachable::new(error))
}

async fn answer<T, E: std::error::Error>(rx: &mut Answer<T>) -> Result<T, RpcError<E>> {
    match rx.await {
        Ok(answer) => answer.map_err(|error| unreachable(&error)),
        Err(_) => Err(unreachable(&TransportError::Failed("the call was given up".into()))),
    }
}

impl Client {
    async fn heartbeat(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
    ) -> Result<AppendEntriesResponse<NodeId>, RpcError> {
        let patience = self.net.pace.of(HEARTBEAT_PATIENCE);
        let pending = self.heartbeat.take().filter(|pending| pending.at.elapsed() < patience);
        let pending = pending.unwrap_or_else(|| {
            let request = Append::V1(rpc);
            let answer =
                self.net.call(self.target, &self.addr, Kind::RaftAppend, &request, HEARTBEAT_TIMEOUT);
            Heartbeat { at: Instant::now(), answer }
        });
        // Given up by openraft in here, it is taken up again by the next heartbeat.
        let result = answer(&mut self.heartbeat.insert(pending).answer).await;
        self.heartbeat = None;
        result.map(|AppendReply::V1(reply)| reply)
    }

    /// Keep the other side calm while entries are on their way. Returns whether it answered a heartbeat that was
    /// sent later than `since`.
    fn pulse(&mut self, vote: Vote, since: Instant) -> bool {
        let mut answered = false;
        if let Some(pending) = &mut self.heartbeat {
            match pending.answer.try_recv() {
                Err(oneshot::error::TryRecvError::Empty)
                    if pending.at.elapsed() < self.net.pace.of(HEARTBEAT_PATIENCE) =>
                {
                    return false;
                }
                Ok(Ok(_)) => answered = pending.at > since,
                _ => {}
            }
        }
        let answer = self.net.pulse(self.target, &self.addr, vote);
        self.heartbeat = Some(Heartbeat { at: Instant::now(), answer });
        answered
    }

    /// The same entries that are on their way already, unless they seem to be lost.
    fn under_way(&mut self, vote: Vote, prev: Option<LogId>) -> Option<Inflight> {
        let sent = self.inflight.take().filter(|sent| sent.vote == vote && sent.prev == prev)?;
        let answers_others = self.pulse(vote, sent.at);
        if answers_others && sent.at.elapsed() > self.patience {
            self.patience *= 2;
            return None;
        }
        Some(sent)
    }
}

impl RaftNetwork<TypeConfig> for Client {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<NodeId>, RpcError> {
        let Some(last) = rpc.entries.last().map(|entry| entry.log_id) else {
            return self.heartbeat(rpc).await;
        };
        let (vote, prev) = (rpc.vote, rpc.prev_log_id);
        let sent = self.under_way(vote, prev).unwrap_or_else(|| {
            let request = Append::V1(rpc);
            let answer = self.net.call(self.target, &self.addr, Kind::RaftAppend, &request, APPEND_TIMEOUT);
            Inflight { at: Instant::now(), vote, prev, last: Some(last), answer }
        });
        let sent = self.inflight.insert(sent);
        let sent_last = sent.last;
        let result = answer(&mut sent.answer).await;
        self.inflight = None;
        if is_put_back(Bug::SilenceCountedAsAck) && result.is_err() {
            return Ok(AppendEntriesResponse::Success);
        }
        let AppendReply::V1(reply) = result?;
        self.patience = APPEND_PATIENCE;
        Ok(match reply {
            // What was on its way may have been less than what is wanted by now.
            AppendEntriesResponse::Success if sent_last < Some(last) => {
                AppendEntriesResponse::PartialSuccess(sent_last)
            }
            other => other,
        })
    }

    async fn install_snapshot(
        &mut self,
        rpc: InstallSnapshotRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<InstallSnapshotResponse<NodeId>, RpcError<InstallSnapshotError>> {
        let request = Chunk::V1(rpc);
        let mut rx = self.net.call(self.target, &self.addr, Kind::RaftSnapshot, &request, option.hard_ttl());
        let ChunkReply::V1(reply) = answer(&mut rx).await?;
        reply
            .map_err(|error| RPCError::RemoteError(RemoteError::new(self.target, RaftError::APIError(error))))
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<NodeId>,
        option: RPCOption,
    ) -> Result<VoteResponse<NodeId>, RpcError> {
        let request = Ballot::V1(rpc);
        let mut rx = self.net.call(self.target, &self.addr, Kind::RaftVote, &request, option.hard_ttl());
        match answer(&mut rx).await? {
            BallotReply::V1(reply) => Ok(reply),
            BallotReply::WouldV1(_) => {
                Err(unreachable(&TransportError::Failed("an answer to another question".into())))
            }
        }
    }

    fn backoff(&self) -> Backoff {
        let steps = [50, 100, 200].map(Duration::from_millis);
        let pace = self.net.pace;
        let longest = std::iter::repeat(pace.of(Duration::from_millis(200)));
        Backoff::new(steps.into_iter().map(move |step| pace.of(step)).chain(longest))
    }
}
