//! The accepting end: who calls, whether it may, and who answers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use shoal_core::model::Role;
use shoal_core::put_back::{Bug, is_put_back};
use shoal_core::task::BoxFuture;
use shoal_wire::v1::Hello;
use shoal_wire::{Kind, Protocol, codec};
use tokio::runtime::Handle;

use crate::access;
use crate::endpoint::Inner;
use crate::frame::{FrameReceiver, FrameSender};
use crate::identity::Identity;
use crate::line::{Arriving, Line, Shown, Stream, Tx};
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

    /// A stream of frames both ways, until it returns. On one of [`Kind::Connect`] the caller waits for the first word of this
    /// end, and hears only with it that it was let in.
    fn stream(
        &self,
        from: Caller,
        kind: Kind,
        body: Vec<u8>,
        tx: FrameSender,
        rx: FrameReceiver,
    ) -> BoxFuture<'static, ()>;
}

/// Said to all when the node leaves.
pub(crate) const LEFT: &str = "left the cluster";

/// Kinds that begin a stream instead of a call.
pub(crate) const fn is_stream(kind: Kind) -> bool {
    matches!(kind, Kind::Session | Kind::Connect | Kind::Packets)
}

pub(crate) fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

pub(crate) fn identity_of(line: &dyn Line) -> Option<Identity> {
    match line.shown() {
        Shown::Identity(identity) => Some(identity),
        Shown::Nothing | Shown::Nameless => None,
    }
}

pub(crate) async fn accept_all(inner: Arc<Inner>) {
    while let Some(arriving) = inner.carrier.accept().await {
        let task = serve(inner.clone(), arriving);
        inner.scope.spawn(task);
    }
}

async fn serve(inner: Arc<Inner>, arriving: Arriving) {
    let us = inner.node_id();
    let line = match arriving.await {
        Ok(line) => line,
        Err(error) => {
            count(&inner.counters.handshake_failures_total);
            tracing::debug!(%error, "handshake failed");
            return;
        }
    };
    count(&inner.counters.accepted_total);
    let Some(protocol) = line.protocol() else {
        return line.close(close::NOT_ALLOWED, "unknown protocol");
    };
    let caller = Caller { identity: identity_of(&*line), addr: canonical(line.remote()) };
    if let Err((code, why)) = admit(&inner, &*line, protocol, &caller).await {
        count(&inner.counters.refused_callers_total);
        tracing::info!(addr = %caller.addr, identity = ?caller.identity, ?protocol, why, "caller refused");
        return line.close(code, why);
    }
    inner.tracked.add(caller.identity.as_ref().map(|i| i.node_id), &line);
    // It left while hands were shaken, and may be another node by now: what is said here is meant for the former one.
    if inner.node_id() != us {
        count(&inner.counters.refused_callers_total);
        return line.close(close::DONE, LEFT);
    }
    if protocol == Protocol::Gossip {
        inner.gossip_accepted(&*line, caller.addr);
    }
    if protocol == Protocol::Mesh {
        // A stream for each connection of a client: they wait for no actor.
        let (thread, scope) = (inner.carrier.thread(), inner.scope.clone());
        let _on = thread.as_ref().map(Handle::enter);
        scope.spawn(async move { serve_streams(&inner, &*line, protocol, &caller).await });
        return;
    }
    let serving = serve_streams(&inner, &*line, protocol, &caller);
    if caller.identity.is_some() {
        serving.await;
    } else if tokio::time::timeout(ANONYMOUS_MAX, serving).await.is_err() {
        line.close(close::DONE, "time is up");
    }
}

/// Whether the caller may be here at all. Ends with both having said who they are.
async fn admit(
    inner: &Inner,
    line: &dyn Line,
    protocol: Protocol,
    caller: &Caller,
) -> Result<(), (u32, &'static str)> {
    let not_allowed = |why| (close::NOT_ALLOWED, why);
    if line.shown() == Shown::Nameless {
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
    let hello = tokio::time::timeout(HELLO_TIMEOUT, greet(inner, line)).await;
    let hello =
        hello.map_err(|_| not_allowed("said nothing"))?.map_err(|_| not_allowed("malformed hello"))?;
    if hello.node_id != caller.identity.as_ref().map(|i| i.node_id) {
        return Err(not_allowed("speaks for another node"));
    }
    Ok(())
}

async fn greet(inner: &Inner, line: &dyn Line) -> Result<Hello, ()> {
    let (mut tx, rx) = line.accept().await.map_err(|_| ())?;
    let mut rx = FrameReceiver::new(rx);
    let frame = rx.recv().await.ok().flatten().filter(|f| f.kind == Kind::Hello).ok_or(())?;
    let hello: Hello = codec::decode(&frame.body).map_err(|_| ())?;
    let ours = Hello { node_id: inner.node_id(), minor: 0 };
    respond(&mut *tx, answer::DONE, &codec::encode(&ours).map_err(|_| ())?).await;
    Ok(hello)
}

async fn serve_streams(inner: &Arc<Inner>, line: &dyn Line, protocol: Protocol, caller: &Caller) {
    while let Ok(stream) = line.accept().await {
        let (inner, caller) = (inner.clone(), caller.clone());
        let scope = inner.scope.clone();
        scope.spawn(async move { serve_stream(&inner, protocol, caller, stream).await });
    }
}

async fn serve_stream(inner: &Inner, protocol: Protocol, caller: Caller, (mut tx, rx): Stream) {
    let mut rx = FrameReceiver::new(rx);
    let Ok(Ok(Some(frame))) = tokio::time::timeout(REQUEST_TIMEOUT, rx.recv()).await else { return };
    let banned = caller.identity.as_ref().is_some_and(|i| inner.is_banned(i.node_id));
    let may = access::allowed(caller.role(), protocol, frame.kind)
        || caller.identity.is_some() && is_put_back(Bug::WorkersMayAll);
    if banned || frame.kind == Kind::Hello || !may {
        count(&inner.counters.refused_messages_total);
        tracing::warn!(addr = %caller.addr, identity = ?caller.identity, kind = ?frame.kind, "message refused");
        let why = format!("{:?} is not allowed for this caller", frame.kind);
        return respond(&mut *tx, answer::NOT_ALLOWED, why.as_bytes()).await;
    }
    if is_stream(frame.kind) {
        let tx = if frame.kind == Kind::Connect {
            FrameSender::with(tx, vec![answer::DONE])
        } else if tx.write(vec![answer::DONE].into()).await.is_ok() {
            FrameSender::new(tx)
        } else {
            return;
        };
        inner.handler.stream(caller, frame.kind, frame.body, tx, rx).await;
        return;
    }
    match inner.handler.call(caller, frame.kind, frame.body).await {
        Ok(body) => respond(&mut *tx, answer::DONE, &body).await,
        Err(Refusal(why)) => respond(&mut *tx, answer::REFUSED, why.as_bytes()).await,
    }
}

async fn respond(tx: &mut dyn Tx, status: u8, body: &[u8]) {
    let mut answer = Vec::with_capacity(1 + body.len());
    answer.push(status);
    answer.extend_from_slice(body);
    // A caller that has gone away meanwhile is no concern of ours.
    if tx.write(answer.into()).await.is_ok() {
        let _ = tx.finish();
    }
}
