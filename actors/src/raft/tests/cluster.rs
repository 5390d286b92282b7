//! Managers in one process: a network in memory, real disks in a temporary folder.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use shoal_core::model::{Node, NodeId};
use shoal_core::store::{Command, Write};
use shoal_net::task::Scope;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use super::disks::FaultyDisk;
use crate::disk::FileDisk;
use crate::raft::{MemoryNetwork, ProposeError, RaftConfig, RaftHandle};

pub(super) struct Cluster {
    pub(super) network: MemoryNetwork,
    pub(super) nodes: BTreeMap<u64, RaftHandle>,
    pub(super) disks: BTreeMap<u64, Arc<FaultyDisk>>,
    groups: BTreeMap<u64, Scope>,
    pub(super) folder: TempDir,
    pub(super) snapshot_interval: u64,
    pub(super) log_keep: u64,
}

pub(super) fn id(n: u64) -> NodeId {
    NodeId::from(n)
}

/// A command that leaves a trace: node number `n`.
pub(super) fn trace(n: u64) -> Command {
    let node = Node { id: NodeId::from_u128(1 << 100 | u128::from(n)), ..Node::default() };
    Command { writes: vec![Write::NodeCreate(Box::new(node))], ..Command::default() }
}

impl Cluster {
    pub(super) fn new() -> Self {
        Self {
            network: MemoryNetwork::default(),
            nodes: BTreeMap::new(),
            disks: BTreeMap::new(),
            groups: BTreeMap::new(),
            folder: tempfile::tempdir().unwrap(),
            snapshot_interval: 10_000,
            log_keep: 500,
        }
    }

    /// A cluster of so many managers.
    pub(super) async fn of(count: u64) -> Self {
        let mut cluster = Self::new();
        cluster.form(count).await;
        cluster
    }

    pub(super) async fn form(&mut self, count: u64) {
        self.start(1).await;
        self.nodes[&1].bootstrap().await.unwrap();
        for n in 2..=count {
            self.start(n).await;
            self.nodes[&1].take_seat(id(n), format!("node-{n}")).await.unwrap();
        }
    }

    pub(super) fn config(&mut self, n: u64) -> RaftConfig {
        let dir = self.folder.path().join(n.to_string());
        let disk = FaultyDisk::new(Arc::new(FileDisk::open(&dir).unwrap()));
        self.disks.insert(n, Arc::clone(&disk));
        let group = Scope::new();
        self.groups.insert(n, group.clone());
        let mut config = RaftConfig::new(id(n), format!("node-{n}"), dir, self.network.transport(id(n)));
        config.snapshot_interval = self.snapshot_interval;
        config.log_keep = self.log_keep;
        config.disk = Some(disk);
        config.tasks = group;
        config.seed = Some(n);
        config
    }

    pub(super) async fn start(&mut self, n: u64) {
        let config = self.config(n);
        self.start_with(n, config).await;
    }

    pub(super) async fn start_with(&mut self, n: u64, config: RaftConfig) {
        let handle = RaftHandle::start(config).await.unwrap();
        self.network.join(id(n), handle.clone());
        self.nodes.insert(n, handle);
    }

    /// As with kill -9: nothing is finished, nothing is written.
    pub(super) fn kill(&mut self, n: u64) {
        self.network.part(id(n));
        self.groups.remove(&n).unwrap().abort();
        self.nodes.remove(&n).unwrap();
    }

    /// The number of the one who leads and knows it, among those who run.
    pub(super) async fn leader(&self) -> u64 {
        self.leader_among(&self.nodes.keys().copied().collect::<Vec<_>>()).await
    }

    pub(super) async fn leader_among(&self, among: &[u64]) -> u64 {
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(20) {
            for n in among {
                if self.nodes[n].leadership().borrow().is_me {
                    return *n;
                }
            }
            sleep(Duration::from_millis(5)).await;
        }
        panic!("nobody leads");
    }

    pub(super) fn followers(&self, leader: u64) -> Vec<u64> {
        self.nodes.keys().copied().filter(|n| *n != leader).collect()
    }

    /// Propose until it is accepted; how long that took.
    pub(super) async fn write_at(&self, n: u64, trace_number: u64) -> Duration {
        let began = Instant::now();
        loop {
            match self.nodes[&n].propose(trace(trace_number)).await {
                Ok(_) => return began.elapsed(),
                // An attempt before may have been committed after all.
                Err(ProposeError::Refused(_)) => return began.elapsed(),
                Err(error) => assert!(began.elapsed() < Duration::from_secs(20), "{error}"),
            }
        }
    }

    pub(super) fn traces(&self, n: u64) -> BTreeSet<u64> {
        let low = |id: NodeId| u64::try_from(id.as_u128() & u128::from(u64::MAX)).unwrap();
        self.nodes[&n].state().nodes().map(|node| low(node.id)).collect()
    }

    /// Wait until this node has applied these traces.
    pub(super) async fn await_traces(&self, n: u64, wanted: impl IntoIterator<Item = u64>) {
        let wanted: BTreeSet<u64> = wanted.into_iter().collect();
        let began = Instant::now();
        while !self.traces(n).is_superset(&wanted) {
            let missing: Vec<_> = wanted.difference(&self.traces(n)).copied().collect();
            assert!(began.elapsed() < Duration::from_secs(20), "node {n} lacks {missing:?}");
            sleep(Duration::from_millis(10)).await;
        }
    }

    pub(super) async fn stop(self) {
        for handle in self.nodes.values() {
            handle.shutdown().await;
        }
    }
}
