//! The nouns: what a cluster consists of. Data and its own small truths only.

mod attachment;
mod cluster;
mod ids;
mod network;
mod node;
mod pools;
mod resources;
mod service;
mod task;
mod time;

pub mod constraint;

pub use attachment::Attachment;
pub use cluster::{CaSpec, Cluster, ClusterSpec, DispatcherSpec, JoinTokens, RaftSpec, RootCa, Secret};
pub use ids::{
    AttachmentId, ClusterId, ConfigId, ID_LEN, NetworkId, NodeId, ParseIdError, SecretId, ServiceId, TaskId,
};
pub use network::{
    BRIDGE_PREFIX, Network, NetworkAttachment, NetworkInfo, NetworkSpec, Pool, ServiceNetwork, TaskNetwork,
};
pub use node::{
    Availability, EngineInfo, ManagerStatus, Node, NodeDescription, NodeSpec, NodeState, NodeStatus,
    Platform, Role,
};
pub use pools::{AddressPools, PoolsError};
pub use resources::{ResourceRequirements, Resources};
pub(crate) use service::ROLLBACK_STARTED;
pub use service::{
    ContainerSpec, EndpointMode, EndpointSpec, FailureAction, HealthConfig, LogDriver, Mount, MountKind,
    Placement, PortConfig, PortMode, Preference, Protocol, RegistryAuth, RestartCondition, RestartPolicy,
    Service, ServiceMode, ServiceSpec, TaskSpec, Ulimit, UpdateConfig, UpdateOrder, UpdateState,
    UpdateStatus,
};
pub use task::{ContainerStatus, Slot, Task, TaskState, TaskStatus};
pub use time::Timestamp;

use serde::{Deserialize, Serialize};

/// What every stored object carries beside its content. Set by `apply` alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// Raft index of the last change of the specification: what users rely on when they update.
    pub spec_version: u64,
    /// Raft index of the last change of any kind.
    pub revision: u64,
    /// When it was created, by the proposer's clock.
    pub created_at: Timestamp,
    /// When it was last changed, by the proposer's clock.
    pub updated_at: Timestamp,
}
