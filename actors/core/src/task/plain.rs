//! What a container runtime must be able to do for containers that are no tasks.

use super::controller::{BoxFuture, ControllerError};
use crate::attach::PlainContainer;
use crate::model::{AttachmentId, TaskNetwork};

/// The containers of a runtime that users make and remove themselves, in networks that span nodes.
pub trait PlainContainers: Send + Sync {
    /// Make what a container needs to be in these networks and no others, and keep it until it is let go.
    fn hold<'a>(
        &'a self,
        id: AttachmentId,
        places: &'a [TaskNetwork],
    ) -> BoxFuture<'a, Result<(), ControllerError>>;

    /// The container is gone: what it alone needed goes, too.
    fn let_go(&self, id: AttachmentId) -> BoxFuture<'_, ()>;

    /// All containers, stopped ones too.
    fn containers(&self) -> BoxFuture<'_, Result<Vec<PlainContainer>, ControllerError>>;

    /// Tell the runtime's id of each container that is removed, renamed or leaves a network, until the runtime goes away.
    fn watch<'a>(&'a self, tell: &'a (dyn Fn(&str) + Send + Sync)) -> BoxFuture<'a, ControllerError>;
}
