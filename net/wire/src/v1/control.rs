//! Between managers.

use serde::{Deserialize, Serialize};
use shoal_core::model::NodeId;
use shoal_core::store::{ApplyError, Command};

/// Asks the leader to commit a command.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProposeRequest {
    /// Names the proposal: sent twice, it is applied once.
    pub id: u128,
    /// The command.
    pub command: Command,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome<T> {
    /// Done.
    Done(T),
    /// The callee does not lead; whom it takes for the leader.
    NotLeader(Option<NodeId>),
    /// Refused for good.
    Refused(ApplyError),
    /// It cannot be done now: no quorum, overloaded. Whether it will be committed is unknown.
    Unavailable(String),
    /// It cannot be done as things are (quorum would be lost, last manager, too large). Nothing was done.
    Conflict(String),
}

/// Index of the committed entry.
pub type ProposeResponse = Outcome<u64>;

/// Index that a reader must have applied to read no older than this moment.
pub type ReadIndexResponse = Outcome<u64>;

/// A seat in raft for a manager, or its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeatRequest {
    /// Whose.
    pub node_id: NodeId,
    /// Address of its endpoint.
    pub addr: String,
}

/// Index of the membership that has (or no longer has) it.
pub type SeatResponse = Outcome<u64>;
