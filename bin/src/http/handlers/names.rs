//! `/shoal/v1/names`: how services are reached, and which of their tasks take traffic, for programs outside of the cluster.

use std::sync::Arc;

use hyper::StatusCode;
use serde_json::{Value, json};
use shoal_core::mesh::{Route, RouteNetwork, takes_traffic};
use shoal_core::model::{PortMode, Service, Task, TaskState};
use shoal_core::store::State;

use super::super::body::{self, Answer};
use super::super::context::Context;
use super::super::convert::port_json;
use super::super::error::HttpError;
use super::super::query::Query;
use super::services;

/// `GET /shoal/v1/names?service`: services with a published port or a place in a network; others cannot be reached.
pub(in crate::http) async fn list(context: &Context, query: &Query) -> Result<Answer, HttpError> {
    let snapshot = context.read().await?;
    let state = &snapshot.state;
    let wanted: Vec<Arc<Service>> = match query.get("service") {
        Some(name) => vec![services::resolve(state, name)?],
        None => state.services().cloned().collect(),
    };
    let names: Vec<Value> = wanted.iter().filter_map(|service| name(state, service)).collect();
    Ok(snapshot.mark(body::json(StatusCode::OK, &names)))
}

fn name(state: &State, service: &Service) -> Option<Value> {
    let route = Route::of(state, service);
    if route.is_none() && service.spec.endpoint.ports.is_empty() {
        return None;
    }
    let networks = route.map(|route| route.networks).unwrap_or_default();
    let tasks = state.tasks_of_service(service.id).filter(|task| task.is_live() || task.occupies_node());
    Some(json!({
        "ID": service.id.to_string(),
        "Name": service.spec.name,
        "Networks": networks.iter().map(network).collect::<Vec<_>>(),
        "Ports": service.spec.endpoint.ports.iter().map(port_json).collect::<Vec<_>>(),
        "Tasks": tasks.map(|entry| task(state, entry)).collect::<Vec<_>>(),
    }))
}

fn network(place: &RouteNetwork) -> Value {
    json!({
        "ID": place.network.id.to_string(),
        "Name": place.network.name.as_ref(),
        "VirtualAddresses": place.addresses,
        "Aliases": place.aliases,
    })
}

fn task(state: &State, task: &Task) -> Value {
    let node = task.node_id.and_then(|id| state.node(id));
    let on_host = task.ports.iter().filter(|port| port.mode == PortMode::Host);
    json!({
        "ID": task.id.to_string(),
        "Name": task.name(),
        "NodeID": task.node_id.map(|id| id.to_string()).unwrap_or_default(),
        "Node": node.map_or("", |node| node.hostname()),
        "Addresses": task.networks.iter().flat_map(|place| &place.addresses).collect::<Vec<_>>(),
        "Ports": on_host.map(port_json).collect::<Vec<_>>(),
        "State": task.status.state.as_str(),
        "Health": health(task),
        "TakesTraffic": node.is_some_and(|node| takes_traffic(task, node)),
    })
}

/// What is known of a task's health, in a word: one runs only once it is healthy, where that is checked.
fn health(task: &Task) -> &'static str {
    match task.status.state {
        _ if task.desired > TaskState::Running => "stopping",
        _ if task.is_sick() => "unhealthy",
        TaskState::Running => "healthy",
        TaskState::Starting => "starting",
        _ => "waiting",
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use shoal_core::model::{Meta, ServiceId, Slot, TaskId, TaskStatus};

    use super::*;

    #[test]
    fn the_health_of_a_task_is_one_word() {
        for (desired, now, error, expected) in [
            (TaskState::Running, TaskState::Pending, "no node fits", "waiting"),
            (TaskState::Ready, TaskState::Ready, "", "waiting"),
            (TaskState::Running, TaskState::Starting, "", "starting"),
            (TaskState::Running, TaskState::Running, "", "healthy"),
            (TaskState::Running, TaskState::Running, "unhealthy container", "unhealthy"),
            (TaskState::Shutdown, TaskState::Running, "", "stopping"),
        ] {
            let task = Task {
                meta: Meta::default(),
                id: TaskId::from_u128(1),
                service_id: ServiceId::from_u128(1),
                service_name: "web".into(),
                slot: Slot::Replica(1),
                node_id: None,
                spec: Arc::default(),
                spec_version: 1,
                ports: Vec::new(),
                networks: Vec::new(),
                desired,
                start_after: None,
                status: TaskStatus { state: now, error: error.into(), ..TaskStatus::default() },
            };
            assert_eq!(health(&task), expected, "{desired:?} {now:?}");
        }
    }
}
