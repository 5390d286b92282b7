//! What a cluster that is well must not keep: containers of nobody's, and history beyond its limit.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use shoal_core::attach::PlainContainer;
use shoal_core::model::{Node, TaskState};
use shoal_core::store::State;

use crate::host::Host;

/// The node of a host.
pub(super) fn node_on<'a>(host: &Host, state: &'a State) -> Option<&'a Arc<Node>> {
    let name = format!("h{}", host.number);
    state.nodes().find(|node| node.hostname() == name)
}

/// A container that belongs to no task of its host.
#[must_use]
pub(super) fn containers(hosts: &[Host], state: &State) -> Option<String> {
    hosts.iter().find_map(|host| {
        let node = node_on(host, state)?;
        let id = host.engine.all().into_iter().find(|id| {
            state
                .task(*id)
                .is_none_or(|task| task.node_id != Some(node.id) || task.status.state.is_terminal())
        })?;
        Some(format!("h{} has a container of task {id}, which is not its own any more", host.number))
    })
}

/// Places of containers that are no tasks: those that belong to none, and those that are missing though they were promised.
#[must_use]
pub(super) fn places(hosts: &[Host], state: &State) -> Option<String> {
    if let Some(of_nobody) = state.attachments().find(|place| state.node(place.node).is_none()) {
        return Some(format!("the places of {} are those of a node that is gone", of_nobody.id));
    }
    hosts.iter().find_map(|host| {
        let (node, plain) = (node_on(host, state)?.id, &host.engine.plain);
        let wrong = state.attachments_of_node(node).find_map(|place| plain.matches(place).err());
        let lost = || plain.promises(node).into_iter().find(|container| !has_its_places(container, state));
        let why = wrong.or_else(|| {
            lost()
                .map(|lost| format!("{} was promised places in {:?}, and lost them", lost.id, lost.networks))
        })?;
        Some(format!("h{}: {why}", host.number))
    })
}

/// Whether the container has a place in each network that it is in.
fn has_its_places(container: &PlainContainer, state: &State) -> bool {
    let known = container.attachment.and_then(|id| state.attachment(id));
    let names = known.map_or(&[][..], |known| &known.networks).iter().map(|place| &*place.network.name);
    let names: BTreeSet<&str> = names.collect();
    container.networks.iter().all(|name| names.contains(&**name))
}

/// A slot with more ended tasks than are kept.
#[must_use]
pub(super) fn history(state: &State) -> Option<String> {
    let limit = state.cluster().map_or(5, |cluster| cluster.spec.task_history_limit);
    state.services().find_map(|service| {
        let mut ended: BTreeMap<_, u64> = BTreeMap::new();
        for task in state.tasks_of_service(service.id) {
            if task.desired == TaskState::Shutdown && task.status.state.is_terminal() {
                *ended.entry(task.slot).or_default() += 1;
            }
        }
        // Those that the restart policy counts are kept beside, and the one that an update began from.
        let most = limit + service.spec.task.restart.max_attempts + 1;
        let (slot, count) = ended.into_iter().find(|(_, count)| *count > most)?;
        Some(format!("slot {slot:?} of {} keeps {count} ended tasks, {most} at most", service.spec.name))
    })
}

#[cfg(test)]
mod tests {
    use shoal_core::model::{
        EndpointSpec, Meta, Service, ServiceId, ServiceMode, ServiceSpec, Slot, Task, TaskId, TaskStatus,
    };
    use shoal_core::store::{Command, Write};

    use super::*;

    #[test]
    fn a_slot_that_keeps_all_of_its_history_is_found() {
        let id = ServiceId::from_u128(1);
        let spec = ServiceSpec {
            name: "s".into(),
            labels: BTreeMap::new(),
            mode: ServiceMode::Replicated { replicas: 1 },
            task: Arc::default(),
            update: None,
            rollback: None,
            endpoint: EndpointSpec::default(),
        };
        let service = Service::new(id, spec);
        let task = |number| {
            Write::TaskCreate(Arc::new(Task {
                meta: Meta::default(),
                id: TaskId::from_u128(number),
                service_id: id,
                service_name: "s".into(),
                slot: Slot::Replica(1),
                node_id: None,
                spec: Arc::default(),
                spec_version: 0,
                ports: Vec::new(),
                networks: Vec::new(),
                desired: TaskState::Shutdown,
                start_after: None,
                status: TaskStatus { state: TaskState::Failed, ..TaskStatus::default() },
            }))
        };
        let mut state = State::default();
        let mut writes = vec![Write::ServiceCreate(Box::new(service))];
        writes.extend((1..=6).map(task));
        state.apply(1, 1, Command { writes, ..Command::default() }).expect("legal");
        assert_eq!(history(&state), None);
        state.apply(2, 1, Command { writes: vec![task(7)], ..Command::default() }).expect("legal");
        assert!(history(&state).is_some());
    }
}
