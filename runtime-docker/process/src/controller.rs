//! The controller whose containers are plain processes.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shoal_core::model::{
    ContainerStatus, EngineInfo, NodeDescription, NodeId, Platform, Resources, Task, TaskId,
};
use shoal_core::task::{
    BoxFuture, Controller, ControllerError, ExitStatus, LocalContainer, Progress, RunState,
};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::cgroup;
use crate::group::{kill_all, signal};
use crate::launch::Launch;
use crate::proc::{self, ProcessId};
use crate::record::{Folder, Record};

/// Between two looks at a process that is not our child.
const ADOPTED_POLL: Duration = Duration::from_millis(250);
/// Between two looks at one whose end we are told.
const CHILD_POLL: Duration = Duration::from_secs(2);
/// How long the shell may take to begin, on a host that is busy.
const SETTLE_TIME_MAX: Duration = Duration::from_secs(5);
const SETTLE_POLL: Duration = Duration::from_millis(2);
/// How long the kernel may take to end what was killed.
const KILL_TIME_MAX: Duration = Duration::from_secs(10);

type Answer<T> = Result<T, ControllerError>;

/// Runs tasks as plain child processes.
pub struct ProcessController {
    folder: PathBuf,
    node: NodeId,
    hostname: String,
    programs: BTreeMap<String, Vec<String>>,
    /// Turns true when a child of ours ends.
    ends: Mutex<BTreeMap<TaskId, watch::Receiver<bool>>>,
}

impl ProcessController {
    /// Tasks of the node `node`, with a folder for each in `folder`. Processes that run there already are found again.
    ///
    /// # Errors
    /// If the folder cannot be made.
    pub fn open(folder: &Path, node: NodeId, hostname: &str) -> io::Result<Self> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        Ok(Self {
            folder: folder.to_path_buf(),
            node,
            hostname: hostname.to_string(),
            programs: BTreeMap::new(),
            ends: Mutex::default(),
        })
    }

    /// Reserve an image name: a task that names it and no command runs this program, with the task's arguments behind.
    #[must_use]
    pub fn with_program(mut self, image: &str, arguments: Vec<String>) -> Self {
        self.programs.insert(image.to_string(), arguments);
        self
    }

    /// Where a task's output is, as `stdout.log` and `stderr.log`.
    #[must_use]
    pub fn task_folder(&self, task: TaskId) -> PathBuf {
        self.folder.join(task.to_string())
    }

    fn ends(&self) -> MutexGuard<'_, BTreeMap<TaskId, watch::Receiver<bool>>> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn launch(&self, task: &Task) -> Answer<Launch> {
        Launch::of(task, self.node, &self.hostname, &self.programs).map_err(ControllerError::Task)
    }

    fn read(&self, task: TaskId) -> Answer<(Folder, Record)> {
        let folder = Folder::new(&self.folder, task);
        let record = folder.read().map_err(unavailable)?.ok_or(ControllerError::NotFound(task))?;
        if record.node != self.node.to_string() {
            return Err(ControllerError::NotFound(task));
        }
        Ok((folder, record))
    }

    fn look(&self, task: TaskId) -> Answer<LocalContainer> {
        let (folder, record) = self.read(task)?;
        let (state, pid) = folder.state(&record);
        let mut status = ContainerStatus { container_id: record.name, pid, ..ContainerStatus::default() };
        if let RunState::Exited(exit) = &state {
            status.exit_code = Some(exit.code);
            status.oom_killed = exit.oom_killed;
        }
        Ok(LocalContainer { task_id: task, state, status })
    }

    fn make(&self, task: &Task) -> Answer<ContainerStatus> {
        match self.look(task.id) {
            Ok(found) => return Ok(found.status),
            Err(ControllerError::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
        self.launch(task)?;
        let (name, node) = (task.name(), self.node.to_string());
        let record = Record { name, node, process: None, killed: false, cgroups: Vec::new() };
        Folder::new(&self.folder, task.id).write(&record).map_err(unavailable)?;
        Ok(ContainerStatus { container_id: record.name, ..ContainerStatus::default() })
    }

    async fn run(&self, task: &Task) -> Answer<ContainerStatus> {
        let found = self.look(task.id)?;
        if found.state != RunState::Created {
            return Ok(found.status);
        }
        let (folder, mut record) = self.read(task.id)?;
        let launch = self.launch(task)?;
        let limits = &task.spec.resources.limits;
        if cgroup::is_wanted(limits) {
            let (groups, troubles) = cgroup::make(&task.id.to_string(), limits);
            record.cgroups = groups;
            folder.write(&record).map_err(unavailable)?;
            for trouble in troubles {
                tracing::warn!(task = %task.id, trouble, "this host does not let the task be limited; it runs without");
            }
        }
        let spawned = launch.spawn(&folder, task, &record.cgroups);
        let mut child = spawned.map_err(|error| ControllerError::Task(format!("cannot start: {error}")))?;
        record.process = child.id().and_then(ProcessId::of);
        let (told, end) = watch::channel(false);
        self.ends().insert(task.id, end);
        tokio::spawn(async move {
            // The code is in the exit file; this reaps the shell and wakes who waits.
            let _ = child.wait().await;
            let _ = told.send(true);
        });
        folder.write(&record).map_err(unavailable)?;
        if let Some(process) = &record.process {
            // A signal that comes before the shell is ready would end the shell and lose the exit code.
            let deadline = Instant::now() + SETTLE_TIME_MAX;
            while !folder.is_settled(process) && Instant::now() < deadline {
                tokio::time::sleep(SETTLE_POLL).await;
            }
        }
        let pid = record.process.map(|process| process.pid);
        Ok(ContainerStatus { container_id: record.name, pid, ..ContainerStatus::default() })
    }

    async fn ended(&self, task: TaskId) -> Answer<ExitStatus> {
        loop {
            // Taken before the look, so that an end in between is not slept over.
            let end = self.ends().get(&task).cloned();
            if let RunState::Exited(exit) = self.look(task)?.state {
                return Ok(exit);
            }
            match end {
                Some(mut end) if !*end.borrow() => {
                    // Told, or given up by the task that tells: look again either way.
                    let _ = tokio::time::timeout(CHILD_POLL, end.wait_for(|ended| *ended)).await;
                }
                _ => tokio::time::sleep(ADOPTED_POLL).await,
            }
        }
    }

    fn process(&self, task: TaskId) -> Answer<Option<ProcessId>> {
        let (folder, record) = self.read(task)?;
        Ok(match folder.state(&record) {
            (RunState::Running { .. }, Some(pid)) => ProcessId::of(pid),
            _ => None,
        })
    }

    async fn stopped(&self, task: &Task) -> Answer<ExitStatus> {
        if self.look(task.id)?.state == RunState::Created {
            return Ok(ExitStatus::default());
        }
        if let Some(process) = self.process(task.id)? {
            // What a node of another version made is stopped as well as can be.
            let number = self.launch(task).map_or(libc::SIGTERM, |launch| launch.stop_signal());
            signal(&process, number).map_err(unavailable)?;
            let grace = task.spec.container.stop_grace();
            if let Ok(result) = tokio::time::timeout(grace, self.ended(task.id)).await {
                return result;
            }
        }
        self.kill(task.id).await
    }

    async fn kill(&self, task: TaskId) -> Answer<ExitStatus> {
        let deadline = Instant::now() + KILL_TIME_MAX;
        while let Some(process) = self.process(task)? {
            let (folder, record) = self.read(task)?;
            if !record.killed {
                folder.write(&Record { killed: true, ..record }).map_err(unavailable)?;
            }
            signal(&process, libc::SIGKILL).map_err(unavailable)?;
            if Instant::now() >= deadline {
                return Err(ControllerError::Unavailable(format!("process {} does not end", process.pid)));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        match self.look(task)?.state {
            RunState::Exited(exit) => Ok(exit),
            _ => Ok(ExitStatus::default()),
        }
    }

    async fn removed(&self, task: TaskId) -> Answer<()> {
        let (folder, record) = match self.read(task) {
            Ok(found) => found,
            Err(ControllerError::NotFound(_)) => return Ok(()),
            Err(error) => return Err(error),
        };
        self.kill(task).await?;
        let deadline = Instant::now() + KILL_TIME_MAX;
        loop {
            kill_all(&cgroup::members(&record.cgroups));
            match cgroup::remove(&record.cgroups) {
                Ok(()) => break,
                Err(error) if Instant::now() >= deadline => return Err(unavailable(error)),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
        folder.remove().map_err(unavailable)?;
        self.ends().remove(&task);
        Ok(())
    }

    fn all(&self) -> Answer<Vec<LocalContainer>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.folder).map_err(unavailable)? {
            let name = entry.map_err(unavailable)?.file_name();
            let Some(task) = name.to_str().and_then(|name| name.parse::<TaskId>().ok()) else { continue };
            match self.look(task) {
                Ok(container) => found.push(container),
                Err(ControllerError::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }
}

/// The disk and the kernel play the engine's part: when they fail, no task is to blame.
fn unavailable(error: io::Error) -> ControllerError {
    ControllerError::Unavailable(error.to_string())
}

impl Controller for ProcessController {
    fn describe(&self) -> BoxFuture<'_, Answer<NodeDescription>> {
        let cpus = std::thread::available_parallelism().map_or(1, |cpus| cpus.get() as u64);
        let description = NodeDescription {
            hostname: self.hostname.clone(),
            platform: Platform { os: "linux".into(), architecture: std::env::consts::ARCH.into() },
            resources: Resources {
                nano_cpus: cpus * 1_000_000_000,
                memory_bytes: proc::memory_bytes(),
                ..Resources::default()
            },
            engine: EngineInfo { version: "process".into(), ..EngineInfo::default() },
            addr: String::new(),
        };
        Box::pin(async { Ok(description) })
    }

    fn prepare<'a>(&'a self, task: &'a Task, _progress: Progress) -> BoxFuture<'a, Answer<ContainerStatus>> {
        Box::pin(async move {
            if let Some(place) = task.networks.first() {
                let words = format!(
                    "network {}: processes share this host's addresses, so networks need a container engine",
                    place.network.name
                );
                return Err(ControllerError::Task(words));
            }
            self.make(task)
        })
    }

    fn start<'a>(&'a self, task: &'a Task) -> BoxFuture<'a, Answer<ContainerStatus>> {
        Box::pin(self.run(task))
    }

    fn wait_healthy(&self, task: TaskId) -> BoxFuture<'_, Answer<RunState>> {
        // Health checks are refused here, so what runs is healthy.
        Box::pin(async move { Ok(self.look(task)?.state) })
    }

    fn addresses(&self, _: TaskId) -> BoxFuture<'_, Answer<Vec<IpAddr>>> {
        // It shares this host's own.
        Box::pin(std::future::ready(Ok(vec![IpAddr::V4(Ipv4Addr::LOCALHOST)])))
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
        Box::pin(async move { self.look(task) })
    }

    fn list(&self) -> BoxFuture<'_, Answer<Vec<LocalContainer>>> {
        Box::pin(async move { self.all() })
    }
}
