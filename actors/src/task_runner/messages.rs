//! What the task runner's mailbox takes.

use std::sync::Arc;

use actix::Message;
use shoal_core::model::{Task, TaskId};
use shoal_core::task::{ControllerError, LocalContainer, Outcome};

use super::{Change, StoreError};

/// All tasks of this node: what is not among them shall go.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct SetComplete(pub(super) Vec<Arc<Task>>);

/// All tasks shall go, and none is taken any more.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Leave;

/// New, changed and removed tasks.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct ChangeAssignments {
    pub(super) changed: Vec<Arc<Task>>,
    pub(super) removed: Vec<TaskId>,
}

/// Stop, and leave the containers running.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Shutdown;

/// A step has come to its end.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct StepDone {
    pub(super) task_id: TaskId,
    /// Which of the task's steps: one that was given up may still have sent this.
    pub(super) number: u64,
    pub(super) outcome: Outcome,
}

/// A step says how far it is.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct StepProgress {
    pub(super) task_id: TaskId,
    pub(super) number: u64,
    pub(super) line: String,
}

/// Look at a task again.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Wake(pub(super) TaskId);

/// The containers that carry this node's label.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Listed(pub(super) Result<Vec<LocalContainer>, ControllerError>);

/// A container that belonged to no task is gone.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct OrphanRemoved;

/// A write of the records has ended; what could not be written comes back.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Saved(pub(super) Result<(), (StoreError, Vec<Change>)>);
