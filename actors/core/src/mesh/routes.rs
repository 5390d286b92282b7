//! Routes: what every node has to know of a service to take its traffic, made from the state alone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::{
    Attachment, AttachmentId, NetworkId, NetworkInfo, Node, NodeId, NodeState, PortConfig, PortMode, Service,
    ServiceId, ServiceNetwork, Slot, Task, TaskId, TaskNetwork, TaskState,
};
use crate::put_back::{Bug, is_put_back};
use crate::store::{EventKind, ObjectId, State};

/// Label of a service: how long its connections may go on once a task shall stop.
const DRAIN_LABEL: &str = "shoal.drain";
/// Label of a service: whether its tasks are told the client's address in a PROXY header.
const PROXY_LABEL: &str = "shoal.proxy-protocol";
const DRAIN_DEFAULT: Duration = Duration::from_secs(60);
const DRAIN_DIRECT_DEFAULT: Duration = Duration::from_secs(10);
/// Backends of a service that a node is told of, and in one message; so many share any load.
const BACKENDS_MAX: usize = 65_536;
const DRAIN_MAX: Duration = Duration::from_secs(3600);

/// A task that takes traffic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backend {
    /// The task.
    pub task: TaskId,
    /// Where it runs.
    pub node: NodeId,
    /// The node's address for other nodes, `ip:port`.
    pub addr: String,
    /// The place that it fills.
    pub slot: Slot,
    /// Its addresses in its networks.
    pub addresses: Vec<(NetworkId, Vec<IpAddr>)>,
}

/// A service's place in a network, as every node knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteNetwork {
    /// The network.
    pub network: Arc<NetworkInfo>,
    /// Further names of the service there.
    pub aliases: Vec<String>,
    /// Its virtual addresses there; none where it is found by its tasks' addresses.
    pub addresses: Vec<IpAddr>,
}

/// How a service's traffic is treated, as its labels say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// How long open connections may go on once their task shall stop.
    pub drain: Duration,
    /// Whether each connection begins with a PROXY protocol v2 header.
    pub proxy_header: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { drain: DRAIN_DEFAULT, proxy_header: false }
    }
}

/// A label says what cannot be done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{label}: {problem}")]
pub struct OptionsError {
    /// The label.
    pub label: String,
    /// What is wrong, and what is wanted.
    pub problem: String,
}

impl Options {
    /// How long connections from task to task may go on once their task shall stop: nobody can tell an idle one from
    /// one in use, so without a word from the user that is less than for clients.
    #[must_use]
    pub fn drain_direct(&self) -> Duration {
        if self.drain == DRAIN_DEFAULT { DRAIN_DIRECT_DEFAULT } else { self.drain }
    }

    /// Of a service. What does not read was refused when it came; older clusters may hold some.
    #[must_use]
    pub fn of(service: &Service) -> Self {
        Self::of_labels(&service.spec.labels).unwrap_or_default()
    }

    /// Read the labels of a service.
    ///
    /// # Errors
    /// The label that cannot be read, and what is wanted.
    pub fn of_labels(labels: &BTreeMap<String, String>) -> Result<Self, OptionsError> {
        let mut options = Self::default();
        if let Some(text) = labels.get(DRAIN_LABEL) {
            let wrong = || OptionsError {
                label: DRAIN_LABEL.to_owned(),
                problem: format!("{text:?} is no time: seconds up to 3600 are wanted, such as 45s"),
            };
            options.drain = seconds(text).filter(|time| *time <= DRAIN_MAX).ok_or_else(wrong)?;
        }
        if let Some(text) = labels.get(PROXY_LABEL) {
            options.proxy_header = match text.as_str() {
                "v2" => true,
                "" | "off" => false,
                other => {
                    let problem = format!("{other:?} is unknown: v2 or off is wanted");
                    return Err(OptionsError { label: PROXY_LABEL.to_owned(), problem });
                }
            };
        }
        Ok(options)
    }
}

/// `45s` or `45`.
pub(crate) fn seconds(text: &str) -> Option<Duration> {
    text.strip_suffix('s').unwrap_or(text).parse().ok().map(Duration::from_secs)
}

/// What every node knows of a service with ports on the mesh or a place in a network, or of a container that is no task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The service.
    pub service: ServiceId,
    /// Its name.
    pub name: String,
    /// Its ports on the mesh.
    pub ports: Vec<PortConfig>,
    /// How its traffic is treated.
    pub options: Options,
    /// Tasks that take its traffic now, by id.
    pub backends: Vec<Backend>,
    /// Its networks.
    pub networks: Vec<RouteNetwork>,
    /// Tasks that have addresses and take no traffic of it: they start, or come to their end.
    pub others: Vec<Backend>,
    /// Whether it is one container that is no task: it has the one backend, and no tasks' names.
    pub attached: bool,
}

/// Whether the task may be given traffic: it runs, is healthy where that is checked, shall go on, and its node is there.
#[must_use]
pub fn takes_traffic(task: &Task, node: &Node) -> bool {
    let early = task.status.state >= TaskState::Assigned && is_put_back(Bug::TrafficTooEarly);
    let runs = task.status.state == TaskState::Running || early && !task.status.state.is_terminal();
    runs && !task.is_sick() && task.desired == TaskState::Running && node.status.state != NodeState::Down
}

impl Route {
    /// The route of a service; none if it has neither a port on the mesh nor a network.
    #[must_use]
    pub fn of(state: &State, service: &Service) -> Option<Self> {
        let on_mesh = service.spec.endpoint.ports_in(PortMode::Ingress);
        let ports: Vec<PortConfig> = on_mesh.filter(|port| port.published_port != 0).cloned().collect();
        let networks = networks(state, service);
        if ports.is_empty() && networks.is_empty() {
            return None;
        }
        let (mut backends, mut others) = (Vec::new(), Vec::new());
        for task in state.tasks_of_service(service.id) {
            let Some(node) = task.node_id.and_then(|id| state.node(id)) else { continue };
            if takes_traffic(task, node) {
                backends.push(backend(task.id, node, task.slot, &task.networks));
            } else if !task.networks.is_empty() && task.occupies_node() {
                others.push(backend(task.id, node, task.slot, &task.networks));
            }
        }
        backends.truncate(BACKENDS_MAX);
        others.truncate(BACKENDS_MAX);
        Some(Self {
            service: service.id,
            name: service.spec.name.clone(),
            ports,
            options: Options::of(service),
            backends,
            networks,
            others,
            attached: false,
        })
    }

    /// The route of a container that is no task; none until it is made.
    #[must_use]
    pub fn of_attachment(state: &State, attachment: &Attachment) -> Option<Self> {
        let node = state.node(attachment.node).filter(|_| !attachment.container.is_empty())?;
        let network = |place: &TaskNetwork| RouteNetwork {
            network: Arc::clone(&place.network),
            aliases: place.aliases.iter().cloned().chain([attachment.short_id().to_owned()]).collect(),
            addresses: Vec::new(),
        };
        let it = backend(attachment.id.as_task(), node, Slot::Replica(1), &attachment.networks);
        let is_there = node.status.state != NodeState::Down;
        let (backends, others) = if is_there { (vec![it], Vec::new()) } else { (Vec::new(), vec![it]) };
        Some(Self {
            service: attachment.id.as_service(),
            name: attachment.name.clone(),
            ports: Vec::new(),
            options: Options::default(),
            backends,
            networks: attachment.networks.iter().map(network).collect(),
            others,
            attached: true,
        })
    }

    /// The route that goes by this id, of a service or of a container that is no task.
    fn by_id(state: &State, id: ServiceId) -> Option<Self> {
        match state.service(id) {
            Some(service) => Self::of(state, service),
            None => Self::of_attachment(state, state.attachment(AttachmentId::of_service(id))?),
        }
    }

    /// Its tasks that have addresses, whether they take traffic or not.
    pub fn tasks(&self) -> impl Iterator<Item = &Backend> {
        self.backends.iter().chain(&self.others)
    }
}

fn backend(task: TaskId, node: &Node, slot: Slot, places: &[TaskNetwork]) -> Backend {
    Backend {
        task,
        node: node.id,
        addr: node.description.as_ref().map(|d| d.addr.clone()).unwrap_or_default(),
        slot,
        addresses: places.iter().map(|place| (place.network.id, place.addresses.clone())).collect(),
    }
}

fn networks(state: &State, service: &Service) -> Vec<RouteNetwork> {
    let place = |place: &ServiceNetwork| {
        let wishes = service.spec.task.networks.iter().filter(|wish| wish.network == place.network);
        Some(RouteNetwork {
            network: Arc::new(state.network(place.network)?.info()),
            aliases: wishes.flat_map(|wish| wish.aliases.iter().cloned()).collect(),
            addresses: place.addresses.clone(),
        })
    };
    service.networks.iter().filter_map(place).collect()
}

/// Routes for a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Routes {
    /// All of them.
    Complete(Vec<Arc<Route>>),
    /// What changed since.
    Changed {
        /// New and changed ones.
        changed: Vec<Arc<Route>>,
        /// Services that have none any more.
        removed: Vec<ServiceId>,
    },
}

impl Routes {
    /// Take them in. Returns each route that they name or remove, as it was and as it is.
    pub fn take_into(self, known: &mut BTreeMap<ServiceId, Arc<Route>>) -> Vec<RouteChange> {
        let (changed, removed) = match self {
            Self::Complete(routes) => {
                let named: BTreeSet<ServiceId> = routes.iter().map(|route| route.service).collect();
                let removed = known.keys().filter(|id| !named.contains(id)).copied().collect();
                (routes, removed)
            }
            Self::Changed { changed, removed } => (changed, removed),
        };
        let mut changes = Vec::with_capacity(changed.len() + removed.len());
        changes.extend(removed.into_iter().map(|id| RouteChange { before: known.remove(&id), after: None }));
        changes.extend(changed.into_iter().map(|route| RouteChange {
            before: known.insert(route.service, Arc::clone(&route)),
            after: Some(route),
        }));
        changes
    }
}

/// A route as it was and as it is.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteChange {
    /// None if it is new.
    pub before: Option<Arc<Route>>,
    /// None if it is gone.
    pub after: Option<Arc<Route>>,
}

impl RouteChange {
    /// How traffic of a node's tasks is treated from now on.
    pub fn options_on(&self, node: NodeId) -> impl Iterator<Item = (TaskId, Options)> {
        self.after.iter().flat_map(move |route| {
            let here = route.backends.iter().filter(move |backend| backend.node == node);
            here.map(|backend| (backend.task, route.options))
        })
    }
}

/// The routes of all services and of all containers that are no tasks, kept up to date by the changes of the state.
#[derive(Debug, Clone, Default)]
pub struct RouteTable {
    routes: BTreeMap<ServiceId, Arc<Route>>,
    /// Whose service is no longer told by the state: tasks that were removed.
    services: BTreeMap<TaskId, ServiceId>,
}

impl RouteTable {
    /// Of a state.
    #[must_use]
    pub fn new(state: &State) -> Self {
        let mut table = Self::default();
        let all = table.all(state);
        table.renew(state, &all);
        table
    }

    /// Whatever may have a route, or has one here.
    #[must_use]
    pub fn all(&self, state: &State) -> BTreeSet<ServiceId> {
        let services = state.services().map(|service| service.id);
        let attached = state.attachments().map(|attachment| attachment.id.as_service());
        services.chain(attached).chain(self.routes.keys().copied()).collect()
    }

    /// All routes, for a node that knows none: in messages of bounded size, and one at least.
    #[must_use]
    pub fn complete(&self) -> Vec<Routes> {
        let mut messages = vec![Vec::new()];
        let mut room = BACKENDS_MAX;
        for route in self.routes.values() {
            let size = route.tasks().count() + route.ports.len() + route.networks.len();
            if size > room {
                messages.push(Vec::new());
                room = BACKENDS_MAX;
            }
            room = room.saturating_sub(size);
            if let Some(last) = messages.last_mut() {
                last.push(Arc::clone(route));
            }
        }
        let mut messages = messages.into_iter();
        let first = Routes::Complete(messages.next().unwrap_or_default());
        let rest = messages.map(|changed| Routes::Changed { changed, removed: Vec::new() });
        std::iter::once(first).chain(rest).collect()
    }

    /// The routes, by service.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.routes.values()
    }

    /// Services whose route a change of this object may change.
    pub fn touch(&self, state: &State, object: ObjectId, kind: EventKind, touched: &mut BTreeSet<ServiceId>) {
        match object {
            ObjectId::Service(id) => drop(touched.insert(id)),
            ObjectId::Task(_) if self.routes.is_empty() => {}
            ObjectId::Task(id) => {
                let service =
                    state.task(id).map(|task| task.service_id).or_else(|| self.services.get(&id).copied());
                touched.extend(service.filter(|id| self.routes.contains_key(id)));
            }
            ObjectId::Node(id) if kind == EventKind::Removed => {
                let there = |route: &&Arc<Route>| route.tasks().any(|backend| backend.node == id);
                touched.extend(self.routes.values().filter(there).map(|route| route.service));
            }
            ObjectId::Node(id) if !self.routes.is_empty() => {
                let services = state.tasks_of_node(id).map(|task| task.service_id);
                let attached = state.attachments_of_node(id).map(|attachment| attachment.id.as_service());
                touched.extend(services.chain(attached).filter(|id| self.routes.contains_key(id)));
            }
            ObjectId::Attachment(id) => drop(touched.insert(id.as_service())),
            ObjectId::Node(_) | ObjectId::Cluster | ObjectId::Network(_) => {}
        }
    }

    /// Make the routes of these services anew. Returns what changed, if anything.
    pub fn renew(&mut self, state: &State, services: &BTreeSet<ServiceId>) -> Option<Routes> {
        let (mut changed, mut removed) = (Vec::new(), Vec::new());
        for id in services {
            let route = Route::by_id(state, *id).map(Arc::new);
            let known = self.routes.get(id);
            if known == route.as_ref() {
                continue;
            }
            for backend in known.iter().flat_map(|route| route.tasks()) {
                self.services.remove(&backend.task);
            }
            if let Some(route) = route {
                self.services.extend(route.tasks().map(|backend| (backend.task, *id)));
                self.routes.insert(*id, Arc::clone(&route));
                changed.push(route);
            } else {
                self.routes.remove(id);
                removed.push(*id);
            }
        }
        (!changed.is_empty() || !removed.is_empty()).then_some(Routes::Changed { changed, removed })
    }
}
