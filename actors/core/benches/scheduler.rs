//! How fast and how well the scheduler places, beside Docker Swarm's figures.
//!
//! `place` is the pure decision on the table of nodes: filters, order, spread tree and the accounting
//! of what is taken. `decide` is all that a leader's scheduler does between a snapshot of the state
//! and the proposal: it also finds the groups, marks each task as placed and builds the writes.
//! Swarm's figures were measured separately, for its scheduler alone, and not in this run.

#[path = "../src/scheduler/tests/reference.rs"]
mod reference;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use self::reference::{Reference, Wanted};
use shoal_core::model::{
    EndpointSpec, Meta, Node, NodeDescription, NodeId, NodeState, NodeStatus, Platform, Preference,
    Resources, Service, ServiceId, ServiceMode, ServiceSpec, Slot, Task, TaskId, TaskSpec, TaskState,
    TaskStatus, Timestamp,
};
use shoal_core::scheduler::{Demand, NodeTable, Scheduler};
use shoal_core::store::{Command, State, Write};
use shoal_core::{mesh, model};

const NOW: Timestamp = Timestamp(1_000_000);
/// The least of so many rounds counts: other work on a shared machine only ever adds.
const ROUNDS: usize = 9;
const SWARM_UNIFORM: &str = "11,000/s";
const SWARM_MIXED: &str = "3,600/s";
const SWARM_HUGE: &str = "53.7 s";

#[expect(clippy::disallowed_methods, clippy::disallowed_types, reason = "a benchmark reads the clock")]
fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = std::time::Instant::now();
    let result = work();
    (result, start.elapsed())
}

fn node(number: u64) -> Node {
    let mut node =
        Node { id: NodeId::from_u128(u128::from(mix(number)) << 64 | u128::from(number)), ..Node::default() };
    node.status = NodeStatus { state: NodeState::Ready, ..NodeStatus::default() };
    node.spec.labels = BTreeMap::from([
        ("zone".to_owned(), format!("zone-{}", number % 5)),
        ("rack".to_owned(), format!("rack-{}", number % 50)),
        ("disk".to_owned(), (if number.is_multiple_of(3) { "hdd" } else { "ssd" }).to_owned()),
    ]);
    node.description = Some(NodeDescription {
        hostname: format!("host-{number}"),
        platform: Platform { os: "linux".into(), architecture: "x86_64".into() },
        resources: Resources { nano_cpus: 64_000_000_000, memory_bytes: 256 << 30, ..Resources::default() },
        ..NodeDescription::default()
    });
    node
}

fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn cluster(nodes: u64) -> State {
    let mut state = State::default();
    let writes = (0..nodes).map(|number| Write::NodeCreate(Box::new(node(number)))).collect();
    state.apply(1, 0, Command { writes, ..Command::default() }).expect("nodes are taken in");
    state
}

/// Service number `number`: half want a disk or a zone, most reserve, all but every fourth are spread.
fn mixed(number: u64) -> TaskSpec {
    let mut spec = TaskSpec::default();
    let placement = &mut spec.placement;
    match number % 4 {
        0 => placement.constraints.push("node.labels.disk==ssd".parse().expect("a constraint")),
        1 => {
            placement
                .constraints
                .push(format!("node.labels.zone!=zone-{}", number % 5).parse().expect("a constraint"));
            placement.constraints.push("node.platform.os==linux".parse().expect("a constraint"));
        }
        _ => {}
    }
    if number % 4 != 3 {
        placement.preferences.push(Preference { spread: "node.labels.zone".into() });
    }
    if number.is_multiple_of(3) {
        placement.preferences.push(Preference { spread: "node.labels.rack".into() });
    }
    if number.is_multiple_of(7) {
        placement.max_replicas = 2;
    }
    placement.platforms = vec![Platform { os: "linux".into(), architecture: "amd64".into() }];
    spec.resources.reservations.nano_cpus = [0, 100_000_000, 500_000_000][number as usize % 3];
    spec.resources.reservations.memory_bytes = [64 << 20, 256 << 20, 1 << 30][number as usize / 3 % 3];
    spec
}

fn service(number: u64, task: TaskSpec, replicas: u64) -> Service {
    Service::new(
        ServiceId::from_u128(u128::from(number) + 1),
        ServiceSpec {
            name: format!("service-{number}"),
            labels: BTreeMap::new(),
            mode: ServiceMode::Replicated { replicas },
            task: Arc::new(task),
            update: None,
            rollback: None,
            endpoint: EndpointSpec::default(),
        },
    )
}

fn new_task(number: u64, service: &Service, slot: u64) -> Task {
    Task {
        meta: Meta::default(),
        id: TaskId::from_u128(u128::from(mix(number)) << 64 | u128::from(number)),
        service_id: service.id,
        service_name: service.spec.name.as_str().into(),
        slot: Slot::Replica(slot),
        node_id: None,
        spec: Arc::clone(&service.spec.task),
        spec_version: 2,
        ports: Vec::new(),
        networks: Vec::new(),
        desired: TaskState::Running,
        start_after: None,
        status: TaskStatus::default(),
    }
}

/// The state with these services and their tasks, all waiting.
fn with_tasks(mut state: State, services: &[(Service, u64)]) -> State {
    let mut writes = Vec::new();
    let mut next = 0u64;
    for (service, replicas) in services {
        writes.push(Write::ServiceCreate(Box::new(service.clone())));
        for slot in 1..=*replicas {
            next += 1;
            writes.push(Write::TaskCreate(Arc::new(new_task(next, service, slot))));
        }
    }
    state.apply(2, 0, Command { writes, ..Command::default() }).expect("tasks are taken in");
    state
}

struct Figure {
    what: String,
    tasks: u64,
    place: Duration,
    decide: Duration,
    bar: &'static str,
    swarm: &'static str,
    met: bool,
}

impl Figure {
    fn rate(&self, time: Duration) -> f64 {
        self.tasks as f64 / time.as_secs_f64()
    }

    fn print(&self) {
        println!("{}", self.what);
        println!(
            "  place : {:>10.3} ms  {:>12.0} tasks/s",
            self.place.as_secs_f64() * 1e3,
            self.rate(self.place)
        );
        println!(
            "  decide: {:>10.3} ms  {:>12.0} tasks/s",
            self.decide.as_secs_f64() * 1e3,
            self.rate(self.decide)
        );
        println!(
            "  bar {} ({}); Swarm {}",
            self.bar,
            if self.met { "met by place" } else { "MISSED" },
            self.swarm
        );
    }
}

/// Least time to place all tasks of these services, `place` alone and `decide` whole.
fn measure(nodes: u64, services: &[(Service, u64)]) -> (Duration, Duration) {
    let state = cluster(nodes);
    let table = NodeTable::new(&state);
    let mut place = Vec::new();
    for _ in 0..ROUNDS {
        let mut table = table.clone();
        let (placed, time) = timed(|| {
            services
                .iter()
                .map(|(service, replicas)| {
                    let demand = Demand::new(service.id, 2, &service.spec.task, &[]);
                    table.place(&demand, *replicas as usize, NOW).slots.len() as u64
                })
                .sum::<u64>()
        });
        assert_eq!(placed, services.iter().map(|(_, replicas)| replicas).sum::<u64>(), "all are placed");
        place.push(time);
    }
    let state = with_tasks(state, services);
    let scheduler = Scheduler::new(&state);
    let mut decide = Vec::new();
    for _ in 0..ROUNDS {
        let mut scheduler = scheduler.clone();
        let (plan, time) = timed(|| scheduler.decide(&state, NOW));
        assert!(scheduler.waiting() == 0 && !plan.is_empty(), "all are placed");
        decide.push(time);
    }
    place.sort();
    decide.sort();
    (place[0], decide[0])
}

/// What a placement looks like: how far the loads of nodes and of zones lie apart.
struct Spread {
    variance: f64,
    widest: u32,
    widest_zone: u32,
}

/// Loads by node and by (service, zone) of the placement.
fn spread(nodes: &[Arc<Node>], placed: &[(ServiceId, NodeId)]) -> Spread {
    let mut loads: BTreeMap<NodeId, u32> = nodes.iter().map(|node| (node.id, 0)).collect();
    let mut zones: BTreeMap<ServiceId, BTreeMap<&str, u32>> = BTreeMap::new();
    let zone_of: BTreeMap<NodeId, &str> =
        nodes.iter().map(|node| (node.id, node.spec.labels["zone"].as_str())).collect();
    for (service, node) in placed {
        *loads.entry(*node).or_default() += 1;
        *zones.entry(*service).or_default().entry(zone_of[node]).or_default() += 1;
    }
    let mean = placed.len() as f64 / loads.len() as f64;
    let variance =
        loads.values().map(|load| (f64::from(*load) - mean).powi(2)).sum::<f64>() / loads.len() as f64;
    let range = |counts: Vec<u32>| counts.iter().max().unwrap_or(&0) - counts.iter().min().unwrap_or(&0);
    let widest_zone = zones.values().map(|zones| range(zones.values().copied().collect())).max().unwrap_or(0);
    Spread { variance, widest: range(loads.values().copied().collect()), widest_zone }
}

/// The same tasks placed by us and by an exhaustive search over every node for every task.
fn compare_with_exhaustive() {
    let services: Vec<_> = (0..40).map(|n| (service(n, mixed(n), 50), 50u64)).collect();
    let state = cluster(500);
    let nodes: Vec<Arc<Node>> = state.nodes().cloned().collect();
    let mut table = NodeTable::new(&state);
    let mut ours = Vec::new();
    let mut search = Reference::new(state.nodes(), state.tasks(), NOW);
    let mut theirs = Vec::new();
    for (service, replicas) in &services {
        let demand = Demand::new(service.id, 2, &service.spec.task, &[]);
        let placed = table.place(&demand, *replicas as usize, NOW);
        ours.extend(placed.slots.iter().map(|slot| (service.id, table.node(*slot).expect("a node").id)));
        let wanted = Wanted { service, version: 2, spec: &service.spec.task };
        for _ in 0..*replicas {
            let Some(node) = search.choose(&wanted) else { break };
            let mut task = new_task(1, service, 1);
            task.node_id = Some(node);
            task.status.state = TaskState::Assigned;
            search.add(task);
            theirs.push((service.id, node));
        }
    }
    let (a, b) = (spread(&nodes, &ours), spread(&nodes, &theirs));
    println!("2,000 mixed tasks on 500 nodes, against an exhaustive search for every task");
    println!(
        "  ours      : {} placed, variance of tasks a node {:.4}, widest gap of nodes {}, of a service's zones {}",
        ours.len(),
        a.variance,
        a.widest,
        a.widest_zone
    );
    println!(
        "  exhaustive: {} placed, variance of tasks a node {:.4}, widest gap of nodes {}, of a service's zones {}",
        theirs.len(),
        b.variance,
        b.widest,
        b.widest_zone
    );
    let met = ours.len() == theirs.len() && a.variance <= b.variance * 1.01 && a.widest_zone <= b.widest_zone;
    println!(
        "  bar: within 1 % ({}); {}",
        if met { "met" } else { "MISSED" },
        if ours == theirs { "the same node for every task" } else { "other nodes for some tasks" }
    );
}

fn main() {
    println!(
        "least of {ROUNDS} rounds; Swarm's figures: its scheduler alone, measured separately, not in this run"
    );
    if let Ok(load) = std::fs::read_to_string("/proc/loadavg") {
        println!("wall time; load of this machine when it began: {}", load.trim());
    }
    println!(
        "place : filters (their masks are made within the time), order, spread tree, accounting on the table of nodes"
    );
    println!("decide: place, and grouping, marking each task as placed, building the writes of the plan");
    let uniform = [(service(0, TaskSpec::default(), 100_000), 100_000)];
    let (place, decide) = measure(10_000, &uniform);
    let mut figure = Figure {
        what: "100,000 tasks of one service on 10,000 nodes".into(),
        tasks: 100_000,
        place,
        decide,
        bar: "1,000,000/s",
        swarm: SWARM_UNIFORM,
        met: false,
    };
    figure.met = figure.rate(place) >= 1e6;
    figure.print();

    for replicas in [10u64, 100] {
        let services: Vec<_> =
            (0..20_000 / replicas).map(|n| (service(n, mixed(n), replicas), replicas)).collect();
        let (place, decide) = measure(10_000, &services);
        let mut figure = Figure {
            what: format!(
                "20,000 tasks of {} services of {replicas}, mixed constraints, reservations, preferences, on 10,000 nodes",
                services.len()
            ),
            tasks: 20_000,
            place,
            decide,
            bar: "100,000/s",
            swarm: SWARM_MIXED,
            met: false,
        };
        figure.met = figure.rate(place) >= 1e5;
        figure.print();
    }

    let huge = [(service(0, TaskSpec::default(), 1000), 1000)];
    let (place, decide) = measure(100_000, &huge);
    Figure {
        what: "1,000 tasks onto 100,000 nodes".into(),
        tasks: 1000,
        place,
        decide,
        bar: "50 ms",
        swarm: SWARM_HUGE,
        met: place <= Duration::from_millis(50),
    }
    .print();
    compare_with_exhaustive();
}
