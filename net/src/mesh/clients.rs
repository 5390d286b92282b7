//! Keeps the client's address: connects to a task of this host under it.
//!
//! The task's answers then go to an address that is not this host's; a rule finds the socket that they belong to, and marks
//! them to be taken in here all the same. Where a host cannot do that, or a task's answers take another way, connections
//! are made under the host's own address.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use shoal_core::model::TaskId;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::OnceCell;
use tokio::time::{Instant, timeout};

use super::stats::add;
use crate::tools::{lead, run};

/// Marks what belongs to such a socket, and the routing table that takes it in.
const MARK: u32 = 5301;
const RULES: &str = "shoal_clients";
/// A task on this very host answers within this, or not at all.
const ANSWER_MAX: Duration = Duration::from_millis(300);
/// A task that did not answer is asked under this host's address for so long.
const PLAIN_FOR: Duration = Duration::from_secs(60);
/// Tasks remembered before the old ones are looked through.
const PLAIN_MAX: usize = 1024;

/// What is known of this host's ability.
#[derive(Debug, Default)]
pub(super) struct Clients {
    ready: OnceCell<bool>,
    plain: Mutex<BTreeMap<TaskId, Instant>>,
    /// Connections that were made under their client's address.
    pub(super) kept: AtomicU64,
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
        if !fits(client, server, container) || self.is_plain(task) || !self.is_ready().await {
            return None;
        }
        let client = SocketAddr::new(client.ip().to_canonical(), client.port());
        let stream = match timeout(ANSWER_MAX, open(container, client)).await {
            Ok(Ok(stream)) => stream,
            // The task refuses, whoever asks; or the client has the same connection open by another node.
            Ok(Err(_)) => return None,
            Err(_) => {
                tracing::debug!(%task, "a task does not answer its client's address: it is asked under this host's");
                self.note_plain(task);
                // Somebody may have removed the rules.
                let _ = tokio::task::spawn_blocking(prepare).await;
                return None;
            }
        };
        add(&self.kept, 1);
        Some(stream)
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

    fn is_plain(&self, task: TaskId) -> bool {
        let plain = self.plain.lock().unwrap_or_else(PoisonError::into_inner);
        plain.get(&task).is_some_and(|since| since.elapsed() < PLAIN_FOR)
    }

    fn note_plain(&self, task: TaskId) {
        let mut plain = self.plain.lock().unwrap_or_else(PoisonError::into_inner);
        if plain.len() >= PLAIN_MAX {
            plain.retain(|_, since| since.elapsed() < PLAIN_FOR);
        }
        plain.insert(task, Instant::now());
    }
}

/// Lead packets of such sockets into this host.
fn prepare() -> Result<(), String> {
    let rules = format!(
        "add table inet {RULES}\ndelete table inet {RULES}\ntable inet {RULES} {{\n  chain prerouting {{\n    type filter hook \
         prerouting priority -150; policy accept;\n    meta l4proto tcp socket transparent 1 meta mark set {MARK}\n  }}\n}}\n"
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
    let socket = if client.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    let reference = socket2::SockRef::from(&socket);
    if client.is_ipv4() {
        reference.set_ip_transparent_v4(true)?;
    } else {
        reference.set_ip_transparent_v6(true)?;
    }
    socket.set_reuseaddr(true)?;
    socket.bind(client)?;
    socket.connect(container).await
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
