//! The routing mesh: published ports on this node, and the way from them to a task on any node.
//!
//! A client's connection is given to the least loaded task that takes traffic. If the task is here its container is
//! connected to; if it is elsewhere the bytes travel on a stream to its node, which connects. A connection that cannot be
//! made is tried elsewhere before the client notices. A task that is about to stop takes nothing new, says so to whoever
//! asks, and is stopped once what it has is done: that is decided on its own node, so no other node can hold it up.

mod client;
mod clients;
mod far;
mod flows;
mod header;
pub(crate) mod http;
mod listen;
mod pump;
mod refuse;
mod splice;
mod stats;
mod table;
mod udp;
mod upstream;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::time::{Duration, Instant};

use shoal_core::mesh::{Options, RouteChange};
use shoal_core::model::{NodeId, Task, TaskId};
use shoal_core::task::BoxFuture;
use tokio::sync::watch;

use crate::threads::Threads;
use crate::{Endpoint, FrameReceiver, FrameSender};
use flows::Flows;
use listen::Listeners;
use table::Table;

pub use stats::{MeshStats, PortStats, TIMES_US, Times};

/// Connections of clients and of other nodes at once; further ones are refused.
const CONNECTIONS_MAX: usize = 65_536;
/// An address that this host gets or loses is noticed within this.
const ADDRESSES_EVERY: Duration = Duration::from_secs(2);
/// Where a task answers is not asked again sooner.
const ADDRESS_HOLDS: Duration = Duration::from_secs(1);
/// What is broken off lets go of its sockets within this.
const CUT_MAX: Duration = Duration::from_millis(200);

/// Tells where containers answer on this host.
pub trait Addresses: Send + Sync + 'static {
    /// Where the task's container answers.
    fn of(&self, task: TaskId) -> BoxFuture<'_, Result<Vec<IpAddr>, String>>;
}

/// How a node's part of the mesh is set up.
pub struct Config {
    /// This node.
    pub node: NodeId,
    /// What reaches the others.
    pub endpoint: Endpoint,
    /// What knows the containers here.
    pub addresses: Arc<dyn Addresses>,
    /// Threads that carry traffic: its own, so that no traffic holds up consensus and heartbeats.
    pub threads: usize,
    /// Addresses of this host at which ports are listened on; none means all.
    pub at: Vec<IpAddr>,
}

pub(crate) struct Shared {
    node: NodeId,
    endpoint: Endpoint,
    addresses: Arc<dyn Addresses>,
    table: RwLock<Arc<Table>>,
    /// Counts the changes of the table.
    changed: watch::Sender<u64>,
    /// Ports are about to be closed.
    closing: watch::Sender<bool>,
    flows: Flows,
    /// Where local tasks answer, as last seen, and when.
    known: Mutex<BTreeMap<TaskId, (IpAddr, Instant)>>,
    /// How traffic of this node's tasks is treated, though their service may be gone.
    options: Mutex<BTreeMap<TaskId, Options>>,
    open: Arc<tokio::sync::Semaphore>,
    clients: Arc<clients::Clients>,
    refusals: refuse::Refusals,
    stats: stats::Counters,
}

impl Shared {
    fn table(&self) -> Arc<Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Where a task of this node answers.
    async fn address(&self, task: TaskId) -> Result<IpAddr, String> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&task).copied();
        if let Some((addr, _)) = known {
            return Ok(addr);
        }
        let found = self.addresses.of(task).await?;
        let addr = found.first().copied().ok_or("its container has no address that this host reaches")?;
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(task, (addr, Instant::now()));
        Ok(addr)
    }

    /// A task did not answer at its address: it may have got another one, and is asked for it, but not each time.
    fn doubt_address(&self, task: TaskId) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.get(&task).is_some_and(|(_, seen)| seen.elapsed() >= ADDRESS_HOLDS) {
            known.remove(&task);
        }
    }

    fn forget_address(&self, task: TaskId) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(&task);
    }
}

/// A node's part of the mesh. It ends when [`Proxy::stop`] is called or the last copy is dropped.
pub struct Proxy {
    shared: Arc<Shared>,
    listeners: Arc<Mutex<Listeners>>,
    threads: Threads,
}

impl Proxy {
    /// Threads for the traffic, and no port yet.
    ///
    /// # Errors
    /// If the system gives no threads.
    pub fn start(config: Config) -> std::io::Result<Self> {
        let threads = Threads::start("mesh", config.threads)?;
        let shared = Arc::new(Shared {
            node: config.node,
            endpoint: config.endpoint,
            addresses: config.addresses,
            table: RwLock::default(),
            changed: watch::channel(0).0,
            closing: watch::channel(false).0,
            flows: Flows::default(),
            known: Mutex::default(),
            options: Mutex::default(),
            open: Arc::new(tokio::sync::Semaphore::new(CONNECTIONS_MAX)),
            clients: Arc::default(),
            refusals: refuse::Refusals::default(),
            stats: stats::Counters::default(),
        });
        let listeners = Arc::new(Mutex::new(Listeners::new(threads.all().to_vec(), config.at)));
        threads.next().spawn(keep_addresses(Arc::downgrade(&shared), Arc::downgrade(&listeners)));
        Ok(Self { shared, listeners, threads })
    }

    /// Take in what changed of the routes.
    pub fn follow(&self, changes: &[RouteChange]) {
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        let (table, news, options) = self.shared.table().with(changes, self.shared.node);
        let table = Arc::new(table);
        self.shared.options.lock().unwrap_or_else(PoisonError::into_inner).extend(options);
        *self.shared.table.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&table);
        self.shared.changed.send_modify(|count| *count += 1);
        // After that: who leaves a task must not find it in the table again.
        self.shared.flows.follow(&news);
        if changes.iter().all(listen::is_of_tasks) {
            listeners.follow_tasks(changes);
        } else {
            listeners.follow(&self.shared, &table);
        }
    }

    /// Give a task of this node no more traffic; returns once what it has is done, or has had its time and was broken off.
    pub async fn drain(&self, task: &Task) {
        let most = self.options(task.id).drain;
        let (idle, open) = self.shared.flows.drain(task.id);
        if open > 0 {
            tracing::debug!(task = %task.id, open, "its connections may end");
        }
        if tokio::time::timeout(most, idle).await.is_err() {
            let broken = self.shared.flows.cut(task.id);
            tracing::info!(task = %task.id, broken, ?most, "connections had their time and were broken off");
            stats::add(&self.shared.stats.cut, broken.into());
            // What was cut lets go at once; the stop need not race it.
            let (idle, _) = self.shared.flows.drain(task.id);
            let _ = tokio::time::timeout(Duration::from_secs(1), idle).await;
        }
        self.shared.forget_address(task.id);
    }

    /// How a task's traffic is treated, as its service says or last said.
    #[must_use]
    pub fn options(&self, task: TaskId) -> Options {
        let options = self.shared.options.lock().unwrap_or_else(PoisonError::into_inner);
        options.get(&task).copied().unwrap_or_default()
    }

    /// A task of this node is gone, however it ended.
    pub fn forget(&self, task: TaskId) {
        self.shared.options.lock().unwrap_or_else(PoisonError::into_inner).remove(&task);
        self.shared.forget_address(task);
    }

    /// Serve a stream by which another node connects to a task here.
    pub fn serve(
        &self,
        from: NodeId,
        body: Vec<u8>,
        tx: FrameSender,
        rx: FrameReceiver,
    ) -> BoxFuture<'static, ()> {
        let shared = Arc::clone(&self.shared);
        // Nobody waits for its end: that would be a turn of the caller's thread for each.
        self.threads.next().spawn(far::serve(shared, from, body, tx, rx));
        Box::pin(std::future::ready(()))
    }

    /// What it did so far.
    #[must_use]
    pub fn stats(&self) -> MeshStats {
        let listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = self.shared.clients.kept.load(std::sync::atomic::Ordering::Relaxed);
        MeshStats { kept, ..self.shared.stats.read(listeners.stats()) }
    }

    /// Take no more clients, and let what is under way end: a request is answered, and a connection between two of them ends.
    /// What has not ended within `most` is broken off.
    pub async fn close(&self, most: Duration) {
        let ports = {
            let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
            listeners.close(&self.shared)
        };
        self.shared.flows.close();
        let over = async {
            for port in ports {
                let _ = port.await;
            }
            self.is_empty().await;
        };
        if tokio::time::timeout(most, over).await.is_err() {
            let broken = self.shared.flows.cut_all();
            tracing::info!(broken, ?most, "connections had their time and were broken off: this node stops");
            let _ = tokio::time::timeout(CUT_MAX, self.is_empty()).await;
        }
        self.stop();
    }

    /// Returns when no connection is open any more; lets none in.
    async fn is_empty(&self) {
        let all = u32::try_from(CONNECTIONS_MAX).unwrap_or(u32::MAX);
        let _ = self.shared.open.acquire_many(all).await;
    }

    /// Close all ports and connections.
    pub fn stop(&self) {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.threads.stop();
    }
}

/// Look again and again which addresses this host has, as long as a port names some.
async fn keep_addresses(shared: Weak<Shared>, listeners: Weak<Mutex<Listeners>>) {
    loop {
        tokio::time::sleep(ADDRESSES_EVERY).await;
        let (Some(shared), Some(listeners)) = (shared.upgrade(), listeners.upgrade()) else { return };
        let mut listeners = listeners.lock().unwrap_or_else(PoisonError::into_inner);
        if listeners.name_addresses() {
            let table = shared.table();
            listeners.follow(&shared, &table);
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop();
    }
}
