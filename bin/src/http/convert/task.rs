//! Tasks.

use shoal_core::model::{Slot, Task, TaskState, TaskStatus};
use shoal_core::store::State;

use super::super::clock;
use super::super::types::{self, ContainerStatus, PortStatus, version};
use super::filled;
use super::network::attachment_json;
use super::ports::port_json;
use super::service::task_spec_json;

/// Write a task. Labels are the service's, if it is still there, and what is told of networks is the state's.
pub(in crate::http) fn task_json(task: &Task, state: &State) -> types::Task {
    let service = state.service(task.service_id);
    let attachments = task.networks.iter().filter_map(|place| attachment_json(place, state));
    types::Task {
        id: Some(task.id.to_string()),
        version: version(task.meta.revision),
        created_at: Some(clock::text(task.meta.created_at)),
        updated_at: Some(clock::text(task.meta.updated_at)),
        name: None,
        labels: Some(service.map(|service| service.spec.labels.clone()).unwrap_or_default()),
        spec: Some(task_spec_json(&task.spec)),
        service_id: Some(task.service_id.to_string()),
        slot: match task.slot {
            Slot::Replica(number) => Some(number),
            Slot::Node(_) => None,
        },
        node_id: task
            .node_id
            .or(match task.slot {
                Slot::Node(node) => Some(node),
                Slot::Replica(_) => None,
            })
            .map(|id| id.to_string()),
        status: Some(status_json(task)),
        desired_state: Some(task.desired.as_str().to_owned()),
        networks_attachments: filled(&attachments.collect()),
        generic_resources: None,
    }
}

fn status_json(task: &Task) -> types::TaskStatus {
    let TaskStatus { state, at, message, error, container } = &task.status;
    // Docker's clients print this error where there is one; what waits says why in its message.
    let err = if error.is_empty() && *state == TaskState::Pending { message } else { error };
    let held = task.status.state == TaskState::Running || task.status.state == TaskState::Starting;
    types::TaskStatus {
        timestamp: Some(clock::text(*at)),
        state: Some(state.as_str().to_owned()),
        message: Some(message.clone()),
        err: filled(err),
        container_status: container.as_ref().map(|c| ContainerStatus {
            container_id: Some(c.container_id.clone()),
            pid: Some(c.pid.unwrap_or_default()),
            exit_code: Some(c.exit_code.unwrap_or_default()),
        }),
        port_status: Some(PortStatus {
            ports: if held { filled(&task.ports.iter().map(port_json).collect()) } else { None },
        }),
    }
}
