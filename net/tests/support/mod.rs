//! Nodes with real certificates, on whatever carries their connections.
#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used)]

use std::any::Any;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use shoal_core::model::{ClusterId, NodeId, Role, Timestamp};
use shoal_core::task::BoxFuture;
use shoal_net::ca::CertificateAuthority;
use shoal_net::gossip::{self, GossipConfig, Membership};
use shoal_net::identity::{Credentials, NodeKey};
use shoal_net::line::Carrier;
use shoal_net::task::Scope;
use shoal_net::*;
use shoal_wire::Kind;

pub const NOW: u64 = 1_800_000_000_000;
pub const DAY: u64 = 24 * 3_600_000;
pub const CLUSTER: ClusterId = ClusterId::from_u128(1);
pub const WAIT: Duration = Duration::from_secs(3);

/// Lets a node take part in the talk about who is alive.
pub type Join = Arc<dyn Fn(GossipConfig) -> Arc<dyn Membership>>;

/// What carries connections, of which the tests know nothing more.
pub trait Ground: Send + Sync + 'static {
    /// What carries those of an endpoint at this address, or at any.
    fn wire(&self, at: Option<SocketAddr>) -> Wire;
    /// The process at this address is gone with all that it held, and said nothing. Ends once another can take its place.
    fn killed(&self, at: SocketAddr, held: Box<dyn Any>) -> BoxFuture<'_, ()>;
    /// An address at which nobody answers.
    fn hole(&self) -> SocketAddr;
    /// What takes gossip's place, if anything does.
    fn membership(&self) -> Option<Join> {
        None
    }
}

/// UDP on this machine.
#[derive(Default)]
pub struct Udp(Mutex<Vec<UdpSocket>>);

impl Ground for Udp {
    fn wire(&self, at: Option<SocketAddr>) -> Wire {
        let at = at.unwrap_or_else(|| "127.0.0.1:0".parse().unwrap());
        bind_udp(at).unwrap()
    }

    fn killed(&self, at: SocketAddr, held: Box<dyn Any>) -> BoxFuture<'_, ()> {
        drop(held);
        Box::pin(async move {
            while UdpSocket::bind(at).is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
    }

    fn hole(&self) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let at = socket.local_addr().unwrap();
        self.0.lock().unwrap().push(socket);
        at
    }
}

/// Answers with what it was asked; a session echoes its frames.
pub struct Echo;

/// Asks from which state the caller's certificate was made, instead of an echo.
pub const AS_OF: &[u8] = b"as of";

impl Handler for Echo {
    fn call(&self, from: Caller, _: Kind, body: Vec<u8>) -> BoxFuture<'static, Result<Vec<u8>, Refusal>> {
        let as_of = from.identity.map_or(0, |identity| identity.as_of);
        Box::pin(async move { Ok(if body == AS_OF { as_of.to_be_bytes().to_vec() } else { body }) })
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
            if tx.begin().await.is_err() {
                return;
            }
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
    ground: Arc<dyn Ground>,
}

impl World {
    pub fn new(ground: &Arc<dyn Ground>) -> Self {
        let ca = CertificateAuthority::create(CLUSTER, Timestamp(NOW), Timestamp(NOW + 9999 * DAY)).unwrap();
        Self { ca, ground: Arc::clone(ground) }
    }

    pub fn credentials(&self, id: u128, role: Role) -> Arc<Credentials> {
        self.credentials_as_of(id, role, 1)
    }

    /// Credentials that were made from the state at this index.
    pub fn credentials_as_of(&self, id: u128, role: Role, as_of: u64) -> Arc<Credentials> {
        let identity = Identity { node_id: NodeId::from_u128(id), role, cluster_id: CLUSTER, as_of };
        self.sign(&identity, NOW - DAY, NOW + DAY)
    }

    pub fn signed(
        &self,
        id: u128,
        role: Role,
        cluster: ClusterId,
        from: u64,
        until: u64,
    ) -> Arc<Credentials> {
        let identity = Identity { node_id: NodeId::from_u128(id), role, cluster_id: cluster, as_of: 1 };
        self.sign(&identity, from, until)
    }

    fn sign(&self, identity: &Identity, from: u64, until: u64) -> Arc<Credentials> {
        let key = NodeKey::generate().unwrap();
        let cert = self.ca.sign(&key.csr().unwrap(), identity, Timestamp(from), Timestamp(until)).unwrap();
        Arc::new(Credentials::new(key, cert, self.ca.to_root_ca().cert_der).unwrap())
    }

    /// An endpoint's part in the talk about who is alive.
    pub async fn member(&self, endpoint: &Endpoint, config: GossipConfig) -> Arc<dyn Membership> {
        match self.ground.membership() {
            Some(join) => join(config),
            None => gossip::start(endpoint, config, &Scope::new()).await.unwrap(),
        }
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
        self.endpoint(Some(self.credentials(id, role)))
    }

    pub fn endpoint(&self, credentials: Option<Arc<Credentials>>) -> (Endpoint, Peer) {
        self.bound(None, None, Scope::new(), credentials)
    }

    pub fn bound(
        &self,
        at: Option<SocketAddr>,
        reset_key: Option<[u8; RESET_KEY_BYTES]>,
        scope: Scope,
        credentials: Option<Arc<Credentials>>,
    ) -> (Endpoint, Peer) {
        let endpoint = Endpoint::bind(self.config(at, reset_key, scope), Arc::new(Echo)).unwrap();
        let addr: SocketAddr = endpoint.local_addr().unwrap();
        let node_id = credentials.as_ref().map(|c| c.identity().node_id);
        endpoint.set_credentials(credentials);
        (endpoint, Peer { node_id, addr })
    }

    /// What carries a node's connections, without the node.
    pub fn carrier(&self, scope: Scope, credentials: Option<&Arc<Credentials>>) -> Arc<dyn Carrier> {
        let carrier = self.config(None, None, scope).carrier().unwrap();
        carrier.set_server(credentials).unwrap();
        carrier
    }

    fn config(
        &self,
        at: Option<SocketAddr>,
        reset_key: Option<[u8; RESET_KEY_BYTES]>,
        scope: Scope,
    ) -> EndpointConfig {
        EndpointConfig { reset_key, wire: self.ground.wire(at), scope, clock: Arc::new(|| Timestamp(NOW)) }
    }
}
