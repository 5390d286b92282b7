//! A node: everything that one host runs, from the endpoint to the actors, with or without a cluster.

mod address;
mod attached;
mod collect;
mod files;
mod home;
mod manager;
mod member;
mod router;

pub use address::{PORT_DEFAULT, choose as choose_address, resolve as resolve_address};

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix::{Actor as _, Addr};
use async_trait::async_trait;
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha12Rng;
use shoal_core::attach::Ask;
use shoal_core::model::{
    Attachment, Cluster, ClusterId, JoinTokens, ManagerStatus, Node as NodeObject, NodeId, NodeSpec,
    NodeState, NodeStatus, Role,
};
use shoal_core::pace::Pace;
use shoal_core::store::{Command, Expect, ObjectId, State, Write};
use shoal_core::task::Controller;
use shoal_net::ca::{CertificateAuthority, JoinToken};
use shoal_net::gossip::{GossipConfig, Membership, View};
use shoal_net::identity::{Credentials, NodeKey};
use shoal_net::mesh::MeshStats;
use shoal_net::names::NameStats;
use shoal_net::overlay::OverlayStats;
use shoal_net::task::Scope;
use shoal_net::{Endpoint, Identity};

use crate::api::{ApiError, EventStream, Freshness, InitOptions, JoinOptions, Local, LocalState, NodeApi};
use crate::clock::Clock;
use crate::disk::Disk;
use crate::identity::{JoinError, Joining};
use crate::mesh::MeshFactory;
use crate::metric_definitions::Metrics;
use crate::raft::{ProposeError, RaftActor, RaftConfig, RaftHandle, Start, Timing};
use crate::task_runner::{Limits, TaskStore};
use tokio::sync::watch;

use files::{Files, Saved};
use home::Home;
use manager::{Manager, ManagerParts};
use member::Member;
use router::Router;

/// Time within which a joining manager must get its seat.
const SEAT_TIMEOUT: Duration = Duration::from_secs(20);
/// Time within which a joining node should have its first session.
const FIRST_SESSION_TIMEOUT: Duration = Duration::from_secs(10);
const ROOT_CA_LIFE: Duration = Duration::from_secs(20 * 365 * 24 * 3600);
const READ_FRESH_TIMEOUT: Duration = Duration::from_secs(2);

/// Makes the container runtime of a node, once its id is known.
pub type ControllerFactory = Arc<dyn Fn(NodeId) -> Arc<dyn Controller> + Send + Sync>;

/// Makes a node's membership once it is in a cluster.
pub type MembershipFactory = Arc<dyn Fn(GossipConfig) -> Arc<dyn Membership> + Send + Sync>;

/// How a node is set up.
pub struct NodeConfig {
    /// Its data folder: private, locked by the caller.
    pub data_dir: PathBuf,
    /// Address it listens on.
    pub listen: SocketAddr,
    /// Address for the others, if the user said one.
    pub advertise: Option<String>,
    /// Name of the host.
    pub hostname: String,
    /// Labels of the engine.
    pub labels: BTreeMap<String, String>,
    /// Its container runtime.
    pub controller: ControllerFactory,
    /// The wall clock.
    pub clock: Clock,
    /// Seed of everything random in the actors.
    pub seed: u64,
    /// Begin anew from this node's own state after a lost majority.
    pub force_new_cluster: bool,
    /// Its endpoint. All of the node's tasks that are not its actors' run in this one's scope.
    pub socket: shoal_net::EndpointConfig,
    /// Where it keeps what must survive a restart, if not in the data folder.
    pub storage: Storage,
    /// How much its task runner does at once.
    pub limits: Limits,
    /// Another membership than gossip over the endpoint, for large simulations.
    pub membership: Option<MembershipFactory>,
    /// What carries the traffic of published ports; without it this node carries none.
    pub mesh: Option<MeshFactory>,
    /// How quickly it beats, looks and loses patience: as all nodes of its cluster do.
    pub pace: Pace,
}

/// Storage in place of the data folder's, for the simulator: it decides what a crash leaves of it.
#[derive(Clone, Default)]
pub struct Storage {
    /// Of its certificate, and of what it remembers of itself and the managers.
    pub files: Option<Arc<dyn Disk>>,
    /// Of consensus.
    pub raft: Option<Arc<dyn Disk>>,
    /// Of the tasks.
    pub tasks: Option<Arc<dyn TaskStore>>,
}

struct Inner {
    data: Files,
    listen: SocketAddr,
    advertise: Option<String>,
    hostname: String,
    labels: BTreeMap<String, String>,
    controller: ControllerFactory,
    clock: Clock,
    storage: Storage,
    limits: Limits,
    membership: Option<MembershipFactory>,
    mesh: Option<MeshFactory>,
    pace: Pace,
    home: Home,
    consensus: Addr<RaftActor>,
    scope: Scope,
    endpoint: Endpoint,
    router: Arc<Router>,
    metrics: Arc<Metrics>,
    rng: Mutex<ChaCha12Rng>,
    /// Whether the node is to stop: nothing waits long any more.
    stopping: watch::Sender<bool>,
    /// Held while the node's membership changes.
    lifecycle: tokio::sync::Mutex<()>,
    status: Mutex<(LocalState, String)>,
    member: Mutex<Option<Arc<Member>>>,
}

/// A node. Cheap to clone.
#[derive(Clone)]
pub struct Node(Arc<Inner>);

fn internal(error: impl std::fmt::Display) -> ApiError {
    ApiError::Internal(error.to_string())
}

impl Node {
    /// Open the data folder and the endpoint. If the node is a member of a cluster it takes up its work.
    ///
    /// # Errors
    /// If the port is taken or the data cannot be read; never because other nodes are not there.
    pub async fn start(mut config: NodeConfig) -> Result<Self, ApiError> {
        let router = Router::new();
        let scope = config.socket.scope.clone();
        let data = Files::new(&config.data_dir, config.storage.files.clone()).map_err(internal)?;
        config.socket.reset_key = Some(data.reset_key().await.map_err(internal)?);
        let endpoint = Endpoint::bind(config.socket, router.clone()).map_err(internal)?;
        let mut saved = data.load().await.map_err(internal)?;
        let node = Self(Arc::new(Inner {
            data,
            listen: config.listen,
            advertise: config.advertise,
            hostname: config.hostname,
            labels: config.labels,
            controller: config.controller,
            clock: config.clock,
            storage: config.storage,
            limits: config.limits,
            membership: config.membership,
            mesh: config.mesh,
            pace: config.pace,
            home: Home::here(),
            consensus: RaftActor::default().start(),
            scope,
            endpoint,
            router,
            metrics: Arc::new(Metrics::default()),
            rng: Mutex::new(ChaCha12Rng::seed_from_u64(config.seed)),
            stopping: watch::channel(false).0,
            lifecycle: tokio::sync::Mutex::new(()),
            status: Mutex::default(),
            member: Mutex::default(),
        }));
        let collector = collect::NodeCollector(Arc::downgrade(&node.0));
        node.0.metrics.with_registry(|registry| registry.register_collector(Box::new(collector)));
        let credentials = node.0.data.credentials().await.map_err(internal)?;
        let Some(credentials) = credentials else { return Ok(node) };
        // The leader may name this node's role before its raft is open: that is no promotion, and must wait.
        let held = node.clone();
        let _guard = held.0.lifecycle.lock().await;
        if let Some(error) = saved.error.clone() {
            node.set_status(LocalState::Error, &error);
            return Ok(node);
        }
        saved.incarnation += 1;
        node.0.data.save(&saved).await.map_err(internal)?;
        let member = node.start_member(credentials, saved).await?;
        if member.identity().role == Role::Manager {
            let raft = node.open_raft(&member, config.force_new_cluster).await?;
            node.start_manager(&member, raft.clone());
            if config.force_new_cluster {
                node.forget_other_managers(&member).await?;
            }
            node.spawn_at_home(node.clone().keep_asking_for_seat(member, raft));
            return Ok(node);
        }
        if config.force_new_cluster {
            return Err(ApiError::Invalid(
                "--force-new-cluster: this node is a worker, it has no state to begin from".into(),
            ));
        }
        // It may have gone down between its demotion and the end of what it kept as a manager.
        if let Err(error) = node.forget_log(&member).await {
            tracing::error!(%error, "this worker cannot remove what it kept as a manager");
        }
        Ok(node)
    }

    /// Stop everything but the containers.
    pub async fn stop(&self) {
        self.0.stopping.send_replace(true);
        let _guard = self.0.lifecycle.lock().await;
        if let Some(member) = self.take_member() {
            member.stop().await;
        }
        self.0.endpoint.shutdown().await;
    }

    /// Let go of all that it holds, and say nothing to anybody: for whoever has ended all of its tasks from outside.
    pub fn abandon(&self) {
        drop(self.take_member());
    }

    /// The figures of this node.
    #[must_use]
    pub fn metrics(&self) -> Arc<Metrics> {
        self.0.metrics.clone()
    }

    /// Its endpoint.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.0.endpoint
    }

    /// Its raft, while it is a manager.
    #[must_use]
    pub fn raft(&self) -> Option<RaftHandle> {
        self.manager().map(|m| m.raft.clone())
    }

    /// Its task runner, while it is a member.
    #[must_use]
    pub fn task_runner(&self) -> Option<crate::task_runner::TaskRunnerHandle> {
        self.member().map(|m| m.runner.clone())
    }

    /// What its part of the mesh did, while it is a member and has one.
    #[must_use]
    pub fn mesh_stats(&self) -> Option<MeshStats> {
        self.member()?.mesh.as_ref().map(|mesh| mesh.stats())
    }

    /// What its part of the networks did, while it is a member and has one.
    #[must_use]
    pub fn overlay_stats(&self) -> Option<OverlayStats> {
        self.member()?.mesh.as_ref().map(|mesh| mesh.overlay())
    }

    /// What its name server did, while it is a member and has one.
    #[must_use]
    pub fn name_stats(&self) -> Option<NameStats> {
        self.member()?.mesh.as_ref().map(|mesh| mesh.names())
    }

    /// All that gossip knows, while it is a member.
    #[must_use]
    pub fn gossip(&self) -> View {
        self.member().map_or_else(|| View::from([]), |m| m.membership.view())
    }

    /// Run a change of this node's membership on its own thread and to its end, even if the caller goes away.
    async fn at_home<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, ApiError>> + Send + 'static,
    ) -> Result<T, ApiError> {
        let (tell, told) = tokio::sync::oneshot::channel();
        self.0.home.spawn(async move {
            let _ = tell.send(work.await);
        });
        told.await.map_err(|_| ApiError::Internal("the node is stopping".into()))?
    }

    fn set_status(&self, state: LocalState, error: &str) {
        *self.0.status.lock().unwrap_or_else(PoisonError::into_inner) = (state, error.to_owned());
    }

    fn member(&self) -> Option<Arc<Member>> {
        self.0.member.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn take_member(&self) -> Option<Arc<Member>> {
        self.0.router.set(None);
        self.0.member.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn manager(&self) -> Option<Arc<Manager>> {
        self.member().and_then(|m| m.manager())
    }

    fn need_manager(&self) -> Result<Arc<Manager>, ApiError> {
        let member = self.member().ok_or(ApiError::NotInCluster)?;
        member.manager().ok_or(ApiError::NotManager)
    }

    fn random<T>(&self, make: impl FnOnce(&mut dyn RngCore) -> T) -> T {
        make(&mut *self.0.rng.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn advertise(&self, said: Option<&str>, towards: Option<SocketAddr>) -> Result<SocketAddr, ApiError> {
        choose_address(said.or(self.0.advertise.as_deref()), self.0.listen, towards)
    }

    async fn start_member(&self, credentials: Credentials, saved: Saved) -> Result<Arc<Member>, ApiError> {
        let towards = saved.managers.iter().find_map(|m| m.addr.parse().ok());
        // A flag given at this start wins over what was said at init or join: the address may have changed.
        let said = self.0.advertise.clone().or_else(|| saved.advertise.clone());
        let addr = choose_address(said.as_deref(), self.0.listen, towards)?;
        let member = Member::start(self, credentials, saved, addr).await?;
        *self.0.member.lock().unwrap_or_else(PoisonError::into_inner) = Some(member.clone());
        self.0.router.set(Some(&member));
        self.set_status(LocalState::Active, "");
        Ok(member)
    }

    async fn open_raft(&self, member: &Arc<Member>, force_new_cluster: bool) -> Result<RaftHandle, ApiError> {
        let transport =
            Arc::new(router::RaftOverEndpoint::new(self.0.endpoint.clone(), member.directory.clone()));
        let addr = member.addr().to_string();
        let mut config = RaftConfig::new(member.node_id(), addr, self.0.data.raft(), transport);
        config.timing = Timing::at(self.0.pace);
        config.force_new_cluster = force_new_cluster;
        config.disk.clone_from(&self.0.storage.raft);
        config.tasks = self.0.scope.child();
        config.seed = Some(self.random(|rng| rng.next_u64()));
        self.0.consensus.send(Start(config)).await.map_err(internal)?.map_err(internal)
    }

    fn start_manager(&self, member: &Arc<Member>, raft: RaftHandle) -> Arc<Manager> {
        let manager = Manager::start(ManagerParts {
            node_id: member.node_id(),
            raft,
            consensus: self.0.consensus.clone(),
            endpoint: self.0.endpoint.clone(),
            directory: member.directory.clone(),
            membership: member.membership.clone(),
            clock: self.0.clock.clone(),
            metrics: self.0.metrics.clone(),
            seed: self.random(|rng| rng.next_u64()),
            scope: self.0.scope.child(),
            pace: self.0.pace,
        });
        member.set_manager(Some(manager.clone()));
        manager
    }

    /// This node became a manager: take its seat.
    async fn take_seat(&self, member: &Arc<Member>, raft: &RaftHandle) -> Result<(), ApiError> {
        let (id, addr) = (member.node_id(), member.addr().to_string());
        let ask = async {
            let mut delay = Duration::from_millis(20);
            loop {
                match member.ask_for_seat(id, &addr).await {
                    Ok(()) => break,
                    Err(error) => tracing::debug!(error, "no seat yet"),
                }
                tokio::time::sleep(delay).await;
                delay = (delay * 2).min(Duration::from_secs(1));
            }
            while !raft.voters().contains_key(&id) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let late = |_| {
            ApiError::NoLeader(
                "the managers gave no seat in time; the node is a member and goes on trying: \
                 \"docker info\" tells how it fares"
                    .into(),
            )
        };
        tokio::select! {
            biased;
            // It is asked for again at the next start.
            () = self.to_stop() => Err(ApiError::Internal("the node is stopping".into())),
            asked = tokio::time::timeout(self.0.pace.of(SEAT_TIMEOUT), ask) => asked.map_err(late),
        }
    }

    /// A manager that stopped between its certificate and its seat asks again; one that has its seat does nothing.
    async fn keep_asking_for_seat(self, member: Arc<Member>, raft: RaftHandle) {
        // Time to read the log and to hear of the members in it.
        tokio::time::sleep(self.0.pace.of(Duration::from_secs(2))).await;
        let is_due = || {
            let has_seat = raft.voters().contains_key(&member.node_id());
            member.manager().is_some() && !has_seat && !*self.0.stopping.borrow()
        };
        while is_due() {
            let wanted = raft.state().node(member.node_id()).is_none_or(|n| n.spec.role == Role::Manager);
            if !wanted {
                return;
            }
            if let Err(error) = self.take_seat(&member, &raft).await {
                tracing::warn!(%error, "this manager has no seat yet");
            }
        }
    }

    /// Follow the role in a new certificate.
    async fn follow_role(&self, member: &Arc<Member>, role: Role) -> Result<(), ApiError> {
        let _guard = self.0.lifecycle.lock().await;
        // While it waited for its turn another certificate may have come, and with it a seat for the log that is there.
        if member.identity().role != role {
            return Ok(());
        }
        match (role, member.manager()) {
            (Role::Manager, None) => {
                tracing::info!("promoted");
                let raft = self.open_raft(member, false).await?;
                self.start_manager(member, raft.clone());
                self.take_seat(member, &raft).await
            }
            (Role::Manager, Some(_)) => Ok(()),
            (Role::Worker, manager) => {
                if let Some(manager) = manager {
                    tracing::info!("demoted");
                    member.set_manager(None);
                    manager.stop().await;
                }
                self.forget_log(member).await.map_err(internal)
            }
        }
    }

    /// Forget consensus, but for what keeps others safe: the node lost its seat, and may be given it again.
    async fn forget_log(&self, member: &Member) -> std::io::Result<()> {
        crate::raft::forget(&self.0.data.raft(), self.0.storage.raft.as_ref(), member.node_id()).await
    }

    /// Forget the cluster: its consensus, wherever that is kept, and then the rest.
    async fn wipe(&self) -> std::io::Result<()> {
        if let Some(disk) = &self.0.storage.raft {
            for name in disk.list().await? {
                disk.remove(&name).await?;
            }
        }
        self.0.data.wipe().await
    }

    /// The cluster removed this node: it stops its tasks and says so until it leaves.
    async fn removed(&self, why: &str) {
        let _guard = self.0.lifecycle.lock().await;
        tracing::error!(why, "this node is a member no longer");
        if let Some(member) = self.take_member() {
            let _ = member.runner.leave().await;
            member.remember(|saved| saved.error = Some(why.to_owned())).await;
            member.tasks_gone().await;
            member.stop().await;
        }
        self.0.endpoint.set_credentials(None);
        self.set_status(LocalState::Error, why);
    }

    async fn forget_other_managers(&self, member: &Arc<Member>) -> Result<(), ApiError> {
        let manager = self.need_manager()?;
        let id = member.node_id();
        wait_for_lead(&manager.raft).await?;
        let now = (self.0.clock)();
        let state = manager.raft.state();
        let mut writes =
            vec![Write::NodeManager(id, Some(ManagerStatus { addr: member.addr().to_string() }))];
        for other in state.nodes().filter(|n| n.id != id && n.spec.role == Role::Manager) {
            let spec = NodeSpec { role: Role::Worker, ..other.spec.clone() };
            writes.push(Write::NodeSpec(other.id, spec));
            writes.push(Write::NodeManager(other.id, None));
        }
        let command = Command { at: now, writes, ..Command::default() };
        manager.raft.propose(command).await.map(|_| ()).map_err(propose_error)
    }

    async fn found(&self, options: InitOptions) -> Result<NodeId, ApiError> {
        let addr = self.advertise(options.advertise.as_deref(), None)?;
        let now = (self.0.clock)();
        let (node_id, cluster_id) = self.random(|rng| (NodeId::random(rng), ClusterId::random(rng)));
        let authority =
            CertificateAuthority::create(cluster_id, now, now.plus(ROOT_CA_LIFE)).map_err(internal)?;
        let root_ca = authority.to_root_ca();
        let key = NodeKey::generate().map_err(internal)?;
        let identity = Identity { node_id, role: Role::Manager, cluster_id, as_of: 0 };
        let csr = key.csr().map_err(internal)?;
        let until = now.plus(options.spec.ca.node_cert_expiry);
        let cert = authority.sign(&csr, &identity, now, until).map_err(internal)?;
        let credentials = Credentials::new(key, cert, root_ca.cert_der.clone()).map_err(internal)?;
        let tokens = JoinTokens {
            worker: JoinToken::generate(&root_ca.cert_der).map_err(internal)?.to_string(),
            manager: JoinToken::generate(&root_ca.cert_der).map_err(internal)?.to_string(),
        };
        let cluster =
            Cluster { meta: Default::default(), id: cluster_id, spec: options.spec, root_ca, tokens };
        let node = NodeObject {
            id: node_id,
            spec: NodeSpec { role: Role::Manager, availability: options.availability, ..NodeSpec::default() },
            status: NodeStatus {
                state: NodeState::Unknown,
                message: "founded the cluster".into(),
                since: now,
            },
            role: Role::Manager,
            manager: Some(ManagerStatus { addr: addr.to_string() }),
            ..NodeObject::default()
        };
        let managers = vec![shoal_wire::v1::ManagerAddr { node_id, addr: addr.to_string() }];
        let saved = Saved { incarnation: 1, managers, advertise: options.advertise, error: None };
        self.0.data.enter(&saved, &credentials).await.map_err(internal)?;
        let member = self.start_member(credentials, saved).await?;
        let raft = self.open_raft(&member, false).await?;
        raft.bootstrap().await.map_err(internal)?;
        let manager = self.start_manager(&member, raft);
        wait_for_lead(&manager.raft).await?;
        let command = Command {
            at: now,
            expects: vec![Expect::Absent(ObjectId::Cluster)],
            writes: vec![Write::Cluster(Box::new(cluster)), Write::NodeCreate(Box::new(node))],
            ..Command::default()
        };
        manager.raft.propose(command).await.map_err(propose_error)?;
        member.first_session(self.0.pace.of(FIRST_SESSION_TIMEOUT)).await;
        Ok(node_id)
    }

    /// Become a member, and a manager without a seat if that is the token's role.
    async fn enter(&self, options: JoinOptions) -> Result<(Arc<Member>, Option<RaftHandle>), ApiError> {
        let mut remotes = Vec::new();
        for remote in &options.remotes {
            remotes.push(resolve_address(remote, PORT_DEFAULT)?);
        }
        let first = *remotes
            .first()
            .ok_or_else(|| ApiError::Invalid("RemoteAddrs: at least one manager is needed".into()))?;
        let addr = self.advertise(options.advertise.as_deref(), Some(first))?;
        let node_id = self.random(|rng| NodeId::random(rng));
        let addr_text = addr.to_string();
        let joining = Joining {
            node_id,
            addr: &addr_text,
            hostname: &self.0.hostname,
            availability: options.availability,
        };
        let (credentials, joined) =
            crate::identity::join(&self.0.endpoint, &remotes, &options.token, &joining)
                .await
                .map_err(join_error)?;
        let mut managers = joined.managers;
        if managers.is_empty() {
            return Err(ApiError::Internal("the manager named no managers".into()));
        }
        managers.sort();
        let saved = Saved { incarnation: 1, managers, advertise: options.advertise, error: None };
        self.0.data.enter(&saved, &credentials).await.map_err(internal)?;
        let member = self.start_member(credentials, saved).await?;
        if joined.role != Role::Manager {
            return Ok((member, None));
        }
        let raft = self.open_raft(&member, false).await?;
        self.start_manager(&member, raft.clone());
        Ok((member, Some(raft)))
    }

    /// Undo a failed init or join: the node is as it was before.
    async fn undo(&self) {
        if let Some(member) = self.take_member() {
            member.stop().await;
        }
        self.0.endpoint.set_credentials(None);
        if let Err(error) = self.wipe().await {
            tracing::error!(%error, "cannot clean the data folder");
        }
        self.set_status(LocalState::Inactive, "");
    }

    fn may_enter(&self) -> Result<(), ApiError> {
        let state = self.0.status.lock().unwrap_or_else(PoisonError::into_inner).0;
        if state == LocalState::Inactive { Ok(()) } else { Err(ApiError::AlreadyMember) }
    }
}

async fn wait_for_lead(raft: &RaftHandle) -> Result<(), ApiError> {
    let mut leadership = raft.leadership();
    let led = async { while !leadership.borrow_and_update().is_me && leadership.changed().await.is_ok() {} };
    tokio::time::timeout(Duration::from_secs(10), led)
        .await
        .map_err(|_| ApiError::NoLeader("this manager did not become the leader in time".into()))
}

fn join_error(error: JoinError) -> ApiError {
    match error {
        JoinError::Token(_) | JoinError::Refused(_) => ApiError::Invalid(error.to_string()),
        JoinError::Unreachable(_) => ApiError::NoLeader(error.to_string()),
        JoinError::Answer(_) => ApiError::Internal(error.to_string()),
    }
}

fn propose_error(error: ProposeError) -> ApiError {
    match error {
        ProposeError::Refused(refused) => ApiError::Refused(refused),
        other => ApiError::NoLeader(other.to_string()),
    }
}

#[async_trait]
impl NodeApi for Node {
    fn local(&self) -> Local {
        let (state, error) = self.0.status.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(member) = self.member() else { return Local { state, error, ..Local::default() } };
        let identity = member.identity();
        Local {
            state,
            error,
            node_id: Some(identity.node_id),
            cluster_id: Some(identity.cluster_id),
            is_manager: member.manager().is_some(),
            addr: Some(member.addr()),
            managers: member.directory.managers().into_iter().map(|m| (m.node_id, m.addr)).collect(),
            description: Some(member.description()),
        }
    }

    async fn init(&self, options: InitOptions) -> Result<NodeId, ApiError> {
        let node = self.clone();
        self.at_home(async move { node.init_here(options).await }).await
    }

    async fn join(&self, options: JoinOptions) -> Result<NodeId, ApiError> {
        let node = self.clone();
        self.at_home(async move { node.join_here(options).await }).await
    }

    async fn leave(&self, force: bool) -> Result<(), ApiError> {
        let node = self.clone();
        self.at_home(async move { node.leave_here(force).await }).await
    }

    fn state(&self) -> Result<State, ApiError> {
        Ok(self.need_manager()?.raft.state())
    }

    async fn read(&self) -> Result<(State, Freshness), ApiError> {
        let raft = self.need_manager()?.raft.clone();
        let freshness =
            match tokio::time::timeout(self.0.pace.of(READ_FRESH_TIMEOUT), raft.read_index()).await {
                Ok(Ok(_)) => Freshness::Fresh,
                Ok(Err(error)) => Freshness::Stale(error.to_string()),
                Err(_) => Freshness::Stale("the leader did not confirm in time".into()),
            };
        Ok((raft.state(), freshness))
    }

    async fn propose(&self, command: Command) -> Result<u64, ApiError> {
        let raft = self.need_manager()?.raft.clone();
        raft.propose(command).await.map_err(propose_error)
    }

    async fn attach(&self, ask: Ask) -> Result<Vec<Arc<Attachment>>, ApiError> {
        self.member().ok_or(ApiError::NotInCluster)?.attach(ask).await
    }

    fn events(&self) -> Result<EventStream, ApiError> {
        Ok(self.need_manager()?.raft.events())
    }

    fn leader(&self) -> Option<NodeId> {
        self.manager().and_then(|m| m.raft.leadership().borrow().leader)
    }

    fn mesh(&self) -> MeshStats {
        self.mesh_stats().unwrap_or_default()
    }

    fn reachable_managers(&self) -> Vec<NodeId> {
        let Some(member) = self.member() else { return Vec::new() };
        let Some(manager) = member.manager() else { return Vec::new() };
        let by_raft = manager.raft.reachable();
        if manager.raft.leadership().borrow().is_me {
            return by_raft.into_iter().collect();
        }
        let view = member.membership.view();
        let alive = view.iter().filter(|m| m.alive).map(|m| m.node_id);
        let voters = manager.raft.voters();
        alive.chain([member.node_id()]).filter(|id| voters.contains_key(id)).collect()
    }
}

impl Node {
    async fn init_here(&self, options: InitOptions) -> Result<NodeId, ApiError> {
        let _guard = self.0.lifecycle.lock().await;
        if options.force_new_cluster {
            return self.begin_anew().await;
        }
        self.may_enter()?;
        self.set_status(LocalState::Pending, "");
        let result = self.found(options).await;
        if result.is_err() {
            self.undo().await;
        }
        result
    }

    async fn join_here(&self, options: JoinOptions) -> Result<NodeId, ApiError> {
        let _guard = self.0.lifecycle.lock().await;
        self.may_enter()?;
        self.set_status(LocalState::Pending, "");
        let (member, raft) = match self.enter(options).await {
            Ok(entered) => entered,
            Err(error) => {
                self.undo().await;
                return Err(error);
            }
        };
        // From here on the managers may count on its vote: whatever it keeps of consensus must stay.
        if let Some(raft) = raft
            && let Err(error) = self.take_seat(&member, &raft).await
        {
            self.spawn_at_home(self.clone().keep_asking_for_seat(member, raft));
            return Err(error);
        }
        member.first_session(self.0.pace.of(FIRST_SESSION_TIMEOUT)).await;
        Ok(member.node_id())
    }

    async fn leave_here(&self, force: bool) -> Result<(), ApiError> {
        let _guard = self.0.lifecycle.lock().await;
        if self.0.status.lock().unwrap_or_else(PoisonError::into_inner).0 == LocalState::Inactive {
            return Err(ApiError::NotInCluster);
        }
        if let (Some(member), Some(manager)) = (self.member(), self.manager()) {
            member.set_leaving(true);
            let may = tokio::select! {
                biased;
                () = self.to_stop() => Err(ApiError::Internal("the node is stopping".into())),
                may = self.may_leave(&manager, force) => may,
            };
            may.inspect_err(|_| member.set_leaving(false))?;
        }
        if let Some(member) = self.take_member() {
            let _ = member.runner.leave().await;
            tokio::select! {
                biased;
                () = self.to_stop() => {}
                () = member.tasks_gone() => {}
            }
            member.stop().await;
        }
        self.0.endpoint.set_credentials(None);
        self.wipe().await.map_err(internal)?;
        self.set_status(LocalState::Inactive, "");
        Ok(())
    }

    /// Wait until the node is to stop.
    async fn to_stop(&self) {
        let _ = self.0.stopping.subscribe().wait_for(|stopping| *stopping).await;
    }

    /// Follow a new role, or the end of the membership, in a task of its own: it may end the one that asks.
    fn spawn_at_home(&self, work: impl Future<Output = ()> + Send + 'static) {
        if !self.0.home.spawn(work) {
            tracing::error!("too many changes of this node's membership wait");
        }
    }

    /// `--force-new-cluster` through the API.
    async fn begin_anew(&self) -> Result<NodeId, ApiError> {
        let member = self.member().ok_or_else(|| {
            ApiError::Invalid("ForceNewCluster: this node is not a member of a cluster".into())
        })?;
        let manager = self.need_manager()?;
        member.set_manager(None);
        manager.stop().await;
        let raft = self.open_raft(&member, true).await?;
        self.start_manager(&member, raft);
        self.forget_other_managers(&member).await?;
        Ok(member.node_id())
    }

    async fn may_leave(&self, manager: &Arc<Manager>, force: bool) -> Result<(), ApiError> {
        let voters = manager.raft.voters();
        if !force {
            let what = if voters.len() <= 1 {
                "Removing the last manager erases all current state of the swarm. Use `--force` to ignore this message."
            } else {
                "You are attempting to leave the swarm on a node that is participating as a manager. Demote it first, or use `--force` to suppress this message."
            };
            return Err(ApiError::Conflict(what.into()));
        }
        if voters.len() > 1
            && let Some(id) = self.member().map(|m| m.node_id())
            && let Err(error) = manager.raft.leave_seat(id).await
        {
            tracing::warn!(%error, "leaves without giving its seat up");
        }
        Ok(())
    }
}
