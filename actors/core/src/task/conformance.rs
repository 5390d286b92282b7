//! What every container runtime must do alike. Each runtime's tests, the simulator's too, call [`check`] with programs
//! that it can run; the suite uses nothing but the trait, so it needs no clock and no threads.

use std::sync::Arc;

use super::{BoxFuture, Controller, ControllerError, Progress, RunState};
use crate::model::{ContainerSpec, Task, TaskId, TaskSpec};

/// Lets a moment pass, in which a program that was started gets to its work: core has no clock.
pub type Pause = Arc<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

/// Programs for the suite, as the runtime under test can run them.
#[derive(Clone)]
pub struct Programs {
    /// Passes the time until a program has set up its signals.
    pub pause: Pause,
    /// Runs for minutes; ends at once on the stop signal.
    pub sleeps: ContainerSpec,
    /// Ends with exit code 0.
    pub ends_well: ContainerSpec,
    /// Ends with exit code 3.
    pub ends_with_3: ContainerSpec,
    /// Ignores the stop signal, with a grace of a second or less.
    pub is_stubborn: ContainerSpec,
    /// Cannot be prepared.
    pub is_impossible: ContainerSpec,
}

/// What went against the contract.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Violation(String);

type Verdict = Result<(), Violation>;

/// Run the whole suite. `task` is a pattern: each test takes it with an id of its own, counted up from its id.
///
/// # Errors
/// The first violation, in words.
pub async fn check(controller: &dyn Controller, task: &Task, programs: &Programs) -> Verdict {
    let with = |number: u128, container: &ContainerSpec| {
        let mut task = task.clone();
        task.id = TaskId::from_u128(task.id.as_u128() + number);
        let spec = TaskSpec { container: container.clone(), ..(*task.spec).clone() };
        task.spec = Arc::new(spec);
        task
    };
    let ids_before = ids(controller).await?;
    absent_tasks_are_named(controller, &with(0, &programs.sleeps)).await?;
    a_life(controller, &with(1, &programs.sleeps)).await?;
    an_end(controller, &with(2, &programs.ends_well), 0).await?;
    an_end(controller, &with(3, &programs.ends_with_3), 3).await?;
    a_stubborn_one(controller, &with(4, &programs.is_stubborn), &programs.pause).await?;
    a_removal_kills(controller, &with(5, &programs.sleeps)).await?;
    an_impossible_one(controller, &with(6, &programs.is_impossible)).await?;
    ensure(ids(controller).await? == ids_before, "something was left behind")
}

async fn ids(controller: &dyn Controller) -> Result<Vec<TaskId>, Violation> {
    let mut ids: Vec<TaskId> = works("list", controller.list().await)?.iter().map(|c| c.task_id).collect();
    ids.sort_unstable();
    Ok(ids)
}

async fn absent_tasks_are_named(controller: &dyn Controller, task: &Task) -> Verdict {
    let absent = ControllerError::NotFound(task.id);
    let inspect = controller.inspect(task.id).await.map(drop);
    let start = controller.start(task).await.map(drop);
    let stop = controller.stop(task).await.map(drop);
    let wait = controller.wait(task.id).await.map(drop);
    for (call, result) in [("inspect", inspect), ("start", start), ("stop", stop), ("wait", wait)] {
        ensure(result == Err(absent.clone()), &format!("{call} of an absent task: {result:?}"))?;
    }
    works("remove of an absent task", controller.remove(task.id).await)
}

async fn a_life(controller: &dyn Controller, task: &Task) -> Verdict {
    let made = works("prepare", controller.prepare(task, silent()).await)?;
    let again = works("second prepare", controller.prepare(task, silent()).await)?;
    ensure(made.container_id == again.container_id, "a second prepare made a second container")?;
    let found = works("inspect", controller.inspect(task.id).await)?;
    ensure(found.state == RunState::Created, &format!("prepared, but {:?}", found.state))?;
    let started = works("start", controller.start(task).await)?;
    ensure(started.container_id == made.container_id, "the start changed the container's id")?;
    ensure(started.pid.is_some(), "a started container has no process id")?;
    let again = works("second start", controller.start(task).await)?;
    ensure(again.pid == started.pid, "a second start started a second process")?;
    let state = works("wait_healthy", controller.wait_healthy(task.id).await)?;
    ensure(state == RunState::Running { healthy: None }, &format!("without health check, but {state:?}"))?;
    let listed = works("list", controller.list().await)?;
    let mine: Vec<_> = listed.iter().filter(|c| c.task_id == task.id).collect();
    ensure(mine.len() == 1, &format!("listed {} times", mine.len()))?;
    ensure(matches!(mine[0].state, RunState::Running { .. }), "runs, but is not listed so")?;
    let again = works("prepare of a running one", controller.prepare(task, silent()).await)?;
    ensure(again.pid == started.pid, "a prepare of a running container must tell its process id")?;
    let found = works("inspect", controller.inspect(task.id).await)?;
    ensure(found.status.pid == started.pid, "a prepare touched a running container")?;
    let stopped = works("stop", controller.stop(task).await)?;
    let found = works("inspect", controller.inspect(task.id).await)?;
    ensure(found.state == RunState::Exited(stopped.clone()), &format!("stopped, but {:?}", found.state))?;
    let again = works("second stop", controller.stop(task).await)?;
    ensure(again == stopped, "a second stop ended otherwise")?;
    let again = works("prepare of an ended one", controller.prepare(task, silent()).await)?;
    ensure(again.exit_code.is_some(), "a prepare of an ended container must tell its exit code")?;
    gone(controller, task).await
}

async fn an_end(controller: &dyn Controller, task: &Task, code: i64) -> Verdict {
    works("prepare", controller.prepare(task, silent()).await)?;
    works("start", controller.start(task).await)?;
    let exit = works("wait", controller.wait(task.id).await)?;
    ensure(exit.code == code && !exit.oom_killed, &format!("exit code {code} wanted, got {exit:?}"))?;
    let found = works("inspect", controller.inspect(task.id).await)?;
    ensure(found.state == RunState::Exited(exit), &format!("ended, but {:?}", found.state))?;
    ensure(found.status.exit_code == Some(code), "the exit code is not in its status")?;
    gone(controller, task).await
}

async fn a_stubborn_one(controller: &dyn Controller, task: &Task, pause: &Pause) -> Verdict {
    works("prepare", controller.prepare(task, silent()).await)?;
    works("start", controller.start(task).await)?;
    pause().await;
    let exit = works("stop", controller.stop(task).await)?;
    ensure(exit.code == 137, &format!("killed after its grace, but {exit:?}"))?;
    gone(controller, task).await
}

async fn a_removal_kills(controller: &dyn Controller, task: &Task) -> Verdict {
    works("prepare", controller.prepare(task, silent()).await)?;
    works("start", controller.start(task).await)?;
    gone(controller, task).await
}

async fn an_impossible_one(controller: &dyn Controller, task: &Task) -> Verdict {
    let result = controller.prepare(task, silent()).await;
    let refused = matches!(&result, Err(ControllerError::Task(text)) if !text.is_empty());
    ensure(refused, &format!("an impossible task must be refused in words, got {result:?}"))?;
    gone(controller, task).await
}

async fn gone(controller: &dyn Controller, task: &Task) -> Verdict {
    works("remove", controller.remove(task.id).await)?;
    let result = controller.inspect(task.id).await;
    ensure(result == Err(ControllerError::NotFound(task.id)), &format!("removed, but {result:?}"))
}

fn silent() -> Progress {
    Arc::new(|_| {})
}

fn works<T>(call: &str, result: Result<T, ControllerError>) -> Result<T, Violation> {
    result.map_err(|error| Violation(format!("{call}: {error}")))
}

fn ensure(holds: bool, words: &str) -> Verdict {
    if holds { Ok(()) } else { Err(Violation(words.to_string())) }
}
