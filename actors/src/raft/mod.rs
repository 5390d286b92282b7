//! Consensus between managers: openraft over a log on disk, the replicated state behind it.
//!
//! openraft's types stay inside of this module; everybody else sees [`RaftHandle`].
//!
//! What is ours, because openraft 0.9 does it otherwise or not at all:
//!
//! - **Group commit** happens before the log: its core writes one append at a time and waits for the disk, so
//!   proposals that wait together travel as one entry ([`proposer`]). Each command in it is accepted or refused
//!   by itself; they share the entry's index.
//! - **A proposal counts once**: it has an id, and the replicated state remembers the newest ids ([`recent`]). So a
//!   proposal whose leader is lost is simply proposed again to the next one.
//! - **Elections** are started by [`election`] and not by openraft's timer: patience is drawn anew for each
//!   loss, and a candidate first asks whether a majority would grant (a pre-vote). So a manager that comes
//!   back from a partition has not raised its term and disturbs nobody, and one without a majority never does.
//! - **Slow disks**: a manager whose core waits for its disk keeps hearing and sending heartbeats
//!   ([`network`], [`pulse`]), so that a slow fsync starts no election.
//! - **Leadership** is given up by a leader that has not heard from a majority for a second ([`leadership`]).
//! - **Seats that are given again**: whoever lost its seat forgets its log, and remembers what it had promised ([`former`]).
//! - **Full disk**: the write is tried again until there is space; the node acknowledges nothing meanwhile and
//!   neither leads nor votes.

mod actor;
mod batch;
mod closable;
mod config;
mod election;
mod error;
mod former;
mod frame;
#[cfg(fuzzing)]
pub mod fuzzing;
mod handle;
mod health;
mod housekeeping;
mod incoming;
mod index;
mod key;
mod leadership;
mod log_store;
mod machine;
mod memory;
mod message;
mod network;
mod proposal_id;
mod propose;
mod proposer;
mod pulse;
mod reach;
mod read;
pub mod reading;
mod recent;
mod replay;
mod runtime;
mod seats;
mod snapshot;
mod start;
mod stats;
mod transport;
mod types;

#[cfg(test)]
mod tests;

pub use actor::{RaftActor, Start, Stop};
pub use config::{RaftConfig, Timing};
pub use error::{KeyError, OpenError, ProposeError, SeatError, StartError};
pub use former::forget;
pub use handle::RaftHandle;
pub use key::{DataKey, FileKey, KeySource};
pub use leadership::Leadership;
pub use memory::MemoryNetwork;
pub use stats::{Histogram, RaftStats};
pub use transport::{RaftTransport, TransportError};
