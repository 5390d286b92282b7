//! A client's connection to a published port: to whom it is given, and what is tried until somebody takes it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use shoal_core::mesh::{Backend, Load, Route, choose};
use shoal_core::model::TaskId;
use shoal_wire::v1::{ConnectRequest, connect_answer};
use shoal_wire::{Kind, codec};
use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, timeout, timeout_at};

use super::flows::Counted;
use super::pump::{self, Bytes2, Ended, Watch};
use super::stats::{PortCounters, add};
use super::table::{Published, Spot};
use super::upstream::Upstream;
use super::{Shared, header};
use crate::line::{Rx, Tx};
use crate::{CallError, Peer};

/// A task must have taken the connection within this.
const CONNECT_MAX: Duration = Duration::from_millis(1_500);
/// Tasks tried for one connection.
const TRIES_MAX: usize = 8;
/// While no task takes a connection, but one will any moment, it is waited for this long: for who takes over, where all say
/// that they are about to stop, and for who has just started and does not listen yet.
const TAKEOVER_MAX: Duration = Duration::from_secs(3);
/// One that does not listen yet is asked again after this, and after twice as long each time, up to the second value.
const LISTENS_YET: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(250));
const KEEPALIVE: Duration = Duration::from_secs(60);

/// The way to a task: a socket, or a stream to its node and what came on it already.
pub(super) enum Way<L> {
    Here(L),
    There(Box<dyn Tx>, Box<dyn Rx>, Bytes),
}

/// A socket to a task of this node.
pub(super) trait Local: Sized + Send {
    /// Open one.
    fn connect(
        shared: &Shared,
        addr: SocketAddr,
        route: &Route,
        request: &ConnectRequest,
    ) -> impl Future<Output = io::Result<Self>> + Send;
}

impl Local for TcpStream {
    async fn connect(
        shared: &Shared,
        addr: SocketAddr,
        route: &Route,
        request: &ConnectRequest,
    ) -> io::Result<Self> {
        let kept = shared.clients.connect(request.task, addr, request.client, request.server).await;
        let stream = match kept {
            Some(stream) => stream,
            None => begin(socket(addr, Type::STREAM)?, addr).await?,
        };
        // On this very host nobody dies without a word, so it needs no keep-alive.
        stream.set_nodelay(true)?;
        if route.options.proxy_header {
            pump::write_all(&stream, &header::proxy_v2(request.client, request.server)).await?;
        }
        Ok(stream)
    }
}

impl Local for Box<Upstream> {
    async fn connect(
        shared: &Shared,
        addr: SocketAddr,
        _: &Route,
        request: &ConnectRequest,
    ) -> io::Result<Self> {
        let kept = shared.clients.flow(request.task, addr, request.client, request.server).await;
        Upstream::open(&shared.clients, request.task, addr, kept).await.map(Self::new)
    }
}

/// A socket that waits for nothing, of an address's family.
pub(super) fn socket(addr: SocketAddr, kind: Type) -> io::Result<Socket> {
    Socket::new(Domain::for_address(addr), kind.nonblocking(), None)
}

/// Connect a socket. On this very host both ends have mostly agreed when the call returns: then nothing has to be waited for.
pub(super) async fn begin(socket: Socket, addr: SocketAddr) -> io::Result<TcpStream> {
    if let Err(error) = socket.connect(&addr.into())
        && error.raw_os_error() != Some(libc::EINPROGRESS)
    {
        return Err(error);
    }
    let agreed = socket.peer_addr().is_ok();
    let stream = TcpStream::from_std(socket.into())?;
    if !agreed {
        stream.writable().await?;
        if let Some(error) = stream.take_error()? {
            return Err(error);
        }
    }
    Ok(stream)
}

/// Why a task did not take a connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// It is about to stop.
    Draining,
    /// It does not answer.
    Failed(String),
    /// Its node does not answer.
    Silent(String),
}

/// What is set of a listening socket holds for all that it accepts.
pub(super) fn prepare(listener: &TcpListener) -> io::Result<()> {
    let socket = socket2::SockRef::from(listener);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&socket2::TcpKeepalive::new().with_time(KEEPALIVE))
}

/// Close at once, with a reset: the client sees a refusal, not an empty answer.
pub(super) fn reset(stream: &TcpStream) {
    let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// A client that was let in.
pub(super) struct Client {
    pub(super) stream: TcpStream,
    pub(super) from: SocketAddr,
    /// Its place among those that may be open at once.
    pub(super) place: OwnedSemaphorePermit,
}

/// Serve a client's connection to its end.
pub(super) async fn serve(shared: Arc<Shared>, spot: Spot, counters: Arc<PortCounters>, client: Client) {
    let Client { mut stream, from, place: _place } = client;
    let server = stream.local_addr().unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], spot.number)));
    let bytes = Bytes2 { there: &counters.bytes_in, back: &counters.bytes_out };
    let _open = Open::new(&counters);
    let watch = Watch::of(Arc::clone(&counters));
    loop {
        let began = Instant::now();
        let Some((mut upstream, mut counted)) =
            find::<TcpStream>(&shared, spot, &counters, from, server).await
        else {
            add(&counters.refused, 1);
            return reset(&stream);
        };
        counters.connect.note(began.elapsed());
        match pump::client(&mut stream, &mut upstream, &mut counted, &watch, bytes).await {
            Ended::Done | Ended::Closed => return,
            Ended::Broken => return reset(&stream),
            Ended::Free => add(&counters.moved, 1),
        }
    }
}

/// Counts a connection as open.
pub(super) struct Open<'a>(&'a PortCounters);

impl<'a> Open<'a> {
    pub(super) fn new(counters: &'a PortCounters) -> Self {
        add(&counters.open, 1);
        Self(counters)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a connection that no task takes may still wait for.
struct Patience {
    until: Instant,
    /// Some said that they are about to stop: who takes over is told any moment.
    draining: bool,
    /// Those that were tried, and have started so lately that they may not listen yet.
    young: Vec<TaskId>,
    /// They are asked again after this.
    pause: Duration,
}

impl Patience {
    fn new() -> Self {
        Self {
            until: Instant::now() + TAKEOVER_MAX,
            draining: false,
            young: Vec::new(),
            pause: LISTENS_YET.0,
        }
    }

    /// Returns once another look is worth it; false if there is nothing to wait for, or no more time. Who may listen by then
    /// counts as not tried.
    async fn wait(&mut self, changed: &mut watch::Receiver<u64>, tried: &mut Vec<TaskId>) -> bool {
        let again_at = match (self.young.is_empty(), self.draining) {
            (true, false) => return false,
            (true, true) => self.until,
            (false, _) => self.until.min(Instant::now() + self.pause),
        };
        let _ = timeout_at(again_at, changed.changed()).await;
        tried.retain(|task| !self.young.contains(task));
        self.young.clear();
        self.pause = LISTENS_YET.1.min(self.pause * 2);
        Instant::now() < self.until
    }
}

/// A task that takes the connection; none if nobody does.
pub(super) async fn find<L: Local>(
    shared: &Arc<Shared>,
    spot: Spot,
    counters: &PortCounters,
    client: SocketAddr,
    server: SocketAddr,
) -> Option<(Way<L>, Counted)> {
    let mut tried: Vec<TaskId> = Vec::new();
    let (mut tries, mut patience) = (0, Patience::new());
    let mut changed = shared.changed.subscribe();
    let turn = counters.accepted.load(Ordering::Relaxed) as usize;
    while tries < TRIES_MAX {
        changed.mark_unchanged();
        let table = shared.table();
        let Published { route, target, .. } = table.at(spot)?;
        let load = |backend: &Backend| {
            let (open, failed) = shared.flows.load(backend.task, backend.node);
            Load { open, failed, tried: tried.contains(&backend.task) }
        };
        let Some(backend) = choose(&route.backends, load, shared.node, turn) else {
            if !patience.wait(&mut changed, &mut tried).await {
                return None;
            }
            continue;
        };
        let request =
            ConnectRequest { task: backend.task, port: *target, protocol: spot.protocol, client, server };
        match connect(shared, route, backend, &request).await {
            Ok(found) => return Some(found),
            Err(Refused::Draining) => patience.draining = true,
            Err(Refused::Failed(why)) => {
                tracing::debug!(task = %backend.task, why, "a task did not take a connection");
                shared.flows.failed(backend.task);
                if shared.flows.is_young(backend.task) {
                    patience.young.push(backend.task);
                } else {
                    tries += 1;
                }
            }
            Err(Refused::Silent(why)) => {
                tries += 1;
                tracing::debug!(node = %backend.node, why, "a node did not take a connection");
                shared.flows.silent(backend.node);
            }
        }
        add(&counters.retries, 1);
        tried.push(backend.task);
    }
    None
}

async fn connect<L: Local>(
    shared: &Arc<Shared>,
    route: &Route,
    backend: &Backend,
    request: &ConnectRequest,
) -> Result<(Way<L>, Counted), Refused> {
    let counted = shared.flows.enter(backend.task).map_err(|_| Refused::Draining)?;
    if backend.node == shared.node {
        return Ok((Way::Here(connect_here(shared, route, request).await?), counted));
    }
    let addr =
        backend.addr.parse().map_err(|_| Refused::Silent(format!("{:?} is no address", backend.addr)))?;
    let peer = Peer { node_id: Some(backend.node), addr };
    let body = codec::encode(request).map_err(|error| Refused::Failed(error.to_string()))?;
    let open = async {
        let opened = shared.endpoint.open_raw(&peer, Kind::Connect, body, CONNECT_MAX).await;
        let (tx, mut rx, mut first) = opened.map_err(|error| match error {
            CallError::NotAllowed(why) | CallError::Refused(why) => Refused::Failed(why),
            other => Refused::Silent(other.to_string()),
        })?;
        if first.is_empty() {
            let read = rx.read().await.map_err(Refused::Silent)?;
            first =
                read.filter(|bytes| !bytes.is_empty()).ok_or_else(|| Refused::Failed("no answer".into()))?;
        }
        shared.flows.answers(backend.node);
        match first.split_to(1)[0] {
            connect_answer::CONNECTED => Ok(Way::There(tx, rx, first)),
            connect_answer::DRAINING => Err(Refused::Draining),
            _ => Err(Refused::Failed("its node could not connect to it".into())),
        }
    };
    let late = |_| Refused::Silent("no answer in time".into());
    Ok((timeout(CONNECT_MAX, open).await.map_err(late)??, counted))
}

/// Connect to a task of this node.
pub(super) async fn connect_here<L: Local>(
    shared: &Shared,
    route: &Route,
    request: &ConnectRequest,
) -> Result<L, Refused> {
    let open = async {
        let ip = shared.address(request.task).await?;
        let addr = SocketAddr::new(ip, request.port);
        L::connect(shared, addr, route, request).await.map_err(|error| error.to_string())
    };
    let result =
        timeout(CONNECT_MAX, open).await.unwrap_or_else(|_| Err("it does not answer in time".into()));
    result.map_err(|why| {
        shared.doubt_address(request.task);
        Refused::Failed(why)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: TaskId = TaskId::from_u128(1);
    const TWO: TaskId = TaskId::from_u128(2);

    #[tokio::test(start_paused = true)]
    async fn nothing_is_waited_for_where_nothing_is_to_come() {
        let (_sender, mut changed) = watch::channel(0);
        let (begun, mut tried) = (Instant::now(), vec![ONE]);
        assert!(!Patience::new().wait(&mut changed, &mut tried).await);
        assert_eq!((begun.elapsed(), tried), (Duration::ZERO, vec![ONE]));
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_over_is_waited_for_until_it_is_told() {
        let (sender, mut changed) = watch::channel(0);
        let (begun, mut tried) = (Instant::now(), vec![ONE]);
        let mut patience = Patience { draining: true, ..Patience::new() };
        sender.send_replace(1);
        assert!(patience.wait(&mut changed, &mut tried).await);
        assert_eq!((begun.elapsed(), &tried), (Duration::ZERO, &vec![ONE]), "it was told already");
        assert!(!patience.wait(&mut changed, &mut tried).await);
        assert_eq!(begun.elapsed(), TAKEOVER_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn who_may_not_listen_yet_is_asked_again_and_again_for_a_while() {
        let (_sender, mut changed) = watch::channel(0);
        let (begun, mut patience, mut times) = (Instant::now(), Patience::new(), 0);
        loop {
            let mut tried = vec![ONE, TWO];
            patience.young.push(TWO);
            let before = Instant::now();
            let goes_on = patience.wait(&mut changed, &mut tried).await;
            assert!(before.elapsed() <= LISTENS_YET.1);
            if !goes_on {
                break;
            }
            assert_eq!(tried, [ONE], "it is not asked again");
            times += 1;
        }
        assert_eq!(begun.elapsed(), TAKEOVER_MAX);
        assert!((10..20).contains(&times), "{times} times");
    }
}
