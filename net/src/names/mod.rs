//! The name server of a node: its containers ask it at the gateway of each of their networks, and programs of the host at
//! an address that the host says.
//!
//! What a name of the cluster means is decided in core; this carries questions and answers. What is nobody's here is handed
//! on to the host's own name servers, byte by byte. One thread of its own does it all, so that nothing else waits for names
//! nor names for anything else.

mod forward;
mod limit;
mod listen;
mod message;
mod resolv;
mod stats;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use hickory_server::proto::op::ResponseCode;
use shoal_core::model::NetworkInfo;
use shoal_core::names::{NameTable, Scope};
use tokio::runtime::Builder;
use tokio::sync::watch;

use limit::{Limit, Taken};
use listen::Listeners;
use message::{Question, Read, Reply, Transport};
use resolv::Upstreams;
use stats::count;

pub use stats::{AddressStats, NameStats};

#[cfg(fuzzing)]
pub(crate) use message::fuzz;

/// Where names are asked for.
const PORT: u16 = 53;
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// How a node's name server is set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Port that is listened on, at every address.
    pub port: u16,
    /// Address at which programs outside the cluster's networks ask, if they may: they see all networks.
    pub outside: Option<IpAddr>,
    /// File with the host's own name servers.
    pub resolv_conf: PathBuf,
    /// Port at which these are asked.
    pub upstream_port: u16,
}

impl Default for Config {
    fn default() -> Self {
        Self { port: PORT, outside: None, resolv_conf: RESOLV_CONF.into(), upstream_port: PORT }
    }
}

/// What is never passed, so that nobody takes the server from others or keeps it for ever.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    /// Questions that are handed on at once, in all and by one source.
    forwards: (usize, usize),
    /// TCP connections at once, in all and by one source.
    connections: (usize, usize),
    /// A connection on which nothing is asked for so long is closed.
    idle: Duration,
    /// So long a name server of the host has for an answer.
    patience: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            forwards: (512, 64),
            connections: (256, 32),
            idle: Duration::from_secs(10),
            patience: Duration::from_secs(2),
        }
    }
}

struct Shared {
    table: RwLock<Arc<NameTable>>,
    /// Where we are asked ourselves.
    own: RwLock<Arc<BTreeSet<IpAddr>>>,
    upstreams: Upstreams,
    bounds: Bounds,
    forwards: Arc<Limit>,
    connections: Arc<Limit>,
    turn: AtomicU64,
    stats: stats::Counters,
}

/// An address at which names are asked for, and by whom.
#[derive(Debug, Clone, PartialEq)]
struct Place {
    address: IpAddr,
    /// The network whose gateway it is; none if it is for programs outside.
    network: Option<Arc<NetworkInfo>>,
}

impl Place {
    /// What whoever asks here sees; none if it must not ask here.
    fn scope(&self, table: &NameTable, source: IpAddr) -> Option<Scope> {
        match &self.network {
            Some(network) => network.contains(source).then(|| table.scope(source, network.id)),
            None => (source == self.address || is_near(source)).then_some(Scope::All),
        }
    }
}

/// Whether the address is of this host or of a private network: names are not served to the whole world.
fn is_near(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_private() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

/// What is to be done with bytes that came.
enum Step {
    Drop,
    Send(Vec<u8>),
    /// To be handed on, which the second part allows.
    Forward(Box<Question>, Taken),
}

impl Shared {
    fn table(&self) -> Arc<NameTable> {
        self.table.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn own(&self) -> Arc<BTreeSet<IpAddr>> {
        self.own.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Answer, if it can be done at once.
    fn take(&self, place: &Place, bytes: &[u8], from: SocketAddr, transport: Transport) -> Step {
        let question = match message::read(bytes, from, transport) {
            Read::Malformed => {
                count(&self.stats.malformed);
                return Step::Drop;
            }
            Read::Refused(reply) => {
                count(&self.stats.queries);
                count(&self.stats.refused);
                return Step::Send(reply);
            }
            Read::Question(question) => question,
        };
        count(&self.stats.queries);
        let table = self.table();
        let Some(scope) = place.scope(&table, from.ip()) else {
            count(&self.stats.refused);
            return Step::Send(question.failure(ResponseCode::Refused));
        };
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        if let Reply::Known(reply) = question.answer(&table, &scope, turn) {
            count(&self.stats.answered);
            return Step::Send(reply);
        }
        match self.forwards.take(from.ip()) {
            Some(taken) => Step::Forward(question, taken),
            None => {
                count(&self.stats.failures);
                Step::Send(question.failure(ResponseCode::ServFail))
            }
        }
    }
}

/// A node's name server. It ends when [`NameServer::stop`] is called or it is dropped.
pub struct NameServer {
    shared: Arc<Shared>,
    listeners: Mutex<Listeners>,
    stop: watch::Sender<bool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl NameServer {
    /// A thread that serves names, at no gateway yet, and that knows none.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start(config: Config) -> io::Result<Self> {
        Self::start_within(config, Bounds::default())
    }

    fn start_within(config: Config, bounds: Bounds) -> io::Result<Self> {
        let Config { port, outside, resolv_conf, upstream_port } = config;
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let shared = Arc::new(Shared {
            table: RwLock::default(),
            own: RwLock::default(),
            upstreams: Upstreams::new(resolv_conf, upstream_port),
            bounds,
            forwards: Arc::new(Limit::new(bounds.forwards)),
            connections: Arc::new(Limit::new(bounds.connections)),
            turn: AtomicU64::new(0),
            stats: stats::Counters::default(),
        });
        let listeners = Mutex::new(Listeners::new(runtime.handle().clone(), port, outside));
        let (stop, mut stopped) = watch::channel(false);
        let run = move || {
            let _ = runtime.block_on(stopped.wait_for(|stop| *stop));
        };
        let thread = std::thread::Builder::new().name("names".into()).spawn(run)?;
        let server = Self { shared, listeners, stop, thread: Mutex::new(Some(thread)) };
        server.set_addresses(BTreeMap::new());
        Ok(server)
    }

    /// Serve names at these gateways of this node, each to those inside of its network, and at no others.
    ///
    /// An address that is not there yet is served as soon as it is.
    pub fn set_addresses(&self, gateways: BTreeMap<IpAddr, Arc<NetworkInfo>>) {
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        let own = listeners.follow(&self.shared, gateways);
        *self.shared.own.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(own);
    }

    /// Answer by this table from now on.
    pub fn set_table(&self, table: Arc<NameTable>) {
        *self.shared.table.write().unwrap_or_else(PoisonError::into_inner) = table;
    }

    /// What it did so far.
    #[must_use]
    pub fn stats(&self) -> NameStats {
        let listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        self.shared.stats.read(listeners.stats())
    }

    /// Close all sockets. They are closed once this returns, and it serves nothing any more.
    pub fn stop(&self) {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).end();
        self.stop.send_replace(true);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the name server's thread panicked");
        }
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.stop();
    }
}
