//! A container runtime in memory that fails and dawdles as told, and remembers what it was asked.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use shoal_core::model::{ContainerStatus, NodeDescription, Task, TaskId};
use shoal_core::task::{
    Action, BoxFuture, Controller, ControllerError, ExitStatus, LocalContainer, Progress, RunState,
};
use tokio::sync::Notify;

#[derive(Default)]
pub(super) struct World {
    pub(super) containers: BTreeMap<TaskId, RunState>,
    /// Every call, in order.
    pub(super) calls: Vec<(Action, TaskId)>,
    /// Containers made for each task, ever.
    pub(super) made: BTreeMap<TaskId, u32>,
    /// Does not answer.
    pub(super) down: bool,
    /// Stops never return.
    pub(super) hang_stops: bool,
    /// What a started container says of its health.
    pub(super) health: Option<bool>,
    /// Why a prepare fails.
    pub(super) refuse: Option<String>,
    /// Lines of progress of a pull, a second each, and for which task.
    pub(super) slow_pull: Option<TaskId>,
    busy: BTreeMap<Action, usize>,
    pub(super) busy_max: BTreeMap<Action, usize>,
}

#[derive(Clone, Default)]
pub(super) struct Fake {
    world: Arc<Mutex<World>>,
    changed: Arc<Notify>,
}

type Answer<T> = Result<T, ControllerError>;

impl Fake {
    pub(super) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    pub(super) fn alter(&self, change: impl FnOnce(&mut World)) {
        change(&mut self.world());
        self.changed.notify_waiters();
    }

    pub(super) fn exit(&self, task: TaskId, code: i64) {
        self.alter(|world| {
            let exit = ExitStatus { code, ..ExitStatus::default() };
            world.containers.insert(task, RunState::Exited(exit));
        });
    }

    pub(super) fn state(&self, task: TaskId) -> Option<RunState> {
        self.world().containers.get(&task).cloned()
    }

    pub(super) fn calls_of(&self, task: TaskId) -> Vec<Action> {
        self.world().calls.iter().filter(|(_, id)| *id == task).map(|(action, _)| *action).collect()
    }

    /// A call that takes a while, and fails if the runtime is away at its end.
    async fn call<T>(
        &self,
        action: Action,
        task: TaskId,
        time: Duration,
        work: impl FnOnce(&mut World) -> Answer<T>,
    ) -> Answer<T> {
        struct Busy<'a>(&'a Fake, Action);
        impl Drop for Busy<'_> {
            fn drop(&mut self) {
                *self.0.world().busy.get_mut(&self.1).unwrap() -= 1;
            }
        }
        {
            let mut world = self.world();
            world.calls.push((action, task));
            let busy = world.busy.entry(action).or_default();
            *busy += 1;
            let now = *busy;
            let max = world.busy_max.entry(action).or_default();
            *max = now.max(*max);
        }
        let _busy = Busy(self, action);
        tokio::time::sleep(time).await;
        let mut world = self.world();
        if world.down {
            return Err(ControllerError::Unavailable("connection refused".into()));
        }
        let result = work(&mut world);
        drop(world);
        self.changed.notify_waiters();
        result
    }

    /// Wait for what `look` sees; fails when the runtime goes away.
    async fn watch<T>(&self, task: TaskId, look: impl Fn(&RunState) -> Option<T>) -> Answer<T> {
        loop {
            let changed = self.changed.notified();
            {
                let world = self.world();
                if world.down {
                    return Err(ControllerError::Unavailable("connection reset".into()));
                }
                let state = world.containers.get(&task).ok_or(ControllerError::NotFound(task))?;
                if let Some(found) = look(state) {
                    return Ok(found);
                }
            }
            changed.await;
        }
    }
}

fn ids(task: TaskId) -> ContainerStatus {
    ContainerStatus { container_id: format!("c{task}"), ..ContainerStatus::default() }
}

fn ids_of(task: TaskId, state: &RunState) -> ContainerStatus {
    let (pid, exit_code) = match state {
        RunState::Created => (None, None),
        RunState::Running { .. } => (Some(1), None),
        RunState::Exited(exit) => (None, Some(exit.code)),
    };
    ContainerStatus { pid, exit_code, ..ids(task) }
}

const MS: Duration = Duration::from_millis(1);

impl Controller for Fake {
    fn describe(&self) -> BoxFuture<'_, Answer<NodeDescription>> {
        Box::pin(async { Ok(NodeDescription::default()) })
    }

    fn prepare<'a>(&'a self, task: &'a Task, progress: Progress) -> BoxFuture<'a, Answer<ContainerStatus>> {
        Box::pin(async move {
            if self.world().slow_pull == Some(task.id) {
                for second in 0..600 {
                    progress(format!("pulling: {second} s"));
                    tokio::time::sleep(1000 * MS).await;
                }
            }
            self.call(Action::Prepare, task.id, 10 * MS, |world| {
                if let Some(words) = &world.refuse {
                    return Err(ControllerError::Task(words.clone()));
                }
                let made = &mut world.made;
                let state = world.containers.entry(task.id).or_insert_with(|| {
                    *made.entry(task.id).or_default() += 1;
                    RunState::Created
                });
                Ok(ids_of(task.id, state))
            })
            .await
        })
    }

    fn start<'a>(&'a self, task: &'a Task) -> BoxFuture<'a, Answer<ContainerStatus>> {
        Box::pin(self.call(Action::Start, task.id, 200 * MS, |world| {
            let healthy = world.health;
            let state = world.containers.get_mut(&task.id).ok_or(ControllerError::NotFound(task.id))?;
            assert_eq!(*state, RunState::Created, "started twice");
            *state = RunState::Running { healthy };
            Ok(ids(task.id))
        }))
    }

    fn wait_healthy(&self, task: TaskId) -> BoxFuture<'_, Answer<RunState>> {
        self.world().calls.push((Action::WaitHealthy, task));
        Box::pin(self.watch(task, |state| {
            (*state != RunState::Running { healthy: Some(false) }).then(|| state.clone())
        }))
    }

    fn wait(&self, task: TaskId) -> BoxFuture<'_, Answer<ExitStatus>> {
        self.world().calls.push((Action::Wait, task));
        Box::pin(self.watch(task, |state| match state {
            RunState::Exited(exit) => Some(exit.clone()),
            _ => None,
        }))
    }

    fn stop<'a>(&'a self, task: &'a Task) -> BoxFuture<'a, Answer<ExitStatus>> {
        Box::pin(async move {
            if self.world().hang_stops {
                self.world().calls.push((Action::Stop, task.id));
                std::future::pending::<()>().await;
            }
            self.call(Action::Stop, task.id, 30 * MS, |world| {
                let state = world.containers.get_mut(&task.id).ok_or(ControllerError::NotFound(task.id))?;
                let exit = ExitStatus { code: 143, ..ExitStatus::default() };
                *state = RunState::Exited(exit.clone());
                Ok(exit)
            })
            .await
        })
    }

    fn remove(&self, task: TaskId) -> BoxFuture<'_, Answer<()>> {
        Box::pin(self.call(Action::Remove, task, 20 * MS, move |world| {
            world.containers.remove(&task);
            Ok(())
        }))
    }

    fn inspect(&self, task: TaskId) -> BoxFuture<'_, Answer<LocalContainer>> {
        Box::pin(self.call(Action::Inspect, task, MS, move |world| {
            let state = world.containers.get(&task).ok_or(ControllerError::NotFound(task))?.clone();
            Ok(LocalContainer { task_id: task, state, status: ids(task) })
        }))
    }

    fn list(&self) -> BoxFuture<'_, Answer<Vec<LocalContainer>>> {
        Box::pin(self.call(Action::Inspect, TaskId::default(), MS, |world| {
            let all = world.containers.iter().map(|(id, state)| LocalContainer {
                task_id: *id,
                state: state.clone(),
                status: ids(*id),
            });
            Ok(all.collect())
        }))
    }
}
