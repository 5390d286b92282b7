//! `apply`: the only way to change the state, and the same on every manager.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::addresses::{addresses_of, holds, places_of, virtuals_of};
use super::{Command, Event, EventKind, Expect, ObjectId, State, Write};
use crate::model::{
    Attachment, AttachmentId, Meta, Network, NetworkAttachment, NetworkId, Node, NodeId, NodeState, PortMode,
    Protocol, Service, ServiceId, ServiceSpec, Task, TaskId, TaskState, TaskStatus, Timestamp,
};
use crate::put_back::{Bug, is_put_back};

/// Why a command was refused. Nothing of it was applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum ApplyError {
    /// The object has changed since it was read.
    #[error("update out of sequence")]
    OutOfSequence(ObjectId),
    /// The object is not there.
    #[error("{0:?} not found")]
    NotFound(ObjectId),
    /// The object is there already.
    #[error("{0:?} exists already")]
    Exists(ObjectId),
    /// Another service has the name.
    #[error("name conflicts with an existing object: service {0} already exists")]
    NameTaken(String),
    /// The proposer is no longer the leader that it was.
    #[error("proposed under term {proposed}, committed under term {committed}")]
    StaleTerm {
        /// Term of the proposal.
        proposed: u64,
        /// Term of the entry.
        committed: u64,
    },
    /// The node was removed from the cluster.
    #[error("node {0} was removed from this cluster")]
    NodeRemoved(NodeId),
    /// Another service has the port.
    #[error("port '{published}' is already in use by service {owner} as an ingress port")]
    PortTaken {
        /// The port.
        published: u16,
        /// Its protocol.
        protocol: Protocol,
        /// The service that has it, in words.
        owner: String,
    },
    /// Another network has the name.
    #[error("network with name {0} already exists")]
    NetworkNameTaken(String),
    /// Others have addresses of the range.
    #[error("subnet {subnet} overlaps with {owner}: choose another, or leave it open")]
    SubnetTaken {
        /// The range.
        subnet: String,
        /// Who has it, in words.
        owner: String,
    },
    /// No range is left to choose from.
    #[error("no range of the address pool is free: name a subnet")]
    NoSubnetLeft,
    /// A network is full.
    #[error("no address of network '{0}' is free: remove services or tasks from it, or use another network")]
    NoAddressLeft(String),
    /// A service asks for a network that is not there.
    #[error("network {0} not found")]
    NoSuchNetwork(NetworkId),
    /// A network has users.
    #[error("network '{network}' is in use by {user}")]
    NetworkInUse {
        /// Its name.
        network: String,
        /// Who uses it, in words.
        user: String,
    },
    /// No port is left to choose from.
    #[error("no port from 30000 to 32767 is free: name a published port")]
    NoPortLeft,
    /// A network takes tasks alone.
    #[error(
        "network '{0}' takes the tasks of services alone: create it with --attachable, or attach a service to it"
    )]
    NotAttachable(String),
}

/// What a command did.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Applied {
    /// The changes, in order.
    pub events: Vec<Event>,
}

struct Applying<'a> {
    state: &'a mut State,
    index: u64,
    at: Timestamp,
    events: Vec<Event>,
}

impl State {
    /// Apply a committed command: whole, or not at all.
    ///
    /// # Errors
    /// The reason why nothing of it was applied; the state has then only moved its index.
    pub fn apply(&mut self, index: u64, term: u64, command: Command) -> Result<Applied, ApplyError> {
        self.applied = index;
        if let Some(proposed) = command.term
            && proposed != term
            && !is_put_back(Bug::StaleTermTaken)
        {
            return Err(ApplyError::StaleTerm { proposed, committed: term });
        }
        for expect in &command.expects {
            self.check(expect)?;
        }
        // Writes go to a clone (cheap: shared structure), which replaces the state only if all succeed.
        let mut next = self.clone();
        let mut applying = Applying {
            state: &mut next,
            index,
            at: command.at,
            events: Vec::with_capacity(command.writes.len()),
        };
        for write in command.writes {
            applying.write(write)?;
        }
        let events = applying.events;
        *self = next;
        Ok(Applied { events })
    }

    /// An entry that carries no command (membership, blank) was committed.
    pub fn skip(&mut self, index: u64) {
        self.applied = index;
    }

    fn check(&self, expect: &Expect) -> Result<(), ApplyError> {
        match expect {
            Expect::SpecVersion(object, version) => match self.meta(*object) {
                None => Err(ApplyError::NotFound(*object)),
                Some(_) if is_put_back(Bug::LostUpdate) => Ok(()),
                Some(meta) if meta.spec_version != *version => Err(ApplyError::OutOfSequence(*object)),
                Some(_) => Ok(()),
            },
            Expect::Revision(object, revision) => match self.meta(*object) {
                None => Err(ApplyError::NotFound(*object)),
                Some(meta) if meta.revision != *revision => Err(ApplyError::OutOfSequence(*object)),
                Some(_) => Ok(()),
            },
            Expect::Exists(object) => self.meta(*object).map(|_| ()).ok_or(ApplyError::NotFound(*object)),
            Expect::Absent(object) => match self.meta(*object) {
                None => Ok(()),
                Some(_) => Err(ApplyError::Exists(*object)),
            },
            Expect::Placeable(node, version) => {
                let object = ObjectId::Node(*node);
                self.check(&Expect::SpecVersion(object, *version))?;
                let is_ready = self.nodes.get(node).is_some_and(|node| node.status.state == NodeState::Ready);
                if is_ready { Ok(()) } else { Err(ApplyError::OutOfSequence(object)) }
            }
            Expect::Role(node, role) => {
                let has = self.nodes.get(node).is_some_and(|node| node.role == *role);
                if has { Ok(()) } else { Err(ApplyError::OutOfSequence(ObjectId::Node(*node))) }
            }
        }
    }
}

impl Applying<'_> {
    fn event(&mut self, object: ObjectId, kind: EventKind) {
        self.events.push(Event { index: self.index, at: self.at, object, kind });
    }

    fn fresh(&self) -> Meta {
        Meta { spec_version: self.index, revision: self.index, created_at: self.at, updated_at: self.at }
    }

    fn touch(&self, meta: &mut Meta, spec: bool) {
        meta.revision = self.index;
        meta.updated_at = self.at;
        if spec || is_put_back(Bug::StatusMovesVersion) {
            meta.spec_version = self.index;
        }
    }

    fn write(&mut self, write: Write) -> Result<(), ApplyError> {
        match write {
            Write::Cluster(mut cluster) => {
                let kind = match &self.state.cluster {
                    Some(old) => {
                        cluster.meta = old.meta;
                        self.touch(&mut cluster.meta, true);
                        EventKind::SpecChanged
                    }
                    None => {
                        cluster.meta = self.fresh();
                        EventKind::Created
                    }
                };
                self.state.cluster = Some(Arc::new(*cluster));
                self.event(ObjectId::Cluster, kind);
                Ok(())
            }
            Write::NodeCreate(node) => self.node_create(*node),
            Write::NodeSpec(id, spec) => {
                self.node_change(id, EventKind::SpecChanged, |node| node.spec = spec)
            }
            Write::NodeDescription(id, description) => {
                self.node_change(id, EventKind::StatusChanged, |node| node.description = Some(description))
            }
            Write::NodeStatus(id, status) => {
                self.node_change(id, EventKind::StatusChanged, |node| node.status = status)
            }
            Write::NodeRole(id, role) => {
                self.node_change(id, EventKind::StatusChanged, |node| node.role = role)
            }
            Write::NodeManager(id, manager) => {
                self.node_change(id, EventKind::StatusChanged, |node| node.manager = manager)
            }
            Write::NodeRemove(id) => {
                self.state.nodes.remove(&id).ok_or(ApplyError::NotFound(ObjectId::Node(id)))?;
                self.state.removed_nodes.insert(id, self.at);
                self.event(ObjectId::Node(id), EventKind::Removed);
                let left: Vec<_> =
                    self.state.attachments_of_node(id).map(|attachment| attachment.id).collect();
                left.into_iter().for_each(|attachment| self.detach(attachment, None));
                Ok(())
            }
            Write::ServiceCreate(service) => self.service_create(*service),
            Write::ServiceSpec(id, spec) => self.service_spec(id, spec),
            Write::ServiceUpdate(id, update) => {
                let mut service = self.service(id)?;
                let object = Arc::make_mut(&mut service);
                object.update = update;
                self.touch(&mut object.meta, false);
                self.state.services.insert(id, service);
                self.event(ObjectId::Service(id), EventKind::StatusChanged);
                Ok(())
            }
            Write::ServiceRemove(id) => {
                let service =
                    self.state.services.remove(&id).ok_or(ApplyError::NotFound(ObjectId::Service(id)))?;
                self.state.services_by_name.remove(&service.spec.name);
                self.state.give_back(virtuals_of(&service));
                self.event(ObjectId::Service(id), EventKind::Removed);
                Ok(())
            }
            Write::TaskCreate(task) => self.task_create(task),
            Write::TaskAssign { id, node, ports, message, at } => {
                self.task_assign(id, node, ports, message, at)
            }
            Write::TaskDesired(id, desired) => {
                self.task_desired(id, desired);
                Ok(())
            }
            Write::TaskStatus(id, status) => {
                self.task_status(id, status);
                Ok(())
            }
            Write::TaskRemove(id) => {
                if let Some(task) = self.state.tasks.remove(&id) {
                    self.state.unindex_task(&task);
                    self.event(ObjectId::Task(id), EventKind::Removed);
                }
                Ok(())
            }
            Write::NetworkCreate(network) => self.network_create(*network),
            Write::NetworkRemove(id) => self.network_remove(id),
            Write::Attach { id, node, networks } => self.attach(id, node, &networks),
            Write::AttachmentContainer { id, container, name } => {
                let mut attachment = self.attachment(id)?;
                let object = Arc::make_mut(&mut attachment);
                (object.container, object.name) = (container, name);
                self.put_attachment(attachment, EventKind::StatusChanged);
                Ok(())
            }
            Write::Detach { id, network } => {
                self.detach(id, network);
                Ok(())
            }
        }
    }

    fn node_create(&mut self, mut node: Node) -> Result<(), ApplyError> {
        if self.state.removed_nodes.contains_key(&node.id) {
            return Err(ApplyError::NodeRemoved(node.id));
        }
        if self.state.nodes.contains_key(&node.id) {
            return Err(ApplyError::Exists(ObjectId::Node(node.id)));
        }
        node.meta = self.fresh();
        let id = node.id;
        self.state.nodes.insert(id, Arc::new(node));
        self.event(ObjectId::Node(id), EventKind::Created);
        Ok(())
    }

    fn node_change(
        &mut self,
        id: NodeId,
        kind: EventKind,
        change: impl FnOnce(&mut Node),
    ) -> Result<(), ApplyError> {
        let mut node = self.state.nodes.get(&id).cloned().ok_or(ApplyError::NotFound(ObjectId::Node(id)))?;
        let object = Arc::make_mut(&mut node);
        change(object);
        self.touch(&mut object.meta, kind == EventKind::SpecChanged);
        self.state.nodes.insert(id, node);
        self.event(ObjectId::Node(id), kind);
        Ok(())
    }

    fn service(&self, id: ServiceId) -> Result<Arc<Service>, ApplyError> {
        self.state.services.get(&id).cloned().ok_or(ApplyError::NotFound(ObjectId::Service(id)))
    }

    fn service_create(&mut self, mut service: Service) -> Result<(), ApplyError> {
        let (id, name) = (service.id, service.spec.name.clone());
        if self.state.services.contains_key(&id) {
            return Err(ApplyError::Exists(ObjectId::Service(id)));
        }
        if self.state.services_by_name.contains_key(&name) {
            return Err(ApplyError::NameTaken(name));
        }
        self.state.hand_out_ports(id, &mut service.spec)?;
        service.networks = self.state.hand_out_virtual(&[], &service.spec)?;
        service.meta = self.fresh();
        service.task_spec_version = self.index;
        self.state.services_by_name.insert(name, id);
        self.state.services.insert(id, Arc::new(service));
        self.event(ObjectId::Service(id), EventKind::Created);
        Ok(())
    }

    fn service_spec(&mut self, id: ServiceId, mut spec: ServiceSpec) -> Result<(), ApplyError> {
        let mut service = self.service(id)?;
        self.state.hand_out_ports(id, &mut spec)?;
        let networks = self.state.hand_out_virtual(&service.networks, &spec)?;
        if service.spec.name != spec.name {
            if self.state.services_by_name.contains_key(&spec.name) {
                return Err(ApplyError::NameTaken(spec.name));
            }
            self.state.services_by_name.remove(&service.spec.name);
            self.state.services_by_name.insert(spec.name.clone(), id);
        }
        let object = Arc::make_mut(&mut service);
        // Ports of the mesh are no task's business.
        let host_ports =
            |spec: &ServiceSpec| spec.endpoint.ports_in(PortMode::Host).cloned().collect::<Vec<_>>();
        if *object.spec.task != *spec.task || host_ports(&object.spec) != host_ports(&spec) {
            object.task_spec_version = self.index;
        }
        object.networks = networks;
        object.previous_spec = Some(std::mem::replace(&mut object.spec, spec));
        self.touch(&mut object.meta, true);
        self.state.services.insert(id, service);
        self.event(ObjectId::Service(id), EventKind::SpecChanged);
        Ok(())
    }

    fn network_create(&mut self, mut network: Network) -> Result<(), ApplyError> {
        let id = network.id;
        if self.state.networks.contains_key(&id) {
            return Err(ApplyError::Exists(ObjectId::Network(id)));
        }
        if self.state.network_named(&network.spec.name).is_some() {
            return Err(ApplyError::NetworkNameTaken(network.spec.name));
        }
        self.state.hand_out_pools(id, &mut network.spec)?;
        network.meta = self.fresh();
        self.state.networks.insert(id, Arc::new(network));
        self.event(ObjectId::Network(id), EventKind::Created);
        Ok(())
    }

    fn network_remove(&mut self, id: NetworkId) -> Result<(), ApplyError> {
        let object = ObjectId::Network(id);
        let network = self.state.networks.get(&id).ok_or(ApplyError::NotFound(object))?;
        if let Some(user) = self.state.user_of(id) {
            return Err(ApplyError::NetworkInUse { network: network.spec.name.clone(), user });
        }
        self.state.networks.remove(&id);
        self.event(object, EventKind::Removed);
        Ok(())
    }

    fn attachment(&self, id: AttachmentId) -> Result<Arc<Attachment>, ApplyError> {
        self.state.attachments.get(&id).cloned().ok_or(ApplyError::NotFound(ObjectId::Attachment(id)))
    }

    fn attach(
        &mut self,
        id: AttachmentId,
        node: NodeId,
        networks: &[NetworkAttachment],
    ) -> Result<(), ApplyError> {
        if self.state.is_removed(node) {
            return Err(ApplyError::NodeRemoved(node));
        }
        self.state.node(node).ok_or(ApplyError::NotFound(ObjectId::Node(node)))?;
        for wish in networks {
            let network = self.state.network(wish.network).ok_or(ApplyError::NoSuchNetwork(wish.network))?;
            if !network.spec.attachable {
                return Err(ApplyError::NotAttachable(network.spec.name.clone()));
            }
        }
        let (mut attachment, kind) = match self.attachment(id) {
            Ok(known) if known.node != node => return Err(ApplyError::Exists(ObjectId::Attachment(id))),
            Ok(known) => (known, EventKind::SpecChanged),
            Err(_) => {
                let new = Attachment { meta: self.fresh(), id, node, ..Attachment::default() };
                (Arc::new(new), EventKind::Created)
            }
        };
        let places = self.state.hand_out_places(&attachment.networks, networks)?;
        if places.len() == attachment.networks.len() {
            return Ok(());
        }
        Arc::make_mut(&mut attachment).networks = places;
        self.put_attachment(attachment, kind);
        Ok(())
    }

    fn put_attachment(&mut self, mut attachment: Arc<Attachment>, kind: EventKind) {
        let id = attachment.id;
        self.touch(&mut Arc::make_mut(&mut attachment).meta, kind != EventKind::StatusChanged);
        self.state.attachments.insert(id, attachment);
        self.event(ObjectId::Attachment(id), kind);
    }

    /// Take it out of a network, or out of all; out of the last, it goes.
    fn detach(&mut self, id: AttachmentId, network: Option<NetworkId>) {
        let Ok(mut attachment) = self.attachment(id) else { return };
        let (left, stays): (Vec<_>, Vec<_>) = std::mem::take(&mut Arc::make_mut(&mut attachment).networks)
            .into_iter()
            .partition(|place| network.is_none_or(|network| network == place.network.id));
        self.state.give_back(places_of(&left));
        if stays.is_empty() {
            self.state.attachments.remove(&id);
            self.event(ObjectId::Attachment(id), EventKind::Removed);
        } else if !left.is_empty() {
            Arc::make_mut(&mut attachment).networks = stays;
            self.put_attachment(attachment, EventKind::SpecChanged);
        }
    }

    fn task_create(&mut self, mut task: Arc<Task>) -> Result<(), ApplyError> {
        let id = task.id;
        if self.state.tasks.contains_key(&id) {
            return Err(ApplyError::Exists(ObjectId::Task(id)));
        }
        let object = Arc::make_mut(&mut task);
        object.meta = self.fresh();
        // The log holds a copy of the spec for each task: share the service's again.
        if let Some(service) = self.state.services.get(&object.service_id)
            && *service.spec.task == *object.spec
        {
            object.spec = Arc::clone(&service.spec.task);
        }
        self.state.index_task(&task);
        self.state.tasks.insert(id, task);
        self.event(ObjectId::Task(id), EventKind::Created);
        Ok(())
    }

    fn put_task(&mut self, mut task: Arc<Task>, kind: EventKind) {
        let id = task.id;
        let object = Arc::make_mut(&mut task);
        self.touch(&mut object.meta, kind == EventKind::SpecChanged);
        self.state.tasks.insert(id, task);
        self.event(ObjectId::Task(id), kind);
    }

    fn task_assign(
        &mut self,
        id: TaskId,
        node: NodeId,
        ports: Vec<crate::model::PortConfig>,
        message: String,
        at: Timestamp,
    ) -> Result<(), ApplyError> {
        let Some(mut task) = self.state.tasks.get(&id).cloned() else { return Ok(()) };
        let waits = task.status.state <= TaskState::Pending && task.is_live();
        let placeable = task.node_id.is_none() || task.node_id == Some(node);
        if !(waits && placeable && self.state.nodes.contains_key(&node)) {
            return Ok(());
        }
        let networks = self.state.hand_out_places(&[], &task.spec.networks)?;
        self.state.unindex_task(&task);
        let object = Arc::make_mut(&mut task);
        object.networks = networks;
        object.node_id = Some(node);
        object.ports = ports;
        object.status = TaskStatus { state: TaskState::Assigned, at, message, ..TaskStatus::default() };
        self.state.index_task(&task);
        self.put_task(task, EventKind::SpecChanged);
        Ok(())
    }

    fn task_desired(&mut self, id: TaskId, desired: TaskState) {
        let Some(mut task) = self.state.tasks.get(&id).cloned() else { return };
        if desired <= task.desired && !is_put_back(Bug::DesiredGoesBack) {
            return;
        }
        Arc::make_mut(&mut task).desired = desired;
        self.put_task(task, EventKind::SpecChanged);
    }

    fn task_status(&mut self, id: TaskId, status: TaskStatus) {
        let Some(mut task) = self.state.tasks.get(&id).cloned() else { return };
        let current = &task.status;
        let back = status.state < current.state && !is_put_back(Bug::TaskGoesBack);
        // What has ended stays as it ended: a later word is somebody else's guess.
        let ended = current.state.is_terminal() && status.state >= current.state;
        if back || ended || *current == status {
            return;
        }
        let held = holds(&task);
        let object = Arc::make_mut(&mut task);
        let container = status.container.clone().or_else(|| object.status.container.take());
        object.status = TaskStatus { container, ..status };
        if held && !holds(&task) {
            self.state.give_back(addresses_of(&task));
        }
        self.put_task(task, EventKind::StatusChanged);
    }
}
