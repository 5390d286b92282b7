//! A simulated machine: its address, its disk, its engine, and the node on it while it is up.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{anyhow, ensure};
use shoal_actors::clock::Clock;
use shoal_actors::node::{Node, NodeConfig, Storage};
use shoal_actors::task_runner::Limits;
use shoal_core::model::Timestamp;
use shoal_core::task::Controller;
use shoal_net::EndpointConfig;
use shoal_net::task::Scope;
use tokio::task::LocalSet;
use tokio::time::timeout;

use crate::containers::Engine;
use crate::disk::SimDisk;
use crate::event::What;
use crate::fabric::Fabric;
use crate::hooks;
use crate::mesh::Slot;
use crate::records::Records;
use crate::trace::Trace;

const PORT: u16 = 2377;
/// Where a node would keep what it is given disks for: nothing is written there.
const NOWHERE: &str = "/nonexistent/simulated";
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

impl Life {
    /// Nothing of it is left, and nothing was said to anybody.
    async fn end(self) {
        self.driver.abort();
        self.scope.abort();
        self.node.abandon();
        drop(self.node);
        // The runtime drops what was aborted when it next looks.
        tokio::time::sleep(Duration::from_micros(1)).await;
    }
}

/// One machine.
pub struct Host {
    /// From 1.
    pub number: usize,
    /// Its containers.
    pub engine: Engine,
    /// Its part of the mesh.
    pub mesh: Slot,
    /// Its disk.
    pub disk: SimDisk,
    /// Its clock.
    pub clock: WallClock,
    /// What its node keeps of itself: its certificate, whom it knew.
    pub files: SimDisk,
    /// What its node writes down of its tasks.
    pub records: Records,
    fabric: Fabric,
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

/// What is wrong with a clock.
#[derive(Debug, Default)]
struct Error {
    /// Ahead of the truth by so many milliseconds, or behind it.
    ahead: AtomicI64,
    /// Milliseconds that it gains in a second, or loses.
    drift: AtomicI64,
    /// Since when it drifts.
    since: AtomicU64,
}

/// A host's own wall clock, which may be wrong.
#[derive(Debug, Clone, Default)]
pub struct WallClock(Arc<Error>);

impl WallClock {
    /// Ahead of the truth by so many milliseconds, or behind it.
    pub fn set_ahead(&self, ms: i64) {
        self.0.ahead.store(ms, Ordering::Relaxed);
    }

    /// From now on it gains so many milliseconds in a second, or loses them; what it has gained is put right at once.
    pub fn set_drift(&self, ms_a_second: i64) {
        self.0.since.store(hooks::wall_ms(), Ordering::Relaxed);
        self.0.drift.store(ms_a_second, Ordering::Relaxed);
    }

    fn reading(&self) -> Clock {
        let error = Arc::clone(&self.0);
        Arc::new(move || {
            let now = hooks::wall_ms();
            let drifting = i64::try_from(now - error.since.load(Ordering::Relaxed)).unwrap_or(0);
            let gained = drifting / 1_000 * error.drift.load(Ordering::Relaxed);
            Timestamp(now.saturating_add_signed(error.ahead.load(Ordering::Relaxed) + gained))
        })
    }
}

/// A promise of a node's that was broken while it was started or stopped.
#[derive(Debug)]
pub struct Broken(pub String);

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Broken {}

/// The address of a host.
#[must_use]
pub fn ip(number: usize) -> IpAddr {
    let [.., high, low] = number.to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(10, 0, high, low))
}

/// The host of an address.
#[must_use]
pub fn number(ip: IpAddr) -> usize {
    match ip {
        IpAddr::V4(ip) => usize::from(u16::from_be_bytes([ip.octets()[2], ip.octets()[3]])),
        IpAddr::V6(_) => 0,
    }
}

/// The address of a host's node.
#[must_use]
pub fn address(number: usize) -> SocketAddr {
    SocketAddr::new(ip(number), PORT)
}

impl Host {
    /// A machine that is off.
    #[must_use]
    pub fn new(number: usize, seed: u64, sync: (Duration, Duration), fabric: Fabric, trace: Trace) -> Self {
        let disk = SimDisk::new(seed, sync);
        let mesh = Slot::default();
        let engine = Engine::new(number, seed ^ 1, mesh.clone(), trace.clone());
        let records = Records::default();
        let clock = WallClock::default();
        Self {
            number,
            engine,
            mesh,
            disk,
            clock,
            files: SimDisk::instant(),
            records,
            fabric,
            trace,
            seed,
            starts: 0,
            life: None,
        }
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
        let started = self.try_start().await;
        if let Err((scope, driver, error)) = started {
            // Whatever it had begun ends with it.
            self.fabric.unbind(address(self.number));
            driver.abort();
            scope.abort();
            tokio::time::sleep(Duration::from_micros(1)).await;
            return Err(error);
        }
        Ok(())
    }

    async fn try_start(&mut self) -> Result<(), (Scope, actix_rt::task::JoinHandle<()>, anyhow::Error)> {
        self.starts += 1;
        self.trace.event(What::Up { host: self.number });
        let scope = Scope::new();
        let mut quic_seed = [0; 32];
        quic_seed[..8].copy_from_slice(&self.random().to_le_bytes());
        self.engine.plain.begin();
        let engine = self.engine.clone();
        let config = NodeConfig {
            data_dir: NOWHERE.into(),
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
                wire: self.fabric.bind(address(self.number), self.clock.reading(), quic_seed),
                scope: scope.clone(),
                clock: self.clock.reading(),
            },
            storage: Storage {
                files: Some(Arc::new(self.files.clone())),
                raft: Some(Arc::new(self.disk.clone())),
                tasks: Some(Arc::new(self.records.clone())),
            },
            limits: Limits::default(),
            membership: self.fabric.membership(),
            mesh: Some(self.mesh.factory()),
            pace: self.fabric.pace(),
        };
        let (tell, told) = tokio::sync::oneshot::channel();
        let home = LocalSet::new();
        home.spawn_local(async move {
            let _ = tell.send(Node::start(config).await);
        });
        let driver = actix_rt::spawn(scope.gated(home));
        let number = self.number;
        let started = match timeout(self.fabric.pace().of(START_MAX), told).await {
            Err(_) => Err(anyhow!("h{number} does not start")),
            Ok(Err(_)) => Err(anyhow!("h{number} went away at its start")),
            Ok(Ok(Err(error))) => Err(anyhow!("h{number} refuses to start: {error}")),
            Ok(Ok(Ok(node))) => Ok(node),
        };
        match started {
            Ok(node) => {
                self.life = Some(Life { node, scope, driver });
                Ok(())
            }
            Err(error) => Err((scope, driver, error)),
        }
    }

    /// The machine is lost with all that it had: nothing of it may be running.
    pub fn wipe(&mut self) {
        self.trace.note(Some(self.number), "loses all that it had");
        self.disk.wipe();
        self.files.wipe();
        self.engine.wipe();
        self.records.wipe();
    }

    /// What the node had written down of its tasks is lost: nothing of it may be running.
    pub fn forget_tasks(&mut self) {
        self.trace.note(Some(self.number), "loses its records of its tasks");
        self.records.wipe();
    }

    /// The machine has no time for the node, or has time again.
    pub fn hold(&self, held: bool) {
        if let Some(life) = &self.life {
            self.trace.event(What::Held { host: self.number, held });
            self.fabric.hold(address(self.number), held);
            life.scope.hold(held);
        }
    }

    /// What holds the node that is up now, from elsewhere.
    pub fn holder(&self) -> impl Fn(bool) + 'static {
        let scope = self.life.as_ref().map(|life| life.scope.clone());
        let (fabric, trace, host) = (self.fabric.clone(), self.trace.clone(), self.number);
        move |held| {
            if let Some(scope) = scope.as_ref().filter(|scope| !scope.ended()) {
                trace.event(What::Held { host, held });
                fabric.hold(address(host), held);
                scope.hold(held);
            }
        }
    }

    /// The machine loses its power: nothing is said to anybody, nothing ends in order. Its engine's containers
    /// run on, as if it were only the process; the disk decides about the writes under way.
    pub async fn kill(&mut self) {
        let Some(life) = self.life.take() else { return };
        self.mesh.clear();
        self.trace.event(What::Down { host: self.number, killed: true });
        self.fabric.unbind(address(self.number));
        self.disk.crash();
        self.files.crash();
        self.records.crash();
        life.end().await;
    }

    /// The node is asked to stop.
    ///
    /// # Errors
    /// If it leaves something running.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        let Some(life) = self.life.take() else { return Ok(()) };
        self.mesh.clear();
        self.fabric.hold(address(self.number), false);
        life.scope.hold(false);
        let stopped = timeout(self.fabric.pace().of(STOP_MAX), life.node.stop()).await;
        // What was told to end does so when the runtime next looks.
        tokio::time::sleep(Duration::from_millis(1)).await;
        let left = life.scope.running();
        self.trace.event(What::Down { host: self.number, killed: false });
        self.fabric.unbind(address(self.number));
        life.end().await;
        let number = self.number;
        ensure!(stopped.is_ok(), Broken(format!("h{number} does not stop within {STOP_MAX:?}")));
        ensure!(left == 0, Broken(format!("h{number} stopped, and {left} of its tasks run on")));
        Ok(())
    }
}
