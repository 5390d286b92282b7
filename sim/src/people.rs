//! Those around the cluster, in tasks of their own: people with their wishes, whoever keeps the machines, a worker that
//! lies, a stranger with an old token.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use shoal_actors::api::{LocalState, NodeApi as _};
use shoal_actors::node::Node;
use shoal_core::model::{Node as NodeObject, NodeDescription, NodeState, Role, TaskState, TaskStatus};
use shoal_net::{CallError, FrameReceiver, FrameSender, Peer};
use shoal_wire::v1::{FromNode, SessionReply, SessionRequest, TaskReport, ToNode};
use shoal_wire::{Kind, Protocol, codec};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::containers::Engine;
use crate::event::What;
use crate::fabric::Fabric;
use crate::host::Host;
use crate::options::Options;
use crate::person::{Person, host_of, pick};
use crate::plan::Plan;
use crate::reader::Reader;
use crate::stranger::Stranger;
use crate::trace::Trace;
use crate::wishes::{Ask, Wish};
use crate::world::{Newcomers, Nodes, World, joining};

/// Wishes that are being answered at once; more are forgotten.
const AT_ONCE_MAX: usize = 16;
const KEEP_EVERY: Duration = Duration::from_millis(500);
const JOIN_MAX: Duration = Duration::from_secs(40);
const CALL_MAX: Duration = Duration::from_secs(2);
/// A late request is tried so often, at such intervals, and waits no longer for an answer than a node would.
const LATE_TIMES: usize = 3;
const LATE_EVERY: Duration = Duration::from_secs(3);
const LATE_MAX: Duration = Duration::from_millis(500);
/// The host of a stranger.
const STRANGER: usize = 250;
/// Keys of what nodes say by gossip.
const SUSPECTS: &str = "suspects";
const ROLE: &str = "role";
/// The words of a lie.
pub const LIE: &str = "a lie";

/// Any of the managers that are up.
#[must_use]
pub fn any_manager(nodes: &Nodes, number: u64) -> Option<Node> {
    let managers: Vec<Node> = nodes.borrow().values().filter(|node| node.raft().is_some()).cloned().collect();
    pick(&managers, number).cloned()
}

fn any_leader(nodes: &Nodes, number: u64) -> Option<Node> {
    let leads = |node: &&Node| node.raft().is_some_and(|raft| raft.leadership().borrow().is_me);
    let leaders: Vec<Node> = nodes.borrow().values().filter(leads).cloned().collect();
    pick(&leaders, number).cloned()
}

/// Live through the wishes of a plan, each in its time.
pub async fn wish(plan: &Plan, world: &Around, formed: Instant, broken: &Cell<bool>) {
    let open = Rc::new(Cell::new(0));
    for wish in &plan.wishes {
        sleep_until(formed + wish.at).await;
        if broken.get() {
            break;
        }
        if open.get() >= AT_ONCE_MAX {
            continue;
        }
        open.set(open.get() + 1);
        let (open, around, wish) = (Rc::clone(&open), world.clone(), wish.clone());
        actix_rt::spawn(async move {
            around.grant(&wish).await;
            open.set(open.get() - 1);
        });
    }
    while open.get() > 0 {
        sleep(Duration::from_millis(100)).await;
    }
}

/// What those around the cluster know of it. Cheap to clone.
#[derive(Clone)]
pub struct Around {
    pub(crate) nodes: Nodes,
    /// Those of the hosts, in their order.
    pub(crate) engines: Rc<[Engine]>,
    newcomers: Newcomers,
    person: Person,
    pub(crate) trace: Trace,
    broken: Rc<std::cell::RefCell<Vec<String>>>,
    options: Rc<Options>,
    fabric: Fabric,
    visited: Rc<Cell<bool>>,
}

impl Around {
    /// Around this world.
    #[must_use]
    pub fn new(world: &World, person: Person, trace: Trace) -> Self {
        Self {
            nodes: Rc::clone(&world.nodes),
            engines: world.hosts.iter().map(|host| host.engine.clone()).collect(),
            newcomers: Rc::clone(&world.newcomers),
            person,
            trace,
            broken: Rc::default(),
            options: Rc::new(world.options.clone()),
            fabric: world.fabric.clone(),
            visited: Rc::default(),
        }
    }

    /// What was found broken, since the last time.
    #[must_use]
    pub fn take_broken(&self) -> Vec<String> {
        let mut broken = std::mem::take(&mut *self.broken.borrow_mut());
        broken.extend(self.person.take_broken().into_iter().map(|what| format!("people: {what}")));
        broken
    }

    async fn grant(&self, wish: &Wish) {
        match &wish.ask {
            Ask::Lie { pick } => self.lie(*pick).await,
            Ask::OldToken => self.join_with_old_token(wish.through).await,
            Ask::Stranger { seed } => self.be_visited(*seed).await,
            Ask::Run { pick } => self.run_container(*pick).await,
            Ask::Disturb { pick } => self.disturb_container(*pick),
            Ask::WriteAndRead { rounds } => {
                let mut reader = Reader::new(wish.through);
                reader.go_on(&self.nodes, *rounds).await;
                self.tell("reads", reader.found);
            }
            ask => {
                if let Some(node) = any_manager(&self.nodes, wish.through) {
                    self.person.ask(&node, ask).await;
                }
            }
        }
    }

    /// Let those join again who are members no longer, and take leave of what they were.
    pub async fn keep(self, seed: u64, over: Rc<Cell<bool>>) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        while !over.get() {
            sleep(self.options.pace.of(KEEP_EVERY)).await;
            let waiting: Vec<_> = self.newcomers.borrow().iter().map(|(host, n)| (*host, *n)).collect();
            for (host, newcomer) in waiting {
                let Some(manager) = any_manager(&self.nodes, rng.random()) else { continue };
                let node = self.nodes.borrow().get(&host).cloned();
                let id = node.as_ref().and_then(|node| node.local().node_id);
                let is_former =
                    |known: &NodeObject| known.hostname() == format!("h{host}") && Some(known.id) != id;
                let Some(node) = node.filter(|_| Instant::now() >= newcomer.from) else { continue };
                match node.local().state {
                    LocalState::Active if id.is_some() => {
                        let Ok(state) = manager.state() else { continue };
                        if id.is_some_and(|id| state.node(id).is_none()) {
                            continue;
                        }
                        if state.nodes().any(|known| is_former(known)) {
                            self.person.bury(&manager, is_former).await;
                        } else {
                            self.newcomers.borrow_mut().remove(&host);
                        }
                    }
                    LocalState::Error => drop(timeout(self.join_max(), node.leave(true)).await),
                    LocalState::Inactive => self.join(&node, &manager, newcomer.role).await,
                    LocalState::Active | LocalState::Pending => {}
                }
            }
        }
    }

    async fn join(&self, node: &Node, manager: &Node, role: Role) {
        let Ok(state) = manager.state() else { return };
        let Some(cluster) = state.cluster() else { return };
        let through = host_of(manager);
        let token = match role {
            Role::Manager => &cluster.tokens.manager,
            Role::Worker => &cluster.tokens.worker,
        };
        let answer = match timeout(self.join_max(), node.join(joining(through, token))).await {
            Ok(Ok(id)) => format!("done: {id}"),
            Ok(Err(error)) => format!("refused: {error}"),
            Err(_) => "unknown".to_owned(),
        };
        self.trace.event(What::Person { host: through, text: format!("joins as a {role}"), answer });
    }

    fn join_max(&self) -> Duration {
        self.options.pace.of(JOIN_MAX)
    }

    fn tell(&self, judge: &str, found: Vec<String>) {
        self.broken.borrow_mut().extend(found.into_iter().map(|what| format!("{judge}: {what}")));
    }

    async fn be_visited(&self, seed: u64) {
        // One at a time: they are told apart by their host.
        if self.visited.replace(true) {
            return;
        }
        let number = (self.options.hosts + 1, seed);
        let mut stranger = Stranger::new(number, &self.options, &self.fabric, &self.trace);
        stranger.visit(&self.nodes).await;
        self.tell("strangers", stranger.found);
        self.visited.set(false);
    }

    async fn join_with_old_token(&self, through: u64) {
        let Some(token) = self.person.old_token() else { return };
        let Some(manager) = any_manager(&self.nodes, through) else { return };
        let through = host_of(&manager);
        let (options, fabric) = (&self.options, self.fabric.clone());
        let seed = options.seed ^ 0x5712;
        let mut host = Host::new(STRANGER, seed, options.sync, fabric, self.trace.clone());
        if host.start().await.is_err() {
            return;
        }
        if let Some(node) = host.node().cloned() {
            let joined = timeout(self.join_max(), node.join(joining(through, &token))).await;
            if matches!(joined, Ok(Ok(_))) {
                self.broken.borrow_mut().push("tokens: a replaced token let somebody in".into());
            }
            let text = "joins with a replaced token".to_owned();
            let answer = format!("{joined:?}");
            self.trace.event(What::Person { host: through, text, answer });
        }
        host.kill().await;
        host.wipe();
    }

    /// A worker sends every message that only managers may send, reports on tasks that are not its own, and says by gossip that
    /// it hears nobody, in whatever incarnation, and manages.
    async fn lie(&self, number: u64) {
        let workers: Vec<Node> =
            self.nodes.borrow().values().filter(|node| is_worker(node)).cloned().collect();
        let Some(liar) = pick(&workers, number) else { return };
        let Some(manager) = any_manager(&self.nodes, number) else { return };
        let (Some(addr), Some(id)) = (manager.local().addr, manager.local().node_id) else { return };
        let peer = Peer { node_id: Some(id), addr };
        let only_managers = |kind: &&Kind| matches!(kind.protocol(), Protocol::Raft | Protocol::Control);
        for kind in Kind::ALL.iter().filter(only_managers) {
            let answer = liar.endpoint().call(&peer, *kind, Vec::new(), CALL_MAX).await;
            let heard = matches!(answer, Ok(_) | Err(CallError::Refused(_)));
            if heard && is_worker(liar) {
                let words = format!("roles: a worker's {} was heard: {answer:?}", kind.name());
                self.broken.borrow_mut().push(words);
            }
        }
        self.report_on_others(liar, &manager, &peer).await;
        if let (Ok(state), Some(liar)) = (manager.state(), liar.local().addr) {
            let silent = state.nodes().map(|node| format!("{}@{}", node.id, u64::MAX - 1));
            self.fabric.lie(liar, SUSPECTS, silent.collect::<Vec<_>>().join(","));
            self.fabric.lie(liar, ROLE, Role::Manager.to_string());
        }
        sleep(self.options.pace.of(LATE_EVERY)).await;
        self.ask_late(liar, number).await;
    }

    /// Ask the leader again and again, as an earlier life of a worker would whose request comes late, for the session that
    /// the worker has. Once it may be that the worker had none: it begins anew then, sooner than it is asked again, unless
    /// the leader takes it for dead.
    async fn ask_late(&self, worker: &Node, number: u64) {
        for _ in 0..LATE_TIMES {
            let Some(leader) = any_leader(&self.nodes, number) else { return };
            let (Ok(state), Some(id)) = (leader.state(), worker.local().node_id) else { return };
            if state.node(id).is_none_or(|node| node.status.state != NodeState::Ready) {
                return;
            }
            let (Some(addr), node_id) = (leader.local().addr, leader.local().node_id) else { return };
            let peer = Peer { node_id, addr };

            let Some((_tx, mut rx)) = session(worker, &peer, 0, LATE_MAX).await else { return };
            let Ok(Ok(Some(frame))) = timeout(LATE_MAX, rx.recv()).await else { return };
            let Ok(ToNode::Reply(SessionReply::Open { .. })) = codec::decode(&frame.body) else { return };
            sleep(self.options.pace.of(LATE_EVERY)).await;
        }
        let name = described(worker).hostname;
        self.broken.borrow_mut().push(format!("sessions: an earlier life of {name} takes its session over"));
    }

    async fn report_on_others(&self, liar: &Node, manager: &Node, peer: &Peer) {
        let (Ok(state), Some(me)) = (manager.state(), liar.local().node_id) else { return };
        let others: Vec<_> = state
            .tasks()
            .filter(|task| task.node_id.is_some_and(|node| node != me))
            .filter(|task| task.status.state == TaskState::Running)
            .map(|task| TaskReport { task_id: task.id, status: lie(task.status.clone()) })
            .take(10)
            .collect::<Vec<_>>();
        // What it said of its own once, late.
        let late = |status: &TaskStatus| TaskStatus { state: TaskState::Preparing, ..status.clone() };
        let own = state
            .tasks_of_node(me)
            .filter(|task| task.status.state > TaskState::Preparing && !task.status.state.is_terminal())
            .map(|task| TaskReport { task_id: task.id, status: late(&task.status) });
        let reports = others.into_iter().chain(own).collect();
        let Some((mut tx, mut rx)) = session(liar, peer, u64::MAX, CALL_MAX).await else { return };
        let reports = FromNode::Reports { number: 1, reports };
        if let Ok(body) = codec::encode(&reports)
            && tx.send(Kind::FromNode, body).await.is_ok()
        {
            let _ = timeout(Duration::from_millis(300), rx.recv()).await;
        }
    }
}

/// Open a session as a life of a node.
async fn session(
    node: &Node,
    peer: &Peer,
    incarnation: u64,
    most: Duration,
) -> Option<(FrameSender, FrameReceiver)> {
    let body = codec::encode(&SessionRequest { description: described(node), incarnation }).ok()?;
    node.endpoint().open(peer, Kind::Session, body, most).await.ok()
}

fn is_worker(node: &Node) -> bool {
    let worker = node.endpoint().identity().is_some_and(|identity| identity.role == Role::Worker);
    worker && node.raft().is_none()
}

fn described(node: &Node) -> NodeDescription {
    node.local().description.unwrap_or_default()
}

fn lie(status: TaskStatus) -> TaskStatus {
    TaskStatus { state: TaskState::Failed, message: LIE.into(), ..status }
}

/// Tasks of which another node than their own was believed.
#[must_use]
pub fn believed(state: &shoal_core::store::State) -> Vec<String> {
    let lies = state.tasks().filter(|task| task.status.message.contains(LIE));
    lies.map(|task| format!("roles: another node was believed about task {}", task.id)).collect()
}
