//! The labels of a task's container: Docker's own swarm names.

use std::collections::BTreeMap;

use shoal_core::model::{NodeId, Task};

/// Every task's container has it; empty, as with Docker.
pub(crate) const TASK: &str = "com.docker.swarm.task";
pub(crate) const TASK_ID: &str = "com.docker.swarm.task.id";
pub(crate) const TASK_NAME: &str = "com.docker.swarm.task.name";
pub(crate) const SERVICE_ID: &str = "com.docker.swarm.service.id";
pub(crate) const SERVICE_NAME: &str = "com.docker.swarm.service.name";
pub(crate) const NODE_ID: &str = "com.docker.swarm.node.id";

/// On a container: its networks, by id, with commas between. On a network of the engine: which one of the cluster it is.
pub(crate) const NETWORKS: &str = "shoal.networks";
pub(crate) const NETWORK_ID: &str = "shoal.network.id";

/// On a container that is no task: whose places in networks it has.
pub(crate) const ATTACHMENT: &str = "shoal.attachment";

/// The user's labels, and ours over them: what decides whose container it is cannot be forged by a service.
pub(crate) fn of(task: &Task, node: NodeId) -> BTreeMap<String, String> {
    let mut labels = task.spec.container.labels.clone();
    labels.extend(
        [
            (TASK, String::new()),
            (TASK_ID, task.id.to_string()),
            (TASK_NAME, task.name()),
            (SERVICE_ID, task.service_id.to_string()),
            (SERVICE_NAME, task.service_name.to_string()),
            (NODE_ID, node.to_string()),
        ]
        .map(|(name, value)| (name.to_string(), value)),
    );
    labels.remove(NETWORKS);
    if !task.networks.is_empty() {
        let ids: Vec<String> = task.networks.iter().map(|place| place.network.id.to_string()).collect();
        labels.insert(NETWORKS.to_string(), ids.join(","));
    }
    labels
}
