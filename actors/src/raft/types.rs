//! The types that openraft is run with.

use std::io::Cursor;

use serde::{Deserialize, Serialize};
use shoal_core::model::NodeId;
use shoal_core::store::ApplyError;

use super::batch::Batch;
use super::runtime::Runtime;

/// A manager's place in the membership.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Seat {
    /// Address of its endpoint.
    pub(super) addr: String,
}

/// What applying an entry gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Reply {
    /// The entry carried no command.
    Nothing,
    /// For each proposal of the batch the index at which it was applied (an earlier one if it had been sent
    /// before), and the result.
    Proposals(Vec<(u64, Result<(), ApplyError>)>),
    /// The batch could not be read; nothing of it was applied, here or anywhere.
    Unreadable(String),
}

openraft::declare_raft_types!(
    /// Binds openraft to our types.
    pub(super) TypeConfig:
        D = Batch,
        R = Reply,
        NodeId = NodeId,
        Node = Seat,
        SnapshotData = Cursor<Vec<u8>>,
        AsyncRuntime = Runtime,
);

pub(super) type Raft = openraft::Raft<TypeConfig>;
pub(super) type Entry = openraft::Entry<TypeConfig>;
pub(super) type LogId = openraft::LogId<NodeId>;
pub(super) type Vote = openraft::Vote<NodeId>;
pub(super) type StorageError = openraft::StorageError<NodeId>;
pub(super) type StorageIoError = openraft::StorageIOError<NodeId>;
pub(super) type StoredMembership = openraft::StoredMembership<NodeId, Seat>;
pub(super) type SnapshotMeta = openraft::SnapshotMeta<NodeId, Seat>;
