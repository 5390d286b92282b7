//! Services and the specification of their tasks.

use serde_json::Value;

use super::{ContainerSpec, Driver, Empty, Map, NetworkTarget, Platform, Version, VirtualIp, object};

object! {
    /// What the user asks for.
    ServiceSpec {
        name: String,
        labels: Map,
        task_template: TaskSpec,
        mode: ServiceMode,
        update_config: UpdateConfig,
        rollback_config: UpdateConfig,
        networks: Vec<NetworkTarget>,
        endpoint_spec: EndpointSpec,
    }
}

object! {
    /// What each task runs and needs.
    TaskSpec {
        container_spec: ContainerSpec,
        plugin_spec: Value,
        network_attachment_spec: Value,
        resources: Resources,
        restart_policy: RestartPolicy,
        placement: Placement,
        networks: Vec<NetworkTarget>,
        log_driver: Driver,
        force_update: i64,
        runtime: String,
    }
}

object! {
    /// How many.
    ServiceMode {
        replicated: Replicated,
        global: Empty,
        replicated_job: Value,
        global_job: Value,
    }
}

object! {
    /// So many, anywhere.
    Replicated {
        replicas: i64,
    }
}

object! {
    /// Limits and reservations.
    Resources {
        limits: Limits,
        reservations: Reservations,
        memory_swappiness: Value,
        swap_bytes: Value,
    }
}

object! {
    /// Amounts; of a node also its generic resources.
    Limits {
        #[serde(rename = "NanoCPUs")]
        nano_cpus: i64,
        memory_bytes: i64,
        pids: i64,
        generic_resources: Vec<GenericResource>,
    }
}

object! {
    /// Amounts kept free.
    Reservations {
        #[serde(rename = "NanoCPUs")]
        nano_cpus: i64,
        memory_bytes: i64,
        generic_resources: Vec<GenericResource>,
    }
}

object! {
    /// A user-defined resource.
    GenericResource {
        discrete_resource_spec: GenericResourceSpec,
        named_resource_spec: Value,
    }
}

object! {
    /// So many of a kind.
    GenericResourceSpec {
        kind: String,
        value: i64,
    }
}

object! {
    /// When a task is started anew.
    RestartPolicy {
        condition: String,
        delay: i64,
        max_attempts: i64,
        window: i64,
    }
}

object! {
    /// Where a task runs.
    Placement {
        constraints: Vec<String>,
        preferences: Vec<Preference>,
        max_replicas: i64,
        platforms: Vec<Platform>,
    }
}

object! {
    /// A wish for spread.
    Preference {
        spread: SpreadOver,
    }
}

object! {
    /// What to spread over.
    SpreadOver {
        spread_descriptor: String,
    }
}

object! {
    /// How changes roll out.
    UpdateConfig {
        parallelism: i64,
        delay: i64,
        failure_action: String,
        monitor: i64,
        max_failure_ratio: f64,
        order: String,
    }
}

object! {
    /// How a service is reached.
    EndpointSpec {
        mode: String,
        ports: Vec<Port>,
    }
}

object! {
    /// A published port.
    Port {
        name: String,
        protocol: String,
        target_port: i64,
        published_port: i64,
        publish_mode: String,
    }
}

object! {
    /// A service.
    Service {
        #[serde(rename = "ID")]
        id: String,
        version: Version,
        created_at: String,
        updated_at: String,
        spec: ServiceSpec,
        previous_spec: ServiceSpec,
        endpoint: Endpoint,
        update_status: UpdateStatus,
        service_status: ServiceStatus,
    }
}

object! {
    /// How a service is reached in fact.
    Endpoint {
        spec: EndpointSpec,
        ports: Vec<Port>,
        #[serde(rename = "VirtualIPs")]
        virtual_ips: Vec<VirtualIp>,
    }
}

object! {
    /// How far an update is.
    UpdateStatus {
        state: String,
        started_at: String,
        completed_at: String,
        message: String,
    }
}

object! {
    /// How many tasks there are.
    ServiceStatus {
        running_tasks: u64,
        desired_tasks: u64,
        completed_tasks: u64,
    }
}

/// The answer to a service's creation.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ServiceCreated {
    #[serde(rename = "ID")]
    pub id: String,
    pub warnings: Option<Vec<String>>,
}

/// The answer to a service's update.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ServiceUpdated {
    pub warnings: Option<Vec<String>>,
}
