//! A node's endpoint: its socket, its certificate, the calls that it makes.

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use quinn::AsyncUdpSocket;
use shoal_core::model::{NodeId, Role};
use shoal_core::put_back::{Bug, is_put_back};
use shoal_wire::codec::MESSAGE_BYTES_MAX;
use shoal_wire::v1::Hello;
use shoal_wire::{Kind, Protocol, codec};
use tokio::runtime::Handle;

use crate::frame::{self, FrameReceiver, FrameSender};
use crate::gossip::Inbox;
use crate::identity::{Credentials, Identity};
use crate::line::{Carrier, Closed, Dial, Expected, Line, Proof, Rx, Tx};
use crate::pool::{Key, Pool, Tracked};
use crate::quic::{KEEP_ALIVE, Quic};
use crate::server::{self, Handler, answer, close};
use crate::socket::Socket;
use crate::stats::{Counters, Stats, count};
use crate::task::Scope;
use crate::threads::Threads;

const DIAL_TIMEOUT: Duration = Duration::from_millis(1_000);
/// Length of the secret behind QUIC's stateless resets.
pub const RESET_KEY_BYTES: usize = 64;

/// What carries an endpoint's connections.
pub enum Wire {
    /// QUIC.
    Udp {
        /// The UDP socket, real or simulated.
        socket: Arc<dyn AsyncUdpSocket>,
        /// Seed of QUIC's own randomness, in the simulator.
        rng_seed: Option<[u8; 32]>,
        /// Where all of QUIC runs, if not where it is used.
        thread: Option<Threads>,
    },
    /// Something else.
    Other(Arc<dyn Carrier>),
}

/// How an endpoint is set up.
pub struct EndpointConfig {
    /// What carries its connections.
    pub wire: Wire,
    /// A secret that survives restarts: with it a node that was started again makes its peers drop at once what
    /// they had open with its former self. Without one they wait until that has idled out.
    pub reset_key: Option<[u8; RESET_KEY_BYTES]>,
    /// All of the endpoint's tasks run here.
    pub scope: Scope,
    /// The wall clock, for certificates.
    pub clock: Arc<dyn Fn() -> shoal_core::model::Timestamp + Send + Sync>,
}

impl EndpointConfig {
    /// What carries the connections, without an endpoint on it. It accepts nobody until it has a certificate.
    ///
    /// # Errors
    /// If QUIC cannot use the socket.
    pub fn carrier(self) -> Result<Arc<dyn Carrier>, BindError> {
        match self.wire {
            Wire::Udp { socket, rng_seed, thread } => {
                let key = self.reset_key.as_ref();
                Ok(Arc::new(Quic::bind(socket, rng_seed, thread, key, &self.scope, self.clock)?))
            }
            Wire::Other(carrier) => Ok(carrier),
        }
    }
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

/// A real UDP socket, and a thread for it: packets in their thousands hold up no actor. An unspecified address takes IPv4 and IPv6 both, where the machine has both.
///
/// # Errors
/// If the address cannot be had.
pub fn bind_udp(addr: SocketAddr) -> Result<Wire, BindError> {
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
    let thread = Threads::start("quic", 1).map_err(refused)?;
    let _on = thread.next().enter();
    let socket = Arc::new(Socket::new(socket).map_err(refused)?);
    Ok(Wire::Udp { socket, rng_seed: None, thread: Some(thread) })
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
    pub(crate) carrier: Arc<dyn Carrier>,
    pub(crate) handler: Arc<dyn Handler>,
    pub(crate) scope: Scope,
    pub(crate) tracked: Tracked,
    pub(crate) counters: Counters,
    pub(crate) inbox: Mutex<Option<Inbox>>,
    pool: Pool,
    credentials: RwLock<Option<Arc<Credentials>>>,
    banned: RwLock<BTreeSet<NodeId>>,
}

/// A node's endpoint. Cheap to clone.
#[derive(Clone)]
pub struct Endpoint(pub(crate) Arc<Inner>);

impl Inner {
    pub(crate) fn identity(&self) -> Option<Identity> {
        self.credentials().map(|c| *c.identity())
    }

    /// As which node it speaks; another one after it left and joined again.
    pub(crate) fn node_id(&self) -> Option<NodeId> {
        self.identity().map(|us| us.node_id)
    }

    pub(crate) fn is_banned(&self, node: NodeId) -> bool {
        let banned = self.banned.read().unwrap_or_else(PoisonError::into_inner).contains(&node);
        banned && !is_put_back(Bug::RemovedNotRefused)
    }

    fn credentials(&self) -> Option<Arc<Credentials>> {
        self.credentials.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// An open connection, dialled if need be.
    pub(crate) async fn connection(
        &self,
        peer: &Peer,
        protocol: Protocol,
    ) -> Result<Arc<dyn Line>, CallError> {
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
        let expected = match peer.node_id {
            Some(id) => Expected::Node(id),
            None if protocol == Protocol::Gossip => Expected::Any,
            None => Expected::Role(Role::Manager),
        };
        let us = credentials.identity().node_id;
        let dial =
            Dial { addr: peer.addr, protocol, expected, proof: Proof::Certificate(credentials.clone()) };
        match self.dial(dial, Some(us)).await {
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

    async fn dial(&self, dial: Dial, us: Option<NodeId>) -> Result<Arc<dyn Line>, CallError> {
        let addr = dial.addr;
        let result = tokio::time::timeout(DIAL_TIMEOUT, self.shake_hands(dial, us)).await;
        let result =
            result.unwrap_or_else(|_| Err(CallError::Unreachable(format!("{addr} does not answer"))));
        count(if result.is_ok() { &self.counters.dialled_total } else { &self.counters.dial_failures_total });
        result
    }

    async fn shake_hands(&self, dial: Dial, us: Option<NodeId>) -> Result<Arc<dyn Line>, CallError> {
        let unreachable = |error: &dyn std::fmt::Display| CallError::Unreachable(error.to_string());
        let connection = self.carrier.dial(dial).await?;
        let identity = server::identity_of(&*connection);
        if let Some(identity) = identity
            && self.is_banned(identity.node_id)
        {
            connection.close(close::REMOVED, "removed");
            return Err(CallError::Unreachable(format!(
                "node {} was removed from the cluster",
                identity.node_id
            )));
        }
        // Only the answer tells that the other end took our certificate.
        let hello = codec::encode(&Hello { node_id: us, minor: 0 }).map_err(|e| unreachable(&e))?;
        exchange(&*connection, Kind::Hello, &hello).await.map_err(|error| match error {
            told @ (CallError::NotAllowed(_) | CallError::Removed) => told,
            other => CallError::Unreachable(other.to_string()),
        })?;
        self.tracked.add(identity.map(|i| i.node_id), &connection);
        if us.is_some() && self.node_id() != us {
            connection.close(close::DONE, server::LEFT);
            return Err(CallError::Unreachable("this node left the cluster".into()));
        }
        Ok(connection)
    }
}

impl CallError {
    /// What the other end meant when it closed the connection.
    pub(crate) fn told(code: u32, why: String) -> Self {
        if code == close::REMOVED { Self::Removed } else { Self::NotAllowed(why) }
    }
}

fn lost(line: &dyn Line, error: impl std::fmt::Display) -> CallError {
    match line.closed() {
        Some(Closed::Told { code, why }) if code != close::DONE => CallError::told(code, why),
        Some(closed) => CallError::Lost(closed.to_string()),
        None => CallError::Lost(error.to_string()),
    }
}

/// All that comes until the other end has finished.
async fn read_to_end(rx: &mut dyn Rx, most: usize) -> Result<Vec<u8>, String> {
    let mut all = Vec::new();
    while let Some(bytes) = rx.read().await? {
        if all.len() + bytes.len() > most {
            return Err(format!("an answer of more than {most} bytes"));
        }
        all.extend_from_slice(&bytes);
    }
    Ok(all)
}

async fn exchange(line: &dyn Line, kind: Kind, body: &[u8]) -> Result<Vec<u8>, CallError> {
    let bytes = frame::encode(kind, body).map_err(|e| CallError::Refused(e.to_string()))?;
    let (mut tx, mut rx) = line.open().await.map_err(|e| lost(line, e))?;
    tx.write(bytes.into()).await.map_err(|e| lost(line, e))?;
    tx.finish().map_err(|e| lost(line, e))?;
    let mut reply = read_to_end(&mut *rx, MESSAGE_BYTES_MAX + 1).await.map_err(|e| lost(line, e))?;
    if reply.is_empty() {
        return Err(lost(line, "an empty answer"));
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
        let scope = config.scope.clone();
        let inner = Arc::new(Inner {
            carrier: config.carrier()?,
            handler,
            scope,
            tracked: Tracked::default(),
            counters: Counters::default(),
            inbox: Mutex::default(),
            pool: Pool::default(),
            credentials: RwLock::default(),
            banned: RwLock::default(),
        });
        inner.scope.spawn(server::accept_all(inner.clone()));
        Ok(Self(inner))
    }

    /// The thread that moves the bytes of its connections, if they have one of their own.
    pub(crate) fn thread(&self) -> Option<Handle> {
        self.0.carrier.thread()
    }

    /// Take up a certificate (joined, renewed), or lay it down (left). After a renewal streams go on where they are, and
    /// what begins from then on is said under the new certificate; laying down closes every connection.
    pub fn set_credentials(&self, credentials: Option<Arc<Credentials>>) {
        let inner = &self.0;
        if let Err(error) = inner.carrier.set_server(credentials.as_ref()) {
            tracing::error!(%error, "the certificate cannot be used");
        }
        let left = credentials.is_none();
        *inner.credentials.write().unwrap_or_else(PoisonError::into_inner) = credentials;
        // What was opened under another certificate is not used any more; streams on it go on. It may be of the same role
        // and still prove less: it was made from an older state. After that: what is dialled meanwhile must not be either.
        inner.pool.clear();
        if left {
            inner.tracked.close(|_| true, close::DONE, server::LEFT);
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
        self.0.carrier.local_addr()
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
        let received = connection.heard();
        let left = timeout.saturating_sub(began.elapsed());
        match tokio::time::timeout(left, exchange(&*connection, kind, body)).await {
            Ok(result) => result,
            Err(_) => {
                // Not a sign of life meanwhile: the next call dials anew, which heals faster than QUIC's own probes.
                if timeout >= KEEP_ALIVE / 4 && connection.heard() == received {
                    connection.close(close::STALE, "silent");
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
            let (mut tx, mut rx) = connection.open().await.map_err(|e| lost(&*connection, e))?;
            tx.write(bytes.into()).await.map_err(|e| lost(&*connection, e))?;
            let mut first = rx.read().await.map_err(|e| lost(&*connection, e))?.unwrap_or_default();
            if first.is_empty() {
                return Err(lost(&*connection, "an empty answer"));
            }
            let status = first.split_to(1)[0];
            if status != answer::DONE {
                let mut why = first.to_vec();
                why.extend(read_to_end(&mut *rx, 1024).await.unwrap_or_default());
                judge(status, &why)?;
            }
            Ok((FrameSender::new(tx), FrameReceiver::with(rx, &first)))
        };
        match tokio::time::timeout(timeout, open).await {
            Ok(result) => result,
            Err(_) => Err(CallError::Timeout(timeout)),
        }
    }

    /// Open a stream whose bytes are the caller's own after the first message. Returns what came of it already.
    ///
    /// # Errors
    /// As [`CallError`] says; always within `timeout`.
    pub async fn open_raw(
        &self,
        to: &Peer,
        kind: Kind,
        body: Vec<u8>,
        timeout: Duration,
    ) -> Result<(Box<dyn Tx>, Box<dyn Rx>, Bytes), CallError> {
        let (tx, rx) = self.open(to, kind, body, timeout).await?;
        let (first, rx) = rx.into_raw();
        Ok((tx.into_raw().1, rx, first))
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
            let (expected, proof) = (Expected::Role(Role::Manager), Proof::Pinned(ca_pin));
            let connection =
                self.0.dial(Dial { addr, protocol: Protocol::Join, expected, proof }, None).await?;
            let result = exchange(&*connection, kind, &body).await;
            connection.close(close::DONE, "");
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
        self.0.counters.read(self.0.carrier.open_lines() as u64)
    }

    /// How long a packet takes to each connected node and back, as QUIC measures it.
    #[must_use]
    pub fn round_trips(&self) -> Vec<(NodeId, Duration)> {
        self.0.tracked.round_trips()
    }

    /// Close everything, and tell the peers so.
    pub async fn shutdown(&self) {
        self.0.carrier.close(close::DONE, "stopped").await;
        if !is_put_back(Bug::TasksLeftAtStop) {
            self.0.scope.abort();
        }
    }
}
