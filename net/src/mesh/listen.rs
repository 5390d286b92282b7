//! Listeners: one for each published port, as the table says.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use shoal_core::model::Protocol;
use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use super::stats::{PortStats, add};
use super::table::{Port, Table};
use super::{Shared, client, udp};

const BACKLOG: u32 = 4096;
/// Tries to listen on a port that is in use are this far apart, at first and at most.
const BIND_RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(15));
/// Pause after a failed accept (no descriptor left), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// An address of this host, or all of them.
type Address = Option<IpAddr>;

struct Listening {
    tasks: Vec<(AbortHandle, Arc<Mutex<String>>)>,
    service: String,
    target: u16,
    backends: usize,
}

impl Listening {
    fn end(&self) {
        self.tasks.iter().for_each(|(task, _)| task.abort());
    }

    fn error(&self) -> String {
        let errors =
            self.tasks.iter().map(|(_, error)| error.lock().unwrap_or_else(PoisonError::into_inner).clone());
        // All threads of an address say the same.
        let errors: BTreeSet<String> = errors.filter(|error| !error.is_empty()).collect();
        errors.into_iter().collect::<Vec<_>>().join("; ")
    }
}

/// All ports that are listened on.
pub(super) struct Listeners {
    threads: Vec<Handle>,
    at: Vec<Address>,
    ports: BTreeMap<Port, Listening>,
}

impl Listeners {
    pub(super) fn new(threads: Vec<Handle>, at: Vec<IpAddr>) -> Self {
        let at = if at.is_empty() { vec![None] } else { at.into_iter().map(Some).collect() };
        Self { threads, at, ports: BTreeMap::new() }
    }

    /// Listen on the table's ports, and on no others.
    pub(super) fn follow(&mut self, shared: &Arc<Shared>, table: &Table) {
        self.ports.retain(|port, listening| {
            let stays = table.port(*port).is_some();
            if !stays {
                listening.end();
                shared.stats.forget(*port);
            }
            stays
        });
        for (port, (route, target)) in table.ports() {
            let listening = self.ports.entry(*port).or_insert_with(|| {
                // Each thread listens for itself: the kernel shares the clients out among them.
                let places =
                    self.threads.iter().flat_map(|thread| self.at.iter().map(move |at| (thread, *at)));
                let listen = |(thread, at): (&Handle, Address)| {
                    let error = Arc::default();
                    let task = thread.spawn(listen(Arc::clone(shared), at, *port, Arc::clone(&error)));
                    (task.abort_handle(), error)
                };
                let tasks = places.map(listen).collect();
                Listening { tasks, service: String::new(), target: 0, backends: 0 }
            });
            listening.service.clone_from(&route.name);
            listening.target = *target;
            listening.backends = route.backends.len();
        }
    }

    pub(super) fn clear(&mut self) {
        for (_, listening) in std::mem::take(&mut self.ports) {
            listening.end();
        }
    }

    pub(super) fn stats(&self) -> Vec<PortStats> {
        let stats = |(port, listening): (&Port, &Listening)| PortStats {
            service: listening.service.clone(),
            protocol: port.0,
            published: port.1,
            target: listening.target,
            backends: listening.backends,
            error: listening.error(),
            ..PortStats::default()
        };
        self.ports.iter().map(stats).collect()
    }
}

async fn listen(shared: Arc<Shared>, at: Address, port: Port, error: Arc<Mutex<String>>) {
    match port.0 {
        Protocol::Tcp => {
            let listener = patiently(at, port, &error, bind).await;
            accept(shared, port, listener).await;
        }
        Protocol::Udp => {
            let socket = patiently(at, port, &error, udp::Socket::bind).await;
            udp::serve(shared, port, socket).await;
        }
        Protocol::Sctp => {
            *error.lock().unwrap_or_else(PoisonError::into_inner) =
                "SCTP does not go through the mesh".into();
        }
    }
}

/// Bind a port, however long somebody else has it.
async fn patiently<T>(
    at: Address,
    port: Port,
    error: &Mutex<String>,
    bind: impl Fn(Address, u16) -> io::Result<T>,
) -> T {
    let place = at.map_or_else(|| "this host".to_owned(), |at| at.to_string());
    let tell = |cause: &io::Error, again_in: Duration| {
        tracing::warn!(port = port.1, error = %cause, ?again_in, "a published port cannot be listened on");
        format!("port {} of {place}: {cause}", port.1)
    };
    crate::bind::patiently(BIND_RETRY, error, || bind(at, port.1), tell).await
}

async fn accept(shared: Arc<Shared>, port: Port, listener: TcpListener) {
    let counters = shared.stats.port(port);
    loop {
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(port = port.1, %error, "no connection accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        add(&counters.accepted, 1);
        tokio::spawn(client::serve(Arc::clone(&shared), port, Arc::clone(&counters), stream, from));
    }
}

/// On one address; on every one, IPv6 and IPv4, where the host has both, if none is said.
fn bind(at: Address, port: u16) -> io::Result<TcpListener> {
    let on = |ip: IpAddr| {
        let socket = if ip.is_ipv6() { TcpSocket::new_v6() } else { TcpSocket::new_v4() }?;
        socket.set_reuseaddr(true)?;
        socket.set_reuseport(true)?;
        socket.bind((ip, port).into())?;
        let listener = socket.listen(BACKLOG)?;
        client::prepare(&listener)?;
        Ok(listener)
    };
    on_all(at, on)
}

/// Bind on one address, or on all of both families, or of the one that there is.
pub(super) fn on_all<T>(at: Address, on: impl Fn(IpAddr) -> io::Result<T>) -> io::Result<T> {
    match at {
        Some(at) => on(at),
        None => match on(Ipv6Addr::UNSPECIFIED.into()) {
            Err(error) if error.kind() != io::ErrorKind::AddrInUse => on(Ipv4Addr::UNSPECIFIED.into()),
            result => result,
        },
    }
}
