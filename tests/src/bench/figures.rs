//! How each figure is taken. The peers go through the same code.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::{Value, json};

use super::table::{Row, ratio, spread};
use crate::cluster::{Cluster, POLL, Peer, Role};
use crate::lab::{Lab, binary};
use crate::measure::{self, Failover};
use crate::starts::Starts;
use crate::wait;

/// Longer than the peer needs for anything here.
const PATIENCE: Duration = Duration::from_secs(120);
/// Enough to see that a cluster is quiet again between two runs.
const SETTLE: Duration = Duration::from_secs(2);
const SERVICE: &str = "bench";
/// The bare engines are measured anew after so many failovers: the machine may be slower by then.
const CUTS_BETWEEN_BARE: usize = 5;

/// What is asked of a run.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// How often each figure is taken.
    pub runs: usize,
    /// Whether ours is measured.
    pub shoal: bool,
    /// Whether the peer is measured.
    pub swarm: bool,
}

impl Settings {
    fn peers(self) -> impl Iterator<Item = Peer> {
        [(self.shoal, Peer::Shoal), (self.swarm, Peer::Swarm)]
            .into_iter()
            .filter(|(on, _)| *on)
            .map(|(_, peer)| peer)
    }
}

/// A figure, or several that are taken together.
#[derive(Debug, Clone, Copy)]
pub struct Figure {
    /// Its name on the command line.
    pub name: &'static str,
    /// Takes it.
    pub take: fn(&mut Lab, Settings) -> Result<Vec<Row>>,
}

/// All figures.
pub const FIGURES: [Figure; 5] = [
    Figure { name: "create", take: create },
    Figure { name: "worker-cut", take: worker_cut },
    Figure { name: "leader-cut", take: leader_cut },
    Figure { name: "join", take: join },
    Figure { name: "memory", take: memory },
];

/// One figure of times, taken of each peer.
fn times(
    lab: &mut Lab,
    settings: Settings,
    figure: &str,
    target: &str,
    mut take: impl FnMut(&mut Lab, Peer) -> Result<Vec<Duration>>,
) -> Result<Row> {
    let mut row = Row::new(figure, target);
    for peer in settings.peers() {
        let taken = take(lab, peer).with_context(|| format!("{figure}, {peer:?}"))?;
        eprintln!("{figure}, {peer:?}: {taken:?}");
        *row.of(peer) = Some(spread(&taken));
        lab.reset()?;
    }
    Ok(row)
}

/// The sleeping service that is always measured.
fn spec(replicas: usize, constraint: Option<&str>) -> Value {
    let constraints: Vec<_> = constraint.into_iter().collect();
    json!({
        "Name": SERVICE,
        "TaskTemplate": {
            "ContainerSpec": {
                "Image": "busybox:latest",
                "Args": ["sleep", "1d"],
                "StopGracePeriod": 1_000_000_000_u64,
            },
            "Placement": {"Constraints": constraints},
        },
        "Mode": {"Replicated": {"Replicas": replicas}},
    })
}

/// Each round takes the bare engines and every peer in turn, so that a machine that is slower for a while is so for all.
fn create(lab: &mut Lab, settings: Settings) -> Result<Vec<Row>> {
    const TASKS: usize = 60;
    const ENGINES: usize = 3;
    let figure = "create → 60 tasks running on 3 engines";
    let mut bare = Vec::new();
    let mut taken: Vec<_> = settings.peers().map(|peer| (peer, Vec::new())).collect();
    for _ in 0..settings.runs {
        bare.push(start_bare(lab, TASKS, &[1, 2, 3])?);
        lab.reset()?;
        for (peer, taken) in &mut taken {
            let took = create_once(lab, *peer, ENGINES, TASKS);
            taken.push(took.with_context(|| format!("{figure}, {peer:?}"))?);
            lab.reset()?;
        }
    }
    eprintln!("{figure}: bare engines {bare:?}, {taken:?}");
    let mut row = Row::new(figure, "≤ 1.1 × bare engines, < Swarm");
    row.bare = Some(spread(&bare));
    for (peer, times) in &taken {
        let beside = |name: &str, others: &[Duration]| {
            ratio(times, others).map_or_else(String::new, |ratio| format!(", {ratio:.2} × {name}"))
        };
        let mut text = spread(times) + &beside("bare", &bare);
        if let (Peer::Shoal, Some((_, swarm))) = (peer, taken.iter().find(|(peer, _)| *peer == Peer::Swarm)) {
            text += &beside("Swarm", swarm);
        }
        *row.of(*peer) = Some(text);
    }
    Ok(vec![row])
}

fn create_once(lab: &mut Lab, peer: Peer, engines: usize, tasks: usize) -> Result<Duration> {
    let cluster = Cluster::form(lab, peer, engines, 0)?;
    thread::sleep(SETTLE);
    let starts = Starts::listen(cluster.lab.hosts(), SERVICE)?;
    let begun = Instant::now();
    cluster.api(1).post("/services/create", &spec(tasks, None))?;
    let last = starts.await_count(tasks, PATIENCE)?;
    cluster.await_running(SERVICE, tasks, &[], PATIENCE)?;
    Ok(last.duration_since(begun))
}

/// All containers at once, each made and started by a client of its own, past every orchestrator.
fn start_bare(lab: &Lab, tasks: usize, engines: &[usize]) -> Result<Duration> {
    thread::sleep(SETTLE);
    let starts = Starts::listen(engines.iter().map(|&engine| lab.host(engine)), SERVICE)?;
    let begun = Instant::now();
    thread::scope(|scope| {
        let starts: Vec<_> = (0..tasks)
            .map(|task| {
                let api = lab.host(engines[task % engines.len()]).engine();
                scope.spawn(move || -> Result<()> {
                    let name = format!("{SERVICE}.{task}");
                    let labels = json!({
                        "com.docker.swarm.service.name": SERVICE,
                        "com.docker.swarm.task.name": name,
                        "com.docker.swarm.task.id": task.to_string(),
                    });
                    let body = json!({"Image": "busybox:latest", "Cmd": ["sleep", "1d"], "Labels": labels});
                    let made = api.post("/containers/create", &body)?;
                    let id = made["Id"].as_str().context("no id")?.to_owned();
                    api.post(&format!("/containers/{id}/start"), &Value::Null).map(drop)
                })
            })
            .collect();
        starts.into_iter().try_for_each(|start| start.join().map_err(|_| anyhow!("a start panicked"))?)
    })?;
    // The same sign as with the others.
    Ok(starts.await_count(tasks, PATIENCE)?.duration_since(begun))
}

fn gone(cluster: &Cluster<'_>) -> Result<()> {
    cluster.api(1).delete(&format!("/services/{SERVICE}"))?;
    cluster.await_running(SERVICE, 0, &[], PATIENCE).map(drop)
}

fn worker_cut(lab: &mut Lab, settings: Settings) -> Result<Vec<Row>> {
    const TASKS: usize = 20;
    let figure = "worker's cable pulled → its 20 tasks running elsewhere";
    let mut made = Row::new("of that: noticed, decided, and all 20 containers made elsewhere", "–");
    let mut running = Row::new(figure, "p99 ≤ 3 s");
    let mut bare = Vec::new();
    for peer in settings.peers() {
        let mut taken = Vec::new();
        for _ in 0..settings.runs.div_ceil(CUTS_BETWEEN_BARE) {
            // What it costs the engines that are left to start as many, without anybody noticing and deciding first.
            bare.push(start_bare(lab, TASKS, &[1, 2, 3, 5])?);
            lab.reset()?;
            let runs = CUTS_BETWEEN_BARE.min(settings.runs - taken.len());
            taken.extend(cut_often(lab, peer, TASKS, runs).with_context(|| format!("{figure}, {peer:?}"))?);
            lab.reset()?;
        }
        eprintln!("{figure}, {peer:?}: {taken:?}");
        let times = |of: fn(&Failover) -> Duration| spread(&taken.iter().map(of).collect::<Vec<_>>());
        *made.of(peer) = Some(times(|cut| cut.made));
        *running.of(peer) = Some(times(|cut| cut.running));
    }
    eprintln!("{figure}, bare engines: {bare:?}");
    running.bare = Some(format!("{} (starts alone)", spread(&bare)));
    Ok(vec![running, made])
}

fn cut_often(lab: &mut Lab, peer: Peer, tasks: usize, runs: usize) -> Result<Vec<Failover>> {
    const VICTIM: usize = 4;
    let mut taken = Vec::new();
    let cluster = Cluster::form(lab, peer, 3, 2)?;
    for _ in 0..runs {
        home(&cluster, VICTIM, true)?;
        (1..=5).filter(|&host| host != VICTIM).try_for_each(|host| home(&cluster, host, false))?;
        cluster.api(1).post("/services/create", &spec(tasks, Some("node.labels.home==yes")))?;
        cluster.await_running(SERVICE, tasks, &[], PATIENCE)?;
        (1..=5).try_for_each(|host| home(&cluster, host, true))?;
        thread::sleep(SETTLE);
        taken.push(measure::worker_cut(&cluster, VICTIM, SERVICE, tasks, PATIENCE)?);
        cluster.lab.heal(VICTIM)?;
        cluster.await_state(1, VICTIM, "ready", PATIENCE)?;
        gone(&cluster)?;
    }
    Ok(taken)
}

/// Say whether tasks of the measured service may go to a host.
fn home(cluster: &Cluster<'_>, host: usize, yes: bool) -> Result<()> {
    let id = cluster.node(1, host)?.id;
    let node = cluster.api(1).get(&format!("/nodes/{id}"))?;
    let mut spec = node["Spec"].clone();
    spec["Labels"] = json!({"home": if yes { "yes" } else { "no" }});
    cluster.api(1).post(&format!("/nodes/{id}/update?version={}", node["Version"]["Index"]), &spec).map(drop)
}

fn leader_cut(lab: &mut Lab, settings: Settings) -> Result<Vec<Row>> {
    let figure = "leader's cable pulled → next write accepted";
    let row = times(lab, settings, figure, "p99 ≤ 1 s", |lab, peer| {
        let mut taken = Vec::new();
        let cluster = Cluster::form(lab, peer, 3, 0)?;
        for run in 0..settings.runs {
            thread::sleep(SETTLE);
            let (leader, took) = measure::leader_cut(&cluster, &[1, 2, 3], &format!("run{run}"), PATIENCE)?;
            taken.push(took);
            cluster.lab.heal(leader)?;
            for manager in 1..=3 {
                wait::until("all managers agreeing again", PATIENCE, POLL, || whole(&cluster, manager))?;
            }
        }
        Ok(taken)
    })?;
    Ok(vec![row])
}

/// Whether a manager sees three reachable ones and a leader.
fn whole(cluster: &Cluster<'_>, at: usize) -> Result<()> {
    let nodes = cluster.nodes(at)?;
    let reachable = nodes.iter().filter(|node| node.reachability.as_deref() == Some("reachable")).count();
    let ready = nodes.iter().filter(|node| node.state == "ready").count();
    wait::seen(reachable == 3 && ready == 3 && nodes.iter().any(|node| node.leader), || format!("{nodes:?}"))
}

fn join(lab: &mut Lab, settings: Settings) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (role, target) in [(Role::Worker, "≤ 0.1 s"), (Role::Manager, "≤ 0.3 s")] {
        let figure = format!("join of a {}", role.name());
        rows.push(times(lab, settings, &figure, target, |lab, peer| {
            let mut taken = Vec::new();
            // A cluster of its own each time: leaving is not what is measured.
            for _ in 0..settings.runs {
                let mut cluster = Cluster::form(lab, peer, 1, 0)?;
                for host in [2, 3] {
                    cluster.start(host)?;
                    thread::sleep(SETTLE / 4);
                    taken.push(cluster.join(host, role, 1)?);
                    cluster.await_ready(1, host)?;
                }
                lab.reset()?;
            }
            Ok(taken)
        })?);
    }
    Ok(rows)
}

fn memory(lab: &mut Lab, settings: Settings) -> Result<Vec<Row>> {
    const TASKS: usize = 1000;
    let mut worker = Row::new("resident memory of a worker beside the engine", "≤ 15 MB");
    let mut manager =
        Row::new(&format!("resident memory of a manager with {TASKS} tasks beside the engine"), "≤ 40 MB");
    for peer in settings.peers() {
        // Engines as new: what earlier figures left in their heaps would hide what they grow by.
        for host in 1..=4 {
            lab.kill_engine(host)?;
            lab.start_engine(host)?;
        }
        let before = [lab.host(1).engine_memory()?, lab.host(4).engine_memory()?];
        let cluster = Cluster::form(lab, peer, 3, 1)?;
        // Most of them wait: a thousand containers are more than one machine takes. To a manager they are tasks all the same.
        cluster.api(1).post("/services/create", &spec(40, None))?;
        cluster.await_running(SERVICE, 40, &[], PATIENCE)?;
        let mut waiting = spec(TASKS - 40, Some("node.labels.none==such"));
        waiting["Name"] = json!("waiting");
        cluster.api(1).post("/services/create", &waiting)?;
        wait::until("a thousand tasks", PATIENCE, POLL * 4, || {
            let tasks = cluster.tasks(1, "waiting")?;
            let pending = tasks.iter().filter(|task| task["Status"]["State"] == "pending").count();
            wait::seen(pending == TASKS - 40, || format!("{pending} pending"))
        })?;
        thread::sleep(SETTLE * 2);
        let hosts = [cluster.lab.host(1), cluster.lab.host(4)];
        let [of_manager, of_worker] = match peer {
            Peer::Shoal => [hosts[0].node_memory()?, hosts[1].node_memory()?],
            // The peer is inside the engine: what that grew by.
            Peer::Swarm => [
                hosts[0].engine_memory()?.saturating_sub(before[0]),
                hosts[1].engine_memory()?.saturating_sub(before[1]),
            ],
        };
        let inside = if peer == Peer::Swarm { " (growth of the engine)" } else { "" };
        let megabytes = |bytes: u64| Some(format!("{:.1} MB{inside}", bytes as f64 / 1e6));
        *manager.of(peer) = megabytes(of_manager);
        *worker.of(peer) = megabytes(of_worker);
        lab.reset()?;
    }
    Ok(vec![worker, manager])
}

impl Settings {
    /// Refuse a run that cannot be.
    ///
    /// # Errors
    /// Nothing to measure, or our programs are not built.
    pub fn validate(self) -> Result<Self> {
        ensure!(self.runs > 0, "--runs wants at least 1");
        ensure!(self.shoal || self.swarm, "nobody to measure");
        if self.shoal {
            binary("node")?;
        }
        Ok(self)
    }
}
