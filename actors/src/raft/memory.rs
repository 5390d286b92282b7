//! A network in memory, for tests and benchmarks: messages are encoded as ever, and links can be cut.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use shoal_core::model::NodeId;
use shoal_wire::Kind;

use super::handle::RaftHandle;
use super::transport::{RaftTransport, TransportError};

#[derive(Default)]
struct Inner {
    nodes: BTreeMap<NodeId, RaftHandle>,
    cut: BTreeSet<(NodeId, NodeId)>,
    latency: Duration,
}

/// Connects managers of one process.
#[derive(Clone, Default)]
pub struct MemoryNetwork(Arc<Mutex<Inner>>);

impl MemoryNetwork {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A manager's own way into the network.
    #[must_use]
    pub fn transport(&self, from: NodeId) -> Arc<dyn RaftTransport> {
        Arc::new(MemoryTransport { network: self.clone(), from })
    }

    /// The manager can be reached from now on.
    pub fn join(&self, node: NodeId, handle: RaftHandle) {
        self.inner().nodes.insert(node, handle);
    }

    /// Nobody is there any more.
    pub fn part(&self, node: NodeId) {
        self.inner().nodes.remove(&node);
    }

    /// Every message takes this long each way.
    pub fn set_latency(&self, latency: Duration) {
        self.inner().latency = latency;
    }

    /// Lose what `from` sends to `to`, answers included.
    pub fn cut(&self, from: NodeId, to: NodeId) {
        self.inner().cut.insert((from, to));
    }

    /// Cut a node off from all others, both ways.
    pub fn isolate(&self, node: NodeId) {
        let mut inner = self.inner();
        let others: Vec<NodeId> = inner.nodes.keys().copied().filter(|other| *other != node).collect();
        for other in others {
            inner.cut.insert((node, other));
            inner.cut.insert((other, node));
        }
    }

    /// Mend every link.
    pub fn heal(&self) {
        self.inner().cut.clear();
    }

    fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        self.inner().cut.contains(&(from, to))
    }
}

struct MemoryTransport {
    network: MemoryNetwork,
    from: NodeId,
}

impl RaftTransport for MemoryTransport {
    fn send(
        &self,
        target: NodeId,
        _addr: String,
        kind: Kind,
        body: Vec<u8>,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Vec<u8>, TransportError>> {
        let (network, from) = (self.network.clone(), self.from);
        Box::pin(async move {
            let call = async {
                let latency = network.inner().latency;
                if !latency.is_zero() {
                    tokio::time::sleep(latency).await;
                }
                if network.is_cut(from, target) {
                    // A cut cable says nothing at all.
                    return std::future::pending().await;
                }
                let node = network.inner().nodes.get(&target).cloned();
                let Some(node) = node else {
                    return Err(TransportError::Unreachable(format!("{target} is not there")));
                };
                let answer = node.handle(from, kind, body).await;
                if !latency.is_zero() {
                    tokio::time::sleep(latency).await;
                }
                if network.is_cut(target, from) {
                    return std::future::pending().await;
                }
                answer.map_err(TransportError::Refused)
            };
            tokio::time::timeout(timeout, call).await.unwrap_or(Err(TransportError::Timeout(timeout)))
        })
    }
}
