//! A task: one attempt to run one container of a service in one slot.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Meta, NodeId, PortConfig, ServiceId, TaskId, TaskNetwork, TaskSpec, Timestamp};

/// Where a task stands. Only moves forward; the numbers are Swarm's and leave room between.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TaskState {
    /// Just made.
    #[default]
    New = 0,
    /// Waits for the scheduler.
    Pending = 64,
    /// Given to a node.
    Assigned = 192,
    /// The node took it.
    Accepted = 256,
    /// Its image and container are made.
    Preparing = 320,
    /// Could start now.
    Ready = 384,
    /// Starts.
    Starting = 448,
    /// Runs, and is healthy where it has a health check.
    Running = 512,
    /// Ended by itself with exit code 0.
    Complete = 576,
    /// Stopped because it was asked to.
    Shutdown = 640,
    /// Failed after its start.
    Failed = 704,
    /// Failed before its start.
    Rejected = 768,
    /// To be removed; a desired state only.
    Remove = 800,
    /// On a node that is lost for good.
    Orphaned = 832,
}

impl TaskState {
    /// Every state, in order.
    pub const ALL: [Self; 14] = [
        Self::New,
        Self::Pending,
        Self::Assigned,
        Self::Accepted,
        Self::Preparing,
        Self::Ready,
        Self::Starting,
        Self::Running,
        Self::Complete,
        Self::Shutdown,
        Self::Failed,
        Self::Rejected,
        Self::Remove,
        Self::Orphaned,
    ];

    /// Whether a task in this state will never run (again).
    #[must_use]
    pub fn is_terminal(self) -> bool {
        self > Self::Running
    }

    /// The word that Docker's API uses.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Pending => "pending",
            Self::Assigned => "assigned",
            Self::Accepted => "accepted",
            Self::Preparing => "preparing",
            Self::Ready => "ready",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Complete => "complete",
            Self::Shutdown => "shutdown",
            Self::Failed => "failed",
            Self::Rejected => "rejected",
            Self::Remove => "remove",
            Self::Orphaned => "orphaned",
        }
    }
}

/// The place in its service that a task fills.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Slot {
    /// One of the replicas, from 1.
    Replica(u64),
    /// The copy of a global service on this node.
    Node(NodeId),
}

/// What is known of a task's container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerStatus {
    /// The engine's id of the container, or the runtime's name for it.
    pub container_id: String,
    /// Process id on its host, while it runs.
    pub pid: Option<u32>,
    /// Exit code, once it has ended.
    pub exit_code: Option<i64>,
    /// Whether the kernel killed it for lack of memory.
    pub oom_killed: bool,
}

/// The observed state of a task.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskStatus {
    /// Where it stands.
    pub state: TaskState,
    /// When it got there, by the reporter's clock.
    pub at: Timestamp,
    /// What happens, in words: why it waits, what it does.
    pub message: String,
    /// What went wrong; empty if nothing. Of a task that has not ended: why it is being stopped.
    pub error: String,
    /// Its container.
    pub container: Option<ContainerStatus>,
}

impl TaskStatus {
    /// Whether something went wrong with what was started, and it has not ended yet. (What waits for a place says by its error
    /// why.)
    #[must_use]
    pub fn is_sick(&self) -> bool {
        matches!(self.state, TaskState::Starting | TaskState::Running) && !self.error.is_empty()
    }
}

/// A task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Versions and times.
    pub meta: Meta,
    /// Its name.
    pub id: TaskId,
    /// Its service.
    pub service_id: ServiceId,
    /// Name of the service when the task was made.
    pub service_name: Arc<str>,
    /// The place that it fills.
    pub slot: Slot,
    /// Where it runs, once it is placed.
    pub node_id: Option<NodeId>,
    /// What it runs; shared between the tasks of a service's version.
    pub spec: Arc<TaskSpec>,
    /// The service's spec version that it was made from.
    pub spec_version: u64,
    /// Ports that it takes on its node (mode host).
    pub ports: Vec<PortConfig>,
    /// Its places in its networks, once it is placed. Set by `apply` alone.
    pub networks: Vec<TaskNetwork>,
    /// What it shall become: Ready (hold before the start), Running, Shutdown or Remove.
    pub desired: TaskState,
    /// Held at Ready until then, by the restart policy's delay.
    pub start_after: Option<Timestamp>,
    /// What it is.
    pub status: TaskStatus,
}

impl Task {
    /// `web.1`, or `web.<node id>` for a global service.
    #[must_use]
    pub fn slot_name(&self) -> String {
        match self.slot {
            Slot::Replica(number) => format!("{}.{number}", self.service_name),
            Slot::Node(node) => format!("{}.{node}", self.service_name),
        }
    }

    /// `web.1.<task id>`: the name of its container.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}.{}", self.slot_name(), self.id)
    }

    /// Whether it shall run and can still do so.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.desired <= TaskState::Running && !self.status.state.is_terminal()
    }

    /// Whether it was found unhealthy and has not ended yet: it gets no traffic any more, and is being stopped.
    #[must_use]
    pub fn is_sick(&self) -> bool {
        self.status.is_sick()
    }

    /// Whether it runs, and as it should.
    #[must_use]
    pub fn runs_well(&self) -> bool {
        self.status.state == TaskState::Running && !self.is_sick()
    }

    /// Whether it holds (or may hold) resources on its node: placed and not known to have ended.
    #[must_use]
    pub fn occupies_node(&self) -> bool {
        self.node_id.is_some() && self.status.state >= TaskState::Assigned && !self.status.state.is_terminal()
    }
}
