//! One run: a cluster is formed, lives through its plan, and must be well again.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context as _;
use shoal_actors::node::Node;
use shoal_core::model::Availability;
use shoal_core::store::State;
use tokio::time::{Instant, sleep};

use crate::containers::Engine;
use crate::disk::SimDisk;
use crate::event::What;
use crate::faults::Fault;
use crate::host::Broken;
use crate::judges::{Bounded, Deaths, Engines, Leaders, Logs, Sight, States, Watch, healed};
use crate::mesh::{Clients, Door};
use crate::people::{Around, any_manager, believed, wish};
use crate::person::{Person, is_absent};
use crate::plan::Plan;
use crate::trace::Trace;
use crate::world::{Nodes, World};

/// The judges look so often.
const LOOK_EVERY: Duration = Duration::from_millis(20);
const LOOK_HEALED_EVERY: Duration = Duration::from_millis(500);
/// What a manager that lost its seat keeps of its promises, by its file's name.
const FORMER: &str = "former";

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// All promises were kept.
    Kept,
    /// What was broken, each with its judge's name before it.
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

struct Bench {
    leaders: Leaders,
    states: States,
    engines: Engines,
    deaths: Deaths,
    watch: Watch,
    logs: Logs,
    bounded: Bounded,
    disks: Vec<SimDisk>,
    leading: BTreeMap<usize, u64>,
    /// The managers' states as they were last seen.
    now: BTreeMap<usize, State>,
    found: Vec<String>,
    trace: Trace,
}

impl Bench {
    fn new(trace: Trace, world: &World) -> Self {
        let pace = world.options.pace;
        Self {
            leaders: Leaders::default(),
            states: States::default(),
            engines: Engines::default(),
            deaths: Deaths::new(pace),
            watch: Watch::new(pace),
            logs: Logs::new(pace),
            bounded: Bounded::new(world.hosts.len(), world.fabric.clone(), pace),
            disks: world.hosts.iter().map(|host| host.disk.clone()).collect(),
            leading: BTreeMap::new(),
            now: BTreeMap::new(),
            found: Vec::new(),
            trace,
        }
    }

    fn look(
        &mut self,
        nodes: &Nodes,
        engines: &[Engine],
        calm: Option<Instant>,
        (faults, turning): (&[Fault], &BTreeSet<usize>),
        around: &Around,
    ) {
        let mut found = around.take_broken();
        let mut tell = |judge: &str, what: Vec<String>| {
            found.extend(what.into_iter().map(|what| format!("{judge}: {what}")));
        };
        let (mut leading, mut applied_by) = (BTreeMap::new(), BTreeMap::new());
        for (host, node) in nodes.borrow().iter() {
            let Some(raft) = node.raft() else { continue };
            let leadership = raft.leadership().borrow().clone();
            if leadership.is_me {
                leading.insert(*host, leadership.term);
            }
            tell("leaders", self.leaders.look(*host, leadership.is_me.then_some(leadership.term)));
            // Most of the time nothing has changed, and a state is not for nothing.
            let applied = *raft.applied().borrow();
            applied_by.insert(*host, applied);
            if self.now.get(host).is_none_or(|state| state.applied() != applied) {
                self.now.insert(*host, raft.state());
            }
            let Some(state) = self.now.get(host) else { continue };
            if self.states.is_new(*host, state) {
                // Both are of the same moment only while nothing was applied since.
                if *raft.applied().borrow() == state.applied() {
                    let remembered = raft.remembered();
                    tell("states", self.states.remembers(*host, state.applied(), remembered));
                }
                tell("states", self.states.look(*host, state));
                tell("deaths", self.deaths.look(state, calm));
            }
        }
        self.now.retain(|host, _| nodes.borrow().contains_key(host));
        for (at, engine) in engines.iter().enumerate() {
            tell("engines", self.engines.look(at + 1, engine.running()));
        }
        tell("logs", self.logs.look(&self.disks, &applied_by, nodes.borrow().keys().copied()));
        let (nodes, states) = (&nodes.borrow(), &self.now);
        tell("bounded", self.bounded.look(nodes, states));
        for (host, disk) in (1..).zip(&self.disks) {
            if disk.take_rotten().is_some_and(|name| name == FORMER) {
                self.watch.forgets(host);
            }
        }
        let sight = Sight { nodes, states, turning, faults, hosts: engines.len() };
        tell("watch", self.watch.look(&sight, engines));
        self.tell_leaders(leading);
        self.tell_broken(found);
    }

    /// Once all is well: what is not looked at each time.
    fn look_at_last(&mut self, nodes: &Nodes) {
        let nodes = nodes.borrow();
        let managers: Vec<_> = nodes.iter().filter_map(|(host, node)| Some((*host, node.raft()?))).collect();
        let applied = managers.iter().map(|(host, raft)| (*host, *raft.applied().borrow())).collect();
        let logs = self.logs.look_now(&self.disks, &applied);
        let states = managers.iter().map(|(host, raft)| (*host, raft.state())).collect();
        let bounded = self.bounded.look_at_last(&nodes, &states);
        let logs = logs.into_iter().map(|what| format!("logs: {what}"));
        let bounded = bounded.into_iter().map(|what| format!("bounded: {what}"));
        self.tell_broken(logs.chain(bounded).collect());
    }

    fn tell_broken(&mut self, found: Vec<String>) {
        for what in found {
            if !self.found.contains(&what) {
                let (judge, text) = what.split_once(": ").unwrap_or(("people", &what));
                self.trace.event(What::Broken { judge: judge.to_owned(), text: text.to_owned() });
                self.found.push(what);
            }
        }
    }

    fn tell_leaders(&mut self, leading: BTreeMap<usize, u64>) {
        for host in self.leading.keys().filter(|host| !leading.contains_key(host)) {
            self.trace.event(What::Follows { host: *host });
        }
        for (host, term) in leading.iter().filter(|(host, term)| self.leading.get(host) != Some(term)) {
            self.trace.event(What::Leads { host: *host, term: *term });
        }
        self.leading = leading;
    }
}

/// Live through one run.
///
/// # Errors
/// If the cluster cannot even be formed, or a node cannot be started again.
pub async fn run(plan: &Plan, trace: &Trace) -> anyhow::Result<Report> {
    let options = &plan.options;
    trace.note(None, format!("{options:?}"));
    let mut world = World::new(options.clone(), trace.clone());
    world.form().await.context("the cluster is not formed")?;
    let formed = Instant::now();
    let person = Person::new(options, trace.clone());
    let around = Around::new(&world, person.clone(), trace.clone());
    let (nodes, newcomers) = (Rc::clone(&world.nodes), Rc::clone(&world.newcomers));
    let faults = Rc::clone(&world.faults);
    let turning = Rc::clone(&world.turning);
    let calm_since = Rc::clone(&world.calm_since);
    let engines: Vec<_> = world.hosts.iter().map(|host| host.engine.clone()).collect();
    let mut bench = Bench::new(trace.clone(), &world);
    let misled = RefCell::new(Vec::new());
    let (broken, over) = (Cell::new(false), Rc::new(Cell::new(false)));
    let doors: Vec<_> = world
        .hosts
        .iter()
        .map(|host| Door { mesh: host.mesh.clone(), engine: host.engine.clone() })
        .collect();
    let mut clients = Clients::new(doors.clone(), options.seed ^ 0x636c, options.pace);
    let keeping = actix_rt::spawn(around.clone().keep(options.seed ^ 0x6b65, Rc::clone(&over)));
    let (lived, verdict) = {
        let life = async {
            let (lived, ()) = tokio::join!(
                world.live_through(&plan.disasters, formed, &broken),
                wish(plan, &around, formed, &broken)
            );
            let verdict = match &lived {
                Ok(()) => heal(&person, &mut world, &broken).await,
                Err(_) => Verdict::Kept,
            };
            over.set(true);
            (lived, verdict)
        };
        let judging = async {
            while !over.get() {
                let calm = calm_since.get().filter(|_| newcomers.borrow().is_empty());
                // Until it has joined again a lost node is none that could be heard.
                let lost: Vec<Fault> = newcomers.borrow().keys().map(|host| Fault::Wipe(*host)).collect();
                let faults = [&faults.borrow()[..], &lost[..]].concat();
                let told =
                    doors.iter().filter_map(|door| door.mesh.get()).flat_map(|mesh| mesh.take_broken());
                let misled = misled.take().into_iter().chain(told);
                bench.tell_broken(misled.map(|what| format!("traffic: {what}")).collect());
                bench.look(&nodes, &engines, calm, (&faults, &turning.borrow()), &around);
                broken.set(!bench.found.is_empty());
                sleep(options.pace.of(LOOK_EVERY)).await;
            }
        };
        let asking = async {
            while !over.get() {
                sleep(clients.pause()).await;
                misled.borrow_mut().extend(clients.ask());
            }
        };
        tokio::join!(life, judging, asking).0
    };
    let healed_after = Instant::now().saturating_duration_since(formed + options.chaos);
    let _ = keeping.await;
    if verdict == Verdict::Kept {
        bench.look_at_last(&nodes);
    }
    let mut verdict = verdict;
    if !bench.found.is_empty() {
        verdict = Verdict::Broken(bench.found.clone());
    } else if let Err(error) = lived {
        match error.downcast::<Broken>() {
            Ok(Broken(what)) => verdict = Verdict::Broken(vec![format!("ends: {what}")]),
            Err(error) => return Err(error.context("a node does not come back")),
        }
    }
    if verdict == Verdict::Kept
        && let Err(error) = world.end().await
    {
        verdict = Verdict::Broken(vec![format!("ends: {error:#}")]);
    }
    let (sent, lost) = world.fabric.counts();
    let [done, refused, unknown] = person.tally();
    let figures = vec![
        ("disasters", plan.disasters.len() as u64),
        ("done", done),
        ("refused", refused),
        ("unknown", unknown),
        ("index", bench.states.newest()),
        ("terms", bench.leaders.terms() as u64),
        ("tasks", bench.engines.tasks() as u64),
        ("packets", sent),
        ("lost", lost),
        ("connections", clients.tally[0]),
        ("unserved", clients.tally[1]),
        ("healed_ms", u64::try_from(healed_after.as_millis()).unwrap_or(u64::MAX)),
    ];
    Ok(Report { verdict, figures })
}

fn newest(world: &World) -> Option<State> {
    let states = world.hosts.iter().filter_map(|host| Some(Node::raft(host.node()?)?.state()));
    states.max_by_key(State::applied)
}

/// The members as the newest state has them.
fn members(world: &World) -> String {
    let Some(state) = newest(world) else { return "no manager serves".into() };
    let words = state.nodes().map(|node| {
        let seat = if node.manager.is_some() { " with a seat" } else { "" };
        format!(
            "{} {} {}{seat} {:?} ({})",
            node.hostname(),
            node.id,
            node.spec.role,
            node.status.state,
            node.status.message
        )
    });
    words.collect::<Vec<_>>().join(", ")
}

fn all_active(world: &World) -> bool {
    newest(world).is_some_and(|state| {
        state.nodes().all(|node| node.spec.availability == Availability::Active)
            && !state.services().any(|service| is_absent(&service.spec))
    })
}

/// Wait until all is well, and see whether every promise was kept.
async fn heal(person: &Person, world: &mut World, broken: &Cell<bool>) -> Verdict {
    let mut give_up = Instant::now() + world.options.heal;
    let mut outlives = world.options.outlives;
    let mut active = false;
    let mut ails = "the nodes are not active".to_owned();
    while Instant::now() < give_up && !broken.get() {
        if !world.newcomers.borrow().is_empty() {
            ails = format!("{:?} have not joined again; {}", world.newcomers.borrow().keys(), members(world));
            active = false;
        } else if !active {
            if let Some(node) = any_manager(&world.nodes, person.number()) {
                active = person.activate_all(&node).await;
            }
        } else {
            match healed(&world.hosts) {
                None if outlives => {
                    outlives = false;
                    let until = Instant::now() + world.options.cert_life;
                    while Instant::now() < until && !broken.get() {
                        sleep(LOOK_HEALED_EVERY).await;
                    }
                    match world.restart_all().await.map_err(anyhow::Error::downcast::<Broken>) {
                        Ok(()) => {}
                        Err(Ok(Broken(what))) => return Verdict::Broken(vec![format!("ends: {what}")]),
                        Err(Err(error)) => return Verdict::Sick(format!("{error:#}")),
                    }
                    give_up = Instant::now() + world.options.heal;
                }
                None => {
                    let raft = world.hosts.iter().find_map(|host| Node::raft(host.node()?));
                    let lies = raft.map(|raft| {
                        let state = raft.state();
                        let mut lies: Vec<String> = person
                            .broken_promises(&state)
                            .iter()
                            .map(|lie| format!("people: {lie}"))
                            .collect();
                        lies.extend(believed(&state));
                        lies
                    });
                    let lies = lies.unwrap_or_default();
                    return if lies.is_empty() { Verdict::Kept } else { Verdict::Broken(lies) };
                }
                Some(what) => {
                    ails = what;
                    // Asked of a manager that had not heard of the last changes, the nodes may seem active and not be.
                    active = all_active(world);
                }
            }
        }
        sleep(world.options.pace.of(LOOK_HEALED_EVERY)).await;
    }
    Verdict::Sick(ails)
}
