//! The state: persistent maps, so that a clone is a consistent snapshot for next to nothing.

use std::net::IpAddr;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use serde::{Deserialize, Serialize};

use super::ObjectId;
use super::addresses::{addresses_of, holds, places_of, virtuals_of};
use crate::model::{
    Attachment, AttachmentId, Cluster, Network, NetworkId, Node, NodeId, Service, ServiceId, Task, TaskId,
    Timestamp,
};
use crate::put_back::{Bug, is_put_back};

/// The replicated state of a cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    pub(super) applied: u64,
    pub(super) cluster: Option<Arc<Cluster>>,
    pub(super) nodes: OrdMap<NodeId, Arc<Node>>,
    pub(super) removed_nodes: OrdMap<NodeId, Timestamp>,
    pub(super) services: OrdMap<ServiceId, Arc<Service>>,
    pub(super) tasks: OrdMap<TaskId, Arc<Task>>,
    pub(super) networks: OrdMap<NetworkId, Arc<Network>>,
    pub(super) attachments: OrdMap<AttachmentId, Arc<Attachment>>,
    // Indexes: derived, rebuilt on load.
    pub(super) services_by_name: OrdMap<String, ServiceId>,
    pub(super) tasks_by_service: OrdMap<ServiceId, OrdSet<TaskId>>,
    pub(super) tasks_by_node: OrdMap<NodeId, OrdSet<TaskId>>,
    pub(super) addresses: OrdSet<IpAddr>,
}

/// What happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum EventKind {
    /// It is new.
    Created,
    /// Its specification changed (or, of a task, its desired state or place).
    SpecChanged,
    /// Something that is observed of it changed.
    StatusChanged,
    /// It is gone.
    Removed,
}

/// A change of one object, with the object before and after.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Raft index of the command.
    pub index: u64,
    /// When it was proposed.
    pub at: Timestamp,
    /// Which object.
    pub object: ObjectId,
    /// What happened.
    pub kind: EventKind,
}

/// The state as it is written into snapshots: objects alone, no index.
#[derive(Debug, Serialize, Deserialize)]
struct Image {
    applied: u64,
    cluster: Option<Arc<Cluster>>,
    nodes: Vec<Arc<Node>>,
    removed_nodes: Vec<(NodeId, Timestamp)>,
    services: Vec<Arc<Service>>,
    tasks: Vec<Arc<Task>>,
    networks: Vec<Arc<Network>>,
    attachments: Vec<Arc<Attachment>>,
}

/// Whether a snapshot holds the task.
fn is_kept(task: &&Arc<Task>) -> bool {
    !(is_put_back(Bug::SnapshotWithoutEnded) && task.status.state.is_terminal())
}

impl Serialize for State {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Image {
            applied: self.applied,
            cluster: self.cluster.clone(),
            nodes: self.nodes.values().cloned().collect(),
            removed_nodes: self.removed_nodes.iter().map(|(id, at)| (*id, *at)).collect(),
            services: self.services.values().cloned().collect(),
            tasks: self.tasks.values().filter(is_kept).cloned().collect(),
            networks: self.networks.values().cloned().collect(),
            attachments: self.attachments.values().cloned().collect(),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for State {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let image = Image::deserialize(deserializer)?;
        let mut state = Self {
            applied: image.applied,
            cluster: image.cluster,
            removed_nodes: image.removed_nodes.into_iter().collect(),
            networks: image.networks.into_iter().map(|network| (network.id, network)).collect(),
            ..Self::default()
        };
        // Task specifications are shared again: a snapshot holds a copy for each task.
        let mut specs: Vec<(ServiceId, Arc<crate::model::TaskSpec>)> = Vec::new();
        for node in image.nodes {
            state.nodes.insert(node.id, node);
        }
        for service in image.services {
            specs.push((service.id, Arc::clone(&service.spec.task)));
            state.services_by_name.insert(service.spec.name.clone(), service.id);
            state.addresses.extend(virtuals_of(&service));
            state.services.insert(service.id, service);
        }
        specs.sort_by_key(|(id, _)| *id);
        for attachment in image.attachments {
            state.addresses.extend(places_of(&attachment.networks));
            state.attachments.insert(attachment.id, attachment);
        }
        for mut task in image.tasks {
            if let Ok(at) = specs.binary_search_by_key(&task.service_id, |(id, _)| *id)
                && *specs[at].1 == *task.spec
            {
                Arc::make_mut(&mut task).spec = Arc::clone(&specs[at].1);
            }
            state.index_task(&task);
            state.tasks.insert(task.id, task);
        }
        Ok(state)
    }
}

impl State {
    pub(super) fn index_task(&mut self, task: &Task) {
        self.tasks_by_service.entry(task.service_id).or_default().insert(task.id);
        if let Some(node) = task.node_id {
            self.tasks_by_node.entry(node).or_default().insert(task.id);
        }
        if holds(task) {
            self.addresses.extend(addresses_of(task));
        }
    }

    pub(super) fn unindex_task(&mut self, task: &Task) {
        if holds(task) {
            self.give_back(addresses_of(task));
        }
        if let Some(set) = self.tasks_by_service.get_mut(&task.service_id) {
            set.remove(&task.id);
            if set.is_empty() {
                self.tasks_by_service.remove(&task.service_id);
            }
        }
        if let Some(node) = task.node_id
            && let Some(set) = self.tasks_by_node.get_mut(&node)
        {
            set.remove(&task.id);
            if set.is_empty() {
                self.tasks_by_node.remove(&node);
            }
        }
    }
}
