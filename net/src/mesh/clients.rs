//! Keeps the client's address: connects to a task of this host under it.
//!
//! The task's answers then go to an address that is not this host's; a rule finds the socket that they belong to, and marks
//! them to be taken in here all the same. Where a host cannot do that, or a task's answers take another way, connections
//! are made under the host's own address.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use shoal_core::model::{Protocol, TaskId};
use socket2::{Socket, Type};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::OnceCell;
use tokio::time::{Instant, timeout};

use super::client;
use super::stats::add;
use crate::tools::{lead, run};

/// Marks what belongs to such a socket, and the routing table that takes it in.
const MARK: u32 = 5301;
const RULES: &str = "shoal_clients";
/// A task on this very host answers within this, or not at all.
const ANSWER_MAX: Duration = Duration::from_millis(300);
/// What was found out about a task holds for so long.
const FOUND_FOR: Duration = Duration::from_secs(60);
/// Findings remembered before the old ones are looked through.
const FOUND_MAX: usize = 1024;
/// The rules are put back no more often.
const PUT_BACK_EVERY: Duration = Duration::from_secs(5);

/// Whose address a task is asked under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Under {
    /// Its client's.
    Client,
    /// This host's.
    Host,
}

/// What is known of this host's ability.
#[derive(Debug, Default)]
pub(super) struct Clients {
    ready: OnceCell<bool>,
    put_back: tokio::sync::Mutex<Option<Instant>>,
    /// What tasks are to be asked under, where that was found out. A task may answer connections, and datagrams by another way.
    found: Mutex<BTreeMap<(TaskId, Protocol), (Under, Instant)>>,
    /// Clients and containers with a flow between them.
    flows: Mutex<BTreeSet<(SocketAddr, SocketAddr)>>,
    /// Connections and flows that were made under their client's address.
    pub(super) kept: AtomicU64,
}

/// A flow's socket under its client's address. No other has the same two ends: one of them would get the answers of both.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) socket: UdpSocket,
    _ends: Ends,
}

#[cfg(test)]
impl Kept {
    /// One that needs nothing of the host.
    pub(super) fn of(clients: &Arc<Clients>, socket: UdpSocket) -> Self {
        let ends = (socket.local_addr().unwrap(), socket.peer_addr().unwrap());
        Self { socket, _ends: Ends(Arc::clone(clients), ends) }
    }
}

#[derive(Debug)]
struct Ends(Arc<Clients>, (SocketAddr, SocketAddr));

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.flows.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.1);
    }
}

/// Whether a connection from this client to this address of a container can be made under the client's.
fn fits(client: SocketAddr, server: SocketAddr, container: SocketAddr) -> bool {
    let (client, server) = (client.ip().to_canonical(), server.ip().to_canonical());
    // A client of this host needs no disguise, and nobody answers to what never leaves a host.
    client != server
        && client.is_ipv4() == container.is_ipv4()
        && ![client, container.ip()].iter().any(|ip| ip.is_loopback() || ip.is_unspecified())
        && !are_near(client, container.ip())
}

/// Whether both may well be on one bridge: the task would then answer its client directly, who knows of nothing.
fn are_near(client: IpAddr, container: IpAddr) -> bool {
    match (client, container) {
        (IpAddr::V4(a), IpAddr::V4(b)) => a.octets()[..2] == b.octets()[..2],
        (IpAddr::V6(a), IpAddr::V6(b)) => a.octets()[..8] == b.octets()[..8],
        _ => false,
    }
}

impl Clients {
    /// Connect to a task under its client's address. None if that cannot be done here.
    pub(super) async fn connect(
        &self,
        task: TaskId,
        container: SocketAddr,
        client: SocketAddr,
        server: SocketAddr,
    ) -> Option<TcpStream> {
        if !self.can(task, Protocol::Tcp, container, client, server).await {
            return None;
        }
        let stream = match timeout(ANSWER_MAX, open(container, canonical(client))).await {
            Ok(Ok(stream)) => stream,
            // The task refuses, whoever asks; or the client has the same connection open by another node.
            Ok(Err(_)) => return None,
            Err(_) => {
                tracing::debug!(%task, "a task does not answer its client's address: it is asked under this host's");
                self.note(task, Protocol::Tcp, Under::Host);
                self.put_back().await;
                return None;
            }
        };
        add(&self.kept, 1);
        Some(stream)
    }

    /// A socket for a flow to a task under its client's address. None if that cannot be done here.
    pub(super) async fn flow(
        self: &Arc<Self>,
        task: TaskId,
        container: SocketAddr,
        client: SocketAddr,
        server: SocketAddr,
    ) -> Option<Kept> {
        if !self.can(task, Protocol::Udp, container, client, server).await {
            return None;
        }
        let client = canonical(client);
        let ends = (client, container);
        if !self.flows.lock().unwrap_or_else(PoisonError::into_inner).insert(ends) {
            return None;
        }
        let ends = Ends(Arc::clone(self), ends);
        // Who refuses is this host: a program of it has the port, or the client is one of them.
        let socket = open_flow(container, client).ok()?;
        add(&self.kept, 1);
        Some(Kept { socket, _ends: ends })
    }

    async fn can(
        &self,
        task: TaskId,
        protocol: Protocol,
        container: SocketAddr,
        client: SocketAddr,
        server: SocketAddr,
    ) -> bool {
        fits(client, server, container)
            && self.found(task, protocol) != Some(Under::Host)
            && self.is_ready().await
    }

    /// Somebody may have removed the rules.
    pub(super) async fn put_back(&self) {
        let mut last = self.put_back.lock().await;
        if last.is_some_and(|last| last.elapsed() < PUT_BACK_EVERY) {
            return;
        }
        let _ = tokio::task::spawn_blocking(prepare).await;
        *last = Some(Instant::now());
    }

    #[cfg(test)]
    pub(super) async fn rules_were_put_back(&self) {
        *self.put_back.lock().await = Some(Instant::now() + PUT_BACK_EVERY * 1000);
    }

    async fn is_ready(&self) -> bool {
        let prepared = self.ready.get_or_init(|| async {
            let prepared = tokio::task::spawn_blocking(prepare).await;
            match prepared.map_err(|error| error.to_string()).and_then(|result| result) {
                Ok(()) => true,
                Err(why) => {
                    tracing::info!(why, "tasks see this host's address in place of their clients'");
                    false
                }
            }
        });
        *prepared.await
    }

    /// What a task is to be asked under, if that was found out lately.
    pub(super) fn found(&self, task: TaskId, protocol: Protocol) -> Option<Under> {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let (under, since) = found.get(&(task, protocol))?;
        (since.elapsed() < FOUND_FOR).then_some(*under)
    }

    pub(super) fn note(&self, task: TaskId, protocol: Protocol, under: Under) {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if found.len() >= FOUND_MAX {
            found.retain(|_, (_, since)| since.elapsed() < FOUND_FOR);
        }
        found.insert((task, protocol), (under, Instant::now()));
    }
}

/// Lead packets of such sockets into this host, and what ICMP says about theirs. Who asks for the state of any has all of them
/// whole, though they came in pieces: only so their sockets are found.
fn prepare() -> Result<(), String> {
    let rules = format!(
        "add table inet {RULES}\ndelete table inet {RULES}\ntable inet {RULES} {{\n  chain whole {{\n    ct state established\n  }}\n  \
         chain prerouting {{\n    type filter hook prerouting priority -150; policy accept;\n    meta l4proto {{ tcp, udp, icmp, \
         ipv6-icmp }} socket transparent 1 meta mark set {MARK}\n  }}\n}}\n"
    );
    run("nft", &["-f", "-"], &rules)?;
    let number = MARK.to_string();
    for (family, all) in [("-4", "0.0.0.0/0"), ("-6", "::/0")] {
        let result = (|| {
            lead(family, MARK, &["fwmark", &number])?;
            run("ip", &[family, "route", "replace", "local", all, "dev", "lo", "table", &number], "")
        })();
        // A host may have no IPv6 at all.
        if family == "-4" {
            result?;
        }
    }
    Ok(())
}

async fn open(container: SocketAddr, client: SocketAddr) -> io::Result<TcpStream> {
    let socket = client::socket(client, Type::STREAM)?;
    pretend(&socket, client)?;
    socket.set_reuse_address(true)?;
    socket.bind(&client.into())?;
    client::begin(socket, container).await
}

fn open_flow(container: SocketAddr, client: SocketAddr) -> io::Result<UdpSocket> {
    let socket = client::socket(client, Type::DGRAM)?;
    pretend(&socket, client)?;
    // A client may have flows to several tasks here.
    socket.set_reuse_address(true)?;
    // Its port may be one that is published here.
    socket.set_reuse_port(true)?;
    socket.bind(&client.into())?;
    socket.connect(&container.into())?;
    UdpSocket::from_std(socket.into())
}

/// Let a socket be bound to an address that is not this host's.
fn pretend(socket: &Socket, client: SocketAddr) -> io::Result<()> {
    if client.is_ipv4() { socket.set_ip_transparent_v4(true) } else { socket.set_ip_transparent_v6(true) }
}

fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_client_from_elsewhere_is_worth_a_disguise() {
        let to = |text: &str| text.parse::<SocketAddr>().unwrap();
        let server = to("10.0.0.1:8080");
        let cases = [
            ("192.0.2.7:5000", "172.17.0.2:80", true),
            ("[::ffff:192.0.2.7]:5000", "172.17.0.2:80", true),
            ("10.0.0.1:5000", "172.17.0.2:80", false),
            ("127.0.0.1:5000", "172.17.0.2:80", false),
            ("192.0.2.7:5000", "127.0.0.1:80", false),
            ("[2001:db8::7]:5000", "172.17.0.2:80", false),
            ("[2001:db8::7]:5000", "[fd00::2]:80", true),
            ("172.17.0.3:5000", "172.17.0.2:80", false),
        ];
        for (client, container, expected) in cases {
            assert_eq!(fits(to(client), server, to(container)), expected, "{client} to {container}");
        }
    }
}
