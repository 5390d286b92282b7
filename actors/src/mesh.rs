//! What carries the traffic of tasks on a node, as its other parts see it: published ports and networks.

mod sockets;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use shoal_core::mesh::{Route, Routes};
use shoal_core::model::{ContainerStatus, NodeDescription, NodeId, ServiceId, Task, TaskId, TaskNetwork};
use shoal_core::names::NameTable;
use shoal_core::task::{
    BoxFuture, Controller, ControllerError, ExitStatus, LocalContainer, PlainContainers, Progress, RunState,
};
use shoal_net::mesh::{Addresses, MeshStats, Proxy};
use shoal_net::names::{self, NameServer, NameStats};
use shoal_net::overlay::{self, NetworksHere, Overlay, OverlayStats};
use shoal_net::{Endpoint, FrameReceiver, FrameSender, Kind};

/// Within this, every node that can be reached knows that a task takes no more traffic.
const NEWS_TRAVEL: Duration = Duration::from_millis(400);
/// A node that stops gives what its published ports have under way so long. The daemon's whole stop has 20 s.
const CLOSE_MAX: Duration = Duration::from_secs(5);
/// Between two looks at a task's connections.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// A node's part of the mesh and of the networks that span nodes.
pub trait Mesh: Send + Sync + 'static {
    /// Take in what the leader tells.
    fn set_routes(&self, routes: Routes);
    /// Make this host ready for a container, a task's or another, that is in these networks and about to start.
    fn attach<'a>(&'a self, _task: TaskId, _places: &'a [TaskNetwork]) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(std::future::ready(Ok(())))
    }
    /// The task's container runs.
    fn started(&self, _task: &Task) {}
    /// The task's container is gone.
    fn detach(&self, _task: TaskId) {}
    /// Give a task no more traffic, and wait until what is under way has ended or had its time.
    fn drain<'a>(&'a self, task: &'a Task) -> BoxFuture<'a, ()>;
    /// Serve a stream of another node: a connection to a task here, or packets.
    fn serve(
        &self,
        from: NodeId,
        kind: Kind,
        body: Vec<u8>,
        tx: FrameSender,
        rx: FrameReceiver,
    ) -> BoxFuture<'static, ()>;
    /// What its published ports did so far.
    fn stats(&self) -> MeshStats;
    /// What its networks did so far.
    fn overlay(&self) -> OverlayStats {
        OverlayStats::default()
    }
    /// What its name server did so far.
    fn names(&self) -> NameStats {
        NameStats::default()
    }
    /// Take no more clients, and let what is under way end, within a few seconds.
    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
    /// Close all ports and connections.
    fn stop(&self);
}

/// What a mesh is made of.
pub struct MeshParts {
    /// This node.
    pub node_id: NodeId,
    /// Its address for other nodes.
    pub addr: SocketAddr,
    /// Its endpoint.
    pub endpoint: Endpoint,
    /// Its containers.
    pub controller: Arc<dyn Controller>,
}

/// Makes a node's part of the mesh once it is in a cluster.
pub type MeshFactory = Arc<dyn Fn(MeshParts) -> Result<Arc<dyn Mesh>, String> + Send + Sync>;

/// The mesh of a real host, with so many threads for the traffic of published ports, which answer at these addresses of the
/// host or at all.
#[must_use]
pub fn real(threads: usize, at: Vec<IpAddr>, names: names::Config) -> MeshFactory {
    Arc::new(move |parts: MeshParts| {
        let MeshParts { node_id, addr, endpoint, controller } = parts;
        let no_threads = |error: std::io::Error| format!("no threads for the mesh: {error}");
        let one_host = addr.ip().is_loopback();
        let names = Arc::new(NameServer::start(names.clone()).map_err(no_threads)?);
        let served = Arc::clone(&names);
        let networks_here: NetworksHere = Box::new(move |networks| {
            let pools = networks.values().flat_map(|of| of.pools.iter().map(move |pool| (pool.gateway, of)));
            served.set_addresses(pools.map(|(gateway, of)| (gateway, Arc::clone(of))).collect());
        });
        let overlay = overlay::Config { node: node_id, endpoint: endpoint.clone(), one_host, networks_here };
        let addresses = Arc::new(Containers(Arc::clone(&controller)));
        let config = shoal_net::mesh::Config { node: node_id, endpoint, addresses, threads, at: at.clone() };
        Ok(Arc::new(RealMesh {
            known: Mutex::default(),
            names,
            overlay: Overlay::start(overlay).map_err(no_threads)?,
            proxy: Proxy::start(config).map_err(no_threads)?,
            controller,
        }) as Arc<dyn Mesh>)
    })
}

struct Containers(Arc<dyn Controller>);

impl Addresses for Containers {
    fn of(&self, task: TaskId) -> BoxFuture<'_, Result<Vec<IpAddr>, String>> {
        Box::pin(async move { self.0.addresses(task).await.map_err(|error| error.to_string()) })
    }
}

/// Published ports and networks of a real host.
struct RealMesh {
    known: Mutex<(BTreeMap<ServiceId, Arc<Route>>, NameTable)>,
    names: Arc<NameServer>,
    proxy: Proxy,
    overlay: Overlay,
    controller: Arc<dyn Controller>,
}

impl RealMesh {
    /// Wait until those who talk to the task directly have heard that they should not, and have ended what they began.
    async fn drain_direct(&self, task: &Task) {
        let until = tokio::time::Instant::now() + self.proxy.options(task.id).drain_direct();
        tokio::time::sleep(NEWS_TRAVEL).await;
        let Ok(found) = self.controller.inspect(task.id).await else { return };
        let Some(pid) = found.status.pid else { return };
        loop {
            // A process that is gone has no connections.
            let open = tokio::task::spawn_blocking(move || sockets::inbound(pid)).await.unwrap_or_default();
            if open == 0 {
                return;
            }
            if tokio::time::Instant::now() >= until {
                tracing::info!(task = %task.id, open, "connections from other tasks had their time");
                return;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

impl Mesh for RealMesh {
    fn set_routes(&self, routes: Routes) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let changes = routes.take_into(&mut known.0);
        changes.iter().for_each(|change| known.1.apply(change));
        // Names first: whoever looks one up must not be sent to a task that the others know to be leaving.
        self.names.set_table(Arc::new(known.1.clone()));
        self.proxy.follow(&changes);
        self.overlay.follow(&changes);
    }

    fn attach<'a>(&'a self, task: TaskId, places: &'a [TaskNetwork]) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(self.overlay.attach(task, places))
    }

    fn started(&self, task: &Task) {
        self.overlay.started(task);
    }

    fn detach(&self, task: TaskId) {
        self.overlay.detach(task);
        self.proxy.forget(task);
    }

    fn drain<'a>(&'a self, task: &'a Task) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            if task.networks.is_empty() {
                self.proxy.drain(task).await;
            } else {
                tokio::join!(self.proxy.drain(task), self.drain_direct(task));
            }
        })
    }

    fn serve(
        &self,
        from: NodeId,
        kind: Kind,
        body: Vec<u8>,
        tx: FrameSender,
        rx: FrameReceiver,
    ) -> BoxFuture<'static, ()> {
        match kind {
            Kind::Packets => self.overlay.serve(from, tx, rx),
            _ => self.proxy.serve(from, body, tx, rx),
        }
    }

    fn stats(&self) -> MeshStats {
        self.proxy.stats()
    }

    fn overlay(&self) -> OverlayStats {
        self.overlay.stats()
    }

    fn names(&self) -> NameStats {
        self.names.stats()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.proxy.close(CLOSE_MAX))
    }

    fn stop(&self) {
        self.names.stop();
        self.proxy.stop();
        self.overlay.stop();
    }
}

/// A container runtime whose tasks are on a mesh: their networks are made ready before they start, and they are drained
/// before they are stopped.
pub(crate) struct OnMesh {
    pub(crate) runtime: Arc<dyn Controller>,
    pub(crate) mesh: Arc<dyn Mesh>,
}

type Answer<'a, T> = BoxFuture<'a, Result<T, ControllerError>>;

impl Controller for OnMesh {
    fn describe(&self) -> Answer<'_, NodeDescription> {
        self.runtime.describe()
    }

    fn prepare<'a>(&'a self, task: &'a Task, progress: Progress) -> Answer<'a, ContainerStatus> {
        self.runtime.prepare(task, progress)
    }

    fn start<'a>(&'a self, task: &'a Task) -> Answer<'a, ContainerStatus> {
        Box::pin(async move {
            let unready = |why| ControllerError::Unavailable(format!("its networks are not ready: {why}"));
            self.mesh.attach(task.id, &task.networks).await.map_err(unready)?;
            let started = self.runtime.start(task).await;
            self.mesh.started(task);
            started
        })
    }

    fn wait_healthy(&self, task: TaskId) -> Answer<'_, RunState> {
        self.runtime.wait_healthy(task)
    }

    fn wait(&self, task: TaskId) -> Answer<'_, ExitStatus> {
        self.runtime.wait(task)
    }

    fn drains(&self) -> bool {
        true
    }

    fn drain<'a>(&'a self, task: &'a Task) -> BoxFuture<'a, ()> {
        self.mesh.drain(task)
    }

    fn addresses(&self, task: TaskId) -> Answer<'_, Vec<IpAddr>> {
        self.runtime.addresses(task)
    }

    fn stop<'a>(&'a self, task: &'a Task) -> Answer<'a, ExitStatus> {
        self.runtime.stop(task)
    }

    fn remove(&self, task: TaskId) -> Answer<'_, ()> {
        Box::pin(async move {
            self.runtime.remove(task).await?;
            self.mesh.detach(task);
            Ok(())
        })
    }

    fn inspect(&self, task: TaskId) -> Answer<'_, LocalContainer> {
        self.runtime.inspect(task)
    }

    fn list(&self) -> Answer<'_, Vec<LocalContainer>> {
        self.runtime.list()
    }

    fn plain(&self) -> Option<&dyn PlainContainers> {
        self.runtime.plain()
    }
}
