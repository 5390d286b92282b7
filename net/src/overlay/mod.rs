//! Networks that span nodes, on this one: the way of their packets to other hosts, and what this host's kernel is told.
//!
//! On a host a network is a bridge, which the container engine makes. This module adds what the bridge does not do: it
//! routes the network's other addresses into a device whose packets travel to the node that has them, over the same
//! QUIC as everything else, and it keeps the rules that turn a virtual address into a task's. Rules and routes live in
//! tables of their own, are changed in one step, and are put back if somebody removes them. They stay while this program
//! restarts.

mod conntrack;
mod generation;
mod host;
mod netlink;
mod packet;
mod refused;
mod rules;
mod tunnel;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use shoal_core::mesh::RouteChange;
use shoal_core::model::{NetworkId, NetworkInfo, NodeId, Task, TaskId, TaskNetwork};
use shoal_core::overlay::{Dropped, OverlayTable};
use shoal_core::task::BoxFuture;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tun_rs::DeviceBuilder;

use crate::task::Scope;
use crate::threads::Threads;
use crate::{Endpoint, FrameReceiver, FrameSender};
use host::Kernel;
use refused::Refused;
use rules::{DEVICE, Here};
use tunnel::Shared;

/// Whether what was put into the kernel is still there is looked at this often.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// What could not be put there is tried again after this.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Looks at the kernel's flows after a task left: at once, and when the rules are looked at next.
const FLOW_LOOKS: u8 = 2;
/// A task waits so long at most for its networks.
const READY_MAX: Duration = Duration::from_secs(20);
/// What a bridge carries at once; the way between hosts takes packets of any size, so nothing needs to be smaller.
const MTU: u16 = 1500;

/// How a node's part of the networks is set up.
pub struct Config {
    /// This node.
    pub node: NodeId,
    /// What reaches the others.
    pub endpoint: Endpoint,
    /// Whether all nodes share this host and its engine, as in a cluster for trying out: every task is then on it.
    pub one_host: bool,
    /// Is told the networks that have tasks here, whenever they change.
    pub networks_here: NetworksHere,
}

/// Is told which networks have tasks here.
pub type NetworksHere = Box<dyn Fn(&BTreeMap<NetworkId, Arc<NetworkInfo>>) + Send + Sync>;

/// Figures of the way to one node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerStats {
    /// The node.
    pub node: NodeId,
    /// Packets sent to it.
    pub packets_out: u64,
    /// Their bytes.
    pub bytes_out: u64,
    /// Packets that came from it and were passed on.
    pub packets_in: u64,
    /// Their bytes.
    pub bytes_in: u64,
    /// Packets that found the way full or the node silent.
    pub lost: u64,
}

/// Figures of this node's part of the networks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OverlayStats {
    /// By node.
    pub peers: Vec<PeerStats>,
    /// Packets that were not passed on, by reason.
    pub dropped: Vec<(&'static str, u64)>,
    /// Packets that the kernel's rules refused, by reason.
    pub refused: Vec<(&'static str, u64)>,
    /// What was no packet.
    pub malformed: u64,
    /// Why rules and routes are not as they should be; empty if they are.
    pub error: String,
}

/// What the kernel shall hold.
#[derive(Debug, Default)]
struct Wish {
    /// Tasks and other containers of this node, from before they start until they are removed.
    tasks: BTreeMap<TaskId, Vec<TaskNetwork>>,
    /// All networks that there are services in.
    networks: BTreeMap<NetworkId, Arc<NetworkInfo>>,
    table: Arc<OverlayTable>,
    /// Whether the leader has told anything yet: what an earlier life left in the kernel is better than nothing until then.
    informed: bool,
    /// Counts the changes.
    number: u64,
    /// Counts those of containers here, whose bridges have to be made ready.
    containers: u64,
    stop: bool,
}

/// The wish up to which the kernel follows, and why it does no further.
type Done = (u64, Result<(), String>);

struct Inner {
    shared: Arc<Shared>,
    one_host: bool,
    networks_here: NetworksHere,
    wish: Mutex<Wish>,
    kick: Condvar,
    done: watch::Sender<Done>,
    refused: Arc<Refused>,
    /// What passes packets; they come and go by QUIC, so this is best where that is.
    scope: Scope,
    began: Instant,
    thread: Handle,
    /// If QUIC has no thread.
    _own: Option<Threads>,
}

/// A node's part of the networks.
pub struct Overlay(Arc<Inner>);

impl Inner {
    fn wish(&self) -> MutexGuard<'_, Wish> {
        self.wish.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Run until this ends.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> Option<JoinHandle<()>> {
        let _inside = self.thread.enter();
        self.scope.spawn(task)
    }

    /// Let packets pass as this table says.
    fn set_table(&self, wish: &mut Wish, table: OverlayTable) {
        wish.table = Arc::new(table);
        self.shared.prune(&wish.table);
        *self.shared.table.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&wish.table);
    }

    /// Forget addresses that were given up long ago.
    fn forget_past(&self, wish: &mut Wish) {
        if wish.table.has_past() {
            let mut table = (*wish.table).clone();
            table.pass_to(self.began.elapsed());
            self.set_table(wish, table);
        }
    }

    /// Change the wish. Returns its number.
    fn change(&self, change: impl FnOnce(&mut Wish)) -> u64 {
        let mut wish = self.wish();
        change(&mut wish);
        wish.number += 1;
        self.kick.notify_all();
        wish.number
    }
}

impl Overlay {
    /// No network yet: nothing of the host is touched before the first task of one.
    ///
    /// # Errors
    /// If the system gives no threads.
    pub fn start(config: Config) -> std::io::Result<Self> {
        let quic = config.endpoint.thread();
        let own = if quic.is_none() { Some(Threads::start("networks", 1)?) } else { None };
        let thread = quic.or_else(|| own.as_ref().map(|own| own.next().clone()));
        let inner = Arc::new(Inner {
            shared: Arc::new(Shared::new(config.node, config.endpoint)),
            one_host: config.one_host,
            networks_here: config.networks_here,
            wish: Mutex::default(),
            kick: Condvar::new(),
            done: watch::channel((0, Ok(()))).0,
            refused: Arc::default(),
            scope: Scope::new(),
            began: Instant::now(),
            thread: thread.ok_or(std::io::ErrorKind::NotFound)?,
            _own: own,
        });
        let keeper = Arc::clone(&inner);
        std::thread::Builder::new().name("networks".into()).spawn(move || keep(&keeper))?;
        Ok(Self(inner))
    }

    /// Take in what changed of the routes.
    pub fn follow(&self, changes: &[RouteChange]) {
        let inner = &self.0;
        let ours = |change: &&RouteChange| {
            let routes = change.before.iter().chain(&change.after);
            routes.into_iter().any(|route| !route.networks.is_empty())
        };
        let changes: Vec<&RouteChange> = changes.iter().filter(ours).collect();
        if changes.is_empty() && inner.wish().informed {
            return;
        }
        inner.change(|wish| {
            wish.informed = true;
            let mut table = (*wish.table).clone();
            table.pass_to(inner.began.elapsed());
            changes.iter().for_each(|change| table.follow(change));
            inner.set_table(wish, table);
            for place in changes.iter().filter_map(|change| change.after.as_ref()).flat_map(|r| &r.networks) {
                wish.networks.insert(place.network.id, Arc::clone(&place.network));
            }
        });
    }

    /// Make this host ready for a task or another container in networks, whose bridges are there already.
    ///
    /// # Errors
    /// What this host lacks, in words.
    pub async fn attach(&self, task: TaskId, places: &[TaskNetwork]) -> Result<(), String> {
        if places.is_empty() {
            return Ok(());
        }
        let mut done = self.0.done.subscribe();
        let number = self.0.change(|wish| {
            wish.containers += 1;
            wish.tasks.insert(task, places.to_vec());
        });
        let ready = done.wait_for(|(followed, _)| *followed >= number);
        match tokio::time::timeout(READY_MAX, ready).await {
            Ok(Ok(done)) => done.1.clone(),
            Ok(Err(_)) => Err("this node is stopping".into()),
            Err(_) => Err(format!("networks were not ready within {} s", READY_MAX.as_secs())),
        }
    }

    /// A task's container has started: its port of the bridge is there only now.
    pub fn started(&self, task: &Task) {
        if !task.networks.is_empty() {
            self.0.change(|wish| wish.containers += 1);
        }
    }

    /// A task's container is gone.
    pub fn detach(&self, task: TaskId) {
        if self.0.wish().tasks.contains_key(&task) {
            self.0.change(|wish| drop(wish.tasks.remove(&task)));
        }
    }

    /// Serve a stream of packets from another node.
    pub fn serve(&self, from: NodeId, tx: FrameSender, rx: FrameReceiver) -> BoxFuture<'static, ()> {
        let served = self.0.spawn(tunnel::inward(Arc::clone(&self.0.shared), from, tx, rx));
        Box::pin(async move {
            if let Some(served) = served {
                let _ = served.await;
            }
        })
    }

    /// What it did so far.
    #[must_use]
    pub fn stats(&self) -> OverlayStats {
        let counters = &self.0.shared.counters;
        let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let peers = counters.peers.lock().unwrap_or_else(PoisonError::into_inner);
        OverlayStats {
            peers: peers
                .iter()
                .map(|(node, of)| PeerStats {
                    node: *node,
                    packets_out: read(&of.packets_out),
                    bytes_out: read(&of.bytes_out),
                    packets_in: read(&of.packets_in),
                    bytes_in: read(&of.bytes_in),
                    lost: read(&of.lost),
                })
                .collect(),
            dropped: Dropped::ALL.map(|why| (why.name(), read(&counters.dropped[why as usize]))).to_vec(),
            refused: self.0.refused.totals(),
            malformed: read(&counters.malformed),
            error: self.0.done.borrow().1.clone().err().unwrap_or_default(),
        }
    }

    /// Pass no more packets between hosts. Rules and routes stay: what the kernel carries by itself goes on.
    pub fn stop(&self) {
        self.0.change(|wish| wish.stop = true);
        self.0.scope.abort();
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Make the kernel follow the wish, until that ends.
fn keep(inner: &Arc<Inner>) {
    let mut kernel = Kernel::new(Arc::clone(&inner.refused));
    let (mut followed, mut prepared) = (0, 0);
    let mut failed = false;
    let mut known = BTreeMap::new();
    let mut flows = Flows::default();
    // What an earlier life left is not ours to trust.
    let mut look = true;
    loop {
        let mut wish = inner.wish();
        if wish.number == followed && !wish.stop {
            let pause = if failed { RETRY_AFTER } else { LOOK_EVERY };
            let (next, waited) = inner.kick.wait_timeout(wish, pause).unwrap_or_else(PoisonError::into_inner);
            wish = next;
            look |= waited.timed_out();
        }
        if wish.stop {
            return;
        }
        inner.forget_past(&mut wish);
        let (number, containers) = (wish.number, wish.containers);
        let (table, here, informed) = (Arc::clone(&wish.table), here(inner, &wish), wish.informed);
        drop(wish);
        // What changes elsewhere leaves bridges as they are.
        let is_ready = !look && containers == prepared && known == here.networks;
        if known != here.networks {
            known.clone_from(&here.networks);
            (inner.networks_here)(&known);
        }
        let result = if number == 0 || is_ready { Ok(()) } else { ready(inner, &here, look) };
        prepared = containers;
        let result = match result {
            Ok(()) if informed => {
                let has_networks = !here.networks.is_empty();
                let done = put(inner, &mut kernel, here, &table, look);
                if done.is_ok() && has_networks {
                    flows.follow(&table);
                }
                done
            }
            result => result,
        };
        failed = result.is_err();
        look = failed;
        if let Err(why) = &result
            && inner.done.borrow().1.as_ref() != Err(why)
        {
            tracing::warn!(why, again_in = ?RETRY_AFTER, "networks are not as they should be on this host");
        }
        followed = number;
        let _ = inner.done.send_replace((number, result));
    }
}

/// Sees to it that datagrams leave tasks that take traffic no more.
struct Flows {
    /// Who stood behind virtual addresses when that was last looked at.
    known: Arc<OverlayTable>,
    /// How often it is to be looked still: a datagram that was on its way while the rules changed is remembered a moment later.
    looks: u8,
}

impl Default for Flows {
    fn default() -> Self {
        // An earlier life may have missed who left meanwhile.
        Self { known: Arc::default(), looks: 1 }
    }
}

impl Flows {
    /// The kernel turns nothing new to whom the table does not name any more: let what is under way follow.
    fn follow(&mut self, table: &Arc<OverlayTable>) {
        if !Arc::ptr_eq(&self.known, table) {
            if table.lacks_backend_of(&self.known) {
                self.looks = FLOW_LOOKS;
            }
            self.known = Arc::clone(table);
        }
        if self.looks == 0 {
            return;
        }
        self.looks -= 1;
        match conntrack::forget(|to, task| table.has_left(to, task)) {
            Ok(0) => {}
            Ok(moved) => tracing::debug!(moved, "flows of datagrams leave tasks that take traffic no more"),
            Err(error) => {
                tracing::info!(%error, "the kernel does not let flows of datagrams be moved: they end with their task");
            }
        }
    }
}

/// What is on this host: what its tasks say, and the table where it says the same of tasks whose bridge is there.
fn here(inner: &Inner, wish: &Wish) -> Here {
    let mut here = Here { bridge_filter: host::bridge_filter(), ..Here::default() };
    for place in wish.tasks.values().flatten() {
        here.networks.insert(place.network.id, Arc::clone(&place.network));
        here.addresses.extend(place.addresses.iter().map(|ip| (*ip, place.network.id)));
    }
    let mut bridges: BTreeMap<NetworkId, bool> = BTreeMap::new();
    for (address, place) in wish.table.places() {
        if place.node != inner.shared.here && !inner.one_host {
            continue;
        }
        let Some(network) = wish.networks.get(&place.network) else { continue };
        let there = bridges.entry(network.id).or_insert_with(|| host::exists(&network.bridge()));
        if *there {
            here.networks.entry(network.id).or_insert_with(|| Arc::clone(network));
            here.addresses.insert(address, network.id);
        }
    }
    here
}

/// Make bridges and the device as they have to be.
fn ready(inner: &Arc<Inner>, here: &Here, look: bool) -> Result<(), String> {
    for network in here.networks.values() {
        let bridge = network.bridge();
        if !host::exists(&bridge) {
            return Err(format!("network {}: its bridge {bridge} is not there", network.name));
        }
        host::prepare_bridge(&bridge, here.bridge_filter, network.has_ipv6())?;
    }
    if !inner.one_host && !here.networks.is_empty() {
        // Before the first packet comes: one that the engine's rules drop meanwhile may be tried again only much later.
        if device(inner)? || look {
            host::admit();
        }
    }
    Ok(())
}

/// Give the kernel its rules and routes.
fn put(
    inner: &Inner,
    kernel: &mut Kernel,
    mut here: Here,
    table: &OverlayTable,
    look: bool,
) -> Result<(), String> {
    if here.networks.is_empty() {
        // With the last network all of it goes; a node that never had one leaves the host alone.
        kernel.clear();
        return Ok(());
    }
    here.device = !inner.one_host;
    kernel.put(rules::rules(&here, table), &rules::routes(&here, table), look)?;
    kernel.put_neighbours(&rules::neighbours(&here, table), look)
}

/// Open the device that leads to other hosts, if it is not yet. Returns whether it is new.
fn device(inner: &Arc<Inner>) -> Result<bool, String> {
    let is_open = || inner.shared.device.read().unwrap_or_else(PoisonError::into_inner).is_some();
    if is_open() && host::exists(DEVICE) {
        return Ok(false);
    }
    // It has to be made where its packets are taken.
    let _inside = inner.thread.enter();
    let device = DeviceBuilder::new().name(DEVICE).mtu(MTU).offload(true).build_async();
    let device = device.map_err(|error| {
        format!("no device for packets between hosts ({error}): /dev/net/tun and the right to administer networks are needed")
    })?;
    let device = Arc::new(device);
    *inner.shared.device.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&device));
    let shared = Arc::clone(&inner.shared);
    inner.spawn(async move {
        let error = tunnel::outward(Arc::clone(&shared), device).await;
        tracing::warn!(%error, "the device for packets between hosts is gone");
        shared.device.write().unwrap_or_else(PoisonError::into_inner).take();
    });
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use shoal_core::mesh::{Backend, Options, Route, RouteNetwork};
    use shoal_core::model::{Pool, ServiceId, Slot};

    use super::*;

    pub(super) fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    pub(super) fn info(id: u128) -> Arc<NetworkInfo> {
        let pool = Pool::new(format!("10.{id}.0.0/16").parse().unwrap(), None).unwrap();
        Arc::new(NetworkInfo {
            id: NetworkId::from_u128(id),
            name: "back".into(),
            internal: false,
            attachable: false,
            pools: vec![pool],
        })
    }

    /// A new service in a network, its virtual address being this.
    pub(super) fn change(service: u128, address: &str, backends: &[&str]) -> RouteChange {
        let number: u128 = address.split('.').nth(1).unwrap().parse().unwrap();
        let network = info(number);
        let backend = |(at, text): (usize, &&str)| Backend {
            task: TaskId::from_u128(service * 100 + at as u128),
            node: NodeId::from_u128(1),
            addr: "192.0.2.1:7300".into(),
            slot: Slot::Replica(at as u64 + 1),
            addresses: vec![(network.id, vec![ip(text)])],
        };
        let after = Route {
            service: ServiceId::from_u128(service),
            name: format!("s{service}"),
            ports: Vec::new(),
            options: Options::default(),
            backends: backends.iter().enumerate().map(backend).collect(),
            networks: vec![RouteNetwork {
                network: Arc::clone(&network),
                aliases: Vec::new(),
                addresses: vec![ip(address)],
            }],
            others: Vec::new(),
            attached: false,
        };
        RouteChange { before: None, after: Some(Arc::new(after)) }
    }
}
