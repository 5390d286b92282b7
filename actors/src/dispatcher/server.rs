//! The dispatcher: keeps the sessions of all nodes while this manager leads, tells who is down, hands out
//! assignments, and commits what the nodes report.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use bytes::Bytes;
use shoal_core::dispatcher::{self as rules, AssignmentSet, Reports};
use shoal_core::liveness::{Detector, DetectorConfig, Verdict, Witnesses};
use shoal_core::mesh::{RouteTable, Routes};
use shoal_core::model::{NodeDescription, NodeId, NodeState, NodeStatus, ServiceId, TaskId, Timestamp};
use shoal_core::pace::Pace;
use shoal_core::put_back::{Bug, is_put_back};
use shoal_core::store::{Command, EventKind, ObjectId, State, Write};
use shoal_net::gossip::{Membership, View};
use shoal_wire::codec;
use shoal_wire::v1::{Assignments, FromNode, ManagerAddr, SessionReply, SessionRequest, ToNode};
use tokio::sync::mpsc;

use crate::clock::Clock;
use crate::directory::Directory;
use crate::leader::{Committed, Halt, Lead};
use crate::metric_definitions::DispatcherMetrics;
use crate::raft::RaftHandle;
use crate::witness;

/// How often the detector is asked.
const TICK: Duration = Duration::from_millis(50);
/// Reports that may wait to be committed; past that the node is told nothing and sends them again.
const REPORTS_WAITING_MAX: usize = 200_000;
/// Status writes in one command.
const REPORTS_COMMAND_MAX: usize = 1_000;

/// What the dispatcher needs.
pub struct DispatcherParts {
    /// Consensus.
    pub raft: RaftHandle,
    /// Wall clock.
    pub clock: Clock,
    /// Gossip.
    pub membership: Arc<dyn Membership>,
    /// Address book.
    pub directory: Directory,
    /// This node.
    pub node_id: NodeId,
    /// Figures.
    pub metrics: DispatcherMetrics,
    /// How often it looks.
    pub pace: Pace,
}

/// A message for a node.
pub(super) enum ForNode {
    Told(ToNode),
    /// Routes, encoded: the same for every node.
    Routes(Bytes),
}

struct Session {
    id: u64,
    incarnation: u64,
    outbox: mpsc::Sender<ForNode>,
    sent: AssignmentSet,
}

/// Of which tasks a node may have to be told.
enum Touched {
    All,
    Some(BTreeSet<TaskId>),
}

impl Default for Touched {
    fn default() -> Self {
        Self::Some(BTreeSet::new())
    }
}

impl Touched {
    fn add(&mut self, task: TaskId) {
        if let Self::Some(tasks) = self {
            tasks.insert(task);
        }
    }
}

#[derive(Default)]
struct Waiting {
    reports: Reports,
    acks: Vec<(NodeId, u64, u64)>,
    node_writes: BTreeMap<NodeId, Vec<Write>>,
}

struct Leading {
    term: u64,
    generation: u64,
    detector: Detector,
    /// Time between two heartbeats of the sessions that are open.
    heartbeat: Duration,
    /// What gossip last said, counted.
    gossip: Option<(View, Witnesses)>,
    /// Whether the detector has not been told of that yet, or of all nodes.
    evidence_due: bool,
    sessions: BTreeMap<NodeId, Session>,
    /// Which node holds which task, so that a removed task's node is known.
    holders: BTreeMap<TaskId, NodeId>,
    /// The mesh's routes, as every node knows them.
    routes: RouteTable,
    waiting: Waiting,
    busy: bool,
    next_tick: tokio::time::Instant,
    /// What the nodes were last told of the cluster.
    cluster: (Vec<ManagerAddr>, Vec<NodeId>),
    /// State changes on their way, so that they are not proposed twice.
    stated: BTreeMap<NodeId, NodeState>,
}

/// The dispatcher. Idle until it leads.
pub struct DispatcherActor {
    parts: DispatcherParts,
    leading: Option<Leading>,
    counter: u64,
}

impl DispatcherActor {
    /// An idle dispatcher.
    #[must_use]
    pub fn new(parts: DispatcherParts) -> Self {
        Self { parts, leading: None, counter: 0 }
    }

    fn now(&self) -> Timestamp {
        (self.parts.clock)()
    }

    fn heartbeat(&self, state: &State) -> Duration {
        state.cluster().map_or(Duration::from_millis(150), |c| c.spec.dispatcher.heartbeat_period)
    }

    fn hint(&self) -> Option<ManagerAddr> {
        let leader = self.parts.raft.leadership().borrow().leader?;
        let addr = self.parts.directory.addr_of(leader)?;
        (leader != self.parts.node_id).then(|| ManagerAddr { node_id: leader, addr: addr.to_string() })
    }

    fn cluster_news(state: &State) -> (Vec<ManagerAddr>, Vec<NodeId>) {
        let managers = state
            .nodes()
            .filter_map(|node| {
                Some(ManagerAddr { node_id: node.id, addr: node.manager.as_ref()?.addr.clone() })
            })
            .collect();
        (managers, state.removed_nodes().map(|(id, _)| id).collect())
    }

    fn open(&mut self, request: OpenSession, ctx: &mut Context<Self>) -> SessionReply {
        let OpenSession { node, request: SessionRequest { description, incarnation }, outbox } = request;
        let state = self.parts.raft.state();
        let now = self.now();
        if state.is_removed(node) {
            return SessionReply::Removed;
        }
        let (heartbeat, hint) = (self.heartbeat(&state), self.hint());
        let Some(leading) = &mut self.leading else { return SessionReply::Elsewhere(hint) };
        let Some(known) = state.node(node) else { return SessionReply::Elsewhere(None) };
        let older = leading.sessions.get(&node).is_some_and(|old| old.incarnation > incarnation);
        if older && !is_put_back(Bug::OldLifeWins) {
            return SessionReply::Elsewhere(None);
        }
        self.counter += 1;
        let id = self.counter;
        leading.detector.heard(node, now);
        // One that was down when this manager began to lead is watched from now on, and gossip need not change for it.
        if let Some((_, witnesses)) = &leading.gossip {
            leading.detector.evidence(node, witnesses.evidence(node));
        }
        leading.describe(&state, node, description);
        leading.set_state(node, known.status.state, NodeState::Ready, "session open", now);
        let role = known.spec.role;
        leading.sessions.insert(node, Session { id, incarnation, outbox, sent: AssignmentSet::new(node) });
        self.parts.metrics.sessions.set(leading.sessions.len() as i64);
        let (managers, removed) = leading.cluster.clone();
        let generation = leading.generation;
        // The reply goes first: what follows it is sent once this handler has returned.
        ctx.run_later(Duration::ZERO, move |actor, ctx| {
            if actor.leading.as_ref().is_some_and(|l| l.generation == generation) {
                actor.tell(node, ToNode::Cluster { managers, role, removed });
                actor.tell_all_routes(node);
                actor.assign(&BTreeMap::from([(node, Touched::All)]));
                actor.flush(ctx);
            }
        });
        let heartbeat_ms = u64::try_from(heartbeat.as_millis()).unwrap_or(150);
        SessionReply::Open { session: id, heartbeat_ms }
    }

    fn tell(&mut self, node: NodeId, message: ToNode) {
        self.send(node, ForNode::Told(message));
    }

    fn send(&mut self, node: NodeId, message: ForNode) {
        let Some(leading) = &mut self.leading else { return };
        let Some(session) = leading.sessions.get(&node) else { return };
        if session.outbox.try_send(message).is_err() {
            // Slow or gone: it begins anew, with everything.
            tracing::info!(%node, "session closed: the node does not keep up");
            leading.sessions.remove(&node);
            self.parts.metrics.sessions.set(leading.sessions.len() as i64);
        }
    }

    /// Send these nodes what changed of their tasks, in as many messages as it takes.
    fn assign(&mut self, nodes: &BTreeMap<NodeId, Touched>) {
        let state = self.parts.raft.state();
        for (node, touched) in nodes {
            while let Some(message) = self.next_assignments(&state, *node, touched) {
                self.parts.metrics.assignments.inc();
                self.tell(*node, ToNode::Assignments(message));
            }
        }
    }

    fn next_assignments(&mut self, state: &State, node: NodeId, touched: &Touched) -> Option<Assignments> {
        let leading = self.leading.as_mut()?;
        let sent = &mut leading.sessions.get_mut(&node)?.sent;
        let next = match touched {
            Touched::All => sent.next(state),
            Touched::Some(tasks) => sent.next_of(state, tasks),
        };
        match next? {
            rules::Assignments::Complete { sequence, tasks } => {
                leading.holders.extend(tasks.iter().map(|t| (t.id, node)));
                Some(Assignments::Complete { sequence, tasks })
            }
            rules::Assignments::Incremental { sequence, changed, removed } => {
                leading.holders.extend(changed.iter().map(|t| (t.id, node)));
                for id in &removed {
                    leading.holders.remove(id);
                }
                Some(Assignments::Incremental { sequence, changed, removed })
            }
        }
    }

    fn heard(&mut self, heard: Heard, ctx: &mut Context<Self>) {
        let Heard { node, session, message } = heard;
        let now = self.now();
        let state = self.parts.raft.state();
        let Some(leading) = &mut self.leading else { return };
        if leading.sessions.get(&node).is_none_or(|s| s.id != session) {
            return;
        }
        leading.detector.heard(node, now);
        match message {
            FromNode::Beat(number) => {
                self.parts.metrics.heartbeats.inc();
                if let Some(known) = state.node(node) {
                    leading.set_state(node, known.status.state, NodeState::Ready, "", now);
                }
                self.tell(node, ToNode::Beat(number));
            }
            FromNode::Described(description) => leading.describe(&state, node, description),
            FromNode::Reports { number, reports } => {
                if leading.waiting.reports.len() + reports.len() > REPORTS_WAITING_MAX {
                    self.parts.metrics.reports_dropped.inc_by(reports.len() as u64);
                    return;
                }
                self.parts.metrics.reports.inc_by(reports.len() as u64);
                for report in reports {
                    if let Err(refusal) =
                        leading.waiting.reports.take(&state, node, report.task_id, report.status)
                    {
                        tracing::debug!(%node, %refusal, "report not taken");
                    }
                }
                if is_put_back(Bug::ReportAckedEarly) {
                    self.tell(node, ToNode::Acknowledged(number));
                } else {
                    leading.waiting.acks.push((node, session, number));
                }
            }
            FromNode::Leaving => {
                leading.sessions.remove(&node);
                self.parts.metrics.sessions.set(leading.sessions.len() as i64);
            }
        }
        self.flush(ctx);
    }

    /// Commit what waits. One proposal round at a time: the next batch gathers meanwhile.
    fn flush(&mut self, ctx: &mut Context<Self>) {
        let now = self.now();
        let state = self.parts.raft.state();
        let Some(leading) = &mut self.leading else { return };
        if leading.busy || leading.waiting.is_empty() {
            return;
        }
        leading.busy = true;
        let mut waiting = std::mem::take(&mut leading.waiting);
        let (term, generation) = (leading.term, leading.generation);
        let commands = waiting.commands(&state, term, now);
        let raft = self.parts.raft.clone();
        let work = async move {
            let results = futures_util::future::join_all(commands.into_iter().map(|c| raft.propose(c))).await;
            results.into_iter().find_map(Result::err)
        };
        let acks = waiting.acks;
        ctx.spawn(work.into_actor(self).map(move |error, actor, ctx| {
            let Some(leading) = actor.leading.as_mut().filter(|l| l.generation == generation) else { return };
            leading.busy = false;
            leading.stated.clear();
            if let Some(error) = error {
                // Not acknowledged: the nodes send their reports again in a new session.
                tracing::debug!(%error, "reports not committed");
                for (node, session, _) in acks {
                    if leading.sessions.get(&node).is_some_and(|s| s.id == session) {
                        leading.sessions.remove(&node);
                    }
                }
            } else {
                for (node, session, number) in acks {
                    let current = actor.leading.as_ref().and_then(|l| l.sessions.get(&node));
                    if current.is_some_and(|s| s.id == session) {
                        actor.tell(node, ToNode::Acknowledged(number));
                    }
                }
            }
            actor.flush(ctx);
        }));
    }

    fn tick(&mut self, ctx: &mut Context<Self>) {
        let now = self.now();
        let state = self.parts.raft.state();
        let view = self.parts.membership.view();
        let me = self.parts.node_id;
        let Some(leading) = &mut self.leading else { return };
        if !leading.gossip.as_ref().is_some_and(|(known, _)| Arc::ptr_eq(known, &view)) {
            leading.gossip = Some((Arc::clone(&view), witness::witnesses(me, &view)));
            leading.evidence_due = true;
        }
        let at = tokio::time::Instant::now();

        leading.detector.on_tick(now, at.saturating_duration_since(leading.next_tick));
        let tick = self.parts.pace.of(TICK);
        leading.next_tick = at + tick;
        leading.gather_evidence(&state);
        for (node, verdict, reason) in leading.detector.decide(now) {
            let Some(known) = state.node(node) else { continue };
            let wanted = match verdict {
                Verdict::Up => continue,
                Verdict::Unreachable => NodeState::Disconnected,
                Verdict::Down => NodeState::Down,
            };
            if wanted == NodeState::Down && leading.sessions.remove(&node).is_some() {
                self.parts.metrics.sessions.set(leading.sessions.len() as i64);
            }
            let news = leading.set_state(node, known.status.state, wanted, &reason, now);
            if news && known.status.state != wanted {
                tracing::warn!(%node, name = known.name(), ?wanted, reason, "node is not heard");
                self.parts.metrics.declared_down.inc();
            }
        }
        self.flush(ctx);
        let generation = leading_generation(self);
        ctx.run_later(tick, move |actor, ctx| {
            if leading_generation(actor) == generation {
                actor.tick(ctx);
            }
        });
    }

    /// The time between two heartbeats may have been changed: sessions are opened anew, so that all beat as the detector
    /// expects.
    fn keep_beat(&mut self, state: &State) {
        let heartbeat = self.heartbeat(state);
        let Some(leading) = self.leading.as_mut().filter(|leading| leading.heartbeat != heartbeat) else {
            return;
        };
        leading.heartbeat = heartbeat;
        leading.detector.set_heartbeat(heartbeat, self.parts.pace);
        for node in leading.sessions.keys().copied().collect::<Vec<_>>() {
            self.tell(node, ToNode::Closed(None));
            if let Some(leading) = &mut self.leading {
                leading.sessions.remove(&node);
            }
        }
        self.parts.metrics.sessions.set(0);
    }

    /// Tell a node that knows no routes all of them.
    fn tell_all_routes(&mut self, node: NodeId) {
        let Some(leading) = &self.leading else { return };
        for routes in leading.routes.complete() {
            if let Some(body) = encoded(&routes) {
                self.send(node, ForNode::Routes(body));
            }
        }
    }

    /// Tell every node which routes changed.
    fn tell_routes(&mut self, state: &State, services: &BTreeSet<ServiceId>) {
        let Some(leading) = &mut self.leading else { return };
        let Some(changed) = leading.routes.renew(state, services) else { return };
        if is_put_back(Bug::RoutesNotTold) {
            return;
        }
        let Some(body) = encoded(&changed) else { return };
        let nodes: Vec<NodeId> = leading.sessions.keys().copied().collect();
        for node in nodes {
            self.parts.metrics.routes.inc();
            self.send(node, ForNode::Routes(body.clone()));
        }
    }

    /// Tell every node when managers, its role or the removed nodes changed.
    fn tell_news(&mut self, state: &State, changed: &BTreeSet<NodeId>) {
        let news = Self::cluster_news(state);
        let Some(leading) = &mut self.leading else { return };
        let all = leading.cluster != news;
        leading.cluster.clone_from(&news);
        let nodes: Vec<_> =
            leading.sessions.keys().filter(|id| all || changed.contains(id)).copied().collect();
        for node in nodes {
            if state.is_removed(node) {
                self.tell(node, ToNode::Reply(SessionReply::Removed));
                if let Some(leading) = &mut self.leading {
                    leading.sessions.remove(&node);
                }
                continue;
            }
            let Some(known) = state.node(node) else { continue };
            let (managers, removed) = news.clone();
            self.tell(node, ToNode::Cluster { managers, role: known.spec.role, removed });
        }
    }
}

fn encoded(routes: &Routes) -> Option<Bytes> {
    match codec::encode(routes) {
        Ok(body) => Some(body.into()),
        Err(error) => {
            tracing::error!(%error, "routes cannot be encoded");
            None
        }
    }
}

fn leading_generation(actor: &DispatcherActor) -> Option<u64> {
    actor.leading.as_ref().map(|l| l.generation)
}

impl Leading {
    fn describe(&mut self, state: &State, node: NodeId, description: NodeDescription) {
        let Some(known) = state.node(node).map(|node| node.description.as_ref()) else { return };
        let description = description.after(known);
        if known != Some(&description) {
            self.waiting.node_writes.entry(node).or_default().push(Write::NodeDescription(node, description));
        }
    }

    /// Write down what a node is, unless that is on its way already. Returns whether it is news.
    fn set_state(
        &mut self,
        node: NodeId,
        known: NodeState,
        wanted: NodeState,
        message: &str,
        at: Timestamp,
    ) -> bool {
        if self.stated.get(&node).copied().unwrap_or(known) == wanted {
            return false;
        }
        self.stated.insert(node, wanted);
        let status = NodeStatus { state: wanted, message: message.to_owned(), since: at };
        self.waiting.node_writes.entry(node).or_default().push(Write::NodeStatus(node, status));
        true
    }

    /// What gossip says of each node, if that or the nodes have changed.
    fn gather_evidence(&mut self, state: &State) {
        if !std::mem::take(&mut self.evidence_due) {
            return;
        }
        let Some((_, witnesses)) = &self.gossip else { return };
        for node in state.nodes() {
            self.detector.evidence(node.id, witnesses.evidence(node.id));
        }
        let gone: Vec<_> = self.detector.nodes().filter(|id| state.node(*id).is_none()).collect();
        for id in gone {
            self.detector.forget(id);
        }
    }
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.reports.is_empty() && self.acks.is_empty() && self.node_writes.is_empty()
    }

    fn commands(&mut self, state: &State, term: u64, at: Timestamp) -> Vec<Command> {
        let command = |writes| Command { term: Some(term), at, expects: Vec::new(), writes };
        let mut commands: Vec<Command> = self
            .node_writes
            .iter()
            .filter(|(node, _)| state.node(**node).is_some())
            .map(|(_, writes)| command(writes.clone()))
            .collect();
        loop {
            let writes = self.reports.drain(state, REPORTS_COMMAND_MAX);
            if writes.is_empty() {
                return commands;
            }
            commands.push(command(writes));
        }
    }
}

impl Actor for DispatcherActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        ctx.set_mailbox_capacity(4096);
    }
}

impl Handler<Lead> for DispatcherActor {
    type Result = ();

    fn handle(&mut self, Lead(term): Lead, ctx: &mut Context<Self>) {
        if self.leading.take().is_some() {
            self.parts.metrics.sessions.set(0);
        }
        let Some(term) = term else { return };
        self.counter += 1;
        let (state, now) = (self.parts.raft.state(), self.now());
        let config = DetectorConfig::for_heartbeat(self.heartbeat(&state), self.parts.pace);
        let mut detector = Detector::new(config);
        for node in state.nodes().filter(|n| n.status.state != NodeState::Down) {
            detector.expect(node.id, now);
        }
        self.leading = Some(Leading {
            term,
            generation: self.counter,
            detector,
            heartbeat: self.heartbeat(&state),
            gossip: None,
            evidence_due: true,
            sessions: BTreeMap::new(),
            holders: BTreeMap::new(),
            routes: RouteTable::new(&state),
            waiting: Waiting::default(),
            busy: false,
            next_tick: tokio::time::Instant::now(),
            cluster: Self::cluster_news(&state),
            stated: BTreeMap::new(),
        });
        self.tick(ctx);
    }
}

impl Handler<Halt> for DispatcherActor {
    type Result = ();

    fn handle(&mut self, _: Halt, ctx: &mut Context<Self>) {
        self.leading = None;
        ctx.stop();
    }
}

impl Handler<Committed> for DispatcherActor {
    type Result = ();

    fn handle(&mut self, committed: Committed, ctx: &mut Context<Self>) {
        let now = self.now();
        let Some(leading) = &mut self.leading else { return };
        if leading.busy && is_put_back(Bug::ChangesMissedWhileBusy) {
            return;
        }
        let state = self.parts.raft.state();
        let (mut newborn, mut stated) = (Vec::new(), Vec::new());
        let mut tasks_of: BTreeMap<NodeId, Touched> = BTreeMap::new();
        let mut changed: BTreeSet<NodeId> = BTreeSet::new();
        let mut rerouted: BTreeSet<ServiceId> = BTreeSet::new();
        let (mut cluster, mut settings) = (false, false);
        match committed {
            Committed::Missed => {
                tasks_of.extend(leading.sessions.keys().map(|node| (*node, Touched::All)));
                changed.extend(leading.sessions.keys());
                rerouted.extend(leading.routes.all(&state));
                stated.extend(state.nodes().map(|node| node.id));
                (cluster, settings) = (true, true);
                leading.evidence_due = true;
            }
            Committed::Events(events) => {
                for event in events.iter() {
                    leading.routes.touch(&state, event.object, event.kind, &mut rerouted);
                    match event.object {
                        ObjectId::Task(id) => {
                            let now_at = state.task(id).and_then(|task| task.node_id);
                            for node in leading.holders.get(&id).copied().into_iter().chain(now_at) {
                                tasks_of.entry(node).or_default().add(id);
                            }
                        }
                        ObjectId::Node(id) => {
                            cluster = true;
                            leading.evidence_due |=
                                matches!(event.kind, EventKind::Created | EventKind::Removed);
                            match event.kind {
                                EventKind::StatusChanged => stated.push(id),
                                EventKind::Created => newborn.push(id),
                                _ => {}
                            }
                            if event.kind != EventKind::StatusChanged {
                                changed.insert(id);
                            }
                        }
                        ObjectId::Cluster => settings = true,
                        ObjectId::Service(_) | ObjectId::Network(_) | ObjectId::Attachment(_) => {}
                    }
                }
            }
        }
        newborn.into_iter().for_each(|node| leading.detector.expect_newborn(node, now));
        // One that was down when this manager began to lead is not watched, and that it was back before may be committed only
        // now. Of those whose beginning was missed nobody knows how new they are.
        let is_up =
            |node: &NodeId| state.node(*node).is_some_and(|node| node.status.state != NodeState::Down);
        for node in stated.into_iter().filter(is_up) {
            leading.evidence_due |= leading.detector.expect(node, now);
        }
        if settings {
            self.keep_beat(&state);
        }
        if cluster {
            self.tell_news(&state, &changed);
        }
        self.tell_routes(&state, &rerouted);
        self.assign(&tasks_of);
        self.flush(ctx);
    }
}

/// A node asks for a session.
#[derive(Message)]
#[rtype(result = "SessionReply")]
pub(super) struct OpenSession {
    pub(super) node: NodeId,
    pub(super) request: SessionRequest,
    pub(super) outbox: mpsc::Sender<ForNode>,
}

impl Handler<OpenSession> for DispatcherActor {
    type Result = MessageResult<OpenSession>;

    fn handle(&mut self, request: OpenSession, ctx: &mut Context<Self>) -> Self::Result {
        MessageResult(self.open(request, ctx))
    }
}

/// A node said something in its session.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Heard {
    pub(super) node: NodeId,
    pub(super) session: u64,
    pub(super) message: FromNode,
}

impl Handler<Heard> for DispatcherActor {
    type Result = ();

    fn handle(&mut self, message: Heard, ctx: &mut Context<Self>) {
        self.heard(message, ctx);
    }
}

/// A session's stream has ended.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct SessionGone {
    pub(super) node: NodeId,
    pub(super) session: u64,
}

impl Handler<SessionGone> for DispatcherActor {
    type Result = ();

    fn handle(&mut self, SessionGone { node, session }: SessionGone, _: &mut Context<Self>) {
        let Some(leading) = &mut self.leading else { return };
        if leading.sessions.get(&node).is_some_and(|s| s.id == session) {
            leading.sessions.remove(&node);
            self.parts.metrics.sessions.set(leading.sessions.len() as i64);
        }
    }
}
