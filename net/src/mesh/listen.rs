//! Listeners: for each published port, at the addresses of this host that it names, as the table says.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use shoal_core::mesh::{RouteChange, at_host};
use shoal_core::model::{Protocol, ServiceId};
use socket2::SockFilter;
use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::stats::{Port, PortCounters, PortStats, add};
use super::table::{Published, Spot, Table};
use super::{Shared, client, udp};
use crate::own_addresses;

const BACKLOG: u32 = 4096;
/// Tries to listen on a port that is in use are this far apart, at first and at most.
const BIND_RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(15));
/// Pause after a failed accept (no descriptor left), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// A port that closes breaks off nobody who came before: whoever is half in has so long to get in.
const LAST_MAX: Duration = Duration::from_millis(100);

/// An address of this host, or all of them.
type Address = Option<IpAddr>;

/// What listens at one spot: a task on each thread.
struct Listening {
    service: ServiceId,
    tasks: Vec<(JoinHandle<()>, Arc<Mutex<String>>)>,
}

impl Listening {
    fn end(&self) {
        self.tasks.iter().for_each(|(task, _)| task.abort());
    }

    fn errors(&self) -> impl Iterator<Item = String> {
        let errors =
            self.tasks.iter().map(|(_, error)| error.lock().unwrap_or_else(PoisonError::into_inner).clone());
        errors.filter(|error| !error.is_empty())
    }
}

/// A published port and where it is listened on here.
struct Row {
    port: Port,
    stats: PortStats,
    spots: Vec<Spot>,
}

/// All ports that are listened on.
pub(super) struct Listeners {
    threads: Vec<Handle>,
    /// Where ports are that name no address.
    at: Vec<Address>,
    /// The addresses of this host, as it last told them.
    own: Vec<IpAddr>,
    spots: BTreeMap<Spot, Listening>,
    rows: Vec<Row>,
    /// No port is listened on any more.
    closed: bool,
}

impl Listeners {
    pub(super) fn new(threads: Vec<Handle>, at: Vec<IpAddr>) -> Self {
        let at = if at.is_empty() { vec![None] } else { at.into_iter().map(Some).collect() };
        Self { threads, at, own: Vec::new(), spots: BTreeMap::new(), rows: Vec::new(), closed: false }
    }

    /// Whether a port names addresses: then those of this host matter.
    pub(super) fn name_addresses(&self) -> bool {
        self.rows.iter().any(|row| !row.stats.at.is_empty())
    }

    /// Listen on the table's ports, and on no others.
    pub(super) fn follow(&mut self, shared: &Arc<Shared>, table: &Table) {
        if self.closed {
            return;
        }
        if table.published().any(|(_, _, published)| !published.at.is_empty()) {
            match own_addresses() {
                Ok(own) => self.own = own,
                Err(error) => tracing::warn!(%error, "this host does not tell its addresses"),
            }
        }
        let rows = rows(table, &self.at, &self.own);
        let wanted: BTreeMap<Spot, Port> =
            rows.iter().flat_map(|row| row.spots.iter().map(|spot| (*spot, row.port))).collect();
        self.spots.retain(|spot, listening| {
            let stays = wanted.get(spot).is_some_and(|port| port.2 == listening.service);
            if !stays {
                listening.end();
            }
            stays
        });
        shared.stats.keep(&rows.iter().map(|row| row.port).collect());
        for (spot, port) in wanted {
            self.spots.entry(spot).or_insert_with(|| {
                // Each thread listens for itself: the kernel shares the clients out among them.
                let listen = |thread: &Handle| {
                    let (error, counters) = (Arc::default(), shared.stats.port(port));
                    let task = listen(Arc::clone(shared), spot, counters, Arc::clone(&error));
                    (thread.spawn(task), error)
                };
                Listening { service: port.2, tasks: self.threads.iter().map(listen).collect() }
            });
        }
        self.rows = rows;
    }

    /// Take in changes that leave ports as they are.
    pub(super) fn follow_tasks(&mut self, changes: &[RouteChange]) {
        for route in changes.iter().filter_map(|change| change.after.as_ref()) {
            for row in self.rows.iter_mut().filter(|row| row.port.2 == route.service) {
                row.stats.backends = route.backends.len();
            }
        }
    }

    /// Listen on no port any more. Returns what ends once the last connections of clients have been taken in; flows of
    /// datagrams go on until [`clear`](Self::clear).
    pub(super) fn close(&mut self, shared: &Shared) -> Vec<JoinHandle<()>> {
        self.closed = true;
        shared.closing.send_replace(true);
        let (ports, datagrams) =
            std::mem::take(&mut self.spots).into_iter().partition(|(spot, _)| spot.protocol == Protocol::Tcp);
        let ports: BTreeMap<Spot, Listening> = ports;
        self.spots = datagrams;
        ports.into_values().flat_map(|listening| listening.tasks).map(|(task, _)| task).collect()
    }

    pub(super) fn clear(&mut self) {
        self.closed = true;
        self.rows.clear();
        for (_, listening) in std::mem::take(&mut self.spots) {
            listening.end();
        }
    }

    pub(super) fn stats(&self) -> Vec<(Port, PortStats)> {
        let stats = |row: &Row| {
            let listening = row.spots.iter().filter_map(|spot| self.spots.get(spot));
            // All threads of an address say the same.
            let errors: BTreeSet<String> = listening.flat_map(Listening::errors).collect();
            let error = errors.into_iter().collect::<Vec<_>>().join("; ");
            (row.port, PortStats { error, ..row.stats.clone() })
        };
        self.rows.iter().map(stats).collect()
    }
}

/// Whether a change leaves the service's name and its ports as they are: then nobody need listen anew.
pub(super) fn is_of_tasks(change: &RouteChange) -> bool {
    let (Some(before), Some(after)) = (&change.before, &change.after) else { return false };
    before.name == after.name && before.ports == after.ports
}

/// The ports of a table, each with the spots on this host at which it is listened on.
fn rows(table: &Table, at: &[Address], own: &[IpAddr]) -> Vec<Row> {
    let row = |(protocol, number, published): (Protocol, u16, &Published)| {
        let addresses = if published.at.is_empty() {
            at.to_vec()
        } else {
            at_host(&published.at, own).into_iter().map(Some).collect()
        };
        let route = &published.route;
        let all = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
        let named = |address: &Address| address.map_or_else(|| all.to_vec(), |address| vec![address]);
        let stats = PortStats {
            service: route.name.clone(),
            protocol,
            published: number,
            target: published.target,
            at: published.at.clone(),
            here: addresses.iter().flat_map(named).collect(),
            backends: route.backends.len(),
            ..PortStats::default()
        };
        let spots = addresses.into_iter().map(|address| Spot { protocol, number, address }).collect();
        Row { port: (protocol, number, route.service), stats, spots }
    };
    table.published().map(row).collect()
}

async fn listen(shared: Arc<Shared>, spot: Spot, counters: Arc<PortCounters>, error: Arc<Mutex<String>>) {
    match spot.protocol {
        Protocol::Tcp => {
            let mut closing = shared.closing.subscribe();
            tokio::select! {
                biased;
                () = closes(&mut closing) => {}
                listener = patiently(spot, &error, bind) => accept(&shared, spot, &counters, listener, closing).await,
            }
        }
        Protocol::Udp => {
            let socket = patiently(spot, &error, udp::Socket::bind).await;
            udp::serve(shared, spot, counters, socket).await;
        }
        Protocol::Sctp => {
            *error.lock().unwrap_or_else(PoisonError::into_inner) =
                "SCTP does not go through the mesh".into();
        }
    }
}

/// Bind a port, however long somebody else has it.
async fn patiently<T>(spot: Spot, error: &Mutex<String>, bind: impl Fn(Address, u16) -> io::Result<T>) -> T {
    let port = spot.number;
    let place = spot.address.map_or_else(|| "this host".to_owned(), |at| at.to_string());
    let tell = |cause: &io::Error, again_in: Duration| {
        tracing::warn!(port, error = %cause, ?again_in, "a published port cannot be listened on");
        format!("port {port} of {place}: {cause}")
    };
    crate::bind::patiently(BIND_RETRY, error, || bind(spot.address, port), tell).await
}

/// Take clients in, until this part of the mesh closes.
async fn accept(
    shared: &Arc<Shared>,
    spot: Spot,
    counters: &Arc<PortCounters>,
    listener: TcpListener,
    mut closing: watch::Receiver<bool>,
) {
    let take_in = async || match listener.accept().await {
        Ok((stream, from)) => {
            add(&counters.accepted, 1);
            // Counted before this ends: who waits for the last client must not overlook it.
            let Ok(place) = Arc::clone(&shared.open).try_acquire_owned() else {
                add(&counters.refused, 1);
                return client::reset(&stream);
            };
            let client = client::Client { stream, from, place };
            tokio::spawn(client::serve(Arc::clone(shared), spot, Arc::clone(counters), client));
        }
        Err(error) => {
            tracing::debug!(port = spot.number, %error, "no connection accepted");
            tokio::time::sleep(ACCEPT_PAUSE).await;
        }
    };
    // Waited for once, and not anew for each client.
    let mut closes = pin!(closes(&mut closing));
    loop {
        tokio::select! {
            biased;
            () = &mut closes => break,
            () = take_in() => {}
        }
    }
    if let Err(error) = let_nobody_begin(&listener) {
        tracing::debug!(port = spot.number, %error, "clients may begin to the very end");
    }
    let last = async {
        loop {
            take_in().await;
        }
    };
    let _ = timeout(LAST_MAX, last).await;
}

/// Returns once this part of the mesh closes.
async fn closes(closing: &mut watch::Receiver<bool>) {
    let _ = closing.wait_for(|closing| *closing).await;
}

/// A step of a filter that the kernel asks for each packet.
pub(super) fn step(code: u32, yes: u8, no: u8, value: u32) -> SockFilter {
    SockFilter::new(u16::try_from(code).unwrap_or_default(), yes, no, value)
}

/// Have the kernel drop the packets that begin a connection. Closed, a port would break off those that have come and are not taken in
/// yet; so there are none of them when it is closed. A client that is not heard tries again, and learns then what became of the port.
fn let_nobody_begin(listener: &TcpListener) -> io::Result<()> {
    /// Where the flags of TCP are, and those that tell a beginning from an answer to one.
    const FLAGS: (u32, u32, u32) = (13, 0x12, 0x02);
    socket2::SockRef::from(listener).attach_filter(&[
        step(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 0, 0, FLAGS.0),
        step(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, 0, 0, FLAGS.1),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, FLAGS.2),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, u32::MAX),
    ])
}

/// On one address; on every one, IPv6 and IPv4, where the host has both, if none is said.
fn bind(at: Address, port: u16) -> io::Result<TcpListener> {
    let on = |ip: IpAddr, only_v6: bool| {
        let socket = if ip.is_ipv6() { TcpSocket::new_v6() } else { TcpSocket::new_v4() }?;
        if only_v6 {
            socket2::SockRef::from(&socket).set_only_v6(true)?;
        }
        socket.set_reuseaddr(true)?;
        socket.set_reuseport(true)?;
        socket.bind((ip, port).into())?;
        let listener = socket.listen(BACKLOG)?;
        client::prepare(&listener)?;
        Ok(listener)
    };
    on_all(at, on)
}

/// Bind on one address, or on all of both families, or of the one that there is. An address of IPv6 is of that alone, be it all of them.
pub(super) fn on_all<T>(at: Address, on: impl Fn(IpAddr, bool) -> io::Result<T>) -> io::Result<T> {
    match at {
        Some(at) => on(at, at.is_ipv6()),
        None => match on(Ipv6Addr::UNSPECIFIED.into(), false) {
            Err(error) if error.kind() != io::ErrorKind::AddrInUse => on(Ipv4Addr::UNSPECIFIED.into(), false),
            result => result,
        },
    }
}
