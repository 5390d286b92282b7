//! The handle that everybody else has of consensus.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use openraft::error::{InitializeError, RaftError};
use shoal_core::model::NodeId;
use shoal_core::store::{Command, Event, State};
use shoal_wire::Kind;
use tokio::sync::{broadcast, watch};

use super::config::RaftConfig;
use super::error::{ProposeError, SeatError, StartError};
use super::leadership::Leadership;
use super::start::Inner;
use super::stats::RaftStats;
use super::types::Seat;

/// One manager's consensus. Clones share it.
///
/// It runs until [`RaftHandle::shutdown`], or until its disk fails; dropping handles does not stop it.
#[derive(Clone)]
pub struct RaftHandle {
    inner: Arc<Inner>,
}

impl RaftHandle {
    /// Open what is on the disk and take part as the log says. On an empty disk it waits to be seated by a
    /// leader, or for [`RaftHandle::bootstrap`].
    ///
    /// # Errors
    /// If the settings contradict each other or what is on the disk cannot be used.
    pub async fn start(config: RaftConfig) -> Result<Self, StartError> {
        Ok(Self { inner: Inner::start(config).await? })
    }

    /// Begin a cluster with this node as its only manager, and lead it.
    ///
    /// # Errors
    /// If the node is a member already, or consensus stopped.
    pub async fn bootstrap(&self) -> Result<(), StartError> {
        let seat = Seat { addr: self.inner.addr.clone() };
        let begun = self.inner.raft.initialize(BTreeMap::from([(self.inner.me, seat)])).await;
        begun.map_err(|error| match error {
            RaftError::APIError(InitializeError::NotAllowed(_)) => StartError::AlreadyMember,
            other => StartError::Stopped(other.to_string()),
        })?;
        let mut leadership = self.leadership();
        let led = leadership.wait_for(|now| now.is_me);
        match tokio::time::timeout(Duration::from_secs(5), led).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(StartError::Stopped(
                self.inner.stopped().unwrap_or_else(|| "it does not lead itself".into()),
            )),
        }
    }

    /// Commit a command, through the leader if that is another node. When this returns the entry's index, the
    /// command is applied here, too. It takes at most 5 s.
    ///
    /// It is attempted again only where the attempt certainly did nothing. A command that carries a term is
    /// only taken by the leader of that term, at that leader itself.
    ///
    /// # Errors
    /// [`ProposeError`] says whether it was not proposed, was refused, or may still be committed.
    pub async fn propose(&self, command: Command) -> Result<u64, ProposeError> {
        self.inner.propose(command).await
    }

    /// Wait until the state here is no older than this call, as a majority confirms; at most 1.5 s.
    ///
    /// # Errors
    /// If that cannot be confirmed in time; the state may then be old.
    pub async fn read_index(&self) -> Result<u64, ProposeError> {
        self.inner.read_index().await
    }

    /// The state as it is here now.
    #[must_use]
    pub fn state(&self) -> State {
        self.inner.view.state()
    }

    /// A digest of the newest proposals that [`RaftHandle::state`] remembers: at the same index the same on every manager.
    #[must_use]
    pub fn remembered(&self) -> u64 {
        self.inner.view.remembered()
    }

    /// Index of the newest entry applied here. The state is at least as new.
    #[must_use]
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.inner.view.applied.subscribe()
    }

    /// Changes from now on, one item for each batch of applied entries. An **empty** item means that the state
    /// was replaced as a whole (by a leader's snapshot): read everything anew, as after `Lagged`.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<Arc<[Event]>> {
        self.inner.view.events.subscribe()
    }

    /// Who leads.
    #[must_use]
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.inner.leadership.subscribe()
    }

    /// Give a node a seat: it is brought up to date, then it votes. If it has one, its address is set. Returns
    /// the membership's index.
    ///
    /// # Errors
    /// If there are seven managers already, the node does not catch up within 30 s, or no majority agrees.
    pub async fn take_seat(&self, node: NodeId, addr: String) -> Result<u64, SeatError> {
        self.inner.take_seat(node, addr).await
    }

    /// Take a node's seat away, this node's own too. Returns the membership's index.
    ///
    /// # Errors
    /// If it is the last manager, or the managers who remain and can be reached would be no majority.
    pub async fn leave_seat(&self, node: NodeId) -> Result<u64, SeatError> {
        self.inner.leave_seat(node).await
    }

    /// Managers with a vote, and their addresses.
    #[must_use]
    pub fn voters(&self) -> BTreeMap<NodeId, String> {
        self.inner.voters()
    }

    /// Managers of each group whose majority must agree: two groups while seats are given or taken, the newer last.
    #[must_use]
    pub fn voter_groups(&self) -> Vec<BTreeSet<NodeId>> {
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow();
        metrics.membership_config.membership().get_joint_config().clone()
    }

    /// This node, and the managers that it heard of within the last 1.5 s: at the leader all who answered it,
    /// elsewhere mostly the leader alone.
    #[must_use]
    pub fn reachable(&self) -> BTreeSet<NodeId> {
        self.inner.reachable()
    }

    /// How consensus fares here.
    #[must_use]
    pub fn metrics(&self) -> RaftStats {
        let inner = &self.inner;
        let (log_bytes, log_entries) = inner.log.volume();
        let leadership = inner.leadership.borrow().clone();
        // One borrow at a time: two of the same channel, with its writer waiting between them, never end.
        let last_log_index = inner.raft.metrics().borrow().last_log_index.unwrap_or(0);
        let applied_index = *inner.view.applied.borrow();
        let mut stats = RaftStats {
            term: leadership.term,
            is_leader: leadership.leader == Some(inner.me),
            last_log_index,
            applied_index,
            snapshot_index: inner.snapshots.newest().map_or(0, |last| last.index),
            log_entries: log_entries as u64,
            log_bytes: log_bytes as u64,
            voters: self.voters().len() as u64,
            disk_full: inner.health.full(),
            failed: inner.stopped(),
            ..RaftStats::default()
        };
        inner.counters.fill(&mut stats);
        stats
    }

    /// Answer another manager's message. `from` must be who the connection proved it to be, and its role must
    /// have been checked; here it is checked that a vote or an append speaks for `from` itself.
    ///
    /// # Errors
    /// The reason why the message was refused.
    pub fn handle(
        &self,
        from: NodeId,
        kind: Kind,
        body: Vec<u8>,
    ) -> BoxFuture<'static, Result<Vec<u8>, String>> {
        let inner = Arc::clone(&self.inner);
        Box::pin(async move { inner.answer(from, kind, body).await })
    }

    /// Wait until consensus has stopped, and learn why: after a shutdown, or when the disk failed. In the
    /// latter case the process should end with the reason, so that it is started again.
    pub async fn stopped(&self) -> String {
        let mut metrics = self.inner.raft.metrics();
        let _ = metrics.wait_for(|metrics| metrics.running_state.is_err()).await;
        self.inner.stopped().unwrap_or_else(|| "raft stopped".into())
    }

    /// Stop. What is not acknowledged by now may or may not be committed by the others. Nothing is written any more when
    /// this returns.
    pub async fn shutdown(&self) {
        self.inner.health.stop();
        let stop = self.inner.raft.shutdown();
        if tokio::time::timeout(Duration::from_secs(5), stop).await.is_err() {
            tracing::warn!("raft did not stop in time");
        }
        // A snapshot may be on its way to the disk still.
        if tokio::time::timeout(Duration::from_secs(5), self.inner.disk.close()).await.is_err() {
            tracing::warn!("raft's disk is not done with what it was given");
        }
    }
}
