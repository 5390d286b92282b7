//! Simulated containers: a runtime whose containers fail, start slowly, end by themselves and hang on stop,
//! as the seed has it. It outlives its node, as an engine does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use shoal_core::model::{ContainerStatus, EngineInfo, NodeDescription, Platform, Resources, Task, TaskId};
use shoal_core::task::{
    BoxFuture, Controller, ControllerError, ExitStatus, LocalContainer, PlainContainers, Progress, RunState,
};
use tokio::sync::{oneshot, watch};

use crate::event::What;
use crate::mesh::Slot;
use crate::plain::Plain;
use crate::trace::Trace;
use crate::wishes::CRASHES;

/// How likely each mishap is, for one container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Mishaps {
    /// Preparing fails for good.
    pub prepare_fails: f64,
    /// The container ends by itself soon after its start.
    pub crashes: f64,
    /// Its start takes seconds.
    pub slow_starts: f64,
    /// It does not hear its stop signal: it is killed when its grace is over.
    pub slow_stops: f64,
}

struct Container {
    state: watch::Sender<RunState>,
    number: u64,
}

struct Inner {
    containers: BTreeMap<TaskId, Container>,
    rng: ChaCha8Rng,
    mishaps: Mishaps,
    numbers: u64,
    away: bool,
    /// How often the machine was lost.
    wipes: u64,
    /// Tasks whose containers were started once.
    started: BTreeSet<TaskId>,
}

/// One host's simulated engine. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    pub(crate) host: usize,
    inner: Arc<Mutex<Inner>>,
    /// What gives its containers traffic.
    mesh: Slot,
    /// Its containers that are no tasks.
    pub plain: Plain,
    trace: Trace,
}

impl Engine {
    /// An engine without containers.
    #[must_use]
    pub fn new(host: usize, seed: u64, mesh: Slot, trace: Trace) -> Self {
        let inner = Inner {
            containers: BTreeMap::new(),
            rng: ChaCha8Rng::seed_from_u64(seed),
            mishaps: Mishaps::default(),
            numbers: 0,
            away: false,
            wipes: 0,
            started: BTreeSet::new(),
        };
        Self { host, inner: Arc::new(Mutex::new(inner)), mesh, plain: Plain::default(), trace }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Change how likely mishaps are.
    pub fn set_mishaps(&self, mishaps: Mishaps) {
        self.lock().mishaps = mishaps;
    }

    /// The engine stops answering, or answers again. Its containers run on.
    pub fn set_away(&self, away: bool) {
        self.lock().away = away;
    }

    /// Whether it answers nobody.
    #[must_use]
    pub fn is_away(&self) -> bool {
        self.lock().away
    }

    /// The tasks whose containers run now.
    #[must_use]
    pub fn running(&self) -> Vec<TaskId> {
        let inner = self.lock();
        let runs = |c: &Container| matches!(*c.state.borrow(), RunState::Running { .. });
        inner.containers.iter().filter(|(_, c)| runs(c)).map(|(id, _)| *id).collect()
    }

    /// The tasks that have a container, whether it runs or not.
    #[must_use]
    pub fn all(&self) -> Vec<TaskId> {
        self.lock().containers.keys().copied().collect()
    }

    /// Whether the task's container runs.
    #[must_use]
    pub fn serves(&self, task: TaskId) -> bool {
        let inner = self.lock();
        inner.containers.get(&task).is_some_and(|c| matches!(*c.state.borrow(), RunState::Running { .. }))
    }

    /// Whether the task's container is made and was never started, nor one made before it.
    #[must_use]
    pub fn is_made(&self, task: TaskId) -> bool {
        let inner = self.lock();
        let is_new = |container: &Container| *container.state.borrow() == RunState::Created;
        inner.containers.get(&task).is_some_and(is_new) && !inner.started.contains(&task)
    }

    /// The machine is lost, and all containers with it.
    pub fn wipe(&self) {
        let mut inner = self.lock();
        inner.containers.clear();
        inner.wipes += 1;
        self.plain.wipe();
    }

    fn step(&self, task: TaskId, step: &str) {
        let what = What::Task { host: self.host, task: task.to_string(), step: step.to_owned() };
        self.trace.event(what);
    }

    pub(crate) fn answer(&self) -> Result<(), ControllerError> {
        if self.lock().away {
            Err(ControllerError::Unavailable("simulated engine is away".into()))
        } else {
            Ok(())
        }
    }

    /// Make a container, unless the machine was lost since.
    fn make(&self, id: TaskId, wipes: u64) -> Result<ContainerStatus, ControllerError> {
        if self.happens(|mishaps| mishaps.prepare_fails) {
            return Err(ControllerError::Task("simulated: no such image".into()));
        }
        {
            let mut inner = self.lock();
            if inner.wipes != wipes {
                return Err(ControllerError::Unavailable("simulated machine is lost".into()));
            }
            if !inner.containers.contains_key(&id) {
                inner.numbers += 1;
                let number = inner.numbers;
                inner.containers.insert(id, Container { state: watch::channel(RunState::Created).0, number });
            }
        }
        self.step(id, "prepared");
        self.status(id)
    }

    fn pause(&self, least_ms: u64, most_ms: u64) -> tokio::time::Sleep {
        let ms = self.lock().rng.random_range(least_ms..=most_ms);
        tokio::time::sleep(Duration::from_millis(ms))
    }

    fn happens(&self, chance: impl Fn(&Mishaps) -> f64) -> bool {
        let mut inner = self.lock();
        let chance = chance(&inner.mishaps);
        inner.rng.random::<f64>() < chance
    }

    fn status(&self, id: TaskId) -> Result<ContainerStatus, ControllerError> {
        let inner = self.lock();
        let container = inner.containers.get(&id).ok_or(ControllerError::NotFound(id))?;
        let exit_code = match &*container.state.borrow() {
            RunState::Exited(exit) => Some(exit.code),
            _ => None,
        };
        let container_id = format!("h{}-{}", self.host, container.number);
        Ok(ContainerStatus { container_id, pid: None, exit_code, oom_killed: false })
    }

    fn watch(&self, id: TaskId) -> Result<watch::Receiver<RunState>, ControllerError> {
        let inner = self.lock();
        inner.containers.get(&id).map(|c| c.state.subscribe()).ok_or(ControllerError::NotFound(id))
    }

    fn exit(&self, id: TaskId, code: i64) {
        if let Some(container) = self.lock().containers.get(&id) {
            container.state.send_if_modified(|state| {
                let ends = !matches!(state, RunState::Exited(_));
                if ends {
                    *state = RunState::Exited(ExitStatus { code, ..ExitStatus::default() });
                }
                ends
            });
        }
    }

    async fn until_exit(&self, id: TaskId) -> Result<ExitStatus, ControllerError> {
        let mut state = self.watch(id)?;
        loop {
            if let RunState::Exited(exit) = &*state.borrow_and_update() {
                return Ok(exit.clone());
            }
            if state.changed().await.is_err() {
                return Err(ControllerError::NotFound(id));
            }
        }
    }
}

impl Controller for Engine {
    fn plain(&self) -> Option<&dyn PlainContainers> {
        Some(self)
    }

    fn describe(&self) -> BoxFuture<'_, Result<NodeDescription, ControllerError>> {
        Box::pin(async move {
            self.answer()?;
            Ok(NodeDescription {
                platform: Platform { os: "linux".into(), architecture: "x86_64".into() },
                resources: Resources {
                    nano_cpus: 8_000_000_000,
                    memory_bytes: 16 << 30,
                    ..Resources::default()
                },
                engine: EngineInfo { version: "simulated".into(), ..EngineInfo::default() },
                ..NodeDescription::default()
            })
        })
    }

    fn prepare<'a>(
        &'a self,
        task: &'a Task,
        _: Progress,
    ) -> BoxFuture<'a, Result<ContainerStatus, ControllerError>> {
        Box::pin(async move {
            self.answer()?;
            // An engine goes on with what it was asked for, also when nobody waits for it any more.
            let (tell, told) = oneshot::channel();
            let (engine, id, wipes) = (self.clone(), task.id, self.lock().wipes);
            tokio::spawn(async move {
                engine.pause(5, 50).await;
                if engine.happens(|mishaps| mishaps.slow_starts) {
                    engine.pause(200, 5_000).await;
                }
                let _ = tell.send(engine.make(id, wipes));
            });
            told.await
                .unwrap_or_else(|_| Err(ControllerError::Unavailable("simulated engine is gone".into())))
        })
    }

    fn start<'a>(&'a self, task: &'a Task) -> BoxFuture<'a, Result<ContainerStatus, ControllerError>> {
        Box::pin(async move {
            self.answer()?;
            self.pause(50, 400).await;
            if self.happens(|mishaps| mishaps.slow_starts) {
                self.pause(1_000, 10_000).await;
            }
            let crash =
                self.happens(|mishaps| mishaps.crashes) || task.spec.container.image.starts_with(CRASHES);
            let crash_after = {
                let mut inner = self.lock();
                let after = inner.rng.random_range(10..2_000);
                let container = inner.containers.get(&task.id).ok_or(ControllerError::NotFound(task.id))?;
                container.state.send_if_modified(|state| {
                    let starts = *state == RunState::Created;
                    if starts {
                        *state = RunState::Running { healthy: None };
                    }
                    starts
                });
                inner.started.insert(task.id);
                crash.then(|| Duration::from_millis(after))
            };
            self.step(task.id, "started");
            if let Some(after) = crash_after {
                let (engine, id) = (self.clone(), task.id);
                tokio::spawn(async move {
                    tokio::time::sleep(after).await;
                    engine.exit(id, 1);
                    engine.step(id, "exited");
                });
            }
            self.status(task.id)
        })
    }

    fn wait_healthy(&self, task: TaskId) -> BoxFuture<'_, Result<RunState, ControllerError>> {
        Box::pin(async move {
            self.answer()?;
            Ok(self.watch(task)?.borrow().clone())
        })
    }

    fn wait(&self, task: TaskId) -> BoxFuture<'_, Result<ExitStatus, ControllerError>> {
        Box::pin(async move {
            self.answer()?;
            self.until_exit(task).await
        })
    }

    fn stop<'a>(&'a self, task: &'a Task) -> BoxFuture<'a, Result<ExitStatus, ControllerError>> {
        Box::pin(async move {
            self.answer()?;
            if let Some(mesh) = self.mesh.get().filter(|_| self.serves(task.id)) {
                mesh.stops(task.id);
            }
            self.pause(10, 100).await;
            let deaf = self.happens(|mishaps| mishaps.slow_stops);
            if deaf {
                tokio::time::sleep(task.spec.container.stop_grace()).await;
            }
            self.exit(task.id, if deaf { 137 } else { 143 });
            self.step(task.id, "stopped");
            self.until_exit(task.id).await
        })
    }

    fn remove(&self, task: TaskId) -> BoxFuture<'_, Result<(), ControllerError>> {
        Box::pin(async move {
            self.answer()?;
            self.pause(1, 10).await;
            self.exit(task, 137);
            self.lock().containers.remove(&task);
            self.step(task, "removed");
            Ok(())
        })
    }

    fn inspect(&self, task: TaskId) -> BoxFuture<'_, Result<LocalContainer, ControllerError>> {
        Box::pin(async move {
            self.answer()?;
            let state = self.watch(task)?.borrow().clone();
            Ok(LocalContainer { task_id: task, state, status: self.status(task)? })
        })
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<LocalContainer>, ControllerError>> {
        Box::pin(async move {
            self.answer()?;
            let ids: Vec<_> = self.lock().containers.keys().copied().collect();
            let mut found = Vec::with_capacity(ids.len());
            for id in ids {
                found.push(self.inspect(id).await?);
            }
            Ok(found)
        })
    }
}
