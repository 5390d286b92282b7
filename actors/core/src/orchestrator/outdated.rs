//! Whether a task is of an older version than its service asks for.

use crate::model::{PortConfig, PortMode, Service, Task, TaskSpec};
use crate::put_back::{Bug, is_put_back};
use crate::store::State;

use super::fate::misfit;

/// Whether the task has to be replaced for the service's current specification to hold. A change of the
/// restart policy or of the placement alone leaves tasks alone, as long as their nodes still fit.
#[must_use]
pub fn outdated(state: &State, service: &Service, task: &Task) -> bool {
    if task.spec_version >= service.task_spec_version {
        return false;
    }
    if is_put_back(Bug::EveryChangeReplaces) {
        return true;
    }
    let wanted = &service.spec.task;
    runs_differently(wanted, &task.spec)
        || ports_differ(service, task)
        || (wanted.placement != task.spec.placement
            && task
                .node_id
                .and_then(|id| state.node(id))
                .is_some_and(|node| misfit(node, &wanted.placement).is_some()))
        // A task that waits for a place is looked at under its own constraints, so it has to have the new.
        || (wanted.placement != task.spec.placement && task.status.state < crate::model::TaskState::Assigned)
}

fn runs_differently(a: &TaskSpec, b: &TaskSpec) -> bool {
    let TaskSpec { container, resources, restart: _, placement: _, log_driver, networks, force_update } = a;
    !container.runs_as(&b.container)
        || *resources != b.resources
        || *log_driver != b.log_driver
        || *networks != b.networks
        || *force_update != b.force_update
}

/// The host ports that a task of the service takes.
pub(super) fn host_ports(service: &Service) -> Vec<PortConfig> {
    service.spec.endpoint.ports_in(PortMode::Host).cloned().collect()
}

fn ports_differ(service: &Service, task: &Task) -> bool {
    let wanted = host_ports(service);
    let is = |want: &PortConfig, have: &PortConfig| {
        want.protocol == have.protocol
            && want.target_port == have.target_port
            && want.at == have.at
            && (want.published_port == 0 || want.published_port == have.published_port)
    };
    wanted.len() != task.ports.len()
        || !wanted.iter().all(|want| task.ports.iter().any(|have| is(want, have)))
}
