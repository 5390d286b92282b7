//! Nodes with real certificates on real sockets.
#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use shoal_core::model::{ClusterId, NodeId, Role, Timestamp};
use shoal_core::task::BoxFuture;
use shoal_net::ca::CertificateAuthority;
use shoal_net::identity::{Credentials, NodeKey};
use shoal_net::task::Scope;
use shoal_net::*;
use shoal_wire::Kind;

pub const NOW: u64 = 1_800_000_000_000;
pub const DAY: u64 = 24 * 3_600_000;
pub const CLUSTER: ClusterId = ClusterId::from_u128(1);
pub const WAIT: Duration = Duration::from_secs(3);

/// Answers with what it was asked; a session echoes its frames.
pub struct Echo;

impl Handler for Echo {
    fn call(&self, _: Caller, _: Kind, body: Vec<u8>) -> BoxFuture<'static, Result<Vec<u8>, Refusal>> {
        Box::pin(async move { Ok(body) })
    }

    fn stream(
        &self,
        _: Caller,
        _: Kind,
        _: Vec<u8>,
        mut tx: FrameSender,
        mut rx: FrameReceiver,
    ) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            while let Ok(Some(frame)) = rx.recv().await {
                if tx.send(frame.kind, frame.body).await.is_err() {
                    return;
                }
            }
        })
    }
}

pub struct World {
    pub ca: CertificateAuthority,
}

impl World {
    pub fn new() -> Self {
        Self {
            ca: CertificateAuthority::create(CLUSTER, Timestamp(NOW), Timestamp(NOW + 9999 * DAY)).unwrap(),
        }
    }

    pub fn credentials(&self, id: u128, role: Role) -> Arc<Credentials> {
        self.signed(id, role, CLUSTER, NOW - DAY, NOW + DAY)
    }

    pub fn signed(
        &self,
        id: u128,
        role: Role,
        cluster: ClusterId,
        from: u64,
        until: u64,
    ) -> Arc<Credentials> {
        let key = NodeKey::generate().unwrap();
        let identity = Identity { node_id: NodeId::from_u128(id), role, cluster_id: cluster, as_of: 1 };
        let cert = self.ca.sign(&key.csr().unwrap(), &identity, Timestamp(from), Timestamp(until)).unwrap();
        Arc::new(Credentials::new(key, cert, self.ca.to_root_ca().cert_der).unwrap())
    }

    /// Credentials signed by this authority, but trusting another's root: an intruder that dials `there`.
    pub fn forged(&self, there: &Self, id: u128, role: Role) -> Arc<Credentials> {
        let key = NodeKey::generate().unwrap();
        let identity = Identity { node_id: NodeId::from_u128(id), role, cluster_id: CLUSTER, as_of: 1 };
        let cert =
            self.ca.sign(&key.csr().unwrap(), &identity, Timestamp(NOW - DAY), Timestamp(NOW + DAY)).unwrap();
        Arc::new(Credentials::new(key, cert, there.ca.to_root_ca().cert_der).unwrap())
    }

    pub fn node(&self, id: u128, role: Role) -> (Endpoint, Peer) {
        endpoint(Some(self.credentials(id, role)))
    }
}

pub fn endpoint(credentials: Option<Arc<Credentials>>) -> (Endpoint, Peer) {
    bound("127.0.0.1:0".parse().unwrap(), None, Scope::new(), credentials)
}

pub fn bound(
    at: SocketAddr,
    reset_key: Option<[u8; RESET_KEY_BYTES]>,
    scope: Scope,
    credentials: Option<Arc<Credentials>>,
) -> (Endpoint, Peer) {
    let config = EndpointConfig {
        reset_key,
        wire: Wire::Udp { socket: bind_udp(at).unwrap(), rng_seed: None },
        scope,
        clock: Arc::new(|| Timestamp(NOW)),
    };
    let endpoint = Endpoint::bind(config, Arc::new(Echo)).unwrap();
    let addr: SocketAddr = endpoint.local_addr().unwrap();
    let node_id = credentials.as_ref().map(|c| c.identity().node_id);
    endpoint.set_credentials(credentials);
    (endpoint, Peer { node_id, addr })
}
