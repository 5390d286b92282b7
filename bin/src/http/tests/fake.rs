//! A node whose cluster is a state in memory: commands apply at once, and tasks run as soon as they are wanted.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use shoal_actors::api::{
    ApiError, EventStream, Freshness, InitOptions, JoinOptions, Local, LocalState, NodeApi,
};
use shoal_core::attach::{self, Ask, AskError};
use shoal_core::model::*;
use shoal_core::store::{Command, Event, State, Write};
use shoal_net::mesh::{MeshStats, PortStats};
use tokio::sync::broadcast;

/// What can be made to go wrong.
#[derive(Debug, Clone, Default)]
pub(super) struct Faults {
    /// Writes fail for lack of a leader.
    pub(super) no_leader: bool,
    /// Writes never return.
    pub(super) hang: bool,
    /// Reads may be old.
    pub(super) stale: bool,
    /// Managers that are not reached.
    pub(super) unreachable: Vec<NodeId>,
}

struct Inner {
    state: State,
    index: u64,
    next_id: u128,
    local: Local,
    faults: Faults,
    reconciles: bool,
}

/// The fake.
pub(super) struct Fake {
    inner: Mutex<Inner>,
    events: broadcast::Sender<Arc<[Event]>>,
}

pub(super) const OWN: NodeId = NodeId::from_u128(1);

fn description(hostname: &str) -> NodeDescription {
    NodeDescription {
        hostname: hostname.to_owned(),
        platform: Platform { os: "linux".into(), architecture: "x86_64".into() },
        resources: Resources { nano_cpus: 2_000_000_000, memory_bytes: 8 << 30, ..Resources::default() },
        engine: EngineInfo { version: "20.10.24".into(), ..EngineInfo::default() },
        addr: "10.1.1.1:2377".into(),
    }
}

impl Fake {
    /// A node without a cluster.
    pub(super) fn inactive() -> Arc<Self> {
        let local = Local { description: Some(description("host1")), ..Local::default() };
        let inner = Inner {
            state: State::default(),
            index: 0,
            next_id: 1000,
            local,
            faults: Faults::default(),
            reconciles: true,
        };
        Arc::new(Self { inner: Mutex::new(inner), events: broadcast::channel(64).0 })
    }

    /// A manager of a cluster of its own.
    pub(super) fn manager() -> Arc<Self> {
        let fake = Self::inactive();
        fake.begin(&InitOptions {
            advertise: None,
            spec: ClusterSpec::default(),
            availability: Availability::Active,
            force_new_cluster: false,
        });
        fake
    }

    fn begin(&self, options: &InitOptions) {
        {
            let mut inner = self.inner.lock().unwrap();
            inner.local.state = LocalState::Active;
            inner.local.is_manager = true;
            inner.local.node_id = Some(OWN);
            inner.local.cluster_id = Some(ClusterId::from_u128(99));
            inner.local.addr = Some(SocketAddr::from(([10, 1, 1, 1], 2377)));
            inner.local.managers = vec![(OWN, "10.1.1.1:2377".to_owned())];
        }
        let key = rcgen::KeyPair::generate().unwrap();
        let root = rcgen::CertificateParams::default().self_signed(&key).unwrap();
        let cluster = Cluster {
            meta: Meta::default(),
            id: ClusterId::from_u128(99),
            spec: options.spec.clone(),
            root_ca: RootCa { cert_der: root.der().to_vec(), key_der: Secret(vec![1]) },
            tokens: JoinTokens {
                worker: "SWMTKN-1-digest-workersecret".into(),
                manager: "SWMTKN-1-digest-managersecret".into(),
            },
        };
        self.apply(vec![Write::Cluster(Box::new(cluster))]);
        self.add_node(OWN, "host1", Role::Manager, NodeState::Ready);
    }

    /// Add a node.
    pub(super) fn add_node(&self, id: NodeId, hostname: &str, role: Role, state: NodeState) {
        let manager = (role == Role::Manager).then(|| ManagerStatus { addr: "10.1.1.1:2377".to_owned() });
        let node = Node {
            id,
            spec: NodeSpec { role, ..NodeSpec::default() },
            description: Some(description(hostname)),
            status: NodeStatus { state, ..NodeStatus::default() },
            role,
            manager,
            ..Node::default()
        };
        self.apply(vec![Write::NodeCreate(Box::new(node))]);
    }

    /// Leave tasks alone from now on.
    pub(super) fn forget_reconciling(&self) {
        self.inner.lock().unwrap().reconciles = false;
    }

    /// Change what goes wrong.
    pub(super) fn faults(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.inner.lock().unwrap().faults);
    }

    /// Change what the node knows of itself.
    pub(super) fn local(&self, change: impl FnOnce(&mut Local)) {
        change(&mut self.inner.lock().unwrap().local);
    }

    /// The state.
    pub(super) fn now(&self) -> State {
        self.inner.lock().unwrap().state.clone()
    }

    /// Apply writes that must succeed.
    pub(super) fn apply(&self, writes: Vec<Write>) {
        self.commit(Command { writes, ..Command::default() }).unwrap();
    }

    fn commit(&self, command: Command) -> Result<u64, ApiError> {
        let mut inner = self.inner.lock().unwrap();
        inner.index += 1;
        let index = inner.index;
        let mut events = inner.state.apply(index, 1, command)?.events;
        let mut writes = Vec::new();
        for service in inner.state.services().cloned().collect::<Vec<_>>() {
            writes.extend(reconcile(&mut inner, &service));
        }
        for gone in inner.state.services_with_tasks().collect::<Vec<_>>() {
            if inner.state.service(gone).is_none() {
                writes.extend(inner.state.tasks_of_service(gone).map(|t| Write::TaskRemove(t.id)));
            }
        }
        if inner.reconciles && !writes.is_empty() {
            inner.index += 1;
            let index = inner.index;
            events.extend(inner.state.apply(index, 1, Command { writes, ..Command::default() })?.events);
        }
        // Nobody may listen.
        let _ = self.events.send(events.into());
        Ok(index)
    }
}

/// Make a service's tasks at once what they shall be.
fn reconcile(inner: &mut Inner, service: &Service) -> Vec<Write> {
    let slots: Vec<Slot> = match service.spec.mode {
        ServiceMode::Replicated { replicas } => (1..=replicas).map(Slot::Replica).collect(),
        ServiceMode::Global => inner.state.nodes().map(|n| Slot::Node(n.id)).collect(),
    };
    let mut writes = Vec::new();
    let tasks: Vec<_> = inner.state.tasks_of_service(service.id).cloned().collect();
    for task in &tasks {
        let outdated = task.spec_version < service.task_spec_version;
        if outdated || !slots.contains(&task.slot) {
            writes.push(Write::TaskRemove(task.id));
        }
    }
    for slot in slots {
        if tasks.iter().any(|t| t.slot == slot && t.spec_version >= service.task_spec_version) {
            continue;
        }
        inner.next_id += 1;
        let node = if let Slot::Node(node) = slot { node } else { OWN };
        let id = TaskId::from_u128(inner.next_id);
        writes.push(Write::TaskCreate(Arc::new(Task {
            meta: Meta::default(),
            id,
            service_id: service.id,
            service_name: service.spec.name.as_str().into(),
            slot,
            node_id: None,
            spec: Arc::clone(&service.spec.task),
            spec_version: service.meta.spec_version,
            ports: Vec::new(),
            networks: Vec::new(),
            desired: TaskState::Running,
            start_after: None,
            status: TaskStatus { state: TaskState::Pending, ..TaskStatus::default() },
        })));
        let ports = service.spec.endpoint.ports.clone();
        writes.push(Write::TaskAssign { id, node, ports, message: String::new(), at: Timestamp(0) });
        let container = ContainerStatus { container_id: "c0ffee".into(), ..Default::default() };
        let status = TaskStatus {
            state: TaskState::Running,
            message: "started".into(),
            container: Some(container),
            ..TaskStatus::default()
        };
        writes.push(Write::TaskStatus(id, status));
    }
    writes
}

#[async_trait]
impl NodeApi for Fake {
    fn local(&self) -> Local {
        self.inner.lock().unwrap().local.clone()
    }

    async fn init(&self, options: InitOptions) -> Result<NodeId, ApiError> {
        if NodeApi::local(self).state != LocalState::Inactive {
            return Err(ApiError::AlreadyMember);
        }
        self.begin(&options);
        Ok(OWN)
    }

    async fn join(&self, options: JoinOptions) -> Result<NodeId, ApiError> {
        if !options.token.starts_with("SWMTKN-1-") {
            return Err(ApiError::Invalid("invalid join token".into()));
        }
        self.local(|local| {
            local.state = LocalState::Active;
            local.node_id = Some(OWN);
        });
        Ok(OWN)
    }

    async fn leave(&self, _force: bool) -> Result<(), ApiError> {
        let mut inner = self.inner.lock().unwrap();
        inner.local = Local { description: inner.local.description.clone(), ..Local::default() };
        inner.state = State::default();
        Ok(())
    }

    fn state(&self) -> Result<State, ApiError> {
        let inner = self.inner.lock().unwrap();
        match (inner.local.state, inner.local.is_manager) {
            (LocalState::Active, true) => Ok(inner.state.clone()),
            (LocalState::Active, false) => Err(ApiError::NotManager),
            _ => Err(ApiError::NotInCluster),
        }
    }

    async fn read(&self) -> Result<(State, Freshness), ApiError> {
        let stale = self.inner.lock().unwrap().faults.stale;
        let freshness =
            if stale { Freshness::Stale("no majority since 3 s".into()) } else { Freshness::Fresh };
        Ok((self.state()?, freshness))
    }

    async fn propose(&self, command: Command) -> Result<u64, ApiError> {
        let faults = self.inner.lock().unwrap().faults.clone();
        self.state()?;
        if faults.hang {
            std::future::pending::<()>().await;
        }
        if faults.no_leader {
            return Err(ApiError::NoLeader("2 of 3 managers are not reached".into()));
        }
        self.commit(command)
    }

    async fn attach(&self, ask: Ask) -> Result<Vec<Arc<Attachment>>, ApiError> {
        if NodeApi::local(self).state != LocalState::Active {
            return Err(ApiError::NotInCluster);
        }
        if self.inner.lock().unwrap().faults.no_leader {
            return Err(ApiError::NoLeader("2 of 3 managers are not reached".into()));
        }
        let mut plan = attach::plan(&self.now(), OWN, &ask).map_err(|error| match error {
            AskError::Refused(refused) => ApiError::Refused(refused),
            error => ApiError::Conflict(error.to_string()),
        })?;
        if !plan.writes.is_empty() {
            self.commit(Command { writes: std::mem::take(&mut plan.writes), ..Command::default() })?;
        }
        Ok(plan.answer(&self.now()))
    }

    fn events(&self) -> Result<EventStream, ApiError> {
        self.state()?;
        Ok(self.events.subscribe())
    }

    fn leader(&self) -> Option<NodeId> {
        Some(OWN)
    }

    fn mesh(&self) -> MeshStats {
        let inner = self.inner.lock().unwrap();
        let ports = inner.state.services().flat_map(|service| {
            service.spec.endpoint.ports.iter().map(|port| PortStats {
                service: service.spec.name.clone(),
                published: port.published_port,
                ..PortStats::default()
            })
        });
        MeshStats { ports: ports.collect(), ..MeshStats::default() }
    }

    fn reachable_managers(&self) -> Vec<NodeId> {
        let inner = self.inner.lock().unwrap();
        let reached = |id: &NodeId| !inner.faults.unreachable.contains(id);
        inner.state.nodes().filter(|n| n.manager.is_some()).map(|n| n.id).filter(reached).collect()
    }
}
