//! The daemon: puts the node, its front doors and its metrics together, and takes them apart at the stop.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rand::RngCore as _;
use shoal_actors::api::{ApiError, InitOptions, JoinOptions, LocalState, NodeApi as _};
use shoal_actors::clock::system_clock;
use shoal_actors::mesh;
use shoal_actors::node::{ControllerFactory, Node, NodeConfig as ActorsConfig, Storage};
use shoal_actors::task_runner::Limits;
use shoal_core::model::{ClusterSpec, NodeId};
use shoal_core::pace::Pace;
use shoal_core::task::Controller;
use shoal_net::EndpointConfig;
use shoal_net::task::Scope;
use shoal_runtime_docker::DockerController;
use shoal_runtime_process::ProcessController;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::config::{ApiListen, DataDir, Engine, NodeConfig, Start};
use crate::http::{ApiListener, EngineProxy, ListenAddr, ServeOptions, TlsFiles, serve, serve_metrics};

/// Tries of `--init` and `--join` are this far apart, at first and at most.
const START_RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));
/// The clean stop is given up after this long.
const STOP_MAX: Duration = Duration::from_secs(20);

/// Run the daemon until it is asked to stop (SIGTERM, SIGINT).
///
/// # Errors
/// If the data folder, a port or a socket cannot be had, or what is on disk cannot be read.
pub async fn run(config: NodeConfig) -> anyhow::Result<ExitCode> {
    let folder = DataDir::open(&config.data_dir)?;
    let node = start_node(&config).await?;
    let (stop, stopped) = watch::channel(false);
    let listeners = listeners(&config).await?;
    for listener in &listeners {
        tracing::info!(api = %listener.addr(), "API ready");
    }
    let options = ServeOptions::default();
    let refusals = Box::new(options.refusals.clone());
    node.metrics().with_registry(|registry| registry.register_collector(refusals));
    let api = actix_rt::spawn(serve(
        listeners,
        Arc::new(node.clone()),
        EngineProxy { socket: engine_socket(&config) },
        options,
        stopped.clone(),
    ));
    let metrics = start_metrics(&config, &node, stopped.clone()).await?;
    let entering = actix_rt::spawn(enter(node.clone(), config.clone()));
    let code = wait(&node).await?;
    entering.abort();
    let stopping = async {
        // The API first: nothing is promised that would not be done.
        let _ = stop.send(true);
        let _ = api.await;
        if let Some(metrics) = metrics {
            let _ = metrics.await;
        }
        node.stop().await;
    };
    if tokio::time::timeout(STOP_MAX, stopping).await.is_err() {
        tracing::warn!("the clean stop took too long; leaving as it is");
    }
    drop(folder);
    tracing::info!("stopped");
    Ok(code)
}

async fn start_node(config: &NodeConfig) -> anyhow::Result<Node> {
    let hostname = config.name.clone().map_or_else(hostname, Ok)?;
    let clock = system_clock();
    let socket = EndpointConfig {
        reset_key: None,
        wire: shoal_net::bind_udp(config.listen)?,
        scope: Scope::new(),
        clock: clock.clone(),
    };
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let names = shoal_net::names::Config { outside: config.names, ..Default::default() };
    let actors = ActorsConfig {
        data_dir: config.data_dir.clone(),
        listen: config.listen,
        advertise: config.advertise.map(|addr| addr.to_string()),
        hostname: hostname.clone(),
        labels: config.labels.clone(),
        controller: controller(config, &hostname)?,
        clock,
        seed: rand::rng().next_u64(),
        force_new_cluster: config.start == Start::ForceNewCluster,
        socket,
        storage: Storage::default(),
        limits: Limits::for_processors(processors),
        membership: None,
        mesh: Some(mesh::real(processors, config.publish.clone(), names)),
        pace: Pace::USUAL,
    };
    let node = Node::start(actors).await.context("the node cannot start")?;
    tracing::info!(listen = %config.listen, engine = %config.engine, data = %config.data_dir.display(), "node started");
    Ok(node)
}

fn hostname() -> anyhow::Result<String> {
    let mut buffer = [0u8; 256];
    // SAFETY: a valid buffer and its length.
    let result = unsafe { libc::gethostname(buffer.as_mut_ptr().cast(), buffer.len() - 1) };
    anyhow::ensure!(result == 0, "the host's name cannot be had: say one with --name");
    let end = buffer.iter().position(|b| *b == 0).unwrap_or(buffer.len());
    Ok(String::from_utf8_lossy(&buffer[..end]).into_owned())
}

fn engine_socket(config: &NodeConfig) -> Option<std::path::PathBuf> {
    match &config.engine {
        Engine::Docker(path) => Some(path.clone()),
        Engine::Process => None,
    }
}

fn controller(config: &NodeConfig, hostname: &str) -> anyhow::Result<ControllerFactory> {
    let hostname = hostname.to_owned();
    match &config.engine {
        Engine::Docker(path) => {
            let path = path.to_str().context("--engine: the path is not UTF-8")?.to_owned();
            Ok(Arc::new(move |node| -> Arc<dyn Controller> {
                let runtime = DockerController::connect(&path, node, &hostname);
                Arc::new(runtime.with_addresses(shoal_net::own_addresses))
            }))
        }
        Engine::Process => {
            let folder = config.data_dir.join("processes");
            // Fails now rather than at the first join if the folder cannot be made.
            std::fs::create_dir_all(&folder)
                .with_context(|| format!("--engine process: {}", folder.display()))?;
            Ok(Arc::new(move |node| -> Arc<dyn Controller> { process_runtime(&folder, node, &hostname) }))
        }
    }
}

fn process_runtime(folder: &std::path::Path, node: NodeId, hostname: &str) -> Arc<dyn Controller> {
    match ProcessController::open(folder, node, hostname) {
        Ok(runtime) => Arc::new(runtime),
        // The folder was there at the start: whoever removed it must put it back, and the node be started anew.
        Err(error) => {
            tracing::error!(%error, folder = %folder.display(), "the process runtime cannot use its folder");
            std::process::exit(1)
        }
    }
}

async fn listeners(config: &NodeConfig) -> anyhow::Result<Vec<ApiListener>> {
    let tls = config.api_tls.as_ref().map(|tls| TlsFiles {
        ca: tls.ca.clone(),
        cert: tls.cert.clone(),
        key: tls.key.clone(),
    });
    let mut listeners = Vec::new();
    for listen in &config.api {
        let addr = match listen {
            ApiListen::Unix(path) => {
                if let Some(dir) = path.parent() {
                    std::fs::create_dir_all(dir).with_context(|| format!("--api: {}", dir.display()))?;
                }
                ListenAddr::Unix(path.clone())
            }
            ApiListen::Tcp(addr) => ListenAddr::Tcp(*addr),
        };
        listeners.push(ApiListener::bind(&addr, tls.as_ref()).await?);
    }
    Ok(listeners)
}

async fn start_metrics(
    config: &NodeConfig,
    node: &Node,
    stopped: watch::Receiver<bool>,
) -> anyhow::Result<Option<actix_rt::task::JoinHandle<()>>> {
    let Some(addr) = config.metrics else { return Ok(None) };
    let metrics = node.metrics();
    let (tell, told) = tokio::sync::oneshot::channel();
    let serving = actix_rt::spawn(async move {
        let render = Arc::new(move || metrics.encode());
        let bound = |at| {
            let _ = tell.send(Ok(at));
        };
        if let Err(error) = serve_metrics(addr, render, stopped, bound).await {
            tracing::error!(%addr, %error, "metrics are not served");
        }
    });
    let at: Result<std::net::SocketAddr, ()> = told.await.unwrap_or(Err(()));
    let at = at.map_err(|()| anyhow::anyhow!("--metrics {addr}: the address is in use or refused"))?;
    tracing::info!(metrics = %at, "metrics ready");
    Ok(Some(serving))
}

/// `--init` and `--join`, for a node that is in no cluster yet. Tried again until it works or cannot.
async fn enter(node: Node, config: NodeConfig) {
    let mut delay = START_RETRY.0;
    loop {
        if node.local().state != LocalState::Inactive {
            return;
        }
        let result = match &config.start {
            Start::Idle | Start::ForceNewCluster => return,
            Start::Init => node.init(InitOptions {
                advertise: None,
                spec: ClusterSpec { address_pools: config.address_pools.clone(), ..ClusterSpec::default() },
                availability: config.availability,
                force_new_cluster: false,
            }),
            Start::Join(target) => node.join(JoinOptions {
                remotes: target.remotes.clone(),
                token: target.token.clone(),
                advertise: None,
                availability: config.availability,
            }),
        };
        match result.await {
            Ok(id) => return tracing::info!(node = %id, "member of the cluster"),
            Err(error @ (ApiError::Invalid(_) | ApiError::Conflict(_))) => {
                return tracing::error!(%error, "cannot enter the cluster; waiting for the API");
            }
            Err(error) => tracing::warn!(%error, again_in = ?delay, "not in the cluster yet"),
        }
        tokio::time::sleep(delay).await;
        delay = (delay * 2).min(START_RETRY.1);
    }
}

/// Until a signal comes, or consensus cannot go on (then a restart may help, and an exit code says so).
async fn wait(node: &Node) -> anyhow::Result<ExitCode> {
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    let mut look = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            biased;
            _ = term.recv() => break,
            _ = int.recv() => break,
            _ = look.tick() => {
                if let Some(why) = node.raft().and_then(|raft| raft.metrics().failed) {
                    tracing::error!(why, "consensus has stopped on this node");
                    return Ok(ExitCode::FAILURE);
                }
            }
        }
    }
    tracing::info!("stopping");
    Ok(ExitCode::SUCCESS)
}
