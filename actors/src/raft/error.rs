//! Why something failed, for each public operation.

use std::io;

use shoal_core::model::NodeId;
use shoal_core::store::ApplyError;

/// The data key cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The disk failed.
    #[error("raft/key: {0}")]
    Io(#[from] io::Error),
    /// It is not a key.
    #[error("raft/key: {0} bytes where 32 are wanted")]
    Malformed(usize),
    /// There is a log, but no key to read it with.
    #[error("raft/key is missing, and the log cannot be read without it")]
    Missing,
    /// No randomness for a new key.
    #[error("no randomness for a new key")]
    Random,
}

/// What is on the disk cannot be used. Nothing of it was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The disk failed.
    #[error("raft/{file}: {source}")]
    Io {
        /// File.
        file: String,
        /// The system's word.
        source: io::Error,
    },
    /// The key failed.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The file was written under another key.
    #[error("raft/{file} was written under another key than raft/key")]
    WrongKey {
        /// File.
        file: String,
    },
    /// Bytes that were durable are no longer what was written.
    #[error("raft/{file} is corrupt at byte {offset}: {reason}")]
    Corrupt {
        /// File.
        file: String,
        /// Where.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// A newer version of Shoal wrote it.
    #[error("raft/{file} has version {version}, which this build does not know")]
    Version {
        /// File.
        file: String,
        /// Its version.
        version: u16,
    },
    /// The folder belongs to another node.
    #[error("the raft folder belongs to node {found}, not to {expected}")]
    OtherNode {
        /// Whose it is.
        found: NodeId,
        /// Who asks.
        expected: NodeId,
    },
}

impl OpenError {
    pub(super) fn io(file: &str, source: io::Error) -> Self {
        Self::Io { file: file.to_owned(), source }
    }
}

/// Consensus cannot be started, or cannot be bootstrapped.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// What is on the disk cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The settings contradict each other.
    #[error("raft's settings: {0}")]
    Settings(String),
    /// The node is a member already.
    #[error("the node is part of a cluster already")]
    AlreadyMember,
    /// A cluster of its own was asked for, but there is no state to begin it from.
    #[error("there is no state here that a new cluster could begin from")]
    NothingToKeep,
    /// Consensus stopped.
    #[error("raft stopped: {0}")]
    Stopped(String),
}

/// A proposal or a confirmed read failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// The state refused the command.
    #[error(transparent)]
    Refused(#[from] ApplyError),
    /// A command that carries a leader's term was given to a node that does not lead. It was not proposed.
    #[error("this manager does not lead")]
    NotLeader(Option<NodeId>),
    /// Nobody leads. The command was not proposed.
    #[error("{0}")]
    NoLeader(String),
    /// Whether it will be committed is unknown.
    #[error("{0}")]
    Unavailable(String),
    /// It was committed, but this node did not apply it in time.
    #[error("committed at index {index}, but not applied here yet")]
    NotAppliedHere {
        /// Index of the entry.
        index: u64,
    },
    /// The command is too large.
    #[error("the change has {bytes} bytes, and at most {limit} are accepted")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// Too many proposals wait already. The command was not proposed.
    #[error("{0} changes wait for the managers already: try again later")]
    Overloaded(usize),
    /// Consensus has stopped here. The command was not proposed.
    #[error("raft has stopped on this manager: {0}")]
    Stopped(String),
}

/// A seat cannot be taken or left.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SeatError {
    /// Nobody leads.
    #[error("{0}")]
    NoLeader(String),
    /// The cluster has as many managers as it may have.
    #[error("a cluster has at most {0} managers")]
    TooMany(usize),
    /// It is the only manager.
    #[error("the last manager of a cluster cannot be demoted or removed")]
    LastManager,
    /// Those who remain would have no majority.
    #[error(
        "can't remove the manager: this would result in a loss of quorum ({reachable} of the {remaining} \
         remaining managers can be reached, {majority} are needed)"
    )]
    QuorumLoss {
        /// Managers that would remain.
        remaining: usize,
        /// Of those, who can be reached.
        reachable: usize,
        /// How many are needed.
        majority: usize,
    },
    /// The new manager did not catch up.
    #[error("manager {node} did not catch up: {reason}")]
    NotCaughtUp {
        /// Who.
        node: NodeId,
        /// What is known of it.
        reason: String,
    },
    /// Refused by the leader, in its words.
    #[error("{0}")]
    Conflict(String),
    /// What came of it is unknown.
    #[error("{0}")]
    Unavailable(String),
    /// Consensus has stopped here.
    #[error("raft has stopped on this manager: {0}")]
    Stopped(String),
}
