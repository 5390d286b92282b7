//! People who change what shall run all the while, and remember every word that was given back.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use shoal_actors::api::{ApiError, Freshness, NodeApi as _};
use shoal_actors::node::Node;
use shoal_core::model::{
    Availability, Cluster, ContainerSpec, EndpointMode, EndpointSpec, FailureAction, HealthConfig,
    JoinTokens, Network, NetworkAttachment, NetworkId, NetworkSpec, NodeSpec, Pool, PortConfig, PortMode,
    Resources, RestartCondition, RestartPolicy, Role, Service, ServiceId, ServiceMode, ServiceSpec, TaskSpec,
    TaskState, TaskStatus, UpdateConfig, UpdateOrder, UpdateStatus,
};
use shoal_core::store::{ApplyError, Command, Expect, ObjectId, State, Write};
use shoal_net::ca::JoinToken;

use crate::containers::{ABSENT, DEAF, ENDS};
use crate::event::What;
use crate::host::clock;
use crate::judges::host_number;
use crate::options::Options;
use crate::trace::Trace;
use crate::wishes::{Ask, CRASHES, REPLICAS_MAX, Revision, Rollout, Shape};

/// A call that takes longer was made to a node that died under it.
const CALL_MAX: Duration = Duration::from_secs(10);
/// Names that people give to networks; two share a range.
pub(crate) const NETWORKS: u64 = 4;
/// Services at most.
const SERVICES_MAX: usize = 8;
/// Managers that people keep.
const MANAGERS_MIN: usize = 3;
const MANAGERS_MAX: usize = 5;
/// What a heavy task reserves of a host's eight processors: one fits, and a second does not.
const HEAVY_NANO_CPUS: u64 = 5_000_000_000;
const HOST_PORT_FIRST: u16 = 8_000;

/// What a service looks like to people: its count, and its image. `None`: it is not there.
type Looks = Option<(u64, String)>;

/// What may have become of a service, as far as people can know.
#[derive(Debug, Clone, Default)]
struct Promise {
    id: ServiceId,
    /// What was promised last, and the index of that promise.
    kept: (u64, Looks),
    /// What may have been done since, and the version of the specification on which each of them relied.
    perhaps: Vec<(u64, Looks)>,
    /// All that it ever may have been, where the cluster may go back to it by itself.
    was: Option<Vec<Looks>>,
}

impl Promise {
    /// What an answer says of versions that cannot be true: a version is the index of the change that made it.
    fn contradicts(&self, base: u64, outcome: Outcome) -> Option<String> {
        let newest = self.kept.0;
        match outcome {
            Outcome::Done(index) if base < newest && newest < index => {
                Some(format!("a change made for version {base} was taken, though it was {newest}"))
            }
            Outcome::OutOfSequence
                if base == newest && newest > 0 && self.perhaps.len() == 1 && self.was.is_none() =>
            {
                Some(format!("a change made for version {base} was refused, though nobody had changed it"))
            }
            _ => None,
        }
    }

    fn may_be(&self, looks: &Looks) -> bool {
        let is_back = looks.is_some() && self.was.as_ref().is_some_and(|was| was.contains(looks));
        // Nothing comes back of what was removed for certain.
        if is_back && (self.kept.1.is_some() || self.perhaps.iter().any(|(_, perhaps)| perhaps.is_some())) {
            return true;
        }
        self.kept.1 == *looks || self.perhaps.iter().any(|(_, perhaps)| perhaps == looks)
    }
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// It is promised, at this index.
    Done(u64),
    /// Nothing of it was done, and never will be.
    Refused,
    /// Nor this, since somebody else was faster.
    OutOfSequence,
    /// It may have been done.
    Unknown,
}

impl Outcome {
    const fn word(self) -> &'static str {
        match self {
            Self::Done(_) => "done",
            Self::Refused | Self::OutOfSequence => "refused",
            Self::Unknown => "unknown",
        }
    }
}

#[derive(Default)]
struct Memory {
    services: BTreeMap<String, Promise>,
    named: u64,
    /// The newest of the tokens that were replaced for certain.
    old_tokens: Option<JoinTokens>,
    /// The newest index that anybody was told of.
    seen: u64,
    /// Heavy services that were ever asked for.
    heavy: Vec<String>,
    tally: [u64; 3],
    broken: Vec<String>,
}

/// The people. Cheap to clone.
#[derive(Clone)]
pub struct Person {
    memory: Rc<RefCell<Memory>>,
    rng: Rc<RefCell<ChaCha8Rng>>,
    hosts: usize,
    cert_life: Duration,
    call_max: Duration,
    trace: Trace,
}

fn looks(spec: &ServiceSpec) -> (u64, String) {
    let replicas = match spec.mode {
        ServiceMode::Replicated { replicas } => replicas,
        ServiceMode::Global => 0,
    };
    (replicas, spec.task.container.image.clone())
}

/// One of them, by a number that is taken modulo how many there are.
pub(crate) fn pick<T>(from: &[T], number: u64) -> Option<&T> {
    let count = u64::try_from(from.len()).ok().filter(|count| *count > 0)?;
    from.get(usize::try_from(number % count).ok()?)
}

/// Which host a node is on.
pub(crate) fn host_of(node: &Node) -> usize {
    node.local().addr.map_or(0, |addr| crate::host::number(addr.ip()))
}

impl Person {
    /// People whose wishes follow from the plan, and whose names follow from the seed.
    #[must_use]
    pub fn new(options: &Options, trace: Trace) -> Self {
        let rng = Rc::new(RefCell::new(ChaCha8Rng::seed_from_u64(options.seed ^ 0x7777)));
        let call_max = options.pace.of(CALL_MAX);
        let (hosts, cert_life) = (options.hosts, options.cert_life);
        Self { memory: Rc::default(), rng, hosts, cert_life, call_max, trace }
    }

    /// Words given, taken back and left open.
    #[must_use]
    pub fn tally(&self) -> [u64; 3] {
        self.memory.borrow().tally
    }

    /// Promises that were broken before anybody's eyes.
    #[must_use]
    pub fn take_broken(&self) -> Vec<String> {
        std::mem::take(&mut self.memory.borrow_mut().broken)
    }

    /// A second heavy service might fit nowhere, so there is none while the first is there or may come to be. What one manager
    /// knows does not say that: it may have joined only now.
    fn may_ask_for(&self, shape: Shape) -> bool {
        let memory = self.memory.borrow();
        let is_gone = |promise: &Promise| {
            promise.kept.1.is_none() && promise.perhaps.iter().all(|(_, perhaps)| perhaps.is_none())
        };
        shape != Shape::Heavy || memory.heavy.iter().filter_map(|name| memory.services.get(name)).all(is_gone)
    }

    /// Ask one manager for one thing. What concerns other hosts than their managers is left to the caller.
    pub async fn ask(&self, node: &Node, ask: &Ask) {
        let Ok(state) = node.state() else { return };
        match ask {
            Ask::Create { replicas, shape, rollout } => {
                if state.services().count() < SERVICES_MAX {
                    let shape = if self.may_ask_for(*shape) { *shape } else { Shape::Plain };
                    self.create(node, &state, *replicas, shape, *rollout).await;
                }
            }
            Ask::Scale { pick, replicas } => self.change(node, &state, *pick, Some(*replicas), None).await,
            Ask::Image { pick, version } => self.change(node, &state, *pick, None, Some(*version)).await,
            Ask::Revise { pick, what } => self.revise(node, &state, *pick, *what).await,
            Ask::Remove { pick } => self.remove(node, &state, *pick).await,
            Ask::Available { pick: number, availability } => {
                let nodes: Vec<_> = state.nodes().cloned().collect();
                if let Some(other) = pick(&nodes, *number) {
                    self.set_availability(node, other, *availability).await;
                }
            }
            Ask::Role { pick, role } => self.change_role(node, &state, *pick, *role).await,
            Ask::RotateTokens => self.rotate_tokens(node, &state).await,
            Ask::CertLife { times } => self.set_cert_life(node, &state, self.cert_life * *times).await,
            Ask::Read => self.read(node).await,
            Ask::Overwrite { pick } => self.overwrite(node, &state, *pick).await,
            Ask::Hurry { pick, rounds } => self.hurry(node, *pick, *rounds).await,
            Ask::Unrest { pick, rounds } => self.unrest(node, *pick, *rounds).await,
            Ask::Outdated { pick } => self.say_what_was(node, &state, *pick).await,
            Ask::Network { pick } => self.create_network(node, *pick).await,
            Ask::Unnetwork { pick } => self.remove_network(node, &state, *pick).await,
            Ask::Lie { .. }
            | Ask::OldToken
            | Ask::Stranger { .. }
            | Ask::WriteAndRead { .. }
            | Ask::Run { .. }
            | Ask::Disturb { .. } => {}
        }
    }

    async fn propose(&self, node: &Node, what: &str, expects: Vec<Expect>, writes: Vec<Write>) -> Outcome {
        let command = Command { at: clock()(), expects, writes, ..Command::default() };
        let before = self.memory.borrow().seen;
        let answer = tokio::time::timeout(self.call_max, node.propose(command)).await;
        let outcome = match answer {
            Ok(Ok(index)) => Outcome::Done(index),
            Ok(Err(ApiError::Refused(ApplyError::OutOfSequence(_)))) => Outcome::OutOfSequence,
            Ok(Err(ApiError::Refused(_) | ApiError::NotManager | ApiError::NotInCluster)) => Outcome::Refused,
            Ok(Err(_)) | Err(_) => Outcome::Unknown,
        };
        let mut memory = self.memory.borrow_mut();
        memory.tally[match outcome {
            Outcome::Done(_) => 0,
            Outcome::Refused | Outcome::OutOfSequence => 1,
            Outcome::Unknown => 2,
        }] += 1;
        if let Outcome::Done(index) = outcome {
            if index <= before {
                memory.broken.push(format!(
                    "{what}: written at index {index}, and index {before} had been told before it was asked for"
                ));
            }
            memory.seen = memory.seen.max(index);
        }
        let answer = outcome.word().to_owned();
        self.trace.event(What::Person { host: host_of(node), text: what.to_owned(), answer });
        outcome
    }

    /// A fresh read is never older than what anybody was told before it began.
    async fn read(&self, node: &Node) {
        let before = self.memory.borrow().seen;
        let answer = tokio::time::timeout(self.call_max, node.read()).await;
        let word = match answer {
            Ok(Ok((state, Freshness::Fresh))) => {
                let mut memory = self.memory.borrow_mut();
                if state.applied() < before {
                    memory.broken.push(format!(
                        "a fresh read saw index {}, and index {before} had been told before it began",
                        state.applied()
                    ));
                }
                memory.seen = memory.seen.max(state.applied());
                "done"
            }
            Ok(Ok((_, Freshness::Stale(_)))) => "unknown",
            Ok(Err(_)) => "refused",
            Err(_) => "unknown",
        };
        let text = "read all".to_owned();
        self.trace.event(What::Person { host: host_of(node), text, answer: word.to_owned() });
    }

    async fn create(&self, node: &Node, state: &State, replicas: u64, shape: Shape, rollout: Rollout) {
        let (name, number) = {
            let mut memory = self.memory.borrow_mut();
            memory.named += 1;
            (format!("s{}", memory.named), memory.named)
        };
        let id = ServiceId::random(&mut *self.rng.borrow_mut());
        let mut spec = spec(&name, number, self.capped(shape, replicas), shape, rollout);
        self.join_networks(state, number, &mut spec);
        let now = Some(looks(&spec));
        let told = format!("create {name}: {shape:?} of {replicas}");
        let service = Service::new(id, spec);
        // Known before the answer: the state may show it sooner than its maker is told.
        let goes_back = matches!(rollout, Rollout::Watched { rolls_back: true, .. });
        let was = goes_back.then(|| vec![now.clone()]);
        let promise = Promise { id, kept: (0, None), perhaps: vec![(0, now.clone())], was };
        self.remember(&name, promise, shape);
        let expects = vec![Expect::Absent(ObjectId::Service(id))];
        let outcome = self.propose(node, &told, expects, vec![Write::ServiceCreate(Box::new(service))]).await;
        self.learn(&name, 0, outcome, &now);
    }

    /// Names and ranges are few, so that they are asked for twice.
    async fn create_network(&self, node: &Node, number: u64) {
        let id = NetworkId::random(&mut *self.rng.borrow_mut());
        let place = number % NETWORKS;
        let subnet = format!("10.9.{}.0/24", place / 2);
        let pools = if (number / NETWORKS).is_multiple_of(3) {
            subnet.parse().ok().and_then(|subnet| Pool::new(subnet, None).ok()).into_iter().collect()
        } else {
            Vec::new()
        };
        let name = format!("n{place}");
        let told = format!("create network {name}");
        let ipv6 = (number / NETWORKS).is_multiple_of(2);
        let attachable = !(number / NETWORKS).is_multiple_of(5);
        let spec = NetworkSpec { name, ipv6, pools, attachable, ..NetworkSpec::default() };
        let network = Network { id, spec, ..Network::default() };
        self.propose(node, &told, Vec::new(), vec![Write::NetworkCreate(Box::new(network))]).await;
    }

    async fn remove_network(&self, node: &Node, state: &State, number: u64) {
        let networks: Vec<_> = state.networks().cloned().collect();
        let Some(network) = pick(&networks, number) else { return };
        let told = format!("remove network {}", network.spec.name);
        self.propose(node, &told, Vec::new(), vec![Write::NetworkRemove(network.id)]).await;
    }

    /// Some services are in networks, if there are any.
    fn join_networks(&self, state: &State, number: u64, spec: &mut ServiceSpec) {
        let networks: Vec<_> = state.networks().collect();
        if !number.is_multiple_of(3) || networks.is_empty() {
            return;
        }
        let wanted =
            networks.iter().cycle().skip(number as usize % networks.len()).take(1 + number as usize % 2);
        let wish = |network: &&Arc<Network>| NetworkAttachment { network: network.id, aliases: Vec::new() };
        Arc::make_mut(&mut spec.task).networks = wanted.map(wish).collect();
        if number.is_multiple_of(2) {
            spec.endpoint.mode = EndpointMode::Dnsrr;
        }
    }

    fn remember(&self, name: &str, promise: Promise, shape: Shape) {
        let mut memory = self.memory.borrow_mut();
        memory.services.insert(name.to_owned(), promise);
        memory.heavy.extend((shape == Shape::Heavy).then(|| name.to_owned()));
    }

    /// What can run at all on so many hosts.
    fn capped(&self, shape: Shape, replicas: u64) -> u64 {
        let hosts = self.hosts as u64;
        match shape {
            Shape::HostPort | Shape::Apart | Shape::Heavy => replicas.min(hosts),
            Shape::Plain
            | Shape::NotOn(_)
            | Shape::OnManagers
            | Shape::Global
            | Shape::Crashing(_)
            | Shape::Checked
            | Shape::Work { .. }
            | Shape::Deaf => replicas,
        }
    }

    fn learn(&self, name: &str, base: u64, outcome: Outcome, new: &Looks) {
        let mut memory = self.memory.borrow_mut();
        let wrong = memory.services.get(name).and_then(|promise| promise.contradicts(base, outcome));
        memory.broken.extend(wrong.map(|wrong| format!("service {name}: {wrong}")));
        let Some(promise) = memory.services.get_mut(name) else { return };
        let forget = |promise: &mut Promise| {
            if let Some(at) = promise.perhaps.iter().position(|perhaps| *perhaps == (base, new.clone())) {
                promise.perhaps.remove(at);
            }
        };
        match outcome {
            Outcome::Done(index) => {
                forget(promise);
                // What relied on the same version or an older one can happen no more.
                promise.perhaps.retain(|(other, _)| *other > base);
                if index > promise.kept.0 {
                    promise.kept = (index, new.clone());
                }
            }
            Outcome::Refused | Outcome::OutOfSequence => forget(promise),
            Outcome::Unknown => {}
        }
    }

    fn expect(&self, name: &str, base: u64, new: &Looks) {
        if let Some(promise) = self.memory.borrow_mut().services.get_mut(name) {
            promise.perhaps.push((base, new.clone()));
            if let Some(was) = &mut promise.was {
                was.push(new.clone());
            }
        }
    }

    async fn change(
        &self,
        node: &Node,
        state: &State,
        number: u64,
        replicas: Option<u64>,
        image: Option<u64>,
    ) {
        let services: Vec<_> = state.services().cloned().collect();
        let Some(service) = pick(&services, number) else { return };
        let mut spec = service.spec.clone();
        match (&mut spec.mode, replicas) {
            (ServiceMode::Replicated { replicas: count }, Some(replicas)) => {
                let bounded = is_bounded(&spec.task, &spec.endpoint);
                *count = if bounded { replicas.min(self.hosts as u64) } else { replicas };
            }
            (ServiceMode::Global, Some(_)) => return,
            (_, None) => {}
        }
        if let Some(version) = image {
            let image = &mut Arc::make_mut(&mut spec.task).container.image;
            // What it does stays as it was.
            let kind = image.rfind(':').map_or("image", |at| &image[..at]);
            let kind = if kind == ABSENT.trim_end_matches(':') { "image" } else { kind };
            *image = format!("{kind}:{version}");
        }
        self.put(node, service, spec, service.update.is_some().then_some(None)).await;
    }

    /// Put a specification in a service's place, and what is said of its update.
    async fn put(
        &self,
        node: &Node,
        service: &Service,
        spec: ServiceSpec,
        update: Option<Option<UpdateStatus>>,
    ) {
        let new = Some(looks(&spec));
        let told = format!("change {} to {}", spec.name, looks_text(&new));
        let base = service.meta.spec_version;
        let name = spec.name.clone();
        let mut writes = vec![Write::ServiceSpec(service.id, spec)];
        writes.extend(update.map(|update| Write::ServiceUpdate(service.id, update)));
        self.expect(&name, base, &new);
        let expects = vec![Expect::SpecVersion(ObjectId::Service(service.id), base)];
        let outcome = self.propose(node, &told, expects, writes).await;
        self.learn(&name, base, outcome, &new);
    }

    /// Change something of a service that is neither its count nor its image, or make it again what it was.
    async fn revise(&self, node: &Node, state: &State, number: u64, what: Revision) {
        let services: Vec<_> = state.services().cloned().collect();
        let Some(service) = pick(&services, number) else { return };
        let mut spec = service.spec.clone();
        let mut update = service.update.is_some().then_some(None);
        match what {
            Revision::Label => drop(spec.labels.insert("revision".into(), number.to_string())),
            Revision::NotOn(host) => {
                let task = Arc::make_mut(&mut spec.task);
                // Where hosts are scarce none can be spared.
                if is_bounded(task, &spec.endpoint) {
                    return;
                }
                task.placement.constraints = format!("node.hostname!=h{host}").parse().into_iter().collect();
            }
            Revision::Back => {
                let Some(previous) = service.previous_spec.clone().filter(|spec| !is_absent(spec)) else {
                    return;
                };
                spec = ServiceSpec { name: spec.name, ..previous };
                update = Some(Some(UpdateStatus::rollback(clock()())));
            }
            Revision::Network(number) => {
                if spec.task.networks.is_empty() {
                    self.join_networks(state, number - number % 3, &mut spec);
                } else {
                    Arc::make_mut(&mut spec.task).networks.clear();
                }
                spec.endpoint.mode = EndpointMode::Vip;
            }
            Revision::Absent(version) => {
                let image = &mut Arc::make_mut(&mut spec.task).container.image;
                // Only what is rolled back, and needs nobody to mend it.
                let mends = spec.update.as_ref().is_some_and(|update| {
                    update.failure_action == FailureAction::Rollback && update.max_failure_millionths == 0
                });
                if !mends || !image.starts_with("image:") {
                    return;
                }
                *image = format!("{ABSENT}{version}");
            }
        }
        self.put(node, service, spec, update).await;
    }

    async fn remove(&self, node: &Node, state: &State, number: u64) {
        let services: Vec<_> = state.services().cloned().collect();
        let Some(service) = pick(&services, number) else { return };
        let (name, base) = (service.spec.name.clone(), service.meta.spec_version);
        self.expect(&name, base, &None);
        let expects = vec![Expect::SpecVersion(ObjectId::Service(service.id), base)];
        let writes = vec![Write::ServiceRemove(service.id)];
        let outcome = self.propose(node, &format!("remove {name}"), expects, writes).await;
        self.learn(&name, base, outcome, &None);
    }

    /// Change a service as it was seen before the last change of it: that must be refused.
    async fn overwrite(&self, node: &Node, state: &State, number: u64) {
        let services: Vec<_> = state.services().filter(|s| s.previous_spec.is_some()).cloned().collect();
        let Some(service) = pick(&services, number) else { return };
        let Some(old) = service.previous_spec.clone() else { return };
        let (name, base) = (old.name.clone(), service.meta.spec_version - 1);
        let new = Some(looks(&old));
        self.expect(&name, base, &new);
        let expects = vec![Expect::SpecVersion(ObjectId::Service(service.id), base)];
        let writes = vec![Write::ServiceSpec(service.id, old)];
        let outcome = self.propose(node, &format!("overwrite {name}"), expects, writes).await;
        self.learn(&name, base, outcome, &new);
    }

    /// Scale a service up and down, again and again.
    async fn hurry(&self, node: &Node, number: u64, rounds: u64) {
        for round in 0..rounds {
            let Ok(state) = node.state() else { return };
            let replicas = if round % 2 == 0 { REPLICAS_MAX } else { 1 };
            self.change(node, &state, number, Some(replicas), None).await;
        }
    }

    /// Scale a service up and down, and up at last, while somebody else pauses nodes and lets them go on: what is being placed
    /// on a node is refused if that changes meanwhile, and must be placed elsewhere.
    async fn unrest(&self, node: &Node, number: u64, rounds: u64) {
        let pausing = async {
            for round in 0..rounds * 2 {
                for availability in [Availability::Pause, Availability::Active] {
                    let Ok(state) = node.state() else { return };
                    let nodes: Vec<_> = state.nodes().cloned().collect();
                    let Some(other) = pick(&nodes, number.wrapping_add(round)) else { return };
                    self.set_availability(node, other, availability).await;
                }
            }
        };
        tokio::join!(self.hurry(node, number, rounds * 2 + 1), pausing);
    }

    /// Say that a task shall run, and fares, as it once did: neither goes back.
    async fn say_what_was(&self, node: &Node, state: &State, number: u64) {
        let tasks: Vec<_> =
            state.tasks().filter(|task| task.status.state > TaskState::Preparing).cloned().collect();
        let Some(task) = pick(&tasks, number) else { return };
        let status = TaskStatus { state: TaskState::Preparing, ..task.status.clone() };
        let mut writes = vec![Write::TaskStatus(task.id, status)];
        if task.desired > TaskState::Running {
            writes.push(Write::TaskDesired(task.id, TaskState::Running));
        }
        self.propose(node, &format!("task {} is as it was", task.id), Vec::new(), writes).await;
    }

    async fn set_availability(
        &self,
        node: &Node,
        other: &shoal_core::model::Node,
        availability: Availability,
    ) {
        let spec = NodeSpec { availability, ..other.spec.clone() };
        let expects = vec![Expect::SpecVersion(ObjectId::Node(other.id), other.meta.spec_version)];
        let told = format!("{} becomes {availability:?}", other.hostname());
        self.propose(node, &told, expects, vec![Write::NodeSpec(other.id, spec)]).await;
    }

    /// Promote a worker, or demote a manager while enough are left.
    async fn change_role(&self, node: &Node, state: &State, number: u64, role: Role) {
        let managers = state.nodes().filter(|node| node.spec.role == Role::Manager).count();
        let may = match role {
            Role::Manager => managers < MANAGERS_MAX,
            Role::Worker => managers > MANAGERS_MIN,
        };
        // A stranger is a worker for as long as it stays.
        let stays = |name: &str| host_number(name).is_some_and(|host| host <= self.hosts);
        let others: Vec<_> =
            state.nodes().filter(|node| node.spec.role != role && stays(node.hostname())).cloned().collect();
        if let Some(other) = pick(&others, number).filter(|_| may) {
            self.set_role(node, other, role).await;
        }
    }

    async fn set_role(&self, node: &Node, other: &shoal_core::model::Node, role: Role) {
        let spec = NodeSpec { role, ..other.spec.clone() };
        let expects = vec![Expect::SpecVersion(ObjectId::Node(other.id), other.meta.spec_version)];
        let told = format!("{} becomes a {role}", other.hostname());
        self.propose(node, &told, expects, vec![Write::NodeSpec(other.id, spec)]).await;
    }

    async fn rotate_tokens(&self, node: &Node, state: &State) {
        let Some(cluster) = state.cluster() else { return };
        let root = &cluster.root_ca.cert_der;
        let (Ok(worker), Ok(manager)) = (JoinToken::generate(root), JoinToken::generate(root)) else {
            return;
        };
        let mut new = (**cluster).clone();
        let tokens = JoinTokens { worker: worker.to_string(), manager: manager.to_string() };
        let old = std::mem::replace(&mut new.tokens, tokens);
        if let Outcome::Done(_) = self.change_cluster(node, "new join tokens", new).await {
            self.memory.borrow_mut().old_tokens = Some(old);
        }
    }

    async fn set_cert_life(&self, node: &Node, state: &State, life: Duration) {
        let Some(cluster) = state.cluster() else { return };
        let mut new = (**cluster).clone();
        new.spec.ca.node_cert_expiry = life;
        self.change_cluster(node, &format!("certificates live {} s", life.as_secs()), new).await;
    }

    /// Make the cluster object this one, unless somebody else has changed it since it was read.
    async fn change_cluster(&self, node: &Node, what: &str, new: Cluster) -> Outcome {
        let expects = vec![Expect::SpecVersion(ObjectId::Cluster, new.meta.spec_version)];
        self.propose(node, what, expects, vec![Write::Cluster(Box::new(new))]).await
    }

    /// A token that was replaced.
    #[must_use]
    pub fn old_token(&self) -> Option<String> {
        self.memory.borrow().old_tokens.as_ref().map(|tokens| tokens.worker.clone())
    }

    /// Let every node take tasks again, and every service have an image that is there. True once all do.
    pub async fn activate_all(&self, node: &Node) -> bool {
        let Ok(state) = node.state() else { return false };
        let hopeless: Vec<_> = state.services().filter(|service| is_absent(&service.spec)).cloned().collect();
        for service in &hopeless {
            let mut spec = service.spec.clone();
            Arc::make_mut(&mut spec.task).container.image = "image:1".into();
            self.put(node, service, spec, service.update.is_some().then_some(None)).await;
        }
        let held: Vec<_> =
            state.nodes().filter(|node| node.spec.availability != Availability::Active).cloned().collect();
        for other in &held {
            self.set_availability(node, other, Availability::Active).await;
        }
        held.is_empty() && hopeless.is_empty()
    }

    /// Take leave of the nodes that are gone for good: those whose host has another node now, and those of absent hosts.
    pub async fn bury(&self, node: &Node, is_gone: impl Fn(&shoal_core::model::Node) -> bool) {
        let Ok(state) = node.state() else { return };
        let gone: Vec<_> = state.nodes().filter(|other| is_gone(other)).cloned().collect();
        for other in gone {
            if other.spec.role == Role::Manager {
                self.set_role(node, &other, Role::Worker).await;
            } else if other.manager.is_none() && other.status.state == shoal_core::model::NodeState::Down {
                let expects = vec![Expect::SpecVersion(ObjectId::Node(other.id), other.meta.spec_version)];
                let told = format!("node {} of {} is removed", other.id, other.hostname());
                self.propose(node, &told, expects, vec![Write::NodeRemove(other.id)]).await;
            }
        }
    }

    /// Words given that this state does not keep.
    #[must_use]
    pub fn broken_promises(&self, state: &State) -> Vec<String> {
        let memory = self.memory.borrow();
        let mut broken = Vec::new();
        for (name, promise) in &memory.services {
            let is = state.service(promise.id).map(|service| looks(&service.spec));
            if !promise.may_be(&is) {
                broken.push(format!("service {name} is {}, it may be {promise:?}", looks_text(&is)));
            }
        }
        for service in state.services() {
            if !memory.services.contains_key(&service.spec.name) {
                broken.push(format!("service {} was never asked for", service.spec.name));
            }
        }
        broken
    }
}

/// Whether nobody can ever run it.
#[must_use]
pub fn is_absent(spec: &ServiceSpec) -> bool {
    spec.task.container.image.starts_with(ABSENT)
}

/// Whether only so many fit on a host.
fn is_bounded(task: &TaskSpec, endpoint: &EndpointSpec) -> bool {
    endpoint.ports_in(PortMode::Host).next().is_some()
        || task.placement.max_replicas > 0
        || task.resources.reservations.nano_cpus > 0
}

fn looks_text(looks: &Looks) -> String {
    looks.as_ref().map_or_else(|| "absent".to_owned(), |(replicas, image)| format!("{replicas} x {image}"))
}

fn spec(name: &str, number: u64, replicas: u64, shape: Shape, rollout: Rollout) -> ServiceSpec {
    let restart = RestartPolicy { delay: Duration::from_millis(500), ..RestartPolicy::default() };
    let container = ContainerSpec {
        image: "image:1".into(),
        stop_grace_period: Some(Duration::from_secs(1)),
        ..ContainerSpec::default()
    };
    let mut task = TaskSpec { container, restart, ..TaskSpec::default() };
    let mut endpoint = EndpointSpec::default();
    let constrain = |task: &mut TaskSpec, words: &str| task.placement.constraints.extend(words.parse());
    match shape {
        Shape::Plain | Shape::Global => {}
        Shape::NotOn(host) => constrain(&mut task, &format!("node.hostname!=h{host}")),
        Shape::OnManagers => constrain(&mut task, "node.role==manager"),
        Shape::HostPort => endpoint.ports.push(PortConfig {
            target_port: 80,
            published_port: HOST_PORT_FIRST + u16::try_from(number % 1_000).unwrap_or(0),
            mode: PortMode::Host,
            ..PortConfig::default()
        }),
        Shape::Heavy => {
            task.resources.reservations = Resources { nano_cpus: HEAVY_NANO_CPUS, ..Resources::default() };
        }
        Shape::Apart => task.placement.max_replicas = 1,
        Shape::Crashing(attempts) => {
            task.container.image = format!("{CRASHES}1");
            task.restart.max_attempts = attempts;
        }
        Shape::Checked => {
            let test = ["CMD", "check"].map(str::to_owned).into();
            task.container.healthcheck = Some(HealthConfig { test, ..HealthConfig::default() });
        }
        Shape::Work { code, attempts } => {
            task.container.image = format!("{ENDS}{code}:1");
            task.restart.condition = RestartCondition::OnFailure;
            task.restart.max_attempts = attempts;
        }
        Shape::Deaf => task.container.image = format!("{DEAF}1"),
    }
    let order = |start_first: bool| {
        if start_first && !matches!(shape, Shape::HostPort | Shape::Apart | Shape::Heavy) {
            UpdateOrder::StartFirst
        } else {
            UpdateOrder::StopFirst
        }
    };
    let update = match rollout {
        Rollout::Unsaid => None,
        Rollout::Careful { parallelism, start_first } => Some(UpdateConfig {
            parallelism,
            order: order(start_first),
            failure_action: FailureAction::Continue,
            monitor: Duration::from_secs(2),
            ..UpdateConfig::default()
        }),
        Rollout::Watched { parallelism, start_first, rolls_back, delay_ms, may_fail } => Some(UpdateConfig {
            parallelism,
            order: order(start_first),
            failure_action: if rolls_back { FailureAction::Rollback } else { FailureAction::Pause },
            delay: Duration::from_millis(delay_ms),
            monitor: Duration::from_secs(2),
            max_failure_millionths: may_fail,
        }),
    };
    // Some are published, at a port that the cluster chooses.
    if shape != Shape::HostPort && number % 2 == 1 {
        endpoint.ports.push(PortConfig { target_port: 80, ..PortConfig::default() });
    }
    ServiceSpec {
        name: name.to_owned(),
        labels: BTreeMap::new(),
        mode: if shape == Shape::Global { ServiceMode::Global } else { ServiceMode::Replicated { replicas } },
        task: Arc::new(task),
        update,
        rollback: None,
        endpoint,
    }
}

/// A number of the people's own.
impl Person {
    /// Draw one.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.rng.borrow_mut().random()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fabric::Depth;
    use crate::options::Profile;

    fn options() -> Options {
        Options::drawn(1, Profile::Calm, Depth::Fast, Duration::ZERO)
    }

    fn person(promise: Promise) -> Person {
        let person = Person::new(&options(), Trace::new(false));
        person.memory.borrow_mut().services.insert("s1".into(), promise);
        person
    }

    fn lost(person: &Person) -> usize {
        person.broken_promises(&State::default()).len()
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_change_is_found_and_one_that_may_have_been_made_is_not() {
        let two = Some((2, "image:1".to_owned()));
        let promise = || Promise { id: ServiceId::from_u128(1), ..Promise::default() };
        assert_eq!(lost(&person(promise())), 0);
        let unknown = person(promise());
        unknown.expect("s1", 4, &two);
        unknown.learn("s1", 4, Outcome::Unknown, &two);
        assert_eq!(lost(&unknown), 0);
        let done = person(promise());
        done.expect("s1", 4, &two);
        done.learn("s1", 4, Outcome::Done(9), &two);
        assert_eq!(lost(&done), 1);
        // A later removal may have been made.
        done.expect("s1", 9, &None);
        assert_eq!(lost(&done), 0);
        done.learn("s1", 9, Outcome::Refused, &None);
        assert_eq!(lost(&done), 1);
    }

    #[test]
    fn a_second_heavy_service_is_not_asked_for_while_the_first_may_be_there() {
        let one = Some((1, "image:1".to_owned()));
        let may = |kept: &Looks, perhaps: &[&Looks]| {
            let perhaps = perhaps.iter().map(|looks| (1, (*looks).clone())).collect();
            let person = person(Promise { kept: (1, kept.clone()), perhaps, ..Promise::default() });
            person.memory.borrow_mut().heavy.push("s1".into());
            assert!(person.may_ask_for(Shape::Plain));
            person.may_ask_for(Shape::Heavy)
        };
        assert_eq!(
            [may(&one, &[]), may(&one, &[&None]), may(&None, &[&one]), may(&None, &[])],
            [false, false, false, true]
        );
    }

    #[test]
    fn answers_that_contradict_the_versions_are_found() {
        let promise = Promise { kept: (9, None), perhaps: vec![(9, None)], ..Promise::default() };
        assert!(promise.contradicts(9, Outcome::Done(12)).is_none());
        assert!(promise.contradicts(4, Outcome::Done(12)).is_some());
        assert!(promise.contradicts(4, Outcome::Done(8)).is_none(), "it was before that");
        assert!(promise.contradicts(9, Outcome::OutOfSequence).is_some());
        assert!(promise.contradicts(4, Outcome::OutOfSequence).is_none());
        let other = Promise { perhaps: vec![(9, None), (9, None)], ..promise };
        assert!(other.contradicts(9, Outcome::OutOfSequence).is_none(), "somebody else may have been faster");
    }

    #[tokio::test(start_paused = true)]
    async fn answers_that_come_in_another_order_than_they_were_written_do_not_confuse() {
        let (two, three) = (Some((2, "image:1".to_owned())), Some((3, "image:1".to_owned())));
        let person = person(Promise { id: ServiceId::from_u128(1), ..Promise::default() });
        person.expect("s1", 4, &two);
        person.expect("s1", 9, &three);
        person.learn("s1", 9, Outcome::Done(12), &three);
        person.learn("s1", 4, Outcome::Done(9), &two);
        let memory = person.memory.borrow();
        let promise = &memory.services["s1"];
        assert!(promise.may_be(&three) && !promise.may_be(&two), "{promise:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_that_nobody_asked_for_is_found() {
        let service = Service::new(ServiceId::from_u128(2), spec("s2", 2, 1, Shape::Plain, Rollout::Unsaid));
        let mut state = State::default();
        let writes = vec![Write::ServiceCreate(Box::new(service))];
        state.apply(1, 1, Command { writes, ..Command::default() }).expect("a legal command");
        let told = Person::new(&options(), Trace::new(false)).broken_promises(&state);
        assert_eq!(told, ["service s2 was never asked for"]);
    }

    #[test]
    fn every_constraint_that_people_write_is_one() {
        for shape in [Shape::NotOn(2), Shape::OnManagers] {
            let placement = &spec("s", 1, 1, shape, Rollout::Unsaid).task.placement;
            assert_eq!(placement.constraints.len(), 1, "{shape:?}");
        }
    }
}
