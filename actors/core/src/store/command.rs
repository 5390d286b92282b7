//! Commands: transactions over the state. Everything random or timed in them was decided by the proposer.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::{
    AttachmentId, Cluster, ManagerStatus, Network, NetworkAttachment, NetworkId, Node, NodeDescription,
    NodeId, NodeSpec, NodeStatus, PortConfig, Role, Service, ServiceId, ServiceSpec, Task, TaskId, TaskState,
    TaskStatus, Timestamp, UpdateStatus,
};

/// Names any object of the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ObjectId {
    /// The cluster itself.
    Cluster,
    /// A node.
    Node(NodeId),
    /// A service.
    Service(ServiceId),
    /// A task.
    Task(TaskId),
    /// A network.
    Network(NetworkId),
    /// A container that is no task, in networks.
    Attachment(AttachmentId),
}

/// What a command relies on. If one does not hold, nothing of the command is applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Expect {
    /// The object's specification still has this version.
    SpecVersion(ObjectId, u64),
    /// The object has not changed at all since this revision.
    Revision(ObjectId, u64),
    /// The object is there.
    Exists(ObjectId),
    /// The object is not there.
    Absent(ObjectId),
    /// The node's specification still has this version, and the node is ready: what is placed on it may be.
    Placeable(NodeId, u64),
    /// The node's certificate still carries this role.
    Role(NodeId, Role),
}

/// One change. Each names its object; what the object must be beforehand is said by `Expect`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Write {
    /// Create or replace the cluster object (counts as a change of its spec).
    Cluster(Box<Cluster>),
    /// Create a node, or take one in again under its id.
    NodeCreate(Box<Node>),
    /// The user's word on a node.
    NodeSpec(NodeId, NodeSpec),
    /// The node's own word.
    NodeDescription(NodeId, NodeDescription),
    /// Whether a node is there.
    NodeStatus(NodeId, NodeStatus),
    /// The role that its newest certificate carries.
    NodeRole(NodeId, Role),
    /// Its seat in raft, or none.
    NodeManager(NodeId, Option<ManagerStatus>),
    /// The node leaves for good: its id is refused from now on.
    NodeRemove(NodeId),
    /// Create a service. Refused if the name is taken.
    ServiceCreate(Box<Service>),
    /// A new specification; the old one is kept as the previous. Refused if the name is taken.
    ServiceSpec(ServiceId, ServiceSpec),
    /// How far its update is.
    ServiceUpdate(ServiceId, Option<UpdateStatus>),
    /// The service goes; its tasks are then removed by the orchestrator.
    ServiceRemove(ServiceId),
    /// Create a task.
    TaskCreate(Arc<Task>),
    /// Place a task: ignored unless it waits for that and shall still run.
    TaskAssign {
        /// Which.
        id: TaskId,
        /// Where.
        node: NodeId,
        /// Ports that it takes there.
        ports: Vec<PortConfig>,
        /// In words.
        message: String,
        /// When.
        at: Timestamp,
    },
    /// What a task shall become; moves only forward, but for Ready.
    TaskDesired(TaskId, TaskState),
    /// What a task is, as reported by its node or (lost, rejected) by the leader; an older state is ignored,
    /// the same state with another message is taken.
    TaskStatus(TaskId, TaskStatus),
    /// Forget a task.
    TaskRemove(TaskId),
    /// Create a network. Refused if the name or the addresses are taken.
    NetworkCreate(Box<Network>),
    /// The network goes. Refused while somebody is in it.
    NetworkRemove(NetworkId),
    /// Put a container that is no task into networks, beside those that it is in. Refused if one of them takes no such
    /// containers, or is full.
    Attach {
        /// Which.
        id: AttachmentId,
        /// Whose engine has it.
        node: NodeId,
        /// The networks.
        networks: Vec<NetworkAttachment>,
    },
    /// Which container of its node's engine it is, and its name there.
    AttachmentContainer {
        /// Which.
        id: AttachmentId,
        /// The engine's id.
        container: String,
        /// The engine's name.
        name: String,
    },
    /// It leaves a network, or all. One that is gone is fine.
    Detach {
        /// Which.
        id: AttachmentId,
        /// The network; none means all.
        network: Option<NetworkId>,
    },
}

/// A transaction.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// If set, the entry must be of this raft term: a leader's actors act only under their own term.
    pub term: Option<u64>,
    /// When it was proposed, by the proposer's clock.
    pub at: Timestamp,
    /// What it relies on.
    pub expects: Vec<Expect>,
    /// What it changes, in order.
    pub writes: Vec<Write>,
}
