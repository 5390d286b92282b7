//! Listeners: for each published port, at the addresses of this host that it names, as the table says.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use shoal_core::mesh::{RouteChange, at_host};
use shoal_core::model::{Protocol, ServiceId};
use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use super::stats::{Port, PortCounters, PortStats, add};
use super::table::{Published, Spot, Table};
use super::{Shared, client, udp};
use crate::own_addresses;

const BACKLOG: u32 = 4096;
/// Tries to listen on a port that is in use are this far apart, at first and at most.
const BIND_RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(15));
/// Pause after a failed accept (no descriptor left), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// An address of this host, or all of them.
type Address = Option<IpAddr>;

/// What listens at one spot: a task on each thread.
struct Listening {
    service: ServiceId,
    tasks: Vec<(AbortHandle, Arc<Mutex<String>>)>,
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
}

impl Listeners {
    pub(super) fn new(threads: Vec<Handle>, at: Vec<IpAddr>) -> Self {
        let at = if at.is_empty() { vec![None] } else { at.into_iter().map(Some).collect() };
        Self { threads, at, own: Vec::new(), spots: BTreeMap::new(), rows: Vec::new() }
    }

    /// Whether a port names addresses: then those of this host matter.
    pub(super) fn name_addresses(&self) -> bool {
        self.rows.iter().any(|row| !row.stats.at.is_empty())
    }

    /// Listen on the table's ports, and on no others.
    pub(super) fn follow(&mut self, shared: &Arc<Shared>, table: &Table) {
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
                    (thread.spawn(task).abort_handle(), error)
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

    pub(super) fn clear(&mut self) {
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
            let listener = patiently(spot, &error, bind).await;
            accept(shared, spot, counters, listener).await;
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

async fn accept(shared: Arc<Shared>, spot: Spot, counters: Arc<PortCounters>, listener: TcpListener) {
    loop {
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(port = spot.number, %error, "no connection accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        add(&counters.accepted, 1);
        tokio::spawn(client::serve(Arc::clone(&shared), spot, Arc::clone(&counters), stream, from));
    }
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
