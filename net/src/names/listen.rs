//! Sockets at which names are asked for: UDP and TCP at each address.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use shoal_core::model::NetworkInfo;
use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::runtime::Handle;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;

use super::forward::{forward, read_message, write_message};
use super::stats::{AddressStats, count};
use super::{Place, Shared, Step, Transport};

const BACKLOG: i32 = 256;
/// Tries to listen at an address are this far apart, at first and at most.
const BIND_RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(15));
/// Pause after a failed accept or receive, so that the loop does not spin.
const PAUSE: Duration = Duration::from_millis(50);
/// Longer questions are cut over UDP, and so malformed.
const UDP_QUESTION_BYTES_MAX: usize = 4096;

struct Listening {
    place: Place,
    task: AbortHandle,
    error: Arc<Mutex<String>>,
}

/// All addresses that are listened at.
pub(super) struct Listeners {
    /// None once it has ended.
    handle: Option<Handle>,
    port: u16,
    outside: Option<IpAddr>,
    at: BTreeMap<IpAddr, Listening>,
}

impl Listeners {
    pub(super) fn new(handle: Handle, port: u16, outside: Option<IpAddr>) -> Self {
        Self { handle: Some(handle), port, outside, at: BTreeMap::new() }
    }

    /// Listen at these addresses and at the one for programs outside, and at no others. Returns all of them.
    pub(super) fn follow(
        &mut self,
        shared: &Arc<Shared>,
        gateways: BTreeMap<IpAddr, Arc<NetworkInfo>>,
    ) -> BTreeSet<IpAddr> {
        let gateways = gateways.into_iter().map(|(address, network)| (address, Some(network)));
        let outside = self.outside.iter().map(|address| (*address, None));
        let places: BTreeMap<IpAddr, Option<Arc<NetworkInfo>>> = gateways.chain(outside).collect();
        self.at.retain(|address, listening| {
            let stays = places.get(address) == Some(&listening.place.network);
            if !stays {
                listening.task.abort();
            }
            stays
        });
        let Some(handle) = &self.handle else { return BTreeSet::new() };
        for (address, network) in places {
            self.at.entry(address).or_insert_with(|| {
                let (place, error) = (Place { address, network }, Arc::default());
                let serve = serve(Arc::clone(shared), place.clone(), self.port, Arc::clone(&error));
                Listening { place, task: handle.spawn(serve).abort_handle(), error }
            });
        }
        self.at.keys().copied().collect()
    }

    pub(super) fn stats(&self) -> Vec<AddressStats> {
        let stats = |(address, listening): (&IpAddr, &Listening)| AddressStats {
            address: *address,
            network: listening.place.network.as_ref().map(|network| network.id),
            error: listening.error.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        };
        self.at.iter().map(stats).collect()
    }

    /// Listen nowhere, for good.
    pub(super) fn end(&mut self) {
        self.handle = None;
        for (_, listening) in std::mem::take(&mut self.at) {
            listening.task.abort();
        }
    }
}

/// Serve names at an address until the task that runs this is ended.
async fn serve(shared: Arc<Shared>, place: Place, port: u16, error: Arc<Mutex<String>>) {
    let at = SocketAddr::new(place.address, port);
    let (datagrams, connections) = patiently(at, &error).await;
    tokio::join!(
        serve_datagrams(&shared, &place, datagrams),
        serve_connections(&shared, &place, connections)
    );
}

/// Bind an address, however long somebody else has it.
async fn patiently(at: SocketAddr, error: &Mutex<String>) -> (UdpSocket, TcpListener) {
    let tell = |cause: &io::Error, again_in: Duration| {
        tracing::warn!(%at, error = %cause, ?again_in, "names cannot be served at an address");
        format!("{at}: {cause}")
    };
    let bind = || bind_udp(at).and_then(|udp| Ok((udp, bind_tcp(at)?)));
    crate::bind::patiently(BIND_RETRY, error, bind, tell).await
}

/// A socket at an address that may be there only later.
fn socket(at: SocketAddr, kind: Type) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(at), kind, None)?;
    socket.set_nonblocking(true)?;
    if at.is_ipv6() {
        socket.set_only_v6(true)?;
        socket.set_freebind_v6(true)?;
    } else {
        socket.set_freebind_v4(true)?;
    }
    Ok(socket)
}

fn bind_udp(at: SocketAddr) -> io::Result<UdpSocket> {
    let socket = socket(at, Type::DGRAM)?;
    socket.bind(&at.into())?;
    UdpSocket::from_std(socket.into())
}

fn bind_tcp(at: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(at, Type::STREAM)?;
    socket.set_reuse_address(true)?;
    socket.bind(&at.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

async fn serve_datagrams(shared: &Arc<Shared>, place: &Place, socket: UdpSocket) {
    let socket = Arc::new(socket);
    let mut buffer = vec![0; UDP_QUESTION_BYTES_MAX];
    let mut scope = JoinSet::new();
    loop {
        while scope.try_join_next().is_some() {}
        let (length, from) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                tracing::debug!(at = %place.address, %error, "no question received");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        match shared.take(place, &buffer[..length], from, Transport::Udp) {
            Step::Drop => {}
            // Where there is no room the answer is lost, as UDP allows.
            Step::Send(reply) => drop(socket.try_send_to(&reply, from)),
            // So many at once as are allowed.
            Step::Forward(question, taken) => {
                let (shared, socket) = (Arc::clone(shared), Arc::clone(&socket));
                scope.spawn(async move {
                    let answer = forward(&shared, &question).await;
                    let _ = socket.try_send_to(&answer, from);
                    drop(taken);
                });
            }
        }
    }
}

async fn serve_connections(shared: &Arc<Shared>, place: &Place, listener: TcpListener) {
    let mut scope = JoinSet::new();
    loop {
        while scope.try_join_next().is_some() {}
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(at = %place.address, %error, "no connection accepted");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let Some(taken) = shared.connections.take(from.ip()) else {
            count(&shared.stats.connections_refused);
            continue;
        };
        let (shared, place) = (Arc::clone(shared), place.clone());
        scope.spawn(async move {
            if let Err(error) = serve_connection(&shared, &place, stream, from).await {
                tracing::debug!(%from, %error, "a connection for names ended");
            }
            drop(taken);
        });
    }
}

/// One question after the other.
async fn serve_connection(
    shared: &Shared,
    place: &Place,
    mut stream: TcpStream,
    from: SocketAddr,
) -> io::Result<()> {
    let idle = shared.bounds.idle;
    loop {
        let question = timeout(idle, read_message(&mut stream)).await??;
        let answer = match shared.take(place, &question, from, Transport::Tcp) {
            Step::Drop => return Ok(()),
            Step::Send(reply) => reply,
            Step::Forward(question, _taken) => forward(shared, &question).await,
        };
        timeout(idle, write_message(&mut stream, &answer)).await??;
    }
}
