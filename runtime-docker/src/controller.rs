//! The controller on a Docker engine, reached through its unix socket.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bollard::errors::Error;
use bollard::models::ContainerInspectResponse;
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, ListContainersOptionsBuilder,
    RemoveContainerOptionsBuilder, StartContainerOptions, StopContainerOptionsBuilder, WaitContainerOptions,
};
use bollard::{API_DEFAULT_VERSION, Docker};
use futures_util::StreamExt;
use shoal_core::model::{ContainerStatus, NodeDescription, NodeId, Task, TaskId};
use shoal_core::task::{
    BoxFuture, Controller, ControllerError, ExitStatus, LocalContainer, PlainContainers, Progress, RunState,
};

use crate::call::{CHANGE_TIME_MAX, Failure, LOOK_TIME_MAX, within};
use crate::networks::{self, Networks};
use crate::pull::{self, PullError};
use crate::{config, describe, labels, state};

/// The client's own time-out; each call is bounded by a shorter one of ours, but a wait may take for ever.
const CLIENT_TIME_MAX_S: u64 = 1 << 31;
/// How long a stop may take beyond its grace.
const STOP_TIME_EXTRA: Duration = Duration::from_secs(30);
/// What a container ends with that got a SIGKILL, from the kernel for its memory or from anybody.
const KILLED: i64 = 137;
/// So long after the end of a container its engine may learn that it was for its memory.
const MEMORY_NEWS: Duration = Duration::from_millis(250);
/// Between two looks at the health of a container that starts.
const HEALTH_POLL: Duration = Duration::from_millis(250);
/// Between two looks at the health of a container that runs.
const UNHEALTHY_POLL: Duration = Duration::from_secs(1);

type Answer<T> = Result<T, ControllerError>;

/// What is remembered of a container, so that a step needs no search.
#[derive(Debug, Clone)]
struct Known {
    id: String,
    /// Whether its health is checked, once that was seen.
    checked: Option<bool>,
}

/// Containers of one node on a Docker engine.
pub struct DockerController {
    socket: String,
    node: NodeId,
    hostname: String,
    docker: OnceLock<Docker>,
    known: Mutex<BTreeMap<TaskId, Known>>,
    pub(crate) networks: Networks,
    own: Box<config::OwnAddresses>,
}

impl DockerController {
    /// Containers of the node `node` on the engine behind `socket_path` (with or without `unix://`). Does not reach
    /// for the engine yet: it may come later. `hostname` is what `{{.Node.Hostname}}` stands for.
    #[must_use]
    pub fn connect(socket_path: &str, node: NodeId, hostname: &str) -> Self {
        Self {
            socket: socket_path.strip_prefix("unix://").unwrap_or(socket_path).to_string(),
            node,
            hostname: hostname.to_string(),
            docker: OnceLock::new(),
            known: Mutex::default(),
            networks: Networks::default(),
            own: Box::new(|| Ok(Vec::new())),
        }
    }

    /// With what tells the addresses of this host: ports that name some are bound at those. Without it a host has its loopback alone.
    #[must_use]
    pub fn with_addresses(
        self,
        own: impl Fn() -> std::io::Result<Vec<IpAddr>> + Send + Sync + 'static,
    ) -> Self {
        Self { own: Box::new(own), ..self }
    }

    pub(crate) fn docker(&self) -> Answer<&Docker> {
        if let Some(docker) = self.docker.get() {
            return Ok(docker);
        }
        let docker = Docker::connect_with_unix(&self.socket, CLIENT_TIME_MAX_S, API_DEFAULT_VERSION)
            .map_err(|error| Failure::Engine(error).unavailable())?;
        Ok(self.docker.get_or_init(|| docker))
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<TaskId, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, task: TaskId, id: &str) {
        self.known().entry(task).or_insert_with(|| Known { id: id.to_string(), checked: None }).id =
            id.to_string();
    }

    /// A container that is not there is not remembered either.
    fn forget_absent<T>(&self, task: TaskId, result: Answer<T>) -> Answer<T> {
        if matches!(result, Err(ControllerError::NotFound(_))) {
            self.known().remove(&task);
        }
        result
    }

    /// The engine's id of a task's container on this node.
    async fn find(&self, task: TaskId) -> Answer<String> {
        let known = self.known().get(&task).map(|known| known.id.clone());
        if let Some(id) = known {
            return Ok(id);
        }
        let found = self.list_labelled(Some(task)).await?.pop().ok_or(ControllerError::NotFound(task))?;
        let id = found.status.container_id;
        self.remember(task, &id);
        Ok(id)
    }

    async fn list_labelled(&self, task: Option<TaskId>) -> Answer<Vec<LocalContainer>> {
        let mut wanted = vec![format!("{}={}", labels::NODE_ID, self.node)];
        wanted.push(task.map_or_else(|| labels::TASK_ID.into(), |id| format!("{}={id}", labels::TASK_ID)));
        let filters = [("label".to_string(), wanted)].into();
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let listed = within(LOOK_TIME_MAX, self.docker()?.list_containers(Some(options))).await;
        let listed = listed.map_err(Failure::unavailable)?;
        for container in &listed {
            let found = state::of_summary(container).map(|found| found.task_id);
            let label = container.labels.as_ref().and_then(|labels| labels.get(labels::NETWORKS));
            if let (Some(task), Some(label)) = (found, label) {
                self.networks.found(task, label);
            }
        }
        Ok(listed.iter().filter_map(state::of_summary).collect())
    }

    async fn look(&self, task: TaskId) -> Answer<ContainerInspectResponse> {
        let id = self.find(task).await?;
        let call = self.docker()?.inspect_container(&id, None::<InspectContainerOptions>);
        let result = within(LOOK_TIME_MAX, call).await.map_err(|failure| failure.of_look(task));
        let container = self.forget_absent(task, result)?;
        let (run, _) = state::of_inspect(&container);
        if let (RunState::Running { healthy }, Some(known)) = (run, self.known().get_mut(&task)) {
            known.checked = Some(healthy.is_some());
        }
        Ok(container)
    }

    async fn create(&self, task: &Task, progress: &Progress) -> Answer<ContainerStatus> {
        let body = config::container(task, self.node, &self.hostname, &*self.own)?;
        let docker = self.docker()?;
        self.networks.ensure(docker, task.id, &task.networks).await?;
        let name = task.name();
        let create = || {
            let options = CreateContainerOptionsBuilder::default().name(&name).build();
            within(CHANGE_TIME_MAX, docker.create_container(Some(options), body.clone()))
        };
        // An image that is there costs no question; one that is not shows in the answer.
        let mut result = create().await;
        if let Err(failure) = &result
            && failure.status() == Some(404)
            && failure.words().contains("No such image")
        {
            let missing = failure.words();
            let spec = &task.spec.container;
            match pull::pull(docker, &spec.image, spec.registry_auth.as_ref(), progress).await {
                Ok(()) => result = create().await,
                Err(PullError::Refused(words)) => {
                    return Err(ControllerError::Task(format!("{missing}: {words}")));
                }
                Err(PullError::Unavailable(error)) => return Err(error),
            }
        }
        match result {
            Ok(made) => {
                self.remember(task.id, &made.id);
                self.networks.connect(docker, task, &made.id, &BTreeSet::new()).await?;
                Ok(ContainerStatus { container_id: made.id, ..ContainerStatus::default() })
            }
            Err(failure) if failure.status() == Some(409) => self.existing(task, failure).await,
            Err(failure)
                if failure.status() == Some(404)
                    && !task.networks.is_empty()
                    && failure.words().contains("network") =>
            {
                for place in &task.networks {
                    self.networks.forget(&place.network).await;
                }
                Err(ControllerError::Unavailable(failure.words()))
            }
            // Here, 404 is a volume driver, a runtime, an image after all: never the container.
            Err(failure) if failure.status() == Some(404) => Err(ControllerError::Task(failure.words())),
            Err(failure) => Err(failure.of_change(task.id)),
        }
    }

    /// The name is taken: by an earlier try of this very task, or by a stranger.
    async fn existing(&self, task: &Task, conflict: Failure) -> Answer<ContainerStatus> {
        self.known().remove(&task.id);
        match self.look(task.id).await {
            Ok(container) => {
                let (run, status) = state::of_inspect(&container);
                if run == RunState::Created {
                    let in_already = networks::of_container(&container);
                    let docker = self.docker()?;
                    self.networks.connect(docker, task, &status.container_id, &in_already).await?;
                }
                Ok(status)
            }
            Err(ControllerError::NotFound(_)) => Err(ControllerError::Task(conflict.words())),
            Err(error) => Err(error),
        }
    }

    async fn start_created(&self, task: TaskId) -> Answer<ContainerStatus> {
        let id = self.find(task).await?;
        let call = self.docker()?.start_container(&id, None::<StartContainerOptions>);
        let result = within(CHANGE_TIME_MAX, call).await;
        let result = result.map_err(|failure| self.start_failure(task, failure));
        self.forget_absent(task, result)?;
        Ok(state::of_inspect(&self.look(task).await?).1)
    }

    fn start_failure(&self, task: TaskId, failure: Failure) -> ControllerError {
        // The engine says 404 too where a network or the program inside is missing.
        let gone = failure.words().to_lowercase().contains("no such container");
        match failure.status() {
            Some(404) if !gone => ControllerError::Task(failure.words()),
            _ => failure.of_change(task),
        }
    }

    async fn healthy(&self, task: TaskId) -> Answer<RunState> {
        if self.known().get(&task).is_some_and(|known| known.checked == Some(false)) {
            return Ok(RunState::Running { healthy: None });
        }
        loop {
            let container = self.look(task).await?;
            let (run, _) = state::of_inspect(&container);
            if run != (RunState::Running { healthy: Some(false) }) || state::is_unhealthy(&container) {
                return Ok(run);
            }
            tokio::time::sleep(HEALTH_POLL).await;
        }
    }

    async fn ended(&self, task: TaskId) -> Answer<ExitStatus> {
        let id = self.find(task).await?;
        loop {
            if self.checked(task).await? {
                tokio::select! {
                    biased;
                    ended = self.not_running(task, &id) => ended?,
                    unhealthy = self.unhealthy(task) => return unhealthy,
                }
            } else {
                self.not_running(task, &id).await?;
            }
            if let (RunState::Exited(exit), _) = state::of_inspect(&self.look(task).await?) {
                return if exit.code == KILLED { self.killed(task, exit).await } else { Ok(exit) };
            }
            // Not started yet, or started again by somebody.
            tokio::time::sleep(HEALTH_POLL).await;
        }
    }

    async fn checked(&self, task: TaskId) -> Answer<bool> {
        let known = self.known().get(&task).and_then(|known| known.checked);
        if let Some(checked) = known {
            return Ok(checked);
        }
        self.look(task).await?;
        Ok(self.known().get(&task).and_then(|known| known.checked).unwrap_or(false))
    }

    /// How a container ended that was killed: that it ran out of memory the engine may learn a moment later.
    async fn killed(&self, task: TaskId, exit: ExitStatus) -> Answer<ExitStatus> {
        if exit.oom_killed {
            return Ok(exit);
        }
        tokio::time::sleep(MEMORY_NEWS).await;
        match self.look(task).await.map(|container| state::of_inspect(&container).0) {
            Ok(RunState::Exited(later)) => Ok(later),
            _ => Ok(exit),
        }
    }

    /// The engine answers this call when the container stops; a broken answer is the engine's end, not the container's.
    async fn not_running(&self, task: TaskId, id: &str) -> Answer<()> {
        let docker = self.docker()?;
        let mut answer = std::pin::pin!(docker.wait_container(id, None::<WaitContainerOptions>));
        match answer.next().await {
            Some(Ok(_) | Err(Error::DockerContainerWaitError { .. })) => Ok(()),
            Some(Err(error)) => self.forget_absent(task, Err(Failure::Engine(error).of_look(task))),
            None => Err(ControllerError::Unavailable("the engine hung up".into())),
        }
    }

    async fn unhealthy(&self, task: TaskId) -> Answer<ExitStatus> {
        loop {
            tokio::time::sleep(UNHEALTHY_POLL).await;
            if state::is_unhealthy(&self.look(task).await?) {
                let error = "unhealthy container".to_string();
                return Ok(ExitStatus { code: 1, oom_killed: false, error });
            }
        }
    }

    async fn stopped(&self, task: &Task) -> Answer<ExitStatus> {
        let id = self.find(task.id).await?;
        let grace = task.spec.container.stop_grace();
        let seconds = i32::try_from(config::whole_seconds(grace)).unwrap_or(i32::MAX);
        let options = StopContainerOptionsBuilder::default().t(seconds).build();
        let call = self.docker()?.stop_container(&id, Some(options));
        let result = within(grace.saturating_add(STOP_TIME_EXTRA), call).await;
        self.forget_absent(task.id, result.map_err(|failure| failure.of_look(task.id)))?;
        match state::of_inspect(&self.look(task.id).await?).0 {
            RunState::Exited(exit) => Ok(exit),
            RunState::Created => Ok(ExitStatus::default()),
            RunState::Running { .. } => Err(ControllerError::Unavailable("it runs on after its stop".into())),
        }
    }

    async fn removed(&self, task: TaskId) -> Answer<()> {
        let id = match self.find(task).await {
            Ok(id) => id,
            Err(ControllerError::NotFound(_)) => {
                self.networks.leave(self.docker()?, task).await;
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        let call = self.docker()?.remove_container(&id, Some(options));
        match within(CHANGE_TIME_MAX, call).await.map_err(|failure| failure.of_look(task)) {
            Ok(()) | Err(ControllerError::NotFound(_)) => {
                self.known().remove(&task);
                self.networks.leave(self.docker()?, task).await;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

impl Controller for DockerController {
    fn describe(&self) -> BoxFuture<'_, Answer<NodeDescription>> {
        Box::pin(async {
            let info = within(LOOK_TIME_MAX, self.docker()?.info()).await;
            Ok(describe::of_info(info.map_err(Failure::unavailable)?))
        })
    }

    fn prepare<'a>(&'a self, task: &'a Task, progress: Progress) -> BoxFuture<'a, Answer<ContainerStatus>> {
        Box::pin(async move { self.create(task, &progress).await })
    }

    fn start<'a>(&'a self, task: &'a Task) -> BoxFuture<'a, Answer<ContainerStatus>> {
        Box::pin(self.start_created(task.id))
    }

    fn wait_healthy(&self, task: TaskId) -> BoxFuture<'_, Answer<RunState>> {
        Box::pin(self.healthy(task))
    }

    fn addresses(&self, task: TaskId) -> BoxFuture<'_, Answer<Vec<IpAddr>>> {
        Box::pin(async move { Ok(state::addresses(&self.look(task).await?)) })
    }

    fn wait(&self, task: TaskId) -> BoxFuture<'_, Answer<ExitStatus>> {
        Box::pin(self.ended(task))
    }

    fn stop<'a>(&'a self, task: &'a Task) -> BoxFuture<'a, Answer<ExitStatus>> {
        Box::pin(self.stopped(task))
    }

    fn remove(&self, task: TaskId) -> BoxFuture<'_, Answer<()>> {
        Box::pin(self.removed(task))
    }

    fn inspect(&self, task: TaskId) -> BoxFuture<'_, Answer<LocalContainer>> {
        Box::pin(async move {
            let (state, status) = state::of_inspect(&self.look(task).await?);
            Ok(LocalContainer { task_id: task, state, status })
        })
    }

    fn list(&self) -> BoxFuture<'_, Answer<Vec<LocalContainer>>> {
        Box::pin(self.list_labelled(None))
    }

    fn plain(&self) -> Option<&dyn PlainContainers> {
        Some(self)
    }
}
