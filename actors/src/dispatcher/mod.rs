//! Sessions between every node and the leader: heartbeats and reports one way, assignments the other.

mod agent;
mod server;
mod session;

pub use agent::{Agent, AgentHandle, AgentStatus, ClusterNews};
pub use server::{DispatcherActor, DispatcherParts};
pub use session::serve_session;
