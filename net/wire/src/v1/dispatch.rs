//! Sessions between every node and the leader.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use shoal_core::model::{NodeDescription, NodeId, Role, Task, TaskId, TaskStatus};

/// A manager and where it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ManagerAddr {
    /// Who.
    pub node_id: NodeId,
    /// `ip:port`.
    pub addr: String,
}

/// Opens a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRequest {
    /// What the node is.
    pub description: NodeDescription,
    /// Grows with each start of the node, so that a late old session never replaces a newer one.
    pub incarnation: u64,
}

/// Answer to a session's opening.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SessionReply {
    /// Open.
    Open {
        /// Names the session.
        session: u64,
        /// Milliseconds between two heartbeats.
        heartbeat_ms: u64,
    },
    /// The callee does not lead; ask this one.
    Elsewhere(Option<ManagerAddr>),
    /// The node was removed from the cluster.
    Removed,
}

/// Tasks of a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Assignments {
    /// All of them: what is not here shall go.
    Complete {
        /// Number of this message.
        sequence: u64,
        /// The tasks.
        tasks: Vec<Arc<Task>>,
    },
    /// Changes since message `sequence - 1`.
    Incremental {
        /// Number of this message.
        sequence: u64,
        /// New and changed tasks.
        changed: Vec<Arc<Task>>,
        /// Tasks to remove.
        removed: Vec<TaskId>,
    },
}

/// From the leader to the node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ToNode {
    /// First message.
    Reply(SessionReply),
    /// Answer to a heartbeat.
    Beat(u64),
    /// Tasks.
    Assignments(Assignments),
    /// Managers as they are now, and the role that the node shall have: it renews its certificate if that differs.
    Cluster {
        /// Managers.
        managers: Vec<ManagerAddr>,
        /// Wanted role.
        role: Role,
        /// Nodes that were removed: no connection with them any more.
        removed: Vec<NodeId>,
    },
    /// Reports up to this number are committed.
    Acknowledged(u64),
    /// The session ends: the leader steps down or stops. Ask this one, or anyone.
    Closed(Option<ManagerAddr>),
}

/// How a task fares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskReport {
    /// Which.
    pub task_id: TaskId,
    /// How.
    pub status: TaskStatus,
}

/// From the node to the leader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromNode {
    /// Alive; counts up.
    Beat(u64),
    /// Reports, numbered.
    Reports {
        /// Number of this message, acknowledged once committed.
        number: u64,
        /// The reports.
        reports: Vec<TaskReport>,
    },
    /// The node's description changed.
    Described(NodeDescription),
    /// The node stops: it is not lost, but its tasks stay unless it drains.
    Leaving,
}
