//! What can be asked of the state.

use std::sync::Arc;

use super::{ObjectId, State};
use crate::model::{
    Attachment, AttachmentId, Cluster, Meta, Network, NetworkId, Node, NodeId, Service, ServiceId, Task,
    TaskId, Timestamp,
};

impl State {
    /// Raft index of the newest applied command.
    #[must_use]
    pub fn applied(&self) -> u64 {
        self.applied
    }

    /// The cluster, once it is initialised.
    #[must_use]
    pub fn cluster(&self) -> Option<&Arc<Cluster>> {
        self.cluster.as_ref()
    }

    /// A node.
    #[must_use]
    pub fn node(&self, id: NodeId) -> Option<&Arc<Node>> {
        self.nodes.get(&id)
    }

    /// All nodes, by id.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = &Arc<Node>> {
        self.nodes.values()
    }

    /// Whether the node was removed for good.
    #[must_use]
    pub fn is_removed(&self, id: NodeId) -> bool {
        self.removed_nodes.contains_key(&id)
    }

    /// Nodes that were removed for good, and when.
    pub fn removed_nodes(&self) -> impl ExactSizeIterator<Item = (NodeId, Timestamp)> {
        self.removed_nodes.iter().map(|(id, at)| (*id, *at))
    }

    /// A service.
    #[must_use]
    pub fn service(&self, id: ServiceId) -> Option<&Arc<Service>> {
        self.services.get(&id)
    }

    /// A service by its name.
    #[must_use]
    pub fn service_named(&self, name: &str) -> Option<&Arc<Service>> {
        self.services_by_name.get(name).and_then(|id| self.services.get(id))
    }

    /// All services, by id.
    pub fn services(&self) -> impl ExactSizeIterator<Item = &Arc<Service>> {
        self.services.values()
    }

    /// A task.
    #[must_use]
    pub fn task(&self, id: TaskId) -> Option<&Arc<Task>> {
        self.tasks.get(&id)
    }

    /// All tasks, by id.
    pub fn tasks(&self) -> impl ExactSizeIterator<Item = &Arc<Task>> {
        self.tasks.values()
    }

    /// A service's tasks, by id, the removed service's too.
    pub fn tasks_of_service(&self, id: ServiceId) -> impl Iterator<Item = &Arc<Task>> {
        self.tasks_by_service.get(&id).into_iter().flatten().filter_map(|id| self.tasks.get(id))
    }

    /// The tasks placed on a node, by id.
    pub fn tasks_of_node(&self, id: NodeId) -> impl Iterator<Item = &Arc<Task>> {
        self.tasks_by_node.get(&id).into_iter().flatten().filter_map(|id| self.tasks.get(id))
    }

    /// Services that still have tasks, though the service itself may be gone.
    pub fn services_with_tasks(&self) -> impl Iterator<Item = ServiceId> {
        self.tasks_by_service.keys().copied()
    }

    /// A network.
    #[must_use]
    pub fn network(&self, id: NetworkId) -> Option<&Arc<Network>> {
        self.networks.get(&id)
    }

    /// A network by its name.
    #[must_use]
    pub fn network_named(&self, name: &str) -> Option<&Arc<Network>> {
        self.networks().find(|network| network.spec.name == name)
    }

    /// All networks, by id.
    pub fn networks(&self) -> impl ExactSizeIterator<Item = &Arc<Network>> {
        self.networks.values()
    }

    /// A container that is no task, in networks.
    #[must_use]
    pub fn attachment(&self, id: AttachmentId) -> Option<&Arc<Attachment>> {
        self.attachments.get(&id)
    }

    /// All containers that are no tasks and in networks, by id.
    pub fn attachments(&self) -> impl ExactSizeIterator<Item = &Arc<Attachment>> {
        self.attachments.values()
    }

    /// Those of a node, by id.
    pub fn attachments_of_node(&self, node: NodeId) -> impl Iterator<Item = &Arc<Attachment>> {
        self.attachments().filter(move |attachment| attachment.node == node)
    }

    /// Versions and times of an object.
    #[must_use]
    pub fn meta(&self, object: ObjectId) -> Option<Meta> {
        match object {
            ObjectId::Cluster => self.cluster.as_ref().map(|c| c.meta),
            ObjectId::Node(id) => self.nodes.get(&id).map(|n| n.meta),
            ObjectId::Service(id) => self.services.get(&id).map(|s| s.meta),
            ObjectId::Task(id) => self.tasks.get(&id).map(|t| t.meta),
            ObjectId::Network(id) => self.networks.get(&id).map(|n| n.meta),
            ObjectId::Attachment(id) => self.attachments.get(&id).map(|a| a.meta),
        }
    }

    /// When a node was removed for good.
    #[must_use]
    pub fn removed_at(&self, id: NodeId) -> Option<Timestamp> {
        self.removed_nodes.get(&id).copied()
    }
}
