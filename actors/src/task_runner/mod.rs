//! Runs this node's tasks: takes assignments, steps each task through the container runtime as
//! [`shoal_core::task::step`] decides, keeps both on disk and reports how the tasks fare.
//!
//! It works without any manager: a restarted node goes on with what its own records say and touches no running container.
//! Containers that nobody knows are removed only once a manager has told all that belongs here.

mod actor;
mod handle;
mod limits;
mod messages;
mod outbox;
mod records;
mod redb_store;
mod stats;
mod steps;
mod store;
mod sweep;

#[cfg(test)]
mod tests;

pub use handle::{RunnerStopped, TaskRunnerHandle};
pub use limits::Limits;
pub use outbox::{Batch, Reports};
pub use redb_store::RedbTaskStore;
pub use stats::Stats;
pub use store::{Change, MemoryTaskStore, StoreError, StoredTask, TaskStore};

use std::sync::Arc;

use shoal_core::model::Timestamp;

/// Tells the wall-clock time.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;
