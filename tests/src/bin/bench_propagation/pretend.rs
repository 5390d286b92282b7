//! Pretend workers: nodes whose containers are but names.

use std::collections::BTreeMap;
use std::io::{BufRead as _, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result, bail, ensure};
use shoal_actors::api::{JoinOptions, NodeApi as _};
use shoal_actors::clock::system_clock;
use shoal_actors::node::{Node, NodeConfig, Storage};
use shoal_actors::task_runner::Limits;
use shoal_core::model::{Availability, ContainerStatus, NodeDescription, Platform, Resources, Task, TaskId};
use shoal_core::pace::Pace;
use shoal_core::task::{
    BoxFuture, Controller, ControllerError, ExitStatus, LocalContainer, Progress, RunState,
};
use shoal_net::EndpointConfig;
use shoal_net::task::Scope;
use tokio::sync::{oneshot, watch};

use crate::watch::now;

/// What makes this program pretend workers, and the label of their engines.
pub(crate) const WORD: &str = "pretend";
/// Ports of their nodes, from this on.
const FIRST_PORT: u16 = 7000;
/// The lab's hosts have lower numbers.
const FIRST_HOST: u16 = 100;

type Answer<'a, T> = BoxFuture<'a, Result<T, ControllerError>>;

/// Join so many workers to a cluster, and end the containers that are asked for, a line each: `FOLDER ADDRESS COUNT MANAGER TOKEN`.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let [folder, address, count, manager, token] = args else { bail!("five words are wanted") };
    let (address, count) = (address.parse()?, count.parse()?);
    actix_rt::System::new().block_on(async {
        let (mut engines, mut nodes) = (Vec::new(), Vec::new());
        for number in 0..count {
            // Each its own: a node removes containers of tasks that it does not know.
            let engine = Engine::default();
            let node = node(&engine, &Path::new(folder).join(number.to_string()), address, number).await?;
            let join = JoinOptions {
                remotes: vec![manager.clone()],
                token: token.clone(),
                advertise: None,
                availability: Availability::Active,
            };
            node.join(join).await.with_context(|| format!("pretend worker {number}"))?;
            engines.push(engine);
            nodes.push(node);
        }
        println!("ready");
        let (tell, told) = oneshot::channel();
        std::thread::spawn(move || tell.send(obey(&engines)));
        told.await.context("nobody obeys")?
    })
}

async fn node(engine: &Engine, folder: &Path, address: IpAddr, number: u16) -> Result<Node> {
    std::fs::create_dir_all(folder)?;
    let listen = SocketAddr::new(address, FIRST_PORT + number);
    let (clock, engine) = (system_clock(), engine.clone());
    let config = NodeConfig {
        data_dir: folder.to_owned(),
        listen,
        advertise: Some(listen.to_string()),
        hostname: format!("h{}", FIRST_HOST + number),
        labels: BTreeMap::from([(WORD.to_owned(), "yes".to_owned())]),
        controller: Arc::new(move |_| Arc::new(engine.clone())),
        clock: clock.clone(),
        seed: number.into(),
        force_new_cluster: false,
        socket: EndpointConfig {
            reset_key: None,
            wire: shoal_net::bind_udp(listen)?,
            scope: Scope::new(),
            clock,
        },
        storage: Storage::default(),
        limits: Limits { prepares: 64, starts: 64, ..Limits::default() },
        membership: None,
        mesh: None,
        pace: Pace::USUAL,
    };
    Ok(Node::start(config).await?)
}

/// End containers until the input does. Each end is answered with its time.
fn obey(engines: &[Engine]) -> Result<()> {
    for line in std::io::stdin().lock().lines() {
        let task: TaskId = line?.parse().map_err(|error| anyhow::anyhow!("a task's id: {error}"))?;
        let at = now();
        let exit = ExitStatus { code: 1, ..ExitStatus::default() };
        let ended = engines.iter().any(|engine| engine.set(task, RunState::Exited(exit.clone())).is_ok());
        ensure!(ended, "no container of {task}");
        println!("{}", at.as_nanos());
        std::io::stdout().flush()?;
    }
    Ok(())
}

/// An engine whose containers are but names.
#[derive(Clone, Default)]
struct Engine(Arc<Mutex<BTreeMap<TaskId, watch::Sender<RunState>>>>);

impl Engine {
    fn containers(&self) -> MutexGuard<'_, BTreeMap<TaskId, watch::Sender<RunState>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Let a container come to a state, unless it has ended.
    fn set(&self, task: TaskId, to: RunState) -> Result<ContainerStatus, ControllerError> {
        let containers = self.containers();
        let container = containers.get(&task).ok_or(ControllerError::NotFound(task))?;
        if !matches!(*container.borrow(), RunState::Exited(_)) {
            container.send_replace(to);
        }
        Ok(ContainerStatus { container_id: task.to_string(), ..ContainerStatus::default() })
    }

    fn watch(&self, task: TaskId) -> Result<watch::Receiver<RunState>, ControllerError> {
        self.containers().get(&task).map(watch::Sender::subscribe).ok_or(ControllerError::NotFound(task))
    }

    fn local(&self, task: TaskId) -> Result<LocalContainer, ControllerError> {
        let state = self.watch(task)?.borrow().clone();
        let exit_code = if let RunState::Exited(exit) = &state { Some(exit.code) } else { None };
        let status =
            ContainerStatus { container_id: task.to_string(), exit_code, ..ContainerStatus::default() };
        Ok(LocalContainer { task_id: task, state, status })
    }
}

impl Controller for Engine {
    fn describe(&self) -> Answer<'_, NodeDescription> {
        Box::pin(std::future::ready(Ok(NodeDescription {
            platform: Platform { os: "linux".into(), architecture: "x86_64".into() },
            resources: Resources { nano_cpus: 8_000_000_000, memory_bytes: 16 << 30, ..Resources::default() },
            ..NodeDescription::default()
        })))
    }

    fn prepare<'a>(&'a self, task: &'a Task, _: Progress) -> Answer<'a, ContainerStatus> {
        self.containers().entry(task.id).or_insert_with(|| watch::channel(RunState::Created).0);
        Box::pin(std::future::ready(self.local(task.id).map(|found| found.status)))
    }

    fn start<'a>(&'a self, task: &'a Task) -> Answer<'a, ContainerStatus> {
        Box::pin(std::future::ready(self.set(task.id, RunState::Running { healthy: None })))
    }

    fn wait_healthy(&self, task: TaskId) -> Answer<'_, RunState> {
        Box::pin(std::future::ready(self.local(task).map(|found| found.state)))
    }

    fn wait(&self, task: TaskId) -> Answer<'_, ExitStatus> {
        Box::pin(async move {
            let mut state = self.watch(task)?;
            loop {
                if let RunState::Exited(exit) = &*state.borrow_and_update() {
                    return Ok(exit.clone());
                }
                state.changed().await.map_err(|_| ControllerError::NotFound(task))?;
            }
        })
    }

    fn stop<'a>(&'a self, task: &'a Task) -> Answer<'a, ExitStatus> {
        let exit = ExitStatus { code: 143, ..ExitStatus::default() };
        let ended = self.set(task.id, RunState::Exited(exit.clone()));
        Box::pin(std::future::ready(ended.map(|_| exit)))
    }

    fn remove(&self, task: TaskId) -> Answer<'_, ()> {
        self.containers().remove(&task);
        Box::pin(std::future::ready(Ok(())))
    }

    fn inspect(&self, task: TaskId) -> Answer<'_, LocalContainer> {
        Box::pin(std::future::ready(self.local(task)))
    }

    fn list(&self) -> Answer<'_, Vec<LocalContainer>> {
        let tasks: Vec<TaskId> = self.containers().keys().copied().collect();
        let all = tasks.into_iter().map(|task| self.local(task)).collect();
        Box::pin(std::future::ready(all))
    }
}
