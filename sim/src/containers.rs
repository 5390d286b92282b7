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

/// There is no such image.
pub const ABSENT: &str = "absent:";
/// Containers of such an image do not hear their stop signal.
pub const DEAF: &str = "deaf:";
/// Containers of such an image end by themselves, with the code behind it.
pub const ENDS: &str = "ends:";

/// How containers of such an image end by themselves.
fn ends_with(image: &str) -> Option<i64> {
    let code = image
        .strip_prefix(ENDS)
        .and_then(|rest| rest.split(':').next())
        .map(|code| code.parse().unwrap_or(0));
    code.or_else(|| image.starts_with(CRASHES).then_some(1))
}

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
    /// Where its health is checked: it never becomes healthy, or is so for a while only.
    #[serde(default)]
    pub sick: f64,
}

/// What becomes of a container's health once it is started.
#[derive(Debug, Clone, Copy)]
struct Health {
    healthy_after: Duration,
    /// Found unhealthy so long after that, or instead of it.
    sick_after: Option<Duration>,
    never: bool,
}

struct Container {
    state: watch::Sender<RunState>,
    number: u64,
    /// Found unhealthy for good.
    sick: bool,
}

struct Inner {
    containers: BTreeMap<TaskId, Container>,
    rng: ChaCha8Rng,
    mishaps: Mishaps,
    numbers: u64,
    away: bool,
    /// How often the machine was lost.
    wipes: u64,
    /// Tasks whose containers could serve once: they were started, and healthy where that is checked.
    ready: BTreeSet<TaskId>,
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
            ready: BTreeSet::new(),
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

    /// Whether the task's container is there and could never serve so far, nor one made before it: it was not started, or
    /// has not been healthy yet.
    #[must_use]
    pub fn is_unready(&self, task: TaskId) -> bool {
        let inner = self.lock();
        let unready = |container: &Container| {
            matches!(
                *container.state.borrow(),
                RunState::Created | RunState::Running { healthy: Some(false) }
            )
        };
        inner.containers.get(&task).is_some_and(unready) && !inner.ready.contains(&task)
    }

    /// The machine is lost, and all containers with it.
    pub fn wipe(&self) {
        let mut inner = self.lock();
        inner.containers.clear();
        inner.wipes += 1;
        self.plain.wipe();
    }

    /// The machine goes down and comes up again: no container of a task runs any more.
    pub fn reboot(&self) {
        self.all().into_iter().filter(|task| self.serves(*task)).for_each(|task| {
            self.exit(task, 137);
            self.step(task, "exited");
        });
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
    fn make(&self, id: TaskId, wipes: u64, image: &str) -> Result<ContainerStatus, ControllerError> {
        if self.happens(|mishaps| mishaps.prepare_fails) || image.starts_with(ABSENT) {
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
                let state = watch::channel(RunState::Created).0;
                inner.containers.insert(id, Container { state, number, sick: false });
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
        let runs = matches!(*container.state.borrow(), RunState::Running { .. });
        let pid = u32::try_from(container.number).ok().filter(|_| runs);
        Ok(ContainerStatus { container_id, pid, exit_code, oom_killed: false })
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

    /// What will become of its health.
    fn health(&self) -> Health {
        let (healthy_after, sick_after, never) = {
            let mut inner = self.lock();
            let rng = &mut inner.rng;
            (rng.random_range(50..3_000), rng.random_range(500..10_000), rng.random::<bool>())
        };
        let sick = self.happens(|mishaps| mishaps.sick);
        Health {
            healthy_after: Duration::from_millis(healthy_after),
            sick_after: sick.then(|| Duration::from_millis(sick_after)),
            never,
        }
    }

    /// It becomes healthy, and perhaps sick.
    async fn live(self, id: TaskId, health: Health) {
        tokio::time::sleep(health.healthy_after).await;
        if health.sick_after.is_none() || !health.never {
            self.lock().ready.insert(id);
            self.turn(id, true);
        }
        if let Some(after) = health.sick_after {
            tokio::time::sleep(after).await;
            self.turn(id, false);
        }
    }

    fn turn(&self, id: TaskId, healthy: bool) {
        let mut inner = self.lock();
        let Some(container) = inner.containers.get_mut(&id) else { return };
        container.sick = !healthy;
        let turns = container.state.send_if_modified(|state| {
            let runs = matches!(state, RunState::Running { .. });
            if runs {
                *state = RunState::Running { healthy: Some(healthy) };
            }
            runs
        });
        drop(inner);
        if turns {
            self.step(id, if healthy { "healthy" } else { "unhealthy" });
        }
    }

    fn is_sick(&self, id: TaskId) -> bool {
        self.lock().containers.get(&id).is_some_and(|container| container.sick)
    }

    /// Until it has ended or is found unhealthy, or until it is healthy if that is asked for.
    async fn until_verdict(&self, id: TaskId, healthy_too: bool) -> Result<RunState, ControllerError> {
        let mut watched = self.watch(id)?;
        loop {
            let state = watched.borrow_and_update().clone();
            let waits = match state {
                RunState::Running { healthy: Some(false) } => !self.is_sick(id),
                RunState::Running { .. } => !healthy_too,
                RunState::Created => !healthy_too,
                RunState::Exited(_) => false,
            };
            if !waits {
                return Ok(state);
            }
            if watched.changed().await.is_err() {
                return Err(ControllerError::NotFound(id));
            }
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
            let image = task.spec.container.image.clone();
            tokio::spawn(async move {
                engine.pause(5, 50).await;
                if engine.happens(|mishaps| mishaps.slow_starts) {
                    engine.pause(200, 5_000).await;
                }
                let _ = tell.send(engine.make(id, wipes, &image));
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
            let container = &task.spec.container;
            let ends = ends_with(&container.image);
            let crashes = self.happens(|mishaps| mishaps.crashes);
            let checked = container.healthcheck.is_some().then(|| self.health());
            let (ends_after, started) = {
                let mut inner = self.lock();
                let after = inner.rng.random_range(10..2_000);
                let container = inner.containers.get(&task.id).ok_or(ControllerError::NotFound(task.id))?;
                let started = container.state.send_if_modified(|state| {
                    let starts = *state == RunState::Created;
                    if starts {
                        *state = RunState::Running { healthy: checked.map(|_| false) };
                    }
                    starts
                });
                if checked.is_none() {
                    inner.ready.insert(task.id);
                }
                (Duration::from_millis(after), started)
            };
            self.step(task.id, "started");
            if let Some(code) = ends.or_else(|| crashes.then_some(1)) {
                let (engine, id) = (self.clone(), task.id);
                tokio::spawn(async move {
                    tokio::time::sleep(ends_after).await;
                    engine.exit(id, code);
                    engine.step(id, "exited");
                });
            }
            if let Some(health) = checked.filter(|_| started) {
                tokio::spawn(self.clone().live(task.id, health));
            }
            self.status(task.id)
        })
    }

    fn wait_healthy(&self, task: TaskId) -> BoxFuture<'_, Result<RunState, ControllerError>> {
        Box::pin(async move {
            self.answer()?;
            self.until_verdict(task, true).await
        })
    }

    fn wait(&self, task: TaskId) -> BoxFuture<'_, Result<ExitStatus, ControllerError>> {
        Box::pin(async move {
            self.answer()?;
            match self.until_verdict(task, false).await? {
                RunState::Exited(exit) => Ok(exit),
                // It may run on.
                _ => Ok(ExitStatus { code: 1, error: "unhealthy container".into(), ..ExitStatus::default() }),
            }
        })
    }

    fn stop<'a>(&'a self, task: &'a Task) -> BoxFuture<'a, Result<ExitStatus, ControllerError>> {
        Box::pin(async move {
            self.answer()?;
            if let Some(mesh) = self.mesh.get().filter(|_| self.serves(task.id)) {
                mesh.stops(task.id);
            }
            self.pause(10, 100).await;
            let deaf = self.happens(|mishaps| mishaps.slow_stops)
                || task.spec.container.image.starts_with(DEAF) && self.serves(task.id);
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

#[cfg(test)]
mod tests {
    use shoal_core::model::{ContainerSpec, HealthConfig, TaskSpec};
    use shoal_core::task::conformance::{Programs, check};

    use super::*;
    use crate::sample;

    fn engine(seed: u64) -> Engine {
        Engine::new(1, seed, Slot::default(), Trace::new(false))
    }

    fn container(image: &str) -> ContainerSpec {
        ContainerSpec {
            image: image.to_owned(),
            stop_grace_period: Some(Duration::from_millis(500)),
            ..ContainerSpec::default()
        }
    }

    fn task(number: u128, container: ContainerSpec) -> Task {
        Task { spec: Arc::new(TaskSpec { container, ..TaskSpec::default() }), ..sample::task(number) }
    }

    async fn started(engine: &Engine, task: &Task) {
        engine.prepare(task, Arc::new(|_| {})).await.unwrap();
        engine.start(task).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn simulated_containers_keep_the_contract_of_every_runtime() {
        let programs = Programs {
            pause: Arc::new(|| Box::pin(tokio::time::sleep(Duration::from_secs(3)))),
            sleeps: container("image:1"),
            ends_well: container("ends:0"),
            ends_with_3: container("ends:3:1"),
            is_stubborn: container("deaf:1"),
            is_impossible: container("absent:1"),
        };
        for seed in 0..20 {
            check(&engine(seed), &task(100, container("image:1")), &programs).await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_checked_container_is_ready_once_it_is_healthy_and_its_end_is_told_when_it_is_sick() {
        let test = ["CMD", "check"].map(str::to_owned).into();
        let healthcheck = Some(HealthConfig { test, ..HealthConfig::default() });
        let checked = task(1, ContainerSpec { healthcheck, ..container("image:1") });
        let (mut healthy, mut sick) = (0, 0);
        for seed in 0..40 {
            let engine = engine(seed);
            engine.set_mishaps(Mishaps { sick: 0.5, ..Mishaps::default() });
            started(&engine, &checked).await;
            assert!(engine.is_unready(checked.id) && engine.serves(checked.id));
            match engine.wait_healthy(checked.id).await.unwrap() {
                RunState::Running { healthy: Some(true) } => assert!(!engine.is_unready(checked.id)),
                state => {
                    assert_eq!(state, RunState::Running { healthy: Some(false) });
                    assert!(engine.is_unready(checked.id), "never healthy");
                }
            }
            match tokio::time::timeout(Duration::from_secs(60), engine.wait(checked.id)).await {
                Ok(exit) => {
                    assert_eq!(exit.unwrap().error, "unhealthy container");
                    sick += 1;
                }
                Err(_) => healthy += 1,
            }
        }
        assert!(healthy > 5 && sick > 5, "{healthy} {sick}");
    }
}
