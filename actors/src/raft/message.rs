//! openraft's messages as they travel: each in an enum of versions.

use openraft::error::InstallSnapshotError;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
    VoteRequest, VoteResponse,
};
use serde::{Deserialize, Serialize};
use shoal_core::model::NodeId;

use super::types::{LogId, TypeConfig};

#[derive(Serialize, Deserialize)]
pub(super) enum Append {
    V1(AppendEntriesRequest<TypeConfig>),
}

#[derive(Serialize, Deserialize)]
pub(super) enum AppendReply {
    V1(AppendEntriesResponse<NodeId>),
}

/// A vote, or the question before it.
#[derive(Serialize, Deserialize)]
pub(super) enum Ballot {
    V1(VoteRequest<NodeId>),
    /// Would you vote for me if I asked? My log ends here.
    WouldV1(Option<LogId>),
}

#[derive(Serialize, Deserialize)]
pub(super) enum BallotReply {
    V1(VoteResponse<NodeId>),
    WouldV1(bool),
}

#[derive(Serialize, Deserialize)]
pub(super) enum Chunk {
    V1(InstallSnapshotRequest<TypeConfig>),
}

#[derive(Serialize, Deserialize)]
pub(super) enum ChunkReply {
    V1(Result<InstallSnapshotResponse<NodeId>, InstallSnapshotError>),
}
