//! Docker's JSON, field by field, for both directions: the server reads and writes these, and so can a client.
//!
//! Every field is an `Option`: Go clients send `null`, leave out or send a zero for the same thing. Fields that
//! are known and not supported are kept as raw values, so that they can be refused when they say something.
//! The meaning of each field is described in Docker's API reference under the same name.
#![allow(
    missing_docs,
    reason = "the fields carry the names of Docker's API reference and are described there"
)]

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

mod container;
mod network;
mod node;
mod service;
mod swarm;
mod task;

pub use container::{
    BindOptions, ContainerSpec, DnsConfig, Driver, Healthcheck, Mount, TmpfsOptions, Ulimit, VolumeOptions,
};
pub use network::{
    ConfigReference, Ipam, IpamConfig, IpamOptions, Network, NetworkAttachment, NetworkContainer,
    NetworkCreate, NetworkCreated, NetworkService, NetworkTarget, NetworkTask, SwarmNetwork,
    SwarmNetworkSpec, VirtualIp,
};
pub use node::{
    EngineDescription, ManagerStatus, Node, NodeDescription, NodeSpec, NodeStatus, Platform, Plugin, TlsInfo,
};
pub use service::{
    Endpoint, EndpointSpec, GenericResource, GenericResourceSpec, Limits, Placement, Port, Preference,
    Replicated, Reservations, Resources, RestartPolicy, Service, ServiceCreated, ServiceMode, ServiceSpec,
    ServiceStatus, ServiceUpdated, SpreadOver, TaskSpec, UpdateConfig, UpdateStatus,
};
pub use swarm::{
    CaConfig, ClusterInfo, DispatcherConfig, EncryptionConfig, InitRequest, JoinRequest, JoinTokens,
    Orchestration, Peer, RaftConfig, Swarm, SwarmInfo, SwarmSpec, TaskDefaults, UnlockKey, UnlockRequest,
};
pub use task::{ContainerStatus, PortStatus, Task, TaskStatus};

/// Labels, options and the like.
pub type Map = BTreeMap<String, String>;

/// Declares a JSON object of which every field may be absent or null.
macro_rules! object {
    ($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $type:ty),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(default, rename_all = "PascalCase")]
        pub struct $name {
            $($(#[$field_meta])* #[serde(skip_serializing_if = "Option::is_none")] pub $field: Option<$type>,)*
        }
    };
}
pub(crate) use object;

/// `{}`: says something by being there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

object! {
    /// Version of an object.
    Version {
        index: u64,
    }
}

/// A version.
#[must_use]
pub fn version(index: u64) -> Option<Version> {
    Some(Version { index: Some(index) })
}
