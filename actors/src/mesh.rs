//! What carries the traffic of published ports on a node, as its other parts see it.

use std::net::IpAddr;
use std::sync::Arc;

use shoal_core::mesh::Routes;
use shoal_core::model::{ContainerStatus, NodeDescription, NodeId, Task, TaskId};
use shoal_core::task::{
    BoxFuture, Controller, ControllerError, ExitStatus, LocalContainer, Progress, RunState,
};
use shoal_net::mesh::{Addresses, MeshStats, Proxy};
use shoal_net::{Endpoint, FrameReceiver, FrameSender};

/// A node's part of the mesh.
pub trait Mesh: Send + Sync + 'static {
    /// Take in what the leader tells.
    fn set_routes(&self, routes: Routes);
    /// Give a task no more traffic, and wait until what is under way has ended or had its time.
    fn drain<'a>(&'a self, task: &'a Task) -> BoxFuture<'a, ()>;
    /// Serve a stream by which another node connects to a task here.
    fn serve(
        &self,
        from: NodeId,
        body: Vec<u8>,
        tx: FrameSender,
        rx: FrameReceiver,
    ) -> BoxFuture<'static, ()>;
    /// What it did so far.
    fn stats(&self) -> MeshStats;
    /// Close all ports and connections.
    fn stop(&self);
}

/// What a mesh is made of.
pub struct MeshParts {
    /// This node.
    pub node_id: NodeId,
    /// Its endpoint.
    pub endpoint: Endpoint,
    /// Its containers.
    pub controller: Arc<dyn Controller>,
}

/// Makes a node's part of the mesh once it is in a cluster.
pub type MeshFactory = Arc<dyn Fn(MeshParts) -> Result<Arc<dyn Mesh>, String> + Send + Sync>;

/// The mesh of real ports, with so many threads for the traffic, at these addresses of the host or at all.
#[must_use]
pub fn real(threads: usize, at: Vec<IpAddr>) -> MeshFactory {
    Arc::new(move |parts: MeshParts| {
        let MeshParts { node_id, endpoint, controller } = parts;
        let addresses = Arc::new(Containers(controller));
        let config = shoal_net::mesh::Config { node: node_id, endpoint, addresses, threads, at: at.clone() };
        let proxy = Proxy::start(config).map_err(|error| format!("no threads for the mesh: {error}"))?;
        Ok(Arc::new(proxy) as Arc<dyn Mesh>)
    })
}

struct Containers(Arc<dyn Controller>);

impl Addresses for Containers {
    fn of(&self, task: TaskId) -> BoxFuture<'_, Result<Vec<IpAddr>, String>> {
        Box::pin(async move { self.0.addresses(task).await.map_err(|error| error.to_string()) })
    }
}

impl Mesh for Proxy {
    fn set_routes(&self, routes: Routes) {
        Self::set_routes(self, routes);
    }

    fn drain<'a>(&'a self, task: &'a Task) -> BoxFuture<'a, ()> {
        Box::pin(Self::drain(self, task))
    }

    fn serve(
        &self,
        from: NodeId,
        body: Vec<u8>,
        tx: FrameSender,
        rx: FrameReceiver,
    ) -> BoxFuture<'static, ()> {
        Self::serve(self, from, body, tx, rx)
    }

    fn stats(&self) -> MeshStats {
        Self::stats(self)
    }

    fn stop(&self) {
        Self::stop(self);
    }
}

/// A container runtime whose tasks take traffic from a mesh: they are drained before they are stopped.
pub(crate) struct Drained {
    pub(crate) runtime: Arc<dyn Controller>,
    pub(crate) mesh: Arc<dyn Mesh>,
}

type Answer<'a, T> = BoxFuture<'a, Result<T, ControllerError>>;

impl Controller for Drained {
    fn describe(&self) -> Answer<'_, NodeDescription> {
        self.runtime.describe()
    }

    fn prepare<'a>(&'a self, task: &'a Task, progress: Progress) -> Answer<'a, ContainerStatus> {
        self.runtime.prepare(task, progress)
    }

    fn start<'a>(&'a self, task: &'a Task) -> Answer<'a, ContainerStatus> {
        self.runtime.start(task)
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
        self.runtime.remove(task)
    }

    fn inspect(&self, task: TaskId) -> Answer<'_, LocalContainer> {
        self.runtime.inspect(task)
    }

    fn list(&self) -> Answer<'_, Vec<LocalContainer>> {
        self.runtime.list()
    }
}
