//! What a container runtime must be able to do. Implemented by the Docker engine, by plain child
//! processes, and by the simulator; all pass the same suite.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

use super::plain::PlainContainers;
use crate::model::{ContainerStatus, NodeDescription, Task, TaskId};

/// A boxed future.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Receives a line of progress ("pulling layer 2 of 5") while a step runs.
pub type Progress = Arc<dyn Fn(String) + Send + Sync>;

/// Why a step failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControllerError {
    /// The task itself is at fault (no such image, bad mount): trying again is useless.
    #[error("{0}")]
    Task(String),
    /// The runtime does not answer or is restarting: the step is tried again, the task is not blamed.
    #[error("container runtime unavailable: {0}")]
    Unavailable(String),
    /// There is no container of that task.
    #[error("no container of task {0}")]
    NotFound(TaskId),
}

/// How a container ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExitStatus {
    /// Exit code.
    pub code: i64,
    /// Killed for lack of memory.
    pub oom_killed: bool,
    /// The runtime's words, if any.
    pub error: String,
}

/// Whether a container runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunState {
    /// Made, not started.
    Created,
    /// Runs; `healthy` is `None` without a health check, and `Some(false)` until the first success.
    Running {
        /// Health, where it is checked.
        healthy: Option<bool>,
    },
    /// Ended.
    Exited(ExitStatus),
}

/// A container found on this node that bears this node's and a task's label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalContainer {
    /// Its task.
    pub task_id: TaskId,
    /// Its state.
    pub state: RunState,
    /// Its ids.
    pub status: ContainerStatus,
}

/// A container runtime, seen by one node: it only ever touches containers that carry the node's label.
pub trait Controller: Send + Sync + 'static {
    /// What this node has and is: resources, platform, engine. `hostname` and `addr` are filled in by the caller.
    fn describe(&self) -> BoxFuture<'_, Result<NodeDescription, ControllerError>>;

    /// Fetch the image if it is missing and make the container, not started. Doing it twice is fine: one that is there already is left as it
    /// is, and its status has a process id or an exit code if it was started.
    fn prepare<'a>(
        &'a self,
        task: &'a Task,
        progress: Progress,
    ) -> BoxFuture<'a, Result<ContainerStatus, ControllerError>>;

    /// Start the prepared container. Starting a running one is fine.
    fn start<'a>(&'a self, task: &'a Task) -> BoxFuture<'a, Result<ContainerStatus, ControllerError>>;

    /// Wait until the container is healthy (at once if there is no health check), or has ended, or was found unhealthy
    /// for good, which is `Running { healthy: Some(false) }`.
    fn wait_healthy(&self, task: TaskId) -> BoxFuture<'_, Result<RunState, ControllerError>>;

    /// Wait until the container ends. With a health check it also returns, as a failed exit, once unhealthy:
    /// then with an error text, and the container may still run.
    fn wait(&self, task: TaskId) -> BoxFuture<'_, Result<ExitStatus, ControllerError>>;

    /// Whether tasks have traffic that must end before they are stopped.
    fn drains(&self) -> bool {
        false
    }

    /// Give the task no more traffic, and wait until what is under way has ended, for as long as its service allows.
    fn drain<'a>(&'a self, _task: &'a Task) -> BoxFuture<'a, ()> {
        Box::pin(std::future::ready(()))
    }

    /// Addresses at which the running container answers on this host; none if nobody can reach it.
    fn addresses(&self, _task: TaskId) -> BoxFuture<'_, Result<Vec<IpAddr>, ControllerError>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    /// Ask it to stop with its stop signal, kill it after the grace, and return how it ended.
    fn stop<'a>(&'a self, task: &'a Task) -> BoxFuture<'a, Result<ExitStatus, ControllerError>>;

    /// Remove the container, killing it if need be, with its anonymous volumes. A missing one is fine.
    fn remove(&self, task: TaskId) -> BoxFuture<'_, Result<(), ControllerError>>;

    /// Its state now.
    fn inspect(&self, task: TaskId) -> BoxFuture<'_, Result<LocalContainer, ControllerError>>;

    /// All of this node's containers, ended ones too.
    fn list(&self) -> BoxFuture<'_, Result<Vec<LocalContainer>, ControllerError>>;

    /// Its containers that are no tasks; none where there cannot be any.
    fn plain(&self) -> Option<&dyn PlainContainers> {
        None
    }
}
