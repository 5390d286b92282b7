//! A simulated machine: its address, its disk, its engine, and the node on it while it is up.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use shoal_actors::clock::Clock;
use shoal_actors::node::{Node, NodeConfig, Storage};
use shoal_actors::task_runner::{Limits, MemoryTaskStore};
use shoal_core::model::Timestamp;
use shoal_core::task::Controller;
use shoal_net::EndpointConfig;
use shoal_net::task::Scope;
use tokio::task::LocalSet;
use tokio::time::timeout;

use crate::containers::Engine;
use crate::disk::SimDisk;
use crate::hooks;
use crate::trace::Trace;
use crate::udp::Network;

const PORT: u16 = 2377;
/// A node that cannot even start in this time has hung.
const START_MAX: Duration = Duration::from_secs(60);
/// The daemon gives a clean stop up after as long.
const STOP_MAX: Duration = Duration::from_secs(20);

struct Life {
    node: Node,
    scope: Scope,
    /// Drives the actors; without it they are gone.
    driver: actix_rt::task::JoinHandle<()>,
}

/// One machine.
pub struct Host {
    /// From 1.
    pub number: usize,
    /// Its containers.
    pub engine: Engine,
    /// Its disk.
    pub disk: SimDisk,
    /// Its clock.
    pub clock: WallClock,
    folder: PathBuf,
    tasks: MemoryTaskStore,
    network: Network,
    trace: Trace,
    seed: u64,
    starts: u64,
    life: Option<Life>,
}

/// Virtual wall-clock time.
#[must_use]
pub fn clock() -> Clock {
    Arc::new(|| Timestamp(hooks::wall_ms()))
}

/// A host's own wall clock, which may be wrong.
#[derive(Debug, Clone, Default)]
pub struct WallClock(Arc<AtomicI64>);

impl WallClock {
    /// Ahead of the truth by so many milliseconds, or behind it.
    pub fn set_ahead(&self, ms: i64) {
        self.0.store(ms, Ordering::Relaxed);
    }

    fn reading(&self) -> Clock {
        let ahead = Arc::clone(&self.0);
        Arc::new(move || Timestamp(hooks::wall_ms().saturating_add_signed(ahead.load(Ordering::Relaxed))))
    }
}

/// The address of a host.
#[must_use]
pub fn ip(number: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, u8::try_from(number).unwrap_or(u8::MAX)))
}

/// The address of a host's node.
#[must_use]
pub fn address(number: usize) -> SocketAddr {
    SocketAddr::new(ip(number), PORT)
}

impl Host {
    /// A machine that is off. The folder takes its certificate and its notes.
    #[must_use]
    pub fn new(
        number: usize,
        seed: u64,
        folder: PathBuf,
        disk: SimDisk,
        network: Network,
        trace: Trace,
    ) -> Self {
        let engine = Engine::new(&format!("h{number}"), seed ^ 1, trace.clone());
        let tasks = MemoryTaskStore::default();
        let clock = WallClock::default();
        Self { number, engine, disk, clock, folder, tasks, network, trace, seed, starts: 0, life: None }
    }

    /// The node, while the machine is up.
    #[must_use]
    pub fn node(&self) -> Option<&Node> {
        self.life.as_ref().map(|life| &life.node)
    }

    fn random(&self) -> u64 {
        self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(self.starts)
    }

    /// Start the node.
    ///
    /// # Errors
    /// If it cannot start, or hangs.
    pub async fn start(&mut self) -> anyhow::Result<()> {
        if self.life.is_some() {
            return Ok(());
        }
        self.starts += 1;
        self.trace.note(&format!("h{} starts", self.number));
        let scope = Scope::new();
        let mut quic_seed = [0; 32];
        quic_seed[..8].copy_from_slice(&self.random().to_le_bytes());
        let engine = self.engine.clone();
        let config = NodeConfig {
            data_dir: self.folder.clone(),
            listen: address(self.number),
            advertise: None,
            hostname: format!("h{}", self.number),
            labels: Default::default(),
            controller: Arc::new(move |_| -> Arc<dyn Controller> { Arc::new(engine.clone()) }),
            clock: self.clock.reading(),
            seed: self.random() ^ 2,
            force_new_cluster: false,
            socket: EndpointConfig {
                reset_key: None,
                socket: self.network.bind(address(self.number)),
                rng_seed: Some(quic_seed),
                scope: scope.clone(),
                clock: self.clock.reading(),
            },
            storage: Storage {
                raft: Some(Arc::new(self.disk.clone())),
                tasks: Some(Arc::new(self.tasks.clone())),
            },
            limits: Limits::default(),
        };
        let (tell, told) = tokio::sync::oneshot::channel();
        let home = LocalSet::new();
        home.spawn_local(async move {
            let _ = tell.send(Node::start(config).await);
        });
        let driver = actix_rt::spawn(scope.gated(home));
        let started = timeout(START_MAX, told).await;
        let node = started
            .with_context(|| format!("h{} does not start", self.number))?
            .with_context(|| format!("h{} went away at its start", self.number))?
            .with_context(|| format!("h{} refuses to start", self.number))?;
        self.life = Some(Life { node, scope, driver });
        Ok(())
    }

    /// The machine has no time for the node, or has time again.
    pub fn hold(&self, held: bool) {
        if let Some(life) = &self.life {
            self.trace.note(&format!("h{} {}", self.number, if held { "stands still" } else { "goes on" }));
            life.scope.hold(held);
        }
    }

    /// The machine loses its power: nothing is said to anybody, nothing ends in order. Its engine's containers
    /// run on, as if it were only the process; the disk decides about the writes under way.
    pub async fn kill(&mut self) {
        let Some(life) = self.life.take() else { return };
        self.trace.note(&format!("h{} is killed", self.number));
        self.network.unbind(address(self.number));
        self.disk.crash();
        life.driver.abort();
        life.scope.abort();
        drop(life.node);
        // The runtime drops what was aborted when it next looks.
        tokio::time::sleep(Duration::from_micros(1)).await;
    }

    /// The node is asked to stop.
    ///
    /// # Errors
    /// If it leaves something running.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        let Some(life) = self.life.take() else { return Ok(()) };
        self.trace.note(&format!("h{} stops", self.number));
        life.scope.hold(false);
        let stopped = timeout(STOP_MAX, life.node.stop()).await;
        // What was told to end does so when the runtime next looks.
        tokio::time::sleep(Duration::from_millis(1)).await;
        let left = life.scope.running();
        self.trace.note(&format!("h{} stopped: {}, {left} tasks left", self.number, stopped.is_ok()));
        self.network.unbind(address(self.number));
        life.driver.abort();
        life.scope.abort();
        drop(life.node);
        tokio::time::sleep(Duration::from_micros(1)).await;
        ensure!(stopped.is_ok(), "h{} does not stop within {STOP_MAX:?}", self.number);
        ensure!(left == 0, "h{} stopped, and {left} of its tasks run on", self.number);
        Ok(())
    }
}
