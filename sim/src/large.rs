//! A large cluster: three managers as they ship and thousands of light nodes. Services are created, a tenth of the nodes is
//! lost, and all must run again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use shoal_actors::api::{Freshness, InitOptions, NodeApi as _};
use shoal_actors::node::Node;
use shoal_core::model::{
    Availability, ClusterSpec, ContainerSpec, EndpointSpec, Node as NodeObject, NodeId, NodeSpec, NodeState,
    NodeStatus, Role, Service, ServiceId, ServiceMode, ServiceSpec, TaskSpec, TaskState,
};
use shoal_core::pace::Pace;
use shoal_core::store::{Command, State, Write};
use shoal_net::ca::CertificateAuthority;
use tokio::time::{sleep, timeout};

use crate::fabric::{Depth, Fabric};
use crate::hooks::real_elapsed;
use crate::host::{Host, clock};
use crate::light::{Around, Light, description};
use crate::trace::Trace;
use crate::world::joining;

const MANAGERS: usize = 3;
/// Heartbeats of sessions, as Docker Swarm has them by default.
const HEARTBEAT: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(250);
const WRITES_AT_ONCE: usize = 500;
/// A part that is not done in this virtual time never will be.
const PART_MAX: Duration = Duration::from_secs(3_600);
/// Reads of which the slowest are reported.
const READS: usize = 200;

/// What it came to.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    /// Light nodes.
    pub nodes: usize,
    /// Tasks.
    pub tasks: usize,
    /// Virtual and real time until all tasks ran.
    pub created: (Duration, Duration),
    /// Virtual and real time from the loss of nodes until all tasks ran again.
    pub converged: (Duration, Duration),
    /// Tasks that had to move.
    pub moved: usize,
    /// Log entries that were committed.
    pub entries: u64,
    /// Real time of a read of all tasks of one service, p50 and p99.
    pub reads: (Duration, Duration),
}

/// Live through it.
///
/// # Errors
/// If a part of it does not come to its end.
pub async fn run(nodes: usize, tasks: usize) -> anyhow::Result<Figures> {
    let trace = Trace::new(false);
    let fabric = Fabric::new(Depth::Fast, 1, Pace::USUAL, trace.clone());
    let (mut hosts, leader) = managers(&fabric, &trace).await?;
    let Fabric::Fast(links, _) = &fabric else { anyhow::bail!("the depth is fast") };
    let seated = |state: &State| state.nodes().filter(|node| node.manager.is_some()).count() == MANAGERS;
    until("all managers have seats", &leader, seated).await?;
    let state = leader.state()?;
    let cluster = state.cluster().context("no cluster")?;
    let authority = CertificateAuthority::load(&cluster.root_ca)?;
    let managers: Vec<(NodeId, SocketAddr)> =
        state.nodes().filter_map(|node| Some((node.id, node.manager.as_ref()?.addr.parse().ok()?))).collect();
    ensure!(managers.len() == MANAGERS, "the managers' addresses cannot be read");
    let around = Around { links, cluster: cluster.id, authority: &authority, managers: &managers };
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let numbered: Vec<(usize, NodeId)> =
        (MANAGERS + 1..=MANAGERS + nodes).map(|number| (number, NodeId::random(&mut rng))).collect();
    enrol(&leader, &numbered).await?;
    let mut lights = Vec::with_capacity(nodes);
    for (number, id) in numbered {
        lights.push(Light::start(&around, number, id)?);
    }
    until("all nodes are ready", &leader, |state| ready(state) == nodes + MANAGERS).await?;
    let mut figures = Figures { nodes, tasks, ..Figures::default() };

    let before = leader.state()?.applied();
    let (virtual_began, real_began) = (tokio::time::Instant::now(), real_elapsed());
    create(&leader, tasks, &mut rng).await?;
    until("all tasks run", &leader, |state| running(state) == tasks).await?;
    figures.created = (virtual_began.elapsed(), real_elapsed() - real_began);

    let lost: Vec<Light> = lights.drain(..nodes / 10).collect();
    let lost_ids: Vec<NodeId> = lost.iter().map(|light| light.id).collect();
    figures.moved =
        lost_ids.iter().map(|id| leader.state().map_or(0, |s| s.tasks_of_node(*id).count())).sum();
    let (virtual_began, real_began) = (tokio::time::Instant::now(), real_elapsed());
    lost.into_iter().for_each(|light| light.kill(links));
    let elsewhere = |state: &State| {
        let left = lost_ids.iter().all(|id| state.tasks_of_node(*id).all(|t| t.desired > TaskState::Running));
        left && running(state) >= tasks
    };
    until("all tasks run elsewhere", &leader, elsewhere).await?;
    figures.converged = (virtual_began.elapsed(), real_elapsed() - real_began);
    figures.entries = leader.state()?.applied() - before;
    figures.reads = reads(&leader).await?;
    for host in &mut hosts {
        host.kill().await;
    }
    Ok(figures)
}

async fn managers(fabric: &Fabric, trace: &Trace) -> anyhow::Result<(Vec<Host>, Node)> {
    let sync = (Duration::from_micros(50), Duration::from_micros(200));
    let mut hosts: Vec<Host> = (1..=MANAGERS)
        .map(|number| Host::new(number, number as u64, sync, fabric.clone(), trace.clone()))
        .collect();
    for host in &mut hosts {
        host.start().await?;
    }
    let node = |host: &Host| host.node().cloned().context("a manager is not there");
    let leader = node(&hosts[0])?;
    let mut spec = ClusterSpec::default();
    spec.dispatcher.heartbeat_period = HEARTBEAT;
    spec.task_history_limit = 0;
    spec.raft.snapshot_interval = 1_000_000;
    let init = InitOptions {
        advertise: None,
        spec,
        // Light nodes alone take tasks.
        availability: Availability::Drain,
        force_new_cluster: false,
    };
    leader.init(init).await?;
    let token = leader.state()?.cluster().context("no cluster")?.tokens.manager.clone();
    for host in &hosts[1..] {
        let join = shoal_actors::api::JoinOptions { availability: Availability::Drain, ..joining(1, &token) };
        node(host)?.join(join).await?;
    }
    Ok((hosts, leader))
}

/// Make them members, without asking each of them.
async fn enrol(leader: &Node, nodes: &[(usize, NodeId)]) -> anyhow::Result<()> {
    for some in nodes.chunks(WRITES_AT_ONCE) {
        let at = clock()();
        let writes = some
            .iter()
            .map(|(number, id)| {
                Write::NodeCreate(Box::new(NodeObject {
                    id: *id,
                    spec: NodeSpec { role: Role::Worker, ..NodeSpec::default() },
                    status: NodeStatus { state: NodeState::Unknown, message: "joined".into(), since: at },
                    role: Role::Worker,
                    description: Some(description(*number)),
                    ..NodeObject::default()
                }))
            })
            .collect();
        leader.propose(Command { at, writes, ..Command::default() }).await?;
    }
    Ok(())
}

async fn create(leader: &Node, tasks: usize, rng: &mut ChaCha8Rng) -> anyhow::Result<()> {
    let each = (tasks / 100).clamp(1, 1_000);
    for number in 0..tasks.div_ceil(each) {
        let replicas = each.min(tasks - number * each) as u64;
        let container = ContainerSpec { image: "image:1".into(), ..ContainerSpec::default() };
        let service = Service::new(
            ServiceId::random(rng),
            ServiceSpec {
                name: format!("s{number}"),
                labels: Default::default(),
                mode: ServiceMode::Replicated { replicas },
                task: Arc::new(TaskSpec { container, ..TaskSpec::default() }),
                update: None,
                rollback: None,
                endpoint: EndpointSpec::default(),
            },
        );
        let writes = vec![Write::ServiceCreate(Box::new(service))];
        leader.propose(Command { at: clock()(), writes, ..Command::default() }).await?;
    }
    Ok(())
}

fn ready(state: &State) -> usize {
    state.nodes().filter(|node| node.status.state == NodeState::Ready).count()
}

fn running(state: &State) -> usize {
    let runs = |task: &Arc<shoal_core::model::Task>| {
        task.desired == TaskState::Running && task.status.state == TaskState::Running
    };
    state.tasks().filter(|task| runs(task)).count()
}

async fn until(what: &str, leader: &Node, holds: impl Fn(&State) -> bool) -> anyhow::Result<()> {
    let wait = async {
        loop {
            if leader.state().is_ok_and(|state| holds(&state)) {
                return;
            }
            sleep(LOOK_EVERY).await;
        }
    };
    timeout(PART_MAX, wait).await.with_context(|| format!("not within {PART_MAX:?}: {what}"))
}

/// How long it takes to read all tasks of a service, as its listing does: confirmed by a majority.
async fn reads(leader: &Node) -> anyhow::Result<(Duration, Duration)> {
    let mut took = Vec::with_capacity(READS);
    for number in 0..READS {
        let began = real_elapsed();
        let (state, freshness) = leader.read().await?;
        ensure!(matches!(freshness, Freshness::Fresh), "the read {number} was not confirmed");
        let services = state.services().count().max(1);
        let service = state.services().nth(number % services).context("no service")?;
        let tasks: Vec<_> = state.tasks_of_service(service.id).cloned().collect();
        ensure!(!tasks.is_empty(), "service {} has no tasks", service.spec.name);
        took.push(real_elapsed() - began);
    }
    took.sort();
    Ok((took[READS / 2], took[READS * 99 / 100]))
}
