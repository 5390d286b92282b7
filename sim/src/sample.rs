//! A task as tests want one, but for what they are about.

use shoal_core::model::{NodeId, ServiceId, Slot, Task, TaskId, TaskState, TaskStatus};

/// It shall run in the first slot of the first service, on the first node.
pub(crate) fn task(number: u128) -> Task {
    Task {
        meta: Default::default(),
        id: TaskId::from_u128(number),
        service_id: ServiceId::from_u128(1),
        service_name: "s".into(),
        slot: Slot::Replica(1),
        node_id: Some(NodeId::from_u128(1)),
        spec: Default::default(),
        spec_version: 0,
        ports: Vec::new(),
        networks: Vec::new(),
        desired: TaskState::Running,
        start_after: None,
        status: TaskStatus::default(),
    }
}
