//! The accepting end: who calls, whether it may, and who answers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::{Connection, Incoming, RecvStream, SendStream, VarInt};
use rustls::pki_types::CertificateDer;
use shoal_core::model::Role;
use shoal_core::put_back::{Bug, is_put_back};
use shoal_core::task::BoxFuture;
use shoal_wire::v1::Hello;
use shoal_wire::{Kind, Protocol, codec};

use crate::access;
use crate::endpoint::Inner;
use crate::frame::{FrameReceiver, FrameSender};
use crate::identity::Identity;
use crate::stats::count;

/// A caller must have said who it is within this time.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// A caller without a certificate may stay for so long: enough to join.
const ANONYMOUS_MAX: Duration = Duration::from_secs(15);
/// Connections without a certificate at once.
const ANONYMOUS_CONNECTIONS_MAX: usize = 128;
/// A request must have come within this time.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Why a connection is closed, as QUIC's application code.
pub(crate) mod close {
    pub(crate) const DONE: u32 = 0;
    pub(crate) const REMOVED: u32 = 1;
    pub(crate) const NOT_ALLOWED: u32 = 2;
    pub(crate) const STALE: u32 = 3;
}

/// The answer to a call, before its body.
pub(crate) mod answer {
    pub(crate) const DONE: u8 = 0;
    pub(crate) const REFUSED: u8 = 1;
    pub(crate) const NOT_ALLOWED: u8 = 2;
}

/// Who calls.
#[derive(Debug, Clone)]
pub struct Caller {
    /// From the verified certificate; none without one.
    pub identity: Option<Identity>,
    /// Where from.
    pub addr: SocketAddr,
}

impl Caller {
    fn role(&self) -> Option<Role> {
        self.identity.as_ref().map(|i| i.role)
    }
}

/// A call is not answered; the caller is told why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal(pub String);

impl Refusal {
    /// With this reason.
    pub fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

/// Answers calls and serves streams. That the caller may send this kind was checked before.
pub trait Handler: Send + Sync + 'static {
    /// One message there, one back.
    fn call(&self, from: Caller, kind: Kind, body: Vec<u8>) -> BoxFuture<'static, Result<Vec<u8>, Refusal>>;

    /// A stream of frames both ways, until it returns.
    fn stream(
        &self,
        from: Caller,
        kind: Kind,
        body: Vec<u8>,
        tx: FrameSender,
        rx: FrameReceiver,
    ) -> BoxFuture<'static, ()>;
}

/// Kinds that begin a stream instead of a call.
pub(crate) const fn is_stream(kind: Kind) -> bool {
    matches!(kind, Kind::Session)
}

pub(crate) fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

pub(crate) fn peer_identity(connection: &Connection) -> Option<Identity> {
    let certs = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    Identity::of(certs.first()?).ok()
}

pub(crate) fn protocol_of(connection: &Connection) -> Option<Protocol> {
    let data = connection.handshake_data()?.downcast::<quinn::crypto::rustls::HandshakeData>().ok()?;
    Protocol::from_alpn(&data.protocol?)
}

pub(crate) async fn accept_all(inner: Arc<Inner>) {
    while let Some(incoming) = inner.endpoint.accept().await {
        let task = serve(inner.clone(), incoming);
        inner.scope.spawn(task);
    }
}

async fn serve(inner: Arc<Inner>, incoming: Incoming) {
    let connection = match incoming.await {
        Ok(connection) => connection,
        Err(error) => {
            count(&inner.counters.handshake_failures_total);
            tracing::debug!(%error, "handshake failed");
            return;
        }
    };
    count(&inner.counters.accepted_total);
    let Some(protocol) = protocol_of(&connection) else {
        return connection.close(VarInt::from_u32(close::NOT_ALLOWED), b"unknown protocol");
    };
    let has_cert = connection.peer_identity().is_some();
    let identity = peer_identity(&connection);
    let caller = Caller { identity, addr: canonical(connection.remote_address()) };
    if let Err((code, why)) = admit(&inner, &connection, protocol, &caller, has_cert).await {
        count(&inner.counters.refused_callers_total);
        tracing::info!(addr = %caller.addr, identity = ?caller.identity, ?protocol, why, "caller refused");
        return connection.close(VarInt::from_u32(code), why.as_bytes());
    }
    inner.tracked.add(caller.identity.as_ref().map(|i| i.node_id), &connection);
    if protocol == Protocol::Gossip {
        inner.gossip_accepted(connection.clone(), caller.addr);
    }
    let serving = serve_streams(&inner, &connection, protocol, &caller);
    if caller.identity.is_some() {
        serving.await;
    } else if tokio::time::timeout(ANONYMOUS_MAX, serving).await.is_err() {
        connection.close(VarInt::from_u32(close::DONE), b"time is up");
    }
}

/// Whether the caller may be here at all. Ends with both having said who they are.
async fn admit(
    inner: &Inner,
    connection: &Connection,
    protocol: Protocol,
    caller: &Caller,
    has_cert: bool,
) -> Result<(), (u32, &'static str)> {
    let not_allowed = |why| (close::NOT_ALLOWED, why);
    if has_cert && caller.identity.is_none() {
        return Err(not_allowed("the certificate names no node, role or cluster"));
    }
    if !access::allowed(caller.role(), protocol, Kind::Hello) {
        return Err(not_allowed("a certificate is needed"));
    }
    match &caller.identity {
        Some(identity) => {
            if inner.is_banned(identity.node_id) {
                return Err((close::REMOVED, "the node was removed from the cluster"));
            }
            if inner.identity().is_some_and(|us| us.cluster_id != identity.cluster_id) {
                return Err(not_allowed("another cluster"));
            }
        }
        None if inner.tracked.anonymous() >= ANONYMOUS_CONNECTIONS_MAX => {
            return Err(not_allowed("too many callers"));
        }
        None => {}
    }
    let hello = tokio::time::timeout(HELLO_TIMEOUT, greet(inner, connection)).await;
    let hello =
        hello.map_err(|_| not_allowed("said nothing"))?.map_err(|_| not_allowed("malformed hello"))?;
    if hello.node_id != caller.identity.as_ref().map(|i| i.node_id) {
        return Err(not_allowed("speaks for another node"));
    }
    Ok(())
}

async fn greet(inner: &Inner, connection: &Connection) -> Result<Hello, ()> {
    let (mut tx, rx) = connection.accept_bi().await.map_err(|_| ())?;
    let mut rx = FrameReceiver::new(rx);
    let frame = rx.recv().await.ok().flatten().filter(|f| f.kind == Kind::Hello).ok_or(())?;
    let hello: Hello = codec::decode(&frame.body).map_err(|_| ())?;
    let ours = Hello { node_id: inner.identity().map(|i| i.node_id), minor: 0 };
    respond(&mut tx, answer::DONE, &codec::encode(&ours).map_err(|_| ())?).await;
    Ok(hello)
}

async fn serve_streams(inner: &Arc<Inner>, connection: &Connection, protocol: Protocol, caller: &Caller) {
    while let Ok((tx, rx)) = connection.accept_bi().await {
        let (inner, caller) = (inner.clone(), caller.clone());
        let scope = inner.scope.clone();
        scope.spawn(async move { serve_stream(&inner, protocol, caller, tx, rx).await });
    }
}

async fn serve_stream(inner: &Inner, protocol: Protocol, caller: Caller, mut tx: SendStream, rx: RecvStream) {
    let mut rx = FrameReceiver::new(rx);
    let Ok(Ok(Some(frame))) = tokio::time::timeout(REQUEST_TIMEOUT, rx.recv()).await else { return };
    let banned = caller.identity.as_ref().is_some_and(|i| inner.is_banned(i.node_id));
    let may = access::allowed(caller.role(), protocol, frame.kind)
        || caller.identity.is_some() && is_put_back(Bug::WorkersMayAll);
    if banned || frame.kind == Kind::Hello || !may {
        count(&inner.counters.refused_messages_total);
        tracing::warn!(addr = %caller.addr, identity = ?caller.identity, kind = ?frame.kind, "message refused");
        let why = format!("{:?} is not allowed for this caller", frame.kind);
        return respond(&mut tx, answer::NOT_ALLOWED, why.as_bytes()).await;
    }
    if is_stream(frame.kind) {
        if tx.write_all(&[answer::DONE]).await.is_ok() {
            inner.handler.stream(caller, frame.kind, frame.body, FrameSender(tx), rx).await;
        }
        return;
    }
    match inner.handler.call(caller, frame.kind, frame.body).await {
        Ok(body) => respond(&mut tx, answer::DONE, &body).await,
        Err(Refusal(why)) => respond(&mut tx, answer::REFUSED, why.as_bytes()).await,
    }
}

async fn respond(tx: &mut SendStream, status: u8, body: &[u8]) {
    // A caller that has gone away meanwhile is no concern of ours.
    if tx.write_all(&[status]).await.is_ok() && tx.write_all(body).await.is_ok() {
        let _ = tx.finish();
    }
}
