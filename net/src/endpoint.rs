//! A node's endpoint: its socket, its certificate, the calls that it makes.

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use quinn::{
    AsyncUdpSocket, ClientConfig, Connection, ConnectionError, ServerConfig, TransportConfig, VarInt,
};
use quinn_proto::HashedConnectionIdGenerator;
use ring::hmac;
use shoal_core::model::{NodeId, Role};
use shoal_core::put_back::{Bug, is_put_back};
use shoal_wire::codec::MESSAGE_BYTES_MAX;
use shoal_wire::v1::Hello;
use shoal_wire::{Kind, Protocol, codec};

use crate::frame::{self, FrameReceiver, FrameSender};
use crate::gossip::Inbox;
use crate::identity::{ANY_NODE, Credentials, Identity, node_name, role_name};
use crate::pool::{Key, Pool, Tracked};
use crate::server::{self, Handler, answer, close};
use crate::stats::{Counters, Stats, count};
use crate::task::{Scope, ScopedRuntime};
use crate::tls::{self, Clock, TlsError};

const DIAL_TIMEOUT: Duration = Duration::from_millis(1_000);
const INITIAL_RTT: Duration = Duration::from_millis(50);
/// Lively connections notice a dead peer after this long; what decides on life and death is elsewhere.
const IDLE_TIMEOUT: Duration = Duration::from_secs(5);
const KEEP_ALIVE: Duration = Duration::from_secs(1);
/// The accepting end lets the caller decide, within this.
const SERVER_IDLE_TIMEOUT: Duration = Duration::from_secs(20);
const GOSSIP_IDLE_TIMEOUT: Duration = Duration::from_secs(6);
const STREAMS_MAX: u32 = 1024;
const UNI_STREAMS_MAX: u32 = 64;

/// Length of the secret behind QUIC's stateless resets.
pub const RESET_KEY_BYTES: usize = 64;

/// How an endpoint is set up.
pub struct EndpointConfig {
    /// The UDP socket, real or simulated.
    pub socket: Arc<dyn AsyncUdpSocket>,
    /// Seed of QUIC's own randomness, in the simulator.
    pub rng_seed: Option<[u8; 32]>,
    /// A secret that survives restarts: with it a node that was started again makes its peers drop at once what
    /// they had open with its former self. Without one they wait until that has idled out.
    pub reset_key: Option<[u8; RESET_KEY_BYTES]>,
    /// All of the endpoint's tasks run here.
    pub scope: Scope,
    /// The wall clock, for certificates.
    pub clock: Arc<dyn Fn() -> shoal_core::model::Timestamp + Send + Sync>,
}

/// The endpoint cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The socket fails.
    #[error("cannot listen on UDP {addr}: {source}")]
    Socket {
        /// Address.
        addr: SocketAddr,
        /// The system's word.
        source: io::Error,
    },
    /// QUIC cannot be set up on the socket.
    #[error("QUIC: {0}")]
    Quic(#[from] io::Error),
}

/// A real UDP socket. An unspecified address takes IPv4 and IPv6 both, where the machine has both.
///
/// # Errors
/// If the address cannot be had.
pub fn bind_udp(addr: SocketAddr) -> Result<Arc<dyn AsyncUdpSocket>, BindError> {
    let refused = |source| BindError::Socket { addr, source };
    let both = SocketAddr::from((Ipv6Addr::UNSPECIFIED, addr.port()));
    let socket = if addr.ip().is_unspecified() {
        match std::net::UdpSocket::bind(both) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(refused(error)),
            Ok(socket) => Ok(socket),
            // No IPv6 here.
            Err(_) => std::net::UdpSocket::bind(addr),
        }
    } else {
        std::net::UdpSocket::bind(addr)
    };
    let socket = socket.map_err(refused)?;
    quinn::Runtime::wrap_udp_socket(&quinn::TokioRuntime, socket).map_err(refused)
}

/// A node, as one that is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// If known: its certificate must say the same. Otherwise any manager will do; for gossip, any node.
    pub node_id: Option<NodeId>,
    /// Where it is.
    pub addr: SocketAddr,
}

/// A call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The message certainly did not arrive.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// No answer in time. The message may have arrived.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The connection broke. The message may have arrived.
    #[error("connection lost: {0}")]
    Lost(String),
    /// The other end refuses it.
    #[error("refused: {0}")]
    Refused(String),
    /// The other end says that this node was removed from the cluster.
    #[error("this node was removed from the cluster")]
    Removed,
    /// This role may not send it, or this node is not welcome.
    #[error("not allowed: {0}")]
    NotAllowed(String),
}

pub(crate) struct Inner {
    pub(crate) endpoint: quinn::Endpoint,
    pub(crate) handler: Arc<dyn Handler>,
    pub(crate) scope: Scope,
    pub(crate) tracked: Tracked,
    pub(crate) counters: Counters,
    pub(crate) inbox: Mutex<Option<Inbox>>,
    clock: Clock,
    pool: Pool,
    credentials: RwLock<Option<Arc<Credentials>>>,
    banned: RwLock<BTreeSet<NodeId>>,
}

/// A node's endpoint. Cheap to clone.
#[derive(Clone)]
pub struct Endpoint(pub(crate) Arc<Inner>);

fn transport(idle: Duration, keep_alive: Option<Duration>) -> Arc<TransportConfig> {
    let mut config = TransportConfig::default();
    config
        .max_idle_timeout(idle.try_into().ok())
        .keep_alive_interval(keep_alive)
        .initial_rtt(INITIAL_RTT)
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS_MAX))
        .max_concurrent_uni_streams(VarInt::from_u32(UNI_STREAMS_MAX));
    Arc::new(config)
}

/// QUIC of an endpoint that knows the connections of its former self when it is asked for them: their ids are
/// made with the same key, or it would take them for noise and say nothing.
fn resetting(key: &[u8; RESET_KEY_BYTES]) -> quinn::EndpointConfig {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    let derived = hmac::sign(&key, b"connection ids");
    let ids = derived.as_ref().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let mut config = quinn::EndpointConfig::new(Arc::new(key));
    config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(ids)));
    config
}

fn client_config(crypto: quinn::crypto::rustls::QuicClientConfig, protocol: Protocol) -> ClientConfig {
    let mut config = ClientConfig::new(Arc::new(crypto));
    config.transport_config(match protocol {
        Protocol::Gossip => transport(GOSSIP_IDLE_TIMEOUT, None),
        Protocol::Join => transport(IDLE_TIMEOUT, None),
        Protocol::Raft | Protocol::Control | Protocol::Dispatch => transport(IDLE_TIMEOUT, Some(KEEP_ALIVE)),
    });
    config
}

impl Inner {
    pub(crate) fn identity(&self) -> Option<Identity> {
        self.credentials().map(|c| *c.identity())
    }

    pub(crate) fn is_banned(&self, node: NodeId) -> bool {
        let banned = self.banned.read().unwrap_or_else(PoisonError::into_inner).contains(&node);
        banned && !is_put_back(Bug::RemovedNotRefused)
    }

    fn credentials(&self) -> Option<Arc<Credentials>> {
        self.credentials.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn server_config(&self, credentials: &Credentials) -> Result<ServerConfig, TlsError> {
        let mut config = ServerConfig::with_crypto(Arc::new(tls::server(credentials, &self.clock)?));
        config.transport_config(transport(SERVER_IDLE_TIMEOUT, None));
        Ok(config)
    }

    /// An open connection, dialled if need be.
    pub(crate) async fn connection(&self, peer: &Peer, protocol: Protocol) -> Result<Connection, CallError> {
        let slot = self.pool.slot(Key { node_id: peer.node_id, addr: peer.addr, protocol });
        let mut slot = slot.lock().await;
        if let Some(connection) = slot.open() {
            return Ok(connection);
        }
        if let Some(why) = slot.backs_off() {
            return Err(CallError::Unreachable(why));
        }
        let credentials = self.credentials();
        let credentials =
            credentials.ok_or_else(|| CallError::Unreachable("this node has no certificate".into()))?;
        let dial = async {
            let crypto = tls::client(&credentials, protocol, &self.clock);
            let config = client_config(crypto.map_err(|e| CallError::Unreachable(e.to_string()))?, protocol);
            let name = match peer.node_id {
                Some(id) => node_name(id),
                None if protocol == Protocol::Gossip => ANY_NODE.to_owned(),
                None => role_name(Role::Manager).to_owned(),
            };
            self.dial(config, peer, &name, Some(credentials.identity().node_id)).await
        };
        match dial.await {
            Ok(connection) => {
                slot.connected(connection.clone());
                Ok(connection)
            }
            Err(error) => {
                slot.failed(error.to_string());
                Err(error)
            }
        }
    }

    async fn dial(
        &self,
        config: ClientConfig,
        peer: &Peer,
        name: &str,
        us: Option<NodeId>,
    ) -> Result<Connection, CallError> {
        let result = tokio::time::timeout(DIAL_TIMEOUT, self.shake_hands(config, peer, name, us)).await;
        let result =
            result.unwrap_or_else(|_| Err(CallError::Unreachable(format!("{} does not answer", peer.addr))));
        count(if result.is_ok() { &self.counters.dialled_total } else { &self.counters.dial_failures_total });
        result
    }

    async fn shake_hands(
        &self,
        config: ClientConfig,
        peer: &Peer,
        name: &str,
        us: Option<NodeId>,
    ) -> Result<Connection, CallError> {
        let unreachable = |error: &dyn std::fmt::Display| CallError::Unreachable(error.to_string());
        let connecting = self.endpoint.connect_with(config, peer.addr, name).map_err(|e| unreachable(&e))?;
        let connection = connecting.await.map_err(|e| closed(&e))?;
        let identity = server::peer_identity(&connection);
        if let Some(identity) = identity
            && self.is_banned(identity.node_id)
        {
            connection.close(VarInt::from_u32(close::REMOVED), b"removed");
            return Err(CallError::Unreachable(format!(
                "node {} was removed from the cluster",
                identity.node_id
            )));
        }
        // Only the answer tells that the other end took our certificate.
        let hello = codec::encode(&Hello { node_id: us, minor: 0 }).map_err(|e| unreachable(&e))?;
        exchange(&connection, Kind::Hello, &hello).await.map_err(|error| match error {
            told @ (CallError::NotAllowed(_) | CallError::Removed) => told,
            other => CallError::Unreachable(other.to_string()),
        })?;
        self.tracked.add(identity.map(|i| i.node_id), &connection);
        Ok(connection)
    }
}

/// What the other end meant when it closed the connection.
fn told(close: &quinn::ApplicationClose) -> CallError {
    if close.error_code == VarInt::from_u32(close::REMOVED) {
        return CallError::Removed;
    }
    CallError::NotAllowed(String::from_utf8_lossy(&close.reason).into_owned())
}

fn closed(error: &ConnectionError) -> CallError {
    match error {
        ConnectionError::ApplicationClosed(close) => told(close),
        ConnectionError::ConnectionClosed(close) => CallError::Unreachable(close.to_string()),
        other => CallError::Unreachable(other.to_string()),
    }
}

fn lost(connection: &Connection, error: impl std::fmt::Display) -> CallError {
    match connection.close_reason() {
        Some(ConnectionError::ApplicationClosed(close))
            if close.error_code != VarInt::from_u32(close::DONE) =>
        {
            told(&close)
        }
        Some(reason) => CallError::Lost(reason.to_string()),
        None => CallError::Lost(error.to_string()),
    }
}

async fn exchange(connection: &Connection, kind: Kind, body: &[u8]) -> Result<Vec<u8>, CallError> {
    let bytes = frame::encode(kind, body).map_err(|e| CallError::Refused(e.to_string()))?;
    let (mut tx, mut rx) = connection.open_bi().await.map_err(|e| lost(connection, e))?;
    tx.write_all(&bytes).await.map_err(|e| lost(connection, e))?;
    tx.finish().map_err(|e| lost(connection, e))?;
    let mut reply = rx.read_to_end(MESSAGE_BYTES_MAX + 1).await.map_err(|e| lost(connection, e))?;
    if reply.is_empty() {
        return Err(CallError::Lost("an empty answer".into()));
    }
    let status = reply.remove(0);
    judge(status, &reply)?;
    Ok(reply)
}

fn judge(status: u8, reply: &[u8]) -> Result<(), CallError> {
    let why = || String::from_utf8_lossy(&reply[..reply.len().min(1024)]).into_owned();
    match status {
        answer::DONE => Ok(()),
        answer::NOT_ALLOWED => Err(CallError::NotAllowed(why())),
        _ => Err(CallError::Refused(why())),
    }
}

impl Endpoint {
    /// Set up an endpoint. It accepts nobody until it has a certificate.
    ///
    /// # Errors
    /// If QUIC cannot use the socket.
    pub fn bind(config: EndpointConfig, handler: Arc<dyn Handler>) -> Result<Self, BindError> {
        let mut quic = config.reset_key.map_or_else(quinn::EndpointConfig::default, |key| resetting(&key));
        quic.rng_seed(config.rng_seed);
        let runtime = Arc::new(ScopedRuntime(config.scope.clone()));
        let endpoint = quinn::Endpoint::new_with_abstract_socket(quic, None, config.socket, runtime)?;
        let inner = Arc::new(Inner {
            endpoint,
            handler,
            scope: config.scope,
            tracked: Tracked::default(),
            counters: Counters::default(),
            inbox: Mutex::default(),
            clock: config.clock,
            pool: Pool::default(),
            credentials: RwLock::default(),
            banned: RwLock::default(),
        });
        inner.scope.spawn(server::accept_all(inner.clone()));
        Ok(Self(inner))
    }

    /// Take up a certificate (joined, renewed), or lay it down (left). Renewing leaves open connections as
    /// they are; laying down closes them all.
    pub fn set_credentials(&self, credentials: Option<Arc<Credentials>>) {
        let inner = &self.0;
        let server = credentials.as_ref().map(|c| inner.server_config(c)).transpose();
        match server {
            Ok(config) => inner.endpoint.set_server_config(config),
            Err(error) => tracing::error!(%error, "the certificate cannot be used"),
        }
        let left = credentials.is_none();
        // What was opened under another role is not used any more; streams on it go on.
        let role = |c: &Arc<Credentials>| c.identity().role;
        let other_role = inner.credentials().as_ref().map(role) != credentials.as_ref().map(role);
        *inner.credentials.write().unwrap_or_else(PoisonError::into_inner) = credentials;
        // After that: what is dialled meanwhile must not be under the old role either.
        if other_role {
            inner.pool.clear();
        }
        if left {
            inner.tracked.close(|_| true, close::DONE, "left the cluster");
            self.set_banned(BTreeSet::new());
        }
    }

    /// Who this node is.
    #[must_use]
    pub fn identity(&self) -> Option<Identity> {
        self.0.identity()
    }

    /// Address of the socket.
    ///
    /// # Errors
    /// If the system does not say.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.endpoint.local_addr()
    }

    /// Refuse these nodes from now on, and close what they have open.
    pub fn set_banned(&self, nodes: BTreeSet<NodeId>) {
        let mut banned = self.0.banned.write().unwrap_or_else(PoisonError::into_inner);
        if *banned == nodes {
            return;
        }
        (*banned).clone_from(&nodes);
        drop(banned);
        let gone = |id: Option<NodeId>| id.is_some_and(|id| nodes.contains(&id));
        self.0.tracked.close(gone, close::REMOVED, "the node was removed from the cluster");
    }

    /// Close all connections with a node; it may come again.
    pub fn close_peer(&self, node: NodeId) {
        self.0.tracked.close(|id| id == Some(node), close::STALE, "come again");
    }

    /// Send a message and wait for its answer.
    ///
    /// # Errors
    /// As [`CallError`] says; always within `timeout`.
    pub async fn call(
        &self,
        to: &Peer,
        kind: Kind,
        body: Vec<u8>,
        timeout: Duration,
    ) -> Result<Vec<u8>, CallError> {
        count(&self.0.counters.calls_total);
        let result = self.try_call(to, kind, &body, timeout).await;
        if result.is_err() {
            count(&self.0.counters.call_failures_total);
        }
        result
    }

    async fn try_call(
        &self,
        to: &Peer,
        kind: Kind,
        body: &[u8],
        timeout: Duration,
    ) -> Result<Vec<u8>, CallError> {
        let began = tokio::time::Instant::now();
        let connection = match tokio::time::timeout(timeout, self.0.connection(to, kind.protocol())).await {
            Ok(connection) => connection?,
            Err(_) => return Err(CallError::Unreachable(format!("{} does not answer", to.addr))),
        };
        let received = connection.stats().udp_rx.datagrams;
        let left = timeout.saturating_sub(began.elapsed());
        match tokio::time::timeout(left, exchange(&connection, kind, body)).await {
            Ok(result) => result,
            Err(_) => {
                // Not a sign of life meanwhile: the next call dials anew, which heals faster than QUIC's own probes.
                if timeout >= KEEP_ALIVE / 4 && connection.stats().udp_rx.datagrams == received {
                    connection.close(VarInt::from_u32(close::STALE), b"silent");
                }
                Err(CallError::Timeout(timeout))
            }
        }
    }

    /// Open a stream of frames.
    ///
    /// # Errors
    /// As [`CallError`] says; always within `timeout`.
    pub async fn open(
        &self,
        to: &Peer,
        kind: Kind,
        body: Vec<u8>,
        timeout: Duration,
    ) -> Result<(FrameSender, FrameReceiver), CallError> {
        let open = async {
            let connection = self.0.connection(to, kind.protocol()).await?;
            let bytes = frame::encode(kind, &body).map_err(|e| CallError::Refused(e.to_string()))?;
            let (mut tx, mut rx) = connection.open_bi().await.map_err(|e| lost(&connection, e))?;
            tx.write_all(&bytes).await.map_err(|e| lost(&connection, e))?;
            let mut status = [0];
            rx.read_exact(&mut status).await.map_err(|e| lost(&connection, e))?;
            if status[0] != answer::DONE {
                let why = rx.read_to_end(1024).await.unwrap_or_default();
                judge(status[0], &why)?;
            }
            Ok((FrameSender(tx), FrameReceiver::new(rx)))
        };
        match tokio::time::timeout(timeout, open).await {
            Ok(result) => result,
            Err(_) => Err(CallError::Timeout(timeout)),
        }
    }

    /// Call a manager without a certificate; its root certificate is pinned by its digest.
    ///
    /// # Errors
    /// As [`CallError`] says; always within `timeout`.
    pub async fn join_call(
        &self,
        addr: SocketAddr,
        ca_pin: [u8; 32],
        kind: Kind,
        body: Vec<u8>,
        timeout: Duration,
    ) -> Result<Vec<u8>, CallError> {
        let call = async {
            let crypto =
                tls::joiner(ca_pin, &self.0.clock).map_err(|e| CallError::Unreachable(e.to_string()))?;
            let config = client_config(crypto, Protocol::Join);
            let name = role_name(Role::Manager);
            let connection = self.0.dial(config, &Peer { node_id: None, addr }, name, None).await?;
            let result = exchange(&connection, kind, &body).await;
            connection.close(VarInt::from_u32(close::DONE), b"");
            result
        };
        match tokio::time::timeout(timeout, call).await {
            Ok(result) => result,
            Err(_) => Err(CallError::Timeout(timeout)),
        }
    }

    /// Figures since the start.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.0.counters.read(self.0.endpoint.open_connections() as u64)
    }

    /// Close everything, and tell the peers so.
    pub async fn shutdown(&self) {
        self.0.endpoint.close(VarInt::from_u32(close::DONE), b"stopped");
        let _ = tokio::time::timeout(Duration::from_millis(300), self.0.endpoint.wait_idle()).await;
        if !is_put_back(Bug::TasksLeftAtStop) {
            self.0.scope.abort();
        }
    }
}
