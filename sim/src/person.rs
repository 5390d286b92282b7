//! A person who changes what shall run all the while, and remembers every word that was given back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use shoal_actors::api::{ApiError, Freshness, NodeApi as _};
use shoal_actors::node::Node;
use shoal_core::model::{Availability, Meta, NodeSpec, Role, Service, ServiceId, ServiceMode, ServiceSpec};
use shoal_core::store::{ApplyError, Command, Expect, ObjectId, State, Write};

use crate::host::clock;
use crate::judges::host_number;
use crate::trace::Trace;
use crate::wishes::{self, CRASHES, most};

/// A call that takes longer was made to a node that died under it.
const CALL_MAX: Duration = Duration::from_secs(10);
/// Services at most.
const SERVICES_MAX: usize = 8;
/// Managers that people keep.
const MANAGERS_MIN: usize = 3;
const MANAGERS_MAX: usize = 5;

/// What a service may be like, as far as the person can know. `None`: not there.
type Possible = Vec<Option<(u64, String)>>;

/// How a call ended.
enum Outcome {
    /// It is promised.
    Done,
    /// Nothing of it was done, and never will be.
    Refused,
    /// It may have been done.
    Unknown,
}

/// The person.
pub struct Person {
    rng: ChaCha8Rng,
    services: BTreeMap<String, (ServiceId, Possible)>,
    named: u64,
    hosts: usize,
    /// Index of the newest change that was promised; what is read as fresh holds it.
    promised: u64,
    /// Versions given by promised changes, and whether a change is open whose end is not known.
    versions: BTreeMap<ObjectId, (u64, bool)>,
    trace: Trace,
    found: Vec<String>,
    /// Words given, taken back and left open.
    pub tally: [u64; 3],
}

fn what(spec: &ServiceSpec) -> (u64, String) {
    let replicas = match spec.mode {
        ServiceMode::Replicated { replicas } => replicas,
        ServiceMode::Global => 0,
    };
    (replicas, spec.task.container.image.clone())
}

impl Person {
    /// Somebody whose wishes follow from the seed.
    #[must_use]
    pub fn new(seed: u64, hosts: usize, trace: Trace) -> Self {
        Self {
            rng: ChaCha8Rng::seed_from_u64(seed),
            services: BTreeMap::new(),
            named: 0,
            hosts,
            promised: 0,
            versions: BTreeMap::new(),
            trace,
            found: Vec::new(),
            tally: [0; 3],
        }
    }

    /// Ask one manager for one change.
    pub async fn act(&mut self, node: &Node) {
        let Ok(state) = node.state() else { return };
        let live = state.services().count();
        match self.rng.random_range(0..13) {
            0..=2 if live < SERVICES_MAX => self.create(node, &state).await,
            0..=5 => self.change(node, &state).await,
            6 => self.remove(node, &state).await,
            7 => self.change_role(node, &state).await,
            8 => self.read(node).await,
            9 => self.overwrite(node, &state).await,
            _ => self.move_tasks(node, &state).await,
        }
    }

    async fn ask(&mut self, node: &Node, what: &str, expects: Vec<Expect>, writes: Vec<Write>) -> Outcome {
        let (known, object) = (node.state().map_or(0, |state| state.applied()), expects.first().cloned());
        let command = Command { at: clock()(), expects, writes, ..Command::default() };
        let answer = tokio::time::timeout(CALL_MAX, node.propose(command)).await;
        if let Some(expect) = object {
            self.judge(what, &expect, known, &answer);
        }
        let (outcome, word) = match answer {
            Ok(Ok(_)) => (Outcome::Done, "done"),
            Ok(Err(ApiError::Refused(_) | ApiError::NotManager | ApiError::NotInCluster)) => {
                (Outcome::Refused, "refused")
            }
            Ok(Err(_)) | Err(_) => (Outcome::Unknown, "unknown"),
        };
        self.tally[match outcome {
            Outcome::Done => 0,
            Outcome::Refused => 1,
            Outcome::Unknown => 2,
        }] += 1;
        self.trace.note(&format!("{what}: {word}"));
        outcome
    }

    async fn create(&mut self, node: &Node, state: &State) {
        self.named += 1;
        let name = format!("s{}", self.named);
        let id = ServiceId::random(&mut self.rng);
        let spec = wishes::service(&mut self.rng, &name, state);
        let now = Some(what(&spec));
        let service = Service {
            meta: Meta::default(),
            id,
            spec,
            previous_spec: None,
            task_spec_version: 0,
            update: None,
        };
        let expects = vec![Expect::Absent(ObjectId::Service(id))];
        let told = format!("create {name} as {now:?}");
        let outcome = self.ask(node, &told, expects, vec![Write::ServiceCreate(Box::new(service))]).await;
        let possible = match outcome {
            Outcome::Done => vec![now],
            Outcome::Refused => vec![None],
            Outcome::Unknown => vec![None, now],
        };
        self.services.insert(name, (id, possible));
    }

    /// What the answer to a change of one object says of the versions.
    fn judge(
        &mut self,
        what: &str,
        expect: &Expect,
        known: u64,
        answer: &Result<Result<u64, ApiError>, tokio::time::error::Elapsed>,
    ) {
        let (object, expected) = match expect {
            Expect::SpecVersion(object, version) => (*object, *version),
            _ => return,
        };
        let (newest, open) = self.versions.get(&object).copied().unwrap_or_default();
        match answer {
            Ok(Ok(index)) => {
                if expected < newest {
                    self.found.push(format!("{what}: taken for version {expected}, though it is {newest}"));
                }
                self.promised = self.promised.max(*index);
                self.versions.insert(object, (*index, false));
            }
            // The state that it was made from held all that was promised, and nobody else changes what is asked for.
            Ok(Err(ApiError::Refused(ApplyError::OutOfSequence(_))))
                if !open && newest > 0 && known >= self.promised && expected >= newest =>
            {
                self.found.push(format!("{what}: refused, though nobody changed it since version {newest}"));
            }
            Ok(Err(ApiError::Refused(_) | ApiError::NotManager | ApiError::NotInCluster)) => {}
            _ => {
                self.versions.insert(object, (newest, true));
            }
        }
    }

    /// Read, and see that what was promised before is there if the read is called fresh.
    async fn read(&mut self, node: &Node) {
        let promised = self.promised;
        if let Ok(Ok((state, Freshness::Fresh))) = tokio::time::timeout(CALL_MAX, node.read()).await
            && state.applied() < promised
        {
            let at = state.applied();
            self.found.push(format!("a fresh read is of index {at}, and {promised} was promised before"));
        }
    }

    /// Change a service as it was seen before the last change of it: that must be refused.
    async fn overwrite(&mut self, node: &Node, state: &State) {
        let Some(service) = self.pick(state) else { return };
        let object = ObjectId::Service(service.id);
        let (newest, open) = self.versions.get(&object).copied().unwrap_or_default();
        let Some(old) = service.previous_spec.clone().filter(|_| newest > 0 && !open) else { return };
        let expects = vec![Expect::SpecVersion(object, newest - 1)];
        let name = old.name.clone();
        let outcome = self
            .ask(node, &format!("overwrite {name}"), expects, vec![Write::ServiceSpec(service.id, old)])
            .await;
        // It must not be done, whatever the answer says.
        if matches!(outcome, Outcome::Done) {
            self.trace.note(&format!("{name} was overwritten"));
        }
    }

    fn pick(&mut self, state: &State) -> Option<Arc<Service>> {
        let services: Vec<_> = state.services().cloned().collect();
        (!services.is_empty()).then(|| services[self.rng.random_range(0..services.len())].clone())
    }

    fn learn(&mut self, name: &str, outcome: &Outcome, new: Option<(u64, String)>) {
        let Some((_, possible)) = self.services.get_mut(name) else { return };
        match outcome {
            Outcome::Done => *possible = vec![new],
            Outcome::Refused => {}
            Outcome::Unknown => possible.push(new),
        }
    }

    async fn change(&mut self, node: &Node, state: &State) {
        let Some(service) = self.pick(state) else { return };
        let mut spec = service.spec.clone();
        let is_global = spec.mode == ServiceMode::Global;
        if self.rng.random_bool(0.7) && !is_global {
            spec.mode = ServiceMode::Replicated { replicas: self.rng.random_range(0..=most(&spec)) };
        } else {
            let version = self.rng.random_range(1..1000);
            let image = &mut Arc::make_mut(&mut spec.task).container.image;
            let kind = if image.starts_with(CRASHES) { CRASHES } else { "image:" };
            *image = format!("{kind}{version}");
        }
        let now = what(&spec);
        let told = format!("change {} to {now:?}", spec.name);
        let expects = vec![Expect::SpecVersion(ObjectId::Service(service.id), service.meta.spec_version)];
        let name = spec.name.clone();
        let mut writes = vec![Write::ServiceSpec(service.id, spec)];
        if service.update.is_some() {
            writes.push(Write::ServiceUpdate(service.id, None));
        }
        let outcome = self.ask(node, &told, expects, writes).await;
        self.learn(&name, &outcome, Some(now));
    }

    async fn remove(&mut self, node: &Node, state: &State) {
        let Some(service) = self.pick(state) else { return };
        let name = service.spec.name.clone();
        let expects = vec![Expect::SpecVersion(ObjectId::Service(service.id), service.meta.spec_version)];
        let outcome =
            self.ask(node, &format!("remove {name}"), expects, vec![Write::ServiceRemove(service.id)]).await;
        self.learn(&name, &outcome, None);
    }

    async fn move_tasks(&mut self, node: &Node, state: &State) {
        let nodes: Vec<_> = state.nodes().cloned().collect();
        if nodes.is_empty() {
            return;
        }
        let other = nodes[self.rng.random_range(0..nodes.len())].clone();
        let availability = match self.rng.random_range(0..4) {
            0 => Availability::Drain,
            1 => Availability::Pause,
            _ => Availability::Active,
        };
        self.set_availability(node, &other, availability).await;
    }

    async fn set_availability(
        &mut self,
        node: &Node,
        other: &shoal_core::model::Node,
        availability: Availability,
    ) {
        let spec = NodeSpec { availability, ..other.spec.clone() };
        let expects = vec![Expect::SpecVersion(ObjectId::Node(other.id), other.meta.spec_version)];
        let told = format!("{} becomes {availability:?}", other.hostname());
        self.ask(node, &told, expects, vec![Write::NodeSpec(other.id, spec)]).await;
    }

    /// Promote a worker, or demote a manager while enough are left.
    async fn change_role(&mut self, node: &Node, state: &State) {
        let managers = state.nodes().filter(|node| node.spec.role == Role::Manager).count();
        let role = if self.rng.random_bool(0.5) { Role::Manager } else { Role::Worker };
        let may = match role {
            Role::Manager => managers < MANAGERS_MAX,
            Role::Worker => managers > MANAGERS_MIN,
        };
        let stays = |name: &str| host_number(name).is_some_and(|host| host <= self.hosts);
        let others: Vec<_> =
            state.nodes().filter(|node| node.spec.role != role && stays(node.hostname())).cloned().collect();
        if !may || others.is_empty() {
            return;
        }
        let other = &others[self.rng.random_range(0..others.len())];
        let spec = NodeSpec { role, ..other.spec.clone() };
        let expects = vec![Expect::SpecVersion(ObjectId::Node(other.id), other.meta.spec_version)];
        let told = format!("{} becomes a {role}", other.hostname());
        self.ask(node, &told, expects, vec![Write::NodeSpec(other.id, spec)]).await;
    }

    /// Let every node take tasks again. True once all do.
    pub async fn activate_all(&mut self, node: &Node) -> bool {
        let Ok(state) = node.state() else { return false };
        let held: Vec<_> =
            state.nodes().filter(|node| node.spec.availability != Availability::Active).cloned().collect();
        for other in &held {
            self.set_availability(node, other, Availability::Active).await;
        }
        held.is_empty()
    }

    /// Words given that this state does not keep.
    #[must_use]
    pub fn broken_promises(&self, state: &State) -> Vec<String> {
        let mut broken = self.found.clone();
        for (name, (id, possible)) in &self.services {
            let is = state.service(*id).map(|service| what(&service.spec));
            if !possible.contains(&is) {
                broken.push(format!("service {name} is {is:?}, it may be {possible:?}"));
            }
        }
        for service in state.services() {
            if !self.services.contains_key(&service.spec.name) {
                broken.push(format!("service {} was never asked for", service.spec.name));
            }
        }
        broken
    }
}

#[cfg(test)]
mod tests {
    use shoal_core::model::EndpointSpec;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_lost_change_and_a_service_that_nobody_asked_for_are_found() {
        let mut person = Person::new(1, 3, Trace::new(false));
        let id = ServiceId::from_u128(1);
        let state = State::default();
        person.services.insert("s1".into(), (id, vec![None]));
        assert!(person.broken_promises(&state).is_empty());
        person.learn("s1", &Outcome::Unknown, Some((2, "image:1".into())));
        assert!(person.broken_promises(&state).is_empty());
        person.learn("s1", &Outcome::Done, Some((3, "image:1".into())));
        assert_eq!(person.broken_promises(&state).len(), 1);

        let mut state = State::default();
        let spec = ServiceSpec {
            name: "s2".into(),
            labels: BTreeMap::new(),
            mode: ServiceMode::Replicated { replicas: 1 },
            task: Arc::default(),
            update: None,
            rollback: None,
            endpoint: EndpointSpec::default(),
        };
        let service = Service {
            meta: Meta::default(),
            id,
            spec,
            previous_spec: None,
            task_spec_version: 0,
            update: None,
        };
        let writes = vec![Write::ServiceCreate(Box::new(service))];
        state.apply(1, 1, Command { writes, ..Command::default() }).expect("a legal command");
        let told = Person::new(1, 3, Trace::new(false)).broken_promises(&state);
        assert_eq!(told, ["service s2 was never asked for"]);
    }
}
