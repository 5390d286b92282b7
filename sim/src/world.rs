//! The hosts, what joins them, and what breaks and mends them.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use shoal_actors::api::{InitOptions, JoinOptions, NodeApi as _};
use shoal_actors::node::Node;
use shoal_core::model::{Availability, ClusterSpec, Role};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::containers::Mishaps;
use crate::event::What;
use crate::fabric::Fabric;
use crate::faults::{DEMOTE_AFTER, Disaster, FLAP_EVERY, Fault, STARVE, addresses};
use crate::host::{Host, address, ip};
use crate::options::Options;
use crate::reseat::{Roles, Ways, reseat};
use crate::rot;
use crate::trace::Trace;
use crate::wires::Weather;

/// A cluster that is not formed in this time never will be.
const FORM_MAX: Duration = Duration::from_secs(60);
/// A node that does not leave in this time stays.
const LEAVE_MAX: Duration = Duration::from_secs(90);
/// Between two restarts of a rolling one.
const ROLLING_EVERY: Duration = Duration::from_millis(1_500);
/// Fewer managers than this do not lose one for good.
pub(crate) const VOTERS_MIN: usize = 3;

/// Nodes that are up, as people and judges see them.
pub type Nodes = Rc<RefCell<BTreeMap<usize, Node>>>;

/// A host whose node is a member no longer, and shall join again.
#[derive(Debug, Clone, Copy)]
pub struct Newcomer {
    /// As what.
    pub role: Role,
    /// Not sooner.
    pub from: Instant,
}

/// Hosts whose nodes shall join again.
pub type Newcomers = Rc<RefCell<BTreeMap<usize, Newcomer>>>;

/// All of a simulated cluster.
pub struct World {
    /// What it is like.
    pub options: Options,
    /// What joins the hosts.
    pub fabric: Fabric,
    /// The hosts.
    pub hosts: Vec<Host>,
    /// The nodes that are up.
    pub nodes: Nodes,
    /// The nodes that shall join again.
    pub newcomers: Newcomers,
    /// When the last disaster was over; none while one is.
    pub calm_since: Rc<Cell<Option<Instant>>>,
    /// Hosts whose nodes are being started or stopped.
    pub turning: Rc<RefCell<BTreeSet<usize>>>,
    /// What is broken now.
    pub faults: Rc<RefCell<Vec<Fault>>>,
    trace: Trace,
    /// Hosts whose disk rotted and whose node was not started since.
    rotten: BTreeSet<usize>,
    /// Loose cables and starved processes: the tasks that shake them.
    shaking: BTreeMap<usize, JoinHandle<()>>,
    /// Those who see to it that a seat is taken and given again.
    reseating: Option<JoinHandle<()>>,
}

fn weather(options: &Options) -> Weather {
    Weather { latency: options.latency, ..Weather::default() }
}

impl World {
    /// Hosts that are off.
    #[must_use]
    pub fn new(options: Options, trace: Trace) -> Self {
        let fabric = Fabric::new(options.depth, options.seed ^ 0x6e65, options.pace, trace.clone());
        fabric.set_weather(weather(&options));
        let mut world = Self {
            options,
            fabric,
            hosts: Vec::new(),
            nodes: Nodes::default(),
            newcomers: Newcomers::default(),
            calm_since: Rc::default(),
            turning: Rc::default(),
            faults: Rc::default(),
            trace,
            rotten: BTreeSet::new(),
            shaking: BTreeMap::new(),
            reseating: None,
        };
        world.hosts = (1..=world.options.hosts).map(|number| world.host(number)).collect();
        world
    }

    /// A machine that is off, of this world.
    #[must_use]
    pub fn host(&self, number: usize) -> Host {
        let seed = self.options.seed.wrapping_mul(1_000).wrapping_add(number as u64);
        let (sync, fabric) = (self.options.sync, self.fabric.clone());
        let mut host = Host::new(number, seed, sync, fabric, self.trace.clone());
        if self.options.files {
            host.files = host.disk.folder(seed ^ 0xf11e);
        }
        if self.options.power_cuts {
            host.disk.set_power_cuts(seed);
            host.files.set_power_cuts(seed ^ 0xf11e);
        }
        if self.options.records {
            host.records.set_disk(host.disk.clone(), seed);
        }
        host.engine.set_mishaps(self.options.mishaps);
        host
    }

    async fn start(&mut self, number: usize) -> anyhow::Result<()> {
        self.turning.borrow_mut().insert(number);
        let started = self.start_node(number).await;
        self.turning.borrow_mut().remove(&number);
        started
    }

    async fn start_node(&mut self, number: usize) -> anyhow::Result<()> {
        let host = &mut self.hosts[number - 1];
        if let Err(error) = host.start().await {
            // It says that its disk rotted, as it must: its machine is set up anew.
            anyhow::ensure!(self.rotten.remove(&number), error);
            self.trace.note(Some(number), format!("{error:#}"));
            host.wipe();
            host.start().await?;
        } else if self.rotten.remove(&number) {
            // It goes on as if nothing were: nobody has to join again.
            self.newcomers.borrow_mut().remove(&number);
        }
        if let Some(node) = host.node() {
            self.nodes.borrow_mut().insert(number, node.clone());
        }
        Ok(())
    }

    /// A node on a full disk refuses to start, as it must; it is started once there is space.
    async fn start_if_it_can(&mut self, number: usize) -> anyhow::Result<()> {
        if self.hosts[number - 1].disk.is_full() {
            return Ok(());
        }
        self.start(number).await
    }

    async fn stop(&mut self, number: usize) -> anyhow::Result<()> {
        self.nodes.borrow_mut().remove(&number);
        self.turning.borrow_mut().insert(number);
        let stopped = self.hosts[number - 1].stop().await;
        self.turning.borrow_mut().remove(&number);
        stopped
    }

    async fn kill(&mut self, number: usize) {
        self.nodes.borrow_mut().remove(&number);
        self.hosts[number - 1].kill().await;
    }

    /// Start all, and make them a cluster.
    ///
    /// # Errors
    /// If that does not succeed.
    pub async fn form(&mut self) -> anyhow::Result<()> {
        let most = self.options.pace.of(FORM_MAX);
        for number in 1..=self.options.hosts {
            self.start(number).await?;
        }
        let first = self.hosts[0].node().context("h1 is not there")?.clone();
        let mut spec = ClusterSpec::default();
        spec.ca.node_cert_expiry = self.options.cert_life;
        spec.task_history_limit = self.options.history;
        spec.dispatcher.heartbeat_period = self.options.pace.of(spec.dispatcher.heartbeat_period);
        (spec.raft.snapshot_interval, spec.raft.log_entries_for_slow_followers) = self.options.snapshots;
        let init = InitOptions {
            advertise: None,
            spec,
            availability: Availability::Active,
            force_new_cluster: false,
        };
        timeout(most, first.init(init)).await.context("init hangs")??;
        let tokens = first.state()?.cluster().context("no cluster object")?.tokens.clone();
        for number in 2..=self.options.hosts {
            let token = if number <= self.options.managers { &tokens.manager } else { &tokens.worker };
            let node = self.hosts[number - 1].node().context("a host is not there")?.clone();
            timeout(most, node.join(joining(1, token)))
                .await
                .with_context(|| format!("h{number}: join hangs"))??;
        }
        Ok(())
    }

    /// Whether one more node may be lost for good: no other is being replaced, enough managers stay, and no seats are
    /// given or taken just now, of which one could not be spared then.
    fn may_lose_one(&self) -> bool {
        let few = |fault: &Fault| matches!(fault, Fault::Shorthanded(..) | Fault::Reseated(_));
        if !self.newcomers.borrow().is_empty() || self.faults.borrow().iter().any(few) {
            return false;
        }
        let nodes = self.nodes.borrow();
        if nodes.values().filter_map(Node::raft).any(|raft| raft.voter_groups().len() > 1) {
            return false;
        }
        let newest = nodes.values().filter_map(Node::raft).max_by_key(|raft| raft.state().applied());
        newest.is_some_and(|raft| {
            let state = raft.state();
            // Who shall have no seat any more is not counted on.
            let stays = |id| state.node(id).is_some_and(|node| node.spec.role == Role::Manager);
            raft.voters().into_keys().filter(|id| stays(*id)).count() >= VOTERS_MIN
        })
    }

    fn role_of(&self, number: usize) -> Role {
        let manages = self.nodes.borrow().get(&number).is_some_and(|node| node.raft().is_some());
        if manages { Role::Manager } else { Role::Worker }
    }

    fn lose(&self, number: usize, lasts: Duration) {
        let newcomer = Newcomer { role: self.role_of(number), from: Instant::now() + lasts };
        self.newcomers.borrow_mut().insert(number, newcomer);
    }

    /// Kill a process. True if its node may be lost for good with it; then it is a newcomer from now on.
    async fn kill_for_good(&mut self, number: usize, lasts: Duration) -> bool {
        let may = self.may_lose_one();
        if may {
            self.lose(number, lasts);
        }
        self.kill(number).await;
        may
    }

    /// What holds for as long as the disaster lasts; nothing, if it is something that happens once.
    fn impose(&self, fault: &Fault) {
        match fault {
            Fault::Pause(host) => self.hosts[host - 1].hold(true),
            Fault::Unplug(host) => self.plug(*host, false),
            Fault::OneWay(side) => self.one_way(side, true),
            Fault::Split(side) => self.fabric.wires(|wires| wires.split(&addresses(side))),
            Fault::Storm(storm) => self.fabric.set_weather(storm.clone()),
            Fault::Clog(side, by) => self.clog(side, *by),
            Fault::Shuffle(side, by) => self.shuffle(side, *by),
            Fault::EngineAway(host) => self.hosts[host - 1].engine.set_away(true),
            Fault::DiskFull(host) => self.hosts[host - 1].disk.set_full(true),
            Fault::DiskSlow(host, stall) => self.hosts[host - 1].disk.set_stall(*stall),
            Fault::Brownout(host, most) => self.hosts[host - 1].disk.set_uneven(*most),
            Fault::Sever(one, other) => self.sever((*one, *other), true),
            Fault::ClockJump(host, ms) => self.hosts[host - 1].clock.set_ahead(*ms),
            _ => {}
        }
    }

    async fn break_(&mut self, Disaster { fault, lasts, .. }: &Disaster) -> anyhow::Result<()> {
        match fault {
            Fault::Kill(host) => self.kill(*host).await,
            Fault::Blackout(hosts) => {
                for host in hosts {
                    self.kill(*host).await;
                }
            }
            Fault::Stop(host) => self.stop(*host).await?,
            Fault::Starve(host) => self.starve(*host),
            Fault::Flap(host) => self.flap(*host),
            Fault::ClockDrift(host, ms) => self.hosts[host - 1].clock.set_drift(*ms),
            Fault::Rot(host, which) => {
                // It happens later, when all of the last hour was synced.
                self.hosts[host - 1].disk.sync_notes();
                if self.kill_for_good(*host, *lasts).await {
                    self.rotten.insert(*host);
                    let what = self.hosts[host - 1].disk.rot(*which);
                    self.trace.note(Some(*host), what.unwrap_or_else(|| "nothing to rot".into()));
                }
            }
            Fault::Wipe(host) => {
                if self.kill_for_good(*host, *lasts).await {
                    self.hosts[host - 1].wipe();
                }
            }
            Fault::Leave(host) => self.leave(*host, *lasts),
            Fault::Forget(host) => {
                self.kill(*host).await;
                self.hosts[host - 1].forget_tasks();
            }
            Fault::Reboot(host) => {
                self.kill(*host).await;
                self.hosts[host - 1].engine.reboot();
            }
            Fault::Shorthanded(gone, demoted) => {
                for host in gone {
                    self.kill(*host).await;
                }
                self.set_role(*demoted, Role::Worker, self.options.pace.of(DEMOTE_AFTER));
            }
            Fault::Reseated(cast) => {
                self.end_reseating();
                self.reseating = Some(actix_rt::spawn(reseat(*cast, self.roles(), self.every_way())));
            }
            Fault::Pause(_)
            | Fault::Unplug(_)
            | Fault::OneWay(_)
            | Fault::Split(_)
            | Fault::Storm(_)
            | Fault::Clog(..)
            | Fault::Shuffle(..)
            | Fault::EngineAway(_)
            | Fault::DiskFull(_)
            | Fault::DiskSlow(..)
            | Fault::Brownout(..)
            | Fault::Sever(..)
            | Fault::ClockJump(..) => self.impose(fault),
            Fault::Rolling => self.roll().await?,
        }
        Ok(())
    }

    async fn roll(&mut self) -> anyhow::Result<()> {
        for number in 1..=self.options.hosts {
            self.stop(number).await?;
            self.start_if_it_can(number).await?;
            sleep(self.options.pace.of(ROLLING_EVERY)).await;
        }
        Ok(())
    }

    /// Restart all, one after the other, once the disasters are over: no connection of before is left.
    ///
    /// # Errors
    /// If a node does not start or stop as it must.
    pub async fn restart_all(&mut self) -> anyhow::Result<()> {
        self.calm_since.set(None);
        self.faults.borrow_mut().push(Fault::Rolling);
        let rolled = self.roll().await;
        self.forget(&Fault::Rolling);
        self.calm_since.set(Some(Instant::now()));
        rolled
    }

    async fn mend(&mut self, fault: &Fault) -> anyhow::Result<()> {
        match fault {
            Fault::Kill(host)
            | Fault::Stop(host)
            | Fault::Wipe(host)
            | Fault::Rot(host, _)
            | Fault::Forget(host)
            | Fault::Reboot(host) => {
                self.start_if_it_can(*host).await?;
            }
            Fault::Brownout(host, _) => {
                self.kill(*host).await;
                self.hosts[host - 1].disk.set_stall(Duration::ZERO);
                self.start_if_it_can(*host).await?;
            }
            Fault::Shorthanded(gone, demoted) => {
                for host in gone {
                    self.start_if_it_can(*host).await?;
                }
                self.set_role(*demoted, Role::Manager, Duration::ZERO);
            }
            Fault::Reseated(cast) => {
                self.end_reseating();
                self.every_way().open(cast);
            }
            Fault::Sever(one, other) => self.sever((*one, *other), false),
            Fault::Blackout(hosts) => {
                for host in hosts {
                    self.start_if_it_can(*host).await?;
                }
            }
            Fault::Pause(host) => self.hosts[host - 1].hold(false),
            Fault::Starve(host) => {
                self.calm(*host);
                self.hosts[host - 1].hold(false);
            }
            Fault::Unplug(host) => self.plug(*host, true),
            Fault::Flap(host) => {
                self.calm(*host);
                self.plug(*host, true);
            }
            Fault::OneWay(side) => self.one_way(side, false),
            Fault::Clog(side, _) => self.clog(side, Duration::ZERO),
            Fault::Shuffle(side, _) => self.shuffle(side, Duration::ZERO),
            Fault::DiskSlow(host, _) => self.hosts[host - 1].disk.set_stall(Duration::ZERO),
            Fault::ClockJump(host, _) => self.hosts[host - 1].clock.set_ahead(0),
            Fault::ClockDrift(host, _) => self.hosts[host - 1].clock.set_drift(0),
            Fault::Split(_) => self.fabric.wires(|wires| wires.split(&Default::default())),
            Fault::Storm(_) => self.fabric.set_weather(weather(&self.options)),
            Fault::EngineAway(host) => self.hosts[host - 1].engine.set_away(false),
            Fault::DiskFull(host) => self.restart_stopped(*host).await?,
            // Who left joins again by itself; see `people`.
            Fault::Leave(_) | Fault::Rolling => {}
        }
        Ok(())
    }

    fn plug(&self, host: usize, plugged: bool) {
        self.fabric.wires(|wires| wires.set_plugged(ip(host), plugged));
    }

    /// Both are shaken by a task of their own, until it is calmed.
    fn shake(&mut self, host: usize, shaking: impl Future<Output = ()> + 'static) {
        self.calm(host);
        self.shaking.insert(host, actix_rt::spawn(shaking));
    }

    fn calm(&mut self, host: usize) {
        if let Some(shaking) = self.shaking.remove(&host) {
            shaking.abort();
        }
    }

    fn flap(&mut self, host: usize) {
        let (fabric, at) = (self.fabric.clone(), ip(host));
        let every = self.options.pace.of(FLAP_EVERY);
        self.shake(host, async move {
            loop {
                for plugged in [false, true] {
                    fabric.wires(|wires| wires.set_plugged(at, plugged));
                    sleep(every).await;
                }
            }
        });
    }

    fn starve(&mut self, host: usize) {
        let holder = self.hosts[host - 1].holder();
        let (still, free) = self.options.pace.both(STARVE);
        self.shake(host, async move {
            loop {
                holder(true);
                sleep(still).await;
                holder(false);
                sleep(free).await;
            }
        });
    }

    fn ways(&self, from: &BTreeSet<usize>) -> Vec<(usize, usize)> {
        let others = (1..=self.options.hosts).filter(|host| !from.contains(host));
        others.flat_map(|to| from.iter().map(move |from| (*from, to))).collect()
    }

    /// Block or open every way from these hosts to the others.
    fn one_way(&self, from: &BTreeSet<usize>, blocked: bool) {
        for (from, to) in self.ways(from) {
            self.fabric.wires(|wires| wires.set_blocked(ip(from), ip(to), blocked));
        }
    }

    fn clog(&self, from: &BTreeSet<usize>, by: Duration) {
        for (from, to) in self.ways(from) {
            self.fabric.wires(|wires| wires.set_clogged(ip(from), ip(to), by));
        }
    }

    fn shuffle(&self, from: &BTreeSet<usize>, by: Duration) {
        for (from, to) in self.ways(from) {
            self.fabric.wires(|wires| wires.set_shuffled(ip(from), ip(to), by));
        }
    }

    fn sever(&self, (one, other): (usize, usize), blocked: bool) {
        self.fabric.wires(|wires| wires.set_apart((ip(one), ip(other)), blocked));
    }

    fn roles(&self) -> Roles {
        Roles { nodes: Rc::clone(&self.nodes), trace: self.trace.clone(), pace: self.options.pace }
    }

    /// After a while somebody asks whichever manager is up for another role of a host's node.
    fn set_role(&self, host: usize, role: Role, after: Duration) {
        let roles = self.roles();
        actix_rt::spawn(async move {
            sleep(after).await;
            roles.ask(host, role, None).await;
        });
    }

    fn end_reseating(&mut self) {
        if let Some(reseating) = self.reseating.take() {
            reseating.abort();
        }
    }

    fn every_way(&self) -> Ways {
        Ways { fabric: self.fabric.clone(), hosts: self.options.hosts }
    }

    fn leave(&self, host: usize, lasts: Duration) {
        let Some(node) = self.nodes.borrow().get(&host).cloned() else { return };
        if !self.may_lose_one() {
            return;
        }
        // Not before it has left.
        let most = self.options.pace.of(LEAVE_MAX);
        self.lose(host, most * 2);
        let (newcomers, trace) = (Rc::clone(&self.newcomers), self.trace.clone());
        actix_rt::spawn(async move {
            let left = timeout(most, node.leave(true)).await;
            trace.note(Some(host), format!("leaves: {left:?}"));
            match left {
                Ok(Ok(())) => {
                    if let Some(newcomer) = newcomers.borrow_mut().get_mut(&host) {
                        newcomer.from = Instant::now() + lasts;
                    }
                }
                _ => drop(newcomers.borrow_mut().remove(&host)),
            }
        });
    }

    async fn restart_stopped(&mut self, host: usize) -> anyhow::Result<()> {
        self.hosts[host - 1].disk.set_full(false);
        self.start(host).await?;
        // Consensus may have stopped on it, as it must; whoever runs the node starts it anew.
        let stopped = self.hosts[host - 1].node().and_then(Node::raft);
        if stopped.is_some_and(|raft| raft.metrics().failed.is_some()) {
            self.stop(host).await?;
            self.start(host).await?;
        }
        Ok(())
    }

    /// The end of one disaster does not mend another of the same kind.
    fn still_broken(&self) {
        let faults = self.faults.borrow().clone();
        faults.iter().for_each(|fault| self.impose(fault));
    }

    fn forget(&self, fault: &Fault) {
        let mut faults = self.faults.borrow_mut();
        if let Some(at) = faults.iter().position(|other| other == fault) {
            faults.remove(at);
        }
    }

    /// Break and mend until the time is over; then mend what is left.
    ///
    /// # Errors
    /// If a node does not start or stop as it must.
    pub async fn live_through(
        &mut self,
        disasters: &[Disaster],
        formed: Instant,
        broken: &Cell<bool>,
    ) -> anyhow::Result<()> {
        let until = formed + self.options.chaos;
        let mut mends: BTreeMap<(Instant, u64), Fault> = BTreeMap::new();
        let mut ahead = disasters.iter().zip(1u64..).peekable();
        self.calm_since.set(Some(Instant::now()));
        while !broken.get() {
            let next_at = ahead.peek().map(|(disaster, _)| formed + disaster.at);
            let mend_at = mends.keys().next().map(|(at, _)| *at);
            let at = [next_at, mend_at, Some(until)].into_iter().flatten().min().unwrap_or(until);
            sleep_until(at).await;
            if at == until {
                break;
            }
            if mend_at == Some(at) {
                if let Some(((_, id), fault)) = mends.pop_first() {
                    self.mend(&fault).await?;
                    self.forget(&fault);
                    self.still_broken();
                    self.trace.event(What::Mended { id });
                }
                if mends.is_empty() {
                    self.calm_since.set(Some(Instant::now()));
                }
            } else if let Some((disaster, id)) = ahead.next() {
                self.calm_since.set(None);
                let (text, hosts) = (format!("{:?}", disaster.fault), disaster.fault.hosts());
                self.trace.event(What::Fault { id, text, hosts });
                self.faults.borrow_mut().push(disaster.fault.clone());
                self.break_(disaster).await?;
                mends.insert((Instant::now() + disaster.lasts, id), disaster.fault.clone());
            }
        }
        for ((_, id), fault) in mends {
            self.mend(&fault).await?;
            self.forget(&fault);
            self.trace.event(What::Mended { id });
        }
        for number in 1..=self.options.hosts {
            self.start(number).await?;
        }
        self.hosts.iter().for_each(|host| host.engine.set_mishaps(Mishaps::default()));
        self.calm_since.set(Some(Instant::now()));
        Ok(())
    }

    /// Every node stops in order, and nothing of it is left.
    ///
    /// # Errors
    /// If something is.
    pub async fn end(&mut self) -> anyhow::Result<()> {
        self.nodes.borrow_mut().clear();
        for host in &mut self.hosts {
            host.stop().await?;
            if host.node().is_some() {
                bail!("h{} is still there", host.number);
            }
            rot::check(host).await?;
        }
        Ok(())
    }
}

/// How a node joins through a host's manager.
#[must_use]
pub fn joining(through: usize, token: &str) -> JoinOptions {
    JoinOptions {
        remotes: vec![address(through).to_string()],
        token: token.to_owned(),
        advertise: None,
        availability: Availability::Active,
    }
}
