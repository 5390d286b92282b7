//! What the front doors may ask of a node. The HTTP API is written against this trait alone.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use shoal_core::attach::Ask;
use shoal_core::model::{Attachment, Availability, ClusterId, ClusterSpec, NodeDescription, NodeId};
use shoal_core::store::{ApplyError, Command, Event, State};
use shoal_net::mesh::MeshStats;
use tokio::sync::broadcast;

/// Whether this node is part of a cluster, in Docker's words.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LocalState {
    /// No cluster.
    #[default]
    Inactive,
    /// Joining.
    Pending,
    /// A member.
    Active,
    /// Was a member, and cannot be one now (removed, certificate expired): leave, then join again.
    Error,
}

/// What a node knows of itself.
#[derive(Debug, Clone, Default)]
pub struct Local {
    /// Membership.
    pub state: LocalState,
    /// In the state `Error`, why.
    pub error: String,
    /// Its id.
    pub node_id: Option<NodeId>,
    /// Its cluster.
    pub cluster_id: Option<ClusterId>,
    /// Whether it has a seat in raft.
    pub is_manager: bool,
    /// Address that it advertises.
    pub addr: Option<SocketAddr>,
    /// Known managers.
    pub managers: Vec<(NodeId, String)>,
    /// What it told the cluster of itself.
    pub description: Option<NodeDescription>,
}

/// How a cluster is begun.
#[derive(Debug, Clone)]
pub struct InitOptions {
    /// Address for the others; chosen by the node if not said.
    pub advertise: Option<String>,
    /// Settings.
    pub spec: ClusterSpec,
    /// Whether this node takes tasks.
    pub availability: Availability,
    /// Begin anew from this node's own state after a lost majority.
    pub force_new_cluster: bool,
}

/// How a cluster is joined.
#[derive(Clone)]
pub struct JoinOptions {
    /// Managers to ask, `host[:port]` each.
    pub remotes: Vec<String>,
    /// The token.
    pub token: String,
    /// Address for the others; chosen by the node if not said.
    pub advertise: Option<String>,
    /// Whether this node takes tasks.
    pub availability: Availability,
}

/// Whether a read is known to be no older than its request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Freshness {
    /// Confirmed by a majority.
    Fresh,
    /// It may be old, and why.
    Stale(String),
}

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// No cluster here.
    #[error(
        "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again."
    )]
    NotInCluster,
    /// A worker.
    #[error(
        "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. Please run this command on a manager node or promote the current node to a manager."
    )]
    NotManager,
    /// A member already.
    #[error(
        "This node is already part of a swarm. Use \"docker swarm leave\" to leave this swarm and join another one."
    )]
    AlreadyMember,
    /// Nobody leads: no majority of managers.
    #[error("the cluster has no leader: {0}")]
    NoLeader(String),
    /// The state refused the command.
    #[error(transparent)]
    Refused(#[from] ApplyError),
    /// The request is wrong.
    #[error("{0}")]
    Invalid(String),
    /// The request conflicts with how things are (quorum would be lost, last manager).
    #[error("{0}")]
    Conflict(String),
    /// This host cannot do it now.
    #[error("{0}")]
    NotReady(String),
    /// Our own fault.
    #[error("{0}")]
    Internal(String),
}

/// Changes as they are committed.
pub type EventStream = broadcast::Receiver<Arc<[Event]>>;

/// A node, as the front doors see it.
#[async_trait]
pub trait NodeApi: Send + Sync + 'static {
    /// What the node knows of itself.
    fn local(&self) -> Local;
    /// Begin a cluster.
    async fn init(&self, options: InitOptions) -> Result<NodeId, ApiError>;
    /// Join one.
    async fn join(&self, options: JoinOptions) -> Result<NodeId, ApiError>;
    /// Leave it.
    async fn leave(&self, force: bool) -> Result<(), ApiError>;
    /// The state as known here, at once.
    fn state(&self) -> Result<State, ApiError>;
    /// The state, no older than this call, unless that cannot be had soon.
    async fn read(&self) -> Result<(State, Freshness), ApiError>;
    /// Commit a command, through the leader; applied here, too, when it returns its index. Fails within 5 s.
    async fn propose(&self, command: Command) -> Result<u64, ApiError>;
    /// Ask the managers about the containers of this node's engine that are no tasks, from workers, too. What the host
    /// needs for the places that come of it is made before this returns, or goes with those that end.
    async fn attach(&self, ask: Ask) -> Result<Vec<Arc<Attachment>>, ApiError>;
    /// Changes from now on. A reader that lags is told so by the channel and reads the state anew.
    fn events(&self) -> Result<EventStream, ApiError>;
    /// Who leads.
    fn leader(&self) -> Option<NodeId>;
    /// The mesh's ports on this node, and what they did.
    fn mesh(&self) -> MeshStats;
    /// Managers that the leader (or this node) reached lately; for `node ls`.
    fn reachable_managers(&self) -> Vec<NodeId>;
}
