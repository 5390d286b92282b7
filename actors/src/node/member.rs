//! A node's life in a cluster: its certificate, gossip, its session, its tasks, and the manager in it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use shoal_core::model::{NodeDescription, NodeId, Role, TaskState};
use shoal_core::put_back::{Bug, is_put_back};
use shoal_core::task::Controller;
use shoal_net::gossip::{GossipConfig, Membership};
use shoal_net::identity::Credentials;
use shoal_net::task::Scope;
use shoal_net::{Endpoint, Identity, Peer};
use shoal_wire::v1::{ManagerAddr, Outcome, SeatRequest, SeatResponse};
use shoal_wire::{Kind, codec};
use tokio::sync::{Notify, mpsc, watch};

use super::attached::Attached;
use super::manager::Manager;
use super::{Node, Saved, internal};
use crate::api::ApiError;
use crate::clock::Clock;
use crate::directory::Directory;
use crate::dispatcher::{Agent, AgentHandle, ClusterNews};
use crate::mesh::{Mesh, MeshParts, OnMesh};
use crate::task_runner::{RedbTaskStore, TaskRunnerHandle, TaskStore};
use crate::witness;

const DESCRIBE_EVERY: Duration = Duration::from_secs(30);
const DESCRIBE_RETRY: Duration = Duration::from_secs(1);
const DESCRIBE_FIRST: Duration = Duration::from_secs(2);
const RENEW_LOOK_EVERY: Duration = Duration::from_secs(30);
const ROLE_RETRY_MIN: Duration = Duration::from_millis(500);
const ROLE_RETRY_MAX: Duration = Duration::from_secs(15);
const WRITE_RETRY_MIN: Duration = Duration::from_secs(1);
const WRITE_RETRY_MAX: Duration = Duration::from_secs(30);
const SEAT_CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a leaving node waits for its tasks to stop.
const TASKS_STOP_MAX: Duration = Duration::from_secs(60);

pub(super) struct Member {
    pub(super) node: Node,
    credentials: Mutex<Arc<Credentials>>,
    saved: Mutex<Saved>,
    addr: SocketAddr,
    pub(super) directory: Directory,
    pub(super) membership: Arc<dyn Membership>,
    pub(super) runner: TaskRunnerHandle,
    pub(super) mesh: Option<Arc<dyn Mesh>>,
    pub(super) attached: Attached,
    agent: AgentHandle,
    description: watch::Receiver<NodeDescription>,
    manager: Mutex<Option<Arc<Manager>>>,
    /// Whether it asks for a seat that it lost.
    asking: AtomicBool,
    /// It is about to leave, and wants no seat any more.
    leaving: AtomicBool,
    /// Held by whoever writes to the disk, until memory says the same.
    writing: tokio::sync::Mutex<()>,
    /// Told when something could not be written to the disk.
    unwritten: Arc<Notify>,
    stop: watch::Sender<bool>,
    scope: Scope,
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Member {
    pub(super) async fn start(
        node: &Node,
        credentials: Credentials,
        saved: Saved,
        addr: SocketAddr,
    ) -> Result<Arc<Self>, ApiError> {
        let inner = &node.0;
        let scope = inner.scope.child();
        let credentials = Arc::new(credentials);
        let identity = *credentials.identity();
        let incarnation = saved.incarnation;
        inner.endpoint.set_credentials(Some(credentials.clone()));
        let directory = Directory::new(&saved.managers);
        let seeds = saved
            .managers
            .iter()
            .filter(|m| m.node_id != identity.node_id)
            .filter_map(|m| m.addr.parse().ok());
        let gossip = GossipConfig {
            pace: inner.pace,
            node_id: identity.node_id,
            cluster_id: identity.cluster_id,
            incarnation,
            addr,
            seeds: seeds.collect(),
        };
        let membership = match &inner.membership {
            Some(make) => make(gossip),
            None => shoal_net::gossip::start(&inner.endpoint, gossip, &scope).await.map_err(internal)?,
        };
        directory.set_membership(membership.clone());
        let controller = (inner.controller)(identity.node_id);
        let store: Arc<dyn TaskStore> = match &inner.storage.tasks {
            Some(store) => store.clone(),
            None => Arc::new(RedbTaskStore::open(&inner.data.tasks()).map_err(internal)?),
        };
        let mesh = match &inner.mesh {
            Some(make) => {
                let endpoint = inner.endpoint.clone();
                let parts =
                    MeshParts { node_id: identity.node_id, addr, endpoint, controller: controller.clone() };
                Some(make(parts).map_err(internal)?)
            }
            None => None,
        };
        // Containers run on while a node restarts: their networks have to be served again before anybody is heard.
        if let Some(mesh) = &mesh {
            for stored in store.load().await.map_err(internal)? {
                let runs = stored.status.state == TaskState::Running;
                if runs && !stored.task.networks.is_empty() {
                    let mesh = Arc::clone(mesh);
                    scope.spawn(async move {
                        if let Err(why) = mesh.attach(stored.task.id, &stored.task.networks).await {
                            tracing::warn!(task = %stored.task.id, why, "a task's networks are not ready");
                        }
                    });
                }
            }
        }
        let controller: Arc<dyn Controller> = match &mesh {
            Some(mesh) => Arc::new(OnMesh { runtime: controller, mesh: mesh.clone() }),
            None => controller,
        };
        let runner = TaskRunnerHandle::start(controller.clone(), store, inner.clock.clone(), inner.limits);
        let base = NodeDescription {
            hostname: inner.hostname.clone(),
            addr: addr.to_string(),
            platform: shoal_core::model::Platform {
                os: std::env::consts::OS.into(),
                architecture: std::env::consts::ARCH.into(),
            },
            ..NodeDescription::default()
        };
        let (publish, description) = watch::channel(base.clone());
        let labels = inner.labels.clone();
        let described = describe(controller.clone(), &base, &labels);
        if let Ok(Some(first)) = tokio::time::timeout(DESCRIBE_FIRST, described).await {
            publish.send_replace(first);
        }
        let (stop, stopped) = watch::channel(false);
        let (news_tx, news) = mpsc::channel(16);
        let (agent, run) = Agent {
            node_id: identity.node_id,
            endpoint: inner.endpoint.clone(),
            directory: directory.clone(),
            runner: runner.clone(),
            description: description.clone(),
            incarnation,
            news: news_tx,
            mesh: mesh.clone(),
            pace: inner.pace,
        }
        .start(stopped);
        let member = Arc::new(Self {
            node: node.clone(),
            credentials: Mutex::new(credentials),
            saved: Mutex::new(saved),
            addr,
            directory,
            membership,
            runner,
            mesh,
            attached: Attached::new(controller.clone()),
            agent,
            description,
            manager: Mutex::default(),
            asking: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
            writing: tokio::sync::Mutex::default(),
            unwritten: Arc::default(),
            stop,
            scope,
        });
        member.scope.spawn(run);
        if controller.plain().is_some() {
            member.scope.spawn(Self::watch_attached(Arc::downgrade(&member), controller.clone()));
            member.scope.spawn(Self::keep_attached(Arc::downgrade(&member)));
        }
        member.scope.spawn(keep_described(controller, base, labels, publish));
        member.scope.spawn(witness::publish(member.membership.clone(), identity.node_id, incarnation));
        member.scope.spawn(Self::follow_news(Arc::downgrade(&member), news));
        member.scope.spawn(Self::keep_renewed(Arc::downgrade(&member), inner.clock.clone()));
        member.scope.spawn(Self::keep_written(Arc::downgrade(&member), Arc::clone(&member.unwritten)));
        member.publish_role(identity.role);
        Ok(member)
    }

    pub(super) fn identity(&self) -> Identity {
        *locked(&self.credentials).identity()
    }

    pub(super) fn node_id(&self) -> NodeId {
        self.identity().node_id
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(super) fn description(&self) -> NodeDescription {
        self.description.borrow().clone()
    }

    /// Remember something beyond a restart.
    pub(super) async fn remember(&self, change: impl FnOnce(&mut Saved)) {
        change(&mut locked(&self.saved));
        let _writing = self.writing.lock().await;
        self.see_to(self.save().await);
    }

    /// What found no room is written later; what failed names its file.
    fn see_to(&self, written: std::io::Result<()>) {
        if let Err(error) = written {
            tracing::error!(%error, "cannot be written; will try again");
            self.unwritten.notify_one();
        }
    }

    async fn save(&self) -> std::io::Result<()> {
        let saved = locked(&self.saved).clone();
        self.node.0.data.save(&saved).await
    }

    /// Write down once more what found no room, until it is there: a certificate that is renewed in memory alone is lost with the
    /// process, and the one before it ends.
    async fn keep_written(member: std::sync::Weak<Self>, unwritten: Arc<Notify>) {
        loop {
            unwritten.notified().await;
            let mut delay = WRITE_RETRY_MIN;
            loop {
                tokio::time::sleep(delay).await;
                let Some(member) = member.upgrade() else { return };
                match member.write_again().await {
                    Ok(()) => break,
                    Err(error) => {
                        tracing::warn!(%error, "the certificate and the node's state are not written yet");
                    }
                }
                delay = (delay * 2).min(WRITE_RETRY_MAX);
            }
            tracing::info!("the certificate and the node's state are written");
        }
    }

    async fn write_again(&self) -> std::io::Result<()> {
        let _writing = self.writing.lock().await;
        let credentials = locked(&self.credentials).clone();
        self.node.0.data.store(&credentials).await?;
        self.save().await
    }

    pub(super) fn manager(&self) -> Option<Arc<Manager>> {
        locked(&self.manager).clone()
    }

    pub(super) fn set_manager(&self, manager: Option<Arc<Manager>>) {
        *locked(&self.manager) = manager;
    }

    fn publish_role(&self, role: Role) {
        self.membership.set_self("role", role.to_string());
    }

    /// Wait for the first session, so that the node is ready when init or join returns.
    pub(super) async fn first_session(&self, most: Duration) {
        let mut status = self.agent.status.clone();
        let open =
            async { while status.borrow_and_update().sessions == 0 && status.changed().await.is_ok() {} };
        if tokio::time::timeout(most, open).await.is_err() {
            tracing::warn!("no session yet; the node goes on trying");
        }
    }

    /// It is about to leave, or stays after all: meanwhile it does not ask for the seat that it gives up, as it would ask for
    /// one that it lost.
    pub(super) fn set_leaving(&self, leaving: bool) {
        self.leaving.store(leaving, Ordering::Release);
    }

    /// Ask the managers, the leader first, for a seat.
    pub(super) async fn ask_for_seat(&self, node_id: NodeId, addr: &str) -> Result<(), String> {
        if self.leaving.load(Ordering::Acquire) {
            return Err("this node leaves".into());
        }
        let body =
            codec::encode(&SeatRequest { node_id, addr: addr.to_owned() }).map_err(|e| e.to_string())?;
        let mut candidates = self.directory.candidates();
        let leader = self.directory.leader();
        candidates.sort_by_key(|(id, _)| (Some(*id) != leader, *id));
        let mut errors = Vec::new();
        for (id, addr) in candidates.into_iter().filter(|(id, _)| *id != node_id) {
            let peer = Peer { node_id: Some(id), addr };
            let answer =
                self.node.0.endpoint.call(&peer, Kind::TakeSeat, body.clone(), SEAT_CALL_TIMEOUT).await;
            match answer
                .map_err(|e| e.to_string())
                .and_then(|a| codec::decode::<SeatResponse>(&a).map_err(|e| e.to_string()))
            {
                Ok(Outcome::Done(_)) => return Ok(()),
                Ok(Outcome::NotLeader(leader)) => {
                    self.directory.set_leader(leader);
                    errors.push(format!("{id} does not lead"));
                }
                Ok(Outcome::Refused(error)) => errors.push(error.to_string()),
                Ok(Outcome::Unavailable(why) | Outcome::Conflict(why)) => errors.push(why),
                Err(error) => errors.push(format!("{id}: {error}")),
            }
        }
        Err(errors.join("; "))
    }

    async fn follow_news(member: std::sync::Weak<Self>, mut news: mpsc::Receiver<ClusterNews>) {
        while let Some(news) = news.recv().await {
            let Some(member) = member.upgrade() else { return };
            match news {
                ClusterNews::Removed => {
                    let node = member.node.clone();
                    member.node.spawn_at_home(async move {
                        node.removed(
                            "this node was removed from the cluster: leave, then join again with a token",
                        )
                        .await;
                    });
                    return;
                }
                ClusterNews::Told { role, removed } => {
                    member.node.0.endpoint.set_banned(removed.into_iter().collect());
                    member.remember_managers().await;
                    let has = member.identity().role;
                    let serves = member.manager().is_some();
                    if role != has || serves != (role == Role::Manager) {
                        member.change_role(role).await;
                    } else if serves && member.lacks_seat() {
                        member.reclaim_seat();
                    }
                }
            }
        }
    }

    async fn change_role(self: &Arc<Self>, role: Role) {
        let mut delay = Duration::from_millis(50);
        for _ in 0..20 {
            if self.identity().role != role
                && let Err(error) = self.renew().await
            {
                tracing::debug!(%error, ?role, "role not changed yet");
                tokio::time::sleep(delay).await;
                delay = (delay * 2).min(Duration::from_secs(2));
                continue;
            }
            let node = self.node.clone();
            let member = self.clone();
            let role = self.identity().role;
            self.publish_role(role);
            self.node.spawn_at_home(async move { member.follow_role(&node, role).await });
            return;
        }
    }

    /// Follow the role in the certificate, however often that takes: the disk may be full for a while.
    async fn follow_role(self: Arc<Self>, node: &Node, role: Role) {
        let mut delay = ROLE_RETRY_MIN;
        while self.identity().role == role && !*self.stop.borrow() {
            match node.follow_role(&self, role).await {
                Ok(()) => return,
                Err(error) => tracing::error!(%error, ?role, ?delay, "cannot follow the new role yet"),
            }
            let mut stopping = self.stop.subscribe();
            let _ = tokio::time::timeout(delay, stopping.changed()).await;
            delay = (delay * 2).min(ROLE_RETRY_MAX);
        }
    }

    /// Whether this manager is none of those that the leader names.
    fn lacks_seat(&self) -> bool {
        let me = self.node_id();
        !self.directory.managers().iter().any(|manager| manager.node_id == me)
    }

    /// A manager that was demoted and promoted while nobody reached it has lost its seat and does not know: its own log
    /// still names it, and nobody sends it any more. It asks until the leader names it again.
    fn reclaim_seat(self: &Arc<Self>) {
        if self.asking.swap(true, Ordering::AcqRel) {
            return;
        }
        let member = Arc::clone(self);
        self.node.spawn_at_home(async move {
            let mut delay = Duration::from_millis(50);
            while member.manager().is_some() && member.lacks_seat() {
                match member.ask_for_seat(member.node_id(), &member.addr().to_string()).await {
                    Ok(()) => tracing::info!("this manager has a seat again"),
                    Err(error) => tracing::debug!(error, "no seat yet"),
                }
                tokio::time::sleep(delay).await;
                delay = (delay * 2).min(Duration::from_secs(2));
            }
            member.asking.store(false, Ordering::Release);
        });
    }

    async fn remember_managers(&self) {
        let managers: Vec<ManagerAddr> = self.directory.managers();
        if locked(&self.saved).managers != managers {
            self.remember(|saved| saved.managers = managers).await;
        }
    }

    /// The managers, the leader first.
    pub(super) fn peers(&self) -> Vec<Peer> {
        let leader = self.directory.leader();
        let mut candidates = self.directory.candidates();
        candidates.sort_by_key(|(id, _)| (Some(*id) != leader, *id));
        candidates.into_iter().map(|(id, addr)| Peer { node_id: Some(id), addr }).collect()
    }

    async fn renew(&self) -> Result<(), crate::identity::JoinError> {
        let endpoint: &Endpoint = &self.node.0.endpoint;
        let (credentials, joined) = crate::identity::renew(endpoint, &self.peers()).await?;
        // With one that has ended nobody would talk to this node any more, not even to renew it.
        let (until, now) = (credentials.not_after(), (self.node.0.clock)());
        if until <= now {
            let words =
                format!("the new certificate ended {} s ago: check the clocks", now.since(until).as_secs());
            return Err(crate::identity::JoinError::Answer(words));
        }
        let _writing = self.writing.lock().await;
        self.see_to(self.node.0.data.store(&credentials).await);
        self.directory.set_managers(&joined.managers);
        let credentials = Arc::new(credentials);
        *locked(&self.credentials) = credentials.clone();
        endpoint.set_credentials(Some(credentials));
        Ok(())
    }

    /// Whether this manager's role was given by a newer word than its certificate knows of: it may have been demoted and
    /// promoted again meanwhile. Who knows of the former alone, since it is catching up, takes nothing from this node until
    /// a newer certificate proves the latter.
    fn is_promoted_since(&self) -> bool {
        let Some(manager) = self.manager() else { return false };
        let identity = self.identity();
        let state = manager.raft.state();
        state
            .node(identity.node_id)
            .is_some_and(|node| node.spec.role == Role::Manager && node.meta.spec_version > identity.as_of)
    }

    async fn keep_renewed(member: std::sync::Weak<Self>, clock: Clock) {
        let mut failures = 0u32;
        loop {
            let due = {
                let Some(member) = member.upgrade() else { return };
                let credentials = locked(&member.credentials).clone();
                let now = clock();
                let due = credentials.renew_at();
                if (now >= due || member.is_promoted_since()) && !is_put_back(Bug::NeverRenewed) {
                    match member.renew().await {
                        // Made by a clock far from this one: asking again at once would bring no better one.
                        Ok(()) if locked(&member.credentials).renew_at() <= clock() => {
                            failures = failures.saturating_add(1);
                            tracing::warn!(
                                failures,
                                "the new certificate is due already: the manager's clock and this one's differ"
                            );
                        }
                        Ok(()) => failures = 0,
                        Err(error) => {
                            failures = failures.saturating_add(1);
                            tracing::warn!(%error, failures, "certificate not renewed; will try again");
                        }
                    }
                }
                let next = locked(&member.credentials).renew_at().since(clock());
                next.clamp(Duration::from_secs(1), RENEW_LOOK_EVERY)
            };
            let backoff = Duration::from_secs(1 << failures.min(5));
            tokio::time::sleep(due.max(if failures > 0 { backoff } else { Duration::ZERO })).await;
        }
    }

    /// Stop everything but the containers.
    pub(super) async fn stop(&self) {
        // First of all: until its clients have their answers the node knows its tasks and everybody's routes.
        if let Some(mesh) = &self.mesh {
            mesh.close().await;
        }
        let _ = self.stop.send(true);
        let manager = locked(&self.manager).take();
        // The session says good-bye while the endpoint is still there.
        tokio::time::sleep(Duration::from_millis(20)).await;
        if let Some(manager) = manager {
            manager.stop().await;
        }
        self.membership.shutdown().await;
        if let Some(mesh) = &self.mesh {
            mesh.stop();
        }
        self.runner.shutdown().await;
        if !is_put_back(Bug::TasksLeftAtStop) {
            self.scope.abort();
        }
    }

    /// Wait until the tasks (already told to go) have stopped.
    pub(super) async fn tasks_gone(&self) {
        let idle = async {
            while self.runner.stats().tasks > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(TASKS_STOP_MAX, idle).await.is_err() {
            tracing::warn!("some tasks did not stop in time");
        }
    }
}

async fn describe(
    controller: Arc<dyn Controller>,
    base: &NodeDescription,
    labels: &std::collections::BTreeMap<String, String>,
) -> Option<NodeDescription> {
    match controller.describe().await {
        Ok(mut found) => {
            found.hostname.clone_from(&base.hostname);
            found.addr.clone_from(&base.addr);
            found.engine.labels.extend(labels.clone());
            Some(found)
        }
        Err(error) => {
            tracing::debug!(%error, "the container runtime does not describe itself");
            None
        }
    }
}

async fn keep_described(
    controller: Arc<dyn Controller>,
    base: NodeDescription,
    labels: std::collections::BTreeMap<String, String>,
    publish: watch::Sender<NodeDescription>,
) {
    loop {
        let found = describe(controller.clone(), &base, &labels).await;
        let wait = if found.is_some() { DESCRIBE_EVERY } else { DESCRIBE_RETRY };
        if let Some(found) = found {
            publish.send_if_modified(|known| {
                let news = *known != found;
                *known = found;
                news
            });
        }
        tokio::time::sleep(wait).await;
    }
}
