//! A host's part of a simulated mesh: it knows the routes as it is told them and chooses as the real one does, but nothing
//! is carried: a connection is a count that goes up and, later, down. So it is seen who is given traffic, and whether a
//! task is stopped while it has some.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use shoal_actors::mesh::{Mesh, MeshFactory};
use shoal_core::mesh::{Load, Options, Route, Routes, choose};
use shoal_core::model::{NodeId, ServiceId, Task, TaskId};
use shoal_core::pace::Pace;
use shoal_core::task::BoxFuture;
use shoal_net::Kind;
use shoal_net::mesh::MeshStats;
use shoal_net::{FrameReceiver, FrameSender};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::containers::Engine;

/// A connection is asked for so often at least and at most.
const ASK_EVERY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_millis(1_800));
/// It lasts so long at least and at most.
const LASTS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(4_000));

#[derive(Default)]
struct Inner {
    node: NodeId,
    routes: BTreeMap<ServiceId, Arc<Route>>,
    options: BTreeMap<TaskId, Options>,
    open: BTreeMap<TaskId, u32>,
    draining: BTreeMap<TaskId, Instant>,
    broken: Vec<String>,
    stopped: bool,
}

/// The mesh of one node's life.
#[derive(Clone, Default)]
pub struct SimMesh {
    inner: Arc<Mutex<Inner>>,
    fewer: Arc<Notify>,
}

impl SimMesh {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The node whose it is.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.lock().node
    }

    /// Whether it still takes connections: the process may go on once its node has left.
    fn is_up(&self) -> bool {
        !self.lock().stopped
    }

    /// The routes as it knows them.
    #[must_use]
    pub fn routes(&self) -> Vec<Arc<Route>> {
        self.lock().routes.values().cloned().collect()
    }

    /// What was found broken, since the last time.
    #[must_use]
    pub fn take_broken(&self) -> Vec<String> {
        std::mem::take(&mut self.lock().broken)
    }

    /// Let a connection to a task in, if that takes any.
    fn enter(&self, task: TaskId) -> bool {
        let mut inner = self.lock();
        if inner.draining.contains_key(&task) {
            return false;
        }
        *inner.open.entry(task).or_default() += 1;
        true
    }

    fn leave(&self, task: TaskId) {
        let mut inner = self.lock();
        if let Some(open) = inner.open.get_mut(&task) {
            *open -= 1;
            if *open == 0 {
                inner.open.remove(&task);
            }
        }
        drop(inner);
        self.fewer.notify_waiters();
    }

    /// The engine is asked to stop a task.
    pub fn stops(&self, task: TaskId) {
        let mut inner = self.lock();
        let open = inner.open.get(&task).copied().unwrap_or_default();
        let most = inner.options.get(&task).copied().unwrap_or_default().drain;
        let since = inner.draining.get(&task).copied();
        let why = match since {
            None => Some("nobody let its traffic end".to_owned()),
            Some(since) if open > 0 && since.elapsed() < most => Some(format!("it has {open} connections")),
            Some(_) => None,
        };
        let node = inner.node;
        inner.broken.extend(why.map(|why| format!("task {task} on node {node} is asked to stop, and {why}")));
    }
}

impl Mesh for SimMesh {
    fn set_routes(&self, routes: Routes) {
        let mut inner = self.lock();
        for change in routes.take_into(&mut inner.routes) {
            let options: Vec<_> = change.options_on(inner.node).collect();
            inner.options.extend(options);
        }
    }

    fn drain<'a>(&'a self, task: &'a Task) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let most = {
                let mut inner = self.lock();
                inner.draining.entry(task.id).or_insert_with(Instant::now);
                inner.options.get(&task.id).copied().unwrap_or_default().drain
            };
            let idle = async {
                loop {
                    let fewer = self.fewer.notified();
                    if !self.lock().open.contains_key(&task.id) {
                        return;
                    }
                    fewer.await;
                }
            };
            let _ = tokio::time::timeout(most, idle).await;
        })
    }

    fn serve(
        &self,
        _: NodeId,
        _: Kind,
        _: Vec<u8>,
        _: FrameSender,
        _: FrameReceiver,
    ) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }

    fn stats(&self) -> MeshStats {
        MeshStats::default()
    }

    fn stop(&self) {
        self.lock().stopped = true;
    }
}

/// The mesh of a host's node while it is up.
#[derive(Clone, Default)]
pub struct Slot(Arc<Mutex<Option<SimMesh>>>);

impl Slot {
    /// The mesh, if there is one.
    #[must_use]
    pub fn get(&self) -> Option<SimMesh> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The node is gone, and all of its connections.
    pub fn clear(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// What gives the node its mesh.
    #[must_use]
    pub fn factory(&self) -> MeshFactory {
        let slot = self.clone();
        Arc::new(move |parts| {
            let mesh = SimMesh::default();
            mesh.lock().node = parts.node_id;
            *slot.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(mesh.clone());
            Ok(Arc::new(mesh) as Arc<dyn Mesh>)
        })
    }
}

/// A host as clients see it.
#[derive(Clone)]
pub struct Door {
    /// Its mesh.
    pub mesh: Slot,
    /// Its containers.
    pub engine: Engine,
}

/// Clients, who ask any host for any service, and stay for a while.
pub struct Clients {
    doors: Vec<Door>,
    rng: ChaCha8Rng,
    pace: Pace,
    /// Connections made, and refused by all.
    pub tally: [u64; 2],
}

impl Clients {
    /// Of these hosts.
    #[must_use]
    pub fn new(doors: Vec<Door>, seed: u64, pace: Pace) -> Self {
        Self { doors, rng: ChaCha8Rng::seed_from_u64(seed), pace, tally: [0; 2] }
    }

    /// Time until the next one asks.
    pub fn pause(&mut self) -> Duration {
        let pause = self.rng.random_range(ASK_EVERY.0..ASK_EVERY.1);
        self.pace.of(pause)
    }

    /// One asks. Returns what was broken.
    pub fn ask(&mut self) -> Vec<String> {
        let at = self.rng.random_range(0..self.doors.len());
        let (turn, lasts) = (self.rng.random_range(0..1_000), self.rng.random_range(LASTS.0..LASTS.1));
        let Some(mesh) = self.doors[at].mesh.get().filter(SimMesh::is_up) else { return Vec::new() };
        let routes = mesh.routes();
        if routes.is_empty() {
            return Vec::new();
        }
        let route = &routes[turn % routes.len()];
        let mut tried = BTreeSet::new();
        loop {
            let load = |backend: &shoal_core::mesh::Backend| Load {
                open: mesh.lock().open.get(&backend.task).copied().unwrap_or_default(),
                failed: false,
                tried: tried.contains(&backend.task),
            };
            let Some(backend) = choose(&route.backends, load, mesh.node(), turn) else {
                self.tally[1] += 1;
                return Vec::new();
            };
            tried.insert(backend.task);
            let there = self.doors.iter().find_map(|door| {
                let mesh = door.mesh.get().filter(|mesh| mesh.node() == backend.node && mesh.is_up())?;
                Some((mesh, &door.engine))
            });
            let Some((there, engine)) = there else { continue };
            if !engine.serves(backend.task) || !there.enter(backend.task) {
                if engine.is_unready(backend.task) {
                    return vec![format!("task {} is given traffic, and was not started yet", backend.task)];
                }
                continue;
            }
            if engine.is_unready(backend.task) {
                return vec![format!("task {} is given traffic, and was never healthy yet", backend.task)];
            }
            self.tally[0] += 1;
            let task = backend.task;
            tokio::spawn(async move {
                tokio::time::sleep(lasts).await;
                there.leave(task);
            });
            return Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TASK: TaskId = TaskId::from_u128(7);

    #[tokio::test(start_paused = true)]
    async fn a_stop_under_way_of_traffic_is_found() {
        let mesh = SimMesh::default();
        assert!(mesh.enter(TASK));
        mesh.stops(TASK);
        assert!(mesh.take_broken()[0].contains("nobody let its traffic end"));
        mesh.lock().draining.insert(TASK, Instant::now());
        mesh.stops(TASK);
        assert!(mesh.take_broken()[0].contains("it has 1 connections"));
        assert!(!mesh.enter(TASK), "it drains, and was let in");
        mesh.leave(TASK);
        mesh.stops(TASK);
        assert!(mesh.take_broken().is_empty());
    }
}
