//! Listeners: one for each published port, as the table says.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
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

struct Listening {
    task: AbortHandle,
    error: Arc<Mutex<String>>,
    service: String,
    target: u16,
    backends: usize,
}

/// All ports that are listened on.
pub(super) struct Listeners {
    handle: Handle,
    ports: BTreeMap<Port, Listening>,
}

impl Listeners {
    pub(super) fn new(handle: Handle) -> Self {
        Self { handle, ports: BTreeMap::new() }
    }

    /// Listen on the table's ports, and on no others.
    pub(super) fn follow(&mut self, shared: &Arc<Shared>, table: &Table) {
        self.ports.retain(|port, listening| {
            let stays = table.port(*port).is_some();
            if !stays {
                listening.task.abort();
                shared.stats.forget(*port);
            }
            stays
        });
        for (port, (route, target)) in table.ports() {
            let listening = self.ports.entry(*port).or_insert_with(|| {
                let error = Arc::default();
                let task =
                    self.handle.spawn(listen(Arc::clone(shared), *port, Arc::clone(&error))).abort_handle();
                Listening { task, error, service: String::new(), target: 0, backends: 0 }
            });
            listening.service.clone_from(&route.name);
            listening.target = *target;
            listening.backends = route.backends.len();
        }
    }

    pub(super) fn clear(&mut self) {
        for (_, listening) in std::mem::take(&mut self.ports) {
            listening.task.abort();
        }
    }

    pub(super) fn stats(&self) -> Vec<PortStats> {
        let stats = |(port, listening): (&Port, &Listening)| PortStats {
            service: listening.service.clone(),
            protocol: port.0,
            published: port.1,
            target: listening.target,
            backends: listening.backends,
            error: listening.error.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            ..PortStats::default()
        };
        self.ports.iter().map(stats).collect()
    }
}

async fn listen(shared: Arc<Shared>, port: Port, error: Arc<Mutex<String>>) {
    match port.0 {
        Protocol::Tcp => {
            let listener = patiently(port, &error, bind).await;
            accept(shared, port, listener).await;
        }
        Protocol::Udp => {
            let socket = patiently(port, &error, udp::Socket::bind).await;
            udp::serve(shared, port, socket).await;
        }
        Protocol::Sctp => {
            *error.lock().unwrap_or_else(PoisonError::into_inner) =
                "SCTP does not go through the mesh".into();
        }
    }
}

/// Bind a port, however long somebody else has it.
async fn patiently<T>(port: Port, error: &Mutex<String>, bind: impl Fn(u16) -> io::Result<T>) -> T {
    let say = |words: String| *error.lock().unwrap_or_else(PoisonError::into_inner) = words;
    let mut delay = BIND_RETRY.0;
    loop {
        match bind(port.1) {
            Ok(bound) => {
                say(String::new());
                return bound;
            }
            Err(cause) => {
                tracing::warn!(port = port.1, error = %cause, again_in = ?delay, "a published port cannot be listened on");
                say(format!("port {} of this host: {cause}", port.1));
            }
        }
        tokio::time::sleep(delay).await;
        delay = (delay * 2).min(BIND_RETRY.1);
    }
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

/// On every address, IPv6 and IPv4, where the host has both.
fn bind(port: u16) -> io::Result<TcpListener> {
    let on = |socket: io::Result<TcpSocket>, addr: SocketAddr| {
        let socket = socket?;
        socket.set_reuseaddr(true)?;
        socket.bind(addr)?;
        socket.listen(BACKLOG)
    };
    let both = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    match on(TcpSocket::new_v6(), both) {
        Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
            on(TcpSocket::new_v4(), SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))
        }
        result => result,
    }
}
