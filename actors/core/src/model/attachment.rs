//! A container that is no task, in networks that span nodes.

use serde::{Deserialize, Serialize};

use super::{AttachmentId, Meta, NodeId, ServiceId, TaskId, TaskNetwork};

/// Characters of a container's id that name it, too, as engines have it.
const SHORT_ID_LEN: usize = 12;

/// A container that a user made on a node, and its places in networks that span nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// Versions and times.
    pub meta: Meta,
    /// Its id.
    pub id: AttachmentId,
    /// Whose engine has the container.
    pub node: NodeId,
    /// The container's id there; empty until it is made.
    pub container: String,
    /// The container's name there.
    pub name: String,
    /// Its places, one at least.
    pub networks: Vec<TaskNetwork>,
}

impl Attachment {
    /// The beginning of the container's id, by which it is known, too.
    #[must_use]
    pub fn short_id(&self) -> &str {
        self.container.get(..SHORT_ID_LEN).unwrap_or(&self.container)
    }

    /// Its name for people: its own, or else its id.
    #[must_use]
    pub fn title(&self) -> String {
        if self.name.is_empty() { self.id.to_string() } else { self.name.clone() }
    }
}

impl AttachmentId {
    /// What it is called where whoever has addresses is named as a task.
    #[must_use]
    pub const fn as_task(self) -> TaskId {
        TaskId::from_u128(self.as_u128())
    }

    /// What it is called where whoever has a name is named as a service.
    #[must_use]
    pub const fn as_service(self) -> ServiceId {
        ServiceId::from_u128(self.as_u128())
    }

    /// The attachment that has a service's place.
    #[must_use]
    pub const fn of_service(id: ServiceId) -> Self {
        Self::from_u128(id.as_u128())
    }
}
