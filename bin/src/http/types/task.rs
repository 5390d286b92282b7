//! Tasks.

use serde_json::Value;

use super::{Map, NetworkAttachment, Port, TaskSpec, Version, object};

object! {
    /// A task.
    Task {
        #[serde(rename = "ID")]
        id: String,
        version: Version,
        created_at: String,
        updated_at: String,
        name: String,
        labels: Map,
        spec: TaskSpec,
        #[serde(rename = "ServiceID")]
        service_id: String,
        slot: u64,
        #[serde(rename = "NodeID")]
        node_id: String,
        status: TaskStatus,
        desired_state: String,
        networks_attachments: Vec<NetworkAttachment>,
        generic_resources: Vec<Value>,
    }
}

object! {
    /// What a task is.
    TaskStatus {
        timestamp: String,
        state: String,
        message: String,
        err: String,
        container_status: ContainerStatus,
        port_status: PortStatus,
    }
}

object! {
    /// What a task's container is.
    ContainerStatus {
        #[serde(rename = "ContainerID")]
        container_id: String,
        #[serde(rename = "PID")]
        pid: u32,
        exit_code: i64,
    }
}

object! {
    /// Ports that a task has on its node.
    PortStatus {
        ports: Vec<Port>,
    }
}
