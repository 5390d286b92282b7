//! One run: a cluster is formed, lives through its disasters, and must be well again.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use shoal_actors::api::{InitOptions, JoinOptions, NodeApi as _};
use shoal_actors::node::Node;
use shoal_core::model::Availability;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::containers::Mishaps;
use crate::disk::SimDisk;
use crate::faults::{FLAP_EVERY, Fault, Faults, addresses};
use crate::host::{Host, address, ip};
use crate::judges::{Deaths, Engines, Leaders, Sight, States, Watch, healed};
use crate::options::Options;
use crate::person::Person;
use crate::reader::Reader;
use crate::rot;
use crate::stranger::Stranger;
use crate::trace::Trace;
use crate::udp::{Network, Weather};
use crate::wishes;

/// The judges look so often.
const LOOK_EVERY: Duration = Duration::from_millis(20);
const FORM_MAX: Duration = Duration::from_secs(60);
const LOOK_HEALED_EVERY: Duration = Duration::from_millis(500);

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// All promises were kept.
    Kept,
    /// What was broken.
    Broken(Vec<String>),
    /// What did not heal.
    Sick(String),
}

/// What a run was like.
#[derive(Debug, Clone)]
pub struct Report {
    /// How it ended.
    pub verdict: Verdict,
    /// Figures for people, in order.
    pub figures: Vec<(&'static str, u64)>,
}

/// Nodes that are up, as the person and the judges see them.
type Nodes = Rc<RefCell<BTreeMap<usize, Node>>>;

struct World {
    options: Options,
    network: Network,
    hosts: Vec<Host>,
    nodes: Nodes,
    trace: Trace,
    /// Loose cables.
    flapping: BTreeMap<IpAddr, JoinHandle<()>>,
    /// When the last disaster was over; none while one is.
    calm_since: Rc<Cell<Option<Instant>>>,
    /// What is broken now.
    broken: Rc<RefCell<Vec<Fault>>>,
}

fn weather(options: &Options) -> Weather {
    Weather { latency: options.latency, ..Weather::default() }
}

impl World {
    fn new(options: Options, folder: &Path, trace: Trace) -> Self {
        let network = Network::new(options.seed ^ 0x6e65, trace.clone());
        network.set_weather(weather(&options));
        let hosts = (1..=options.hosts)
            .map(|number| {
                let seed = options.seed.wrapping_mul(1_000).wrapping_add(number as u64);
                let folder = folder.join(format!("h{number}"));
                let disk = SimDisk::new(seed, options.sync);
                let host = Host::new(number, seed, folder, disk, network.clone(), trace.clone());
                host.engine.set_mishaps(options.mishaps);
                host
            })
            .collect();
        let (nodes, flapping) = (Nodes::default(), BTreeMap::new());
        Self {
            options,
            network,
            hosts,
            nodes,
            trace,
            flapping,
            calm_since: Rc::default(),
            broken: Rc::default(),
        }
    }

    async fn start(&mut self, number: usize) -> anyhow::Result<()> {
        let host = &mut self.hosts[number - 1];
        host.start().await?;
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

    async fn form(&mut self) -> anyhow::Result<()> {
        for number in 1..=self.options.hosts {
            self.start(number).await?;
        }
        let first = self.hosts[0].node().context("h1 is not there")?.clone();
        let spec = wishes::cluster(&self.options);
        let init = InitOptions {
            advertise: None,
            spec,
            availability: Availability::Active,
            force_new_cluster: false,
        };
        timeout(FORM_MAX, first.init(init)).await.context("init hangs")??;
        let tokens = first.state()?.cluster().context("no cluster object")?.tokens.clone();
        for number in 2..=self.options.hosts {
            let token = if number <= self.options.managers { &tokens.manager } else { &tokens.worker };
            let join = JoinOptions {
                remotes: vec![address(1).to_string()],
                token: token.clone(),
                advertise: None,
                availability: Availability::Active,
            };
            let node = self.hosts[number - 1].node().context("a host is not there")?.clone();
            timeout(FORM_MAX, node.join(join)).await.with_context(|| format!("h{number}: join hangs"))??;
        }
        Ok(())
    }

    async fn break_(&mut self, fault: &Fault) -> anyhow::Result<()> {
        self.trace.note(&format!("fault {fault:?}"));
        self.broken.borrow_mut().push(fault.clone());
        match fault {
            Fault::Kill(host) => {
                self.nodes.borrow_mut().remove(host);
                self.hosts[host - 1].kill().await;
            }
            Fault::Blackout(hosts) => {
                for host in hosts {
                    self.nodes.borrow_mut().remove(host);
                    self.hosts[host - 1].kill().await;
                }
            }
            Fault::Stop(host) => {
                self.nodes.borrow_mut().remove(host);
                self.hosts[host - 1].stop().await?;
            }
            Fault::Pause(host) => self.hosts[host - 1].hold(true),
            Fault::Unplug(host) => self.network.set_plugged(ip(*host), false),
            Fault::Flap(host) => {
                let (network, host) = (self.network.clone(), ip(*host));
                let flapping = tokio::spawn(async move {
                    loop {
                        for plugged in [false, true] {
                            network.set_plugged(host, plugged);
                            sleep(FLAP_EVERY).await;
                        }
                    }
                });
                self.flapping.insert(host, flapping);
            }
            Fault::OneWay(side) => self.one_way(side, true),
            Fault::Split(side) => self.network.split(&addresses(side)),
            Fault::Storm(storm) => self.network.set_weather(storm.clone()),
            Fault::EngineAway(host) => self.hosts[host - 1].engine.set_away(true),
            Fault::DiskFull(host) => self.hosts[host - 1].disk.set_full(true),
            Fault::DiskSlow(host, stall) => self.hosts[host - 1].disk.set_stall(*stall),
            Fault::ClockJump(host, ms) => self.hosts[host - 1].clock.set_ahead(*ms),
        }
        Ok(())
    }

    /// Block or open every way from these hosts to the others.
    fn one_way(&self, from: &BTreeSet<usize>, blocked: bool) {
        let others = (1..=self.options.hosts).filter(|host| !from.contains(host));
        for (from, to) in others.flat_map(|to| from.iter().map(move |from| (*from, to))) {
            self.network.set_blocked(ip(from), ip(to), blocked);
        }
    }

    async fn mend(&mut self, fault: &Fault) -> anyhow::Result<()> {
        self.trace.note(&format!("mended {fault:?}"));
        let at = self.broken.borrow().iter().position(|other| other == fault);
        at.map(|at| self.broken.borrow_mut().remove(at));
        match fault {
            Fault::Kill(host) | Fault::Stop(host) => self.start_if_it_can(*host).await?,
            Fault::Blackout(hosts) => {
                for host in hosts {
                    self.start_if_it_can(*host).await?;
                }
            }
            Fault::Pause(host) => self.hosts[host - 1].hold(false),
            Fault::Unplug(host) => self.network.set_plugged(ip(*host), true),
            Fault::Flap(host) => {
                if let Some(flapping) = self.flapping.remove(&ip(*host)) {
                    flapping.abort();
                }
                self.network.set_plugged(ip(*host), true);
            }
            Fault::OneWay(side) => self.one_way(side, false),
            Fault::DiskSlow(host, _) => self.hosts[host - 1].disk.set_stall(Duration::ZERO),
            Fault::ClockJump(host, _) => self.hosts[host - 1].clock.set_ahead(0),
            Fault::Split(_) => self.network.split(&Default::default()),
            Fault::Storm(_) => self.network.set_weather(weather(&self.options)),
            Fault::EngineAway(host) => self.hosts[host - 1].engine.set_away(false),
            Fault::DiskFull(host) => {
                self.hosts[host - 1].disk.set_full(false);
                self.start(*host).await?;
                // Consensus may have stopped on it, as it must; whoever runs the node starts it anew.
                let stopped = self.hosts[host - 1].node().and_then(Node::raft);
                if stopped.is_some_and(|raft| raft.metrics().failed.is_some()) {
                    self.nodes.borrow_mut().remove(host);
                    self.hosts[host - 1].stop().await?;
                    self.start(*host).await?;
                }
            }
        }
        Ok(())
    }

    /// Break and mend until the time is over; then mend what is left.
    async fn disasters(&mut self, until: Instant, broken: &Cell<bool>) -> anyhow::Result<u64> {
        let mut faults = Faults::new(&self.options);
        let mut mends: BTreeMap<(Instant, u64), Fault> = BTreeMap::new();
        let mut count = 0;
        let mut next = faults.draw();
        let mut next_at = next.as_ref().map(|(after, ..)| Instant::now() + *after);
        self.calm_since.set(Some(Instant::now()));
        while !broken.get() {
            let mend_at = mends.keys().next().map(|(at, _)| *at);
            let at = [next_at, mend_at, Some(until)].into_iter().flatten().min().unwrap_or(until);
            sleep_until(at).await;
            if at == until {
                break;
            }
            if mend_at == Some(at) {
                if let Some((_, fault)) = mends.pop_first() {
                    self.mend(&fault).await?;
                }
                if mends.is_empty() {
                    self.calm_since.set(Some(Instant::now()));
                }
                continue;
            }
            if let Some((_, fault, lasts)) = next.take() {
                self.calm_since.set(None);
                self.break_(&fault).await?;
                count += 1;
                mends.insert((Instant::now() + lasts, count), fault);
            }
            next = faults.draw();
            next_at = next.as_ref().map(|(after, ..)| Instant::now() + *after);
        }
        for (_, fault) in mends {
            self.mend(&fault).await?;
        }
        for number in 1..=self.options.hosts {
            self.start(number).await?;
        }
        self.hosts.iter().for_each(|host| host.engine.set_mishaps(Mishaps::default()));
        self.calm_since.set(Some(Instant::now()));
        Ok(count)
    }
}

/// People change things until the time is over.
async fn changes(person: &mut Person, options: &Options, nodes: &Nodes, until: Instant, broken: &Cell<bool>) {
    let mut rng = ChaCha8Rng::seed_from_u64(options.seed ^ 0x7065);
    while Instant::now() < until && !broken.get() {
        sleep(options.change_every.mul_f64(rng.random_range(0.1..2.0))).await;
        if let Some(node) = any_manager(nodes, &mut rng) {
            person.act(&node).await;
        }
    }
}

fn any_manager(nodes: &Nodes, rng: &mut ChaCha8Rng) -> Option<Node> {
    let managers: Vec<Node> = nodes.borrow().values().filter(|node| node.raft().is_some()).cloned().collect();
    (!managers.is_empty()).then(|| managers[rng.random_range(0..managers.len())].clone())
}

#[derive(Default)]
struct Bench {
    leaders: Leaders,
    states: States,
    engines: Engines,
    deaths: Deaths,
    watch: Watch,
    found: Vec<String>,
}

impl Bench {
    fn look(
        &mut self,
        nodes: &Nodes,
        engines: &[crate::containers::Engine],
        calm: Option<Instant>,
        faults: &[Fault],
    ) {
        let sight = Sight { nodes: &nodes.borrow(), faults, hosts: engines.len() };
        self.found.extend(self.watch.look(&sight, engines));
        for (host, node) in nodes.borrow().iter() {
            let Some(raft) = node.raft() else { continue };
            let leadership = raft.leadership().borrow().clone();
            self.found.extend(self.leaders.look(*host, leadership.is_me.then_some(leadership.term)));
            let state = raft.state();
            self.found.extend(self.states.look(*host, &state));
            self.found.extend(self.deaths.look(&state, calm));
        }
        for (at, engine) in engines.iter().enumerate() {
            self.found.extend(self.engines.look(at + 1, engine.running()));
        }
    }
}

/// Live through one run.
///
/// # Errors
/// If the cluster cannot even be formed, or a node cannot be started again.
pub async fn run(options: &Options, folder: &Path, trace: &Trace) -> anyhow::Result<Report> {
    trace.note(&format!("{options:?}"));
    let mut world = World::new(options.clone(), folder, trace.clone());
    world.form().await.context("the cluster is not formed")?;
    let formed = Instant::now();
    let until = formed + options.chaos;
    let nodes = world.nodes.clone();
    let calm_since = world.calm_since.clone();
    let faults = world.broken.clone();
    let mut reader = Reader::new(options.seed);
    let mut stranger = Stranger::new(options, folder, &world.network, trace);
    let engines: Vec<_> = world.hosts.iter().map(|host| host.engine.clone()).collect();
    let mut person = Person::new(options.seed ^ 0x7777, options.hosts, trace.clone());
    let mut bench = Bench::default();
    let (broken, over) = (Cell::new(false), Cell::new(false));
    let (disasters, verdict) = {
        let life = async {
            let (disasters, (), (), ()) = tokio::join!(
                world.disasters(until, &broken),
                changes(&mut person, options, &nodes, until, &broken),
                stranger.visit(&nodes, until, &broken),
                reader.go_on(&nodes, until, &broken)
            );
            let verdict = heal(&mut person, &world, &broken).await;
            over.set(true);
            (disasters, verdict)
        };
        let judging = async {
            while !over.get() {
                bench.look(&nodes, &engines, calm_since.get(), &faults.borrow());
                broken.set(!bench.found.is_empty());
                sleep(LOOK_EVERY).await;
            }
        };
        tokio::join!(life, judging).0
    };
    let disasters = disasters.context("a node does not come back")?;
    let mut verdict = verdict;
    bench.found.append(&mut stranger.found);
    bench.found.append(&mut reader.found);
    bench.found.sort();
    bench.found.dedup();
    if !bench.found.is_empty() {
        verdict = Verdict::Broken(bench.found.clone());
    }
    if verdict == Verdict::Kept
        && let Err(error) = end(&mut world).await
    {
        verdict = Verdict::Broken(vec![format!("{error:#}")]);
    }
    let (sent, lost) = world.network.counts();
    let healed_ms = u64::try_from((Instant::now() - until).as_millis()).unwrap_or(u64::MAX);
    let figures = vec![
        ("disasters", disasters),
        ("done", person.tally[0]),
        ("refused", person.tally[1]),
        ("unknown", person.tally[2]),
        ("index", bench.states.newest()),
        ("terms", bench.leaders.terms() as u64),
        ("tasks", bench.engines.tasks() as u64),
        ("packets", sent),
        ("lost", lost),
        ("healed_ms", healed_ms),
    ];
    Ok(Report { verdict, figures })
}

/// Wait until all is well, and see whether every promise was kept.
async fn heal(person: &mut Person, world: &World, broken: &Cell<bool>) -> Verdict {
    let give_up = Instant::now() + world.options.heal;
    let mut active = false;
    let mut ails = "the nodes are not active".to_owned();
    while Instant::now() < give_up && !broken.get() {
        if !active {
            let mut rng = ChaCha8Rng::seed_from_u64(7);
            if let Some(node) = any_manager(&world.nodes, &mut rng) {
                active = person.activate_all(&node).await;
            }
        }
        if active {
            match healed(&world.hosts) {
                None => {
                    let raft = world.hosts.iter().find_map(|host| host.node()?.raft());
                    let lies = raft.map(|raft| person.broken_promises(&raft.state())).unwrap_or_default();
                    return if lies.is_empty() { Verdict::Kept } else { Verdict::Broken(lies) };
                }
                Some(what) => ails = what,
            }
        }
        sleep(LOOK_HEALED_EVERY).await;
    }
    Verdict::Sick(ails)
}

/// Every node stops in order, and nothing of it is left.
async fn end(world: &mut World) -> anyhow::Result<()> {
    world.nodes.borrow_mut().clear();
    for host in &mut world.hosts {
        host.stop().await?;
        if host.node().is_some() {
            bail!("h{} is still there", host.number);
        }
        rot::check(host).await?;
    }
    Ok(())
}
