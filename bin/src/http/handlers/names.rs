//! `/shoal/v1/names`: how services are reached, and which of their tasks take traffic, for programs outside of the cluster.

use std::collections::BTreeSet;
use std::sync::Arc;

use hyper::StatusCode;
use serde_json::{Value, json};
use shoal_core::mesh::{Route, RouteNetwork};
use shoal_core::model::{Service, Task, TaskId};
use shoal_core::store::State;

use super::super::body::{self, Answer};
use super::super::context::Context;
use super::super::convert::port_json;
use super::super::error::HttpError;
use super::super::query::Query;
use super::services;

/// `GET /shoal/v1/names?service`: services with a port on the mesh or a place in a network; others cannot be reached.
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
    let route = Route::of(state, service)?;
    let takers: BTreeSet<TaskId> = route.backends.iter().map(|backend| backend.task).collect();
    let tasks = state.tasks_of_service(service.id).filter(|task| task.is_live() || task.occupies_node());
    Some(json!({
        "ID": service.id.to_string(),
        "Name": route.name,
        "Networks": route.networks.iter().map(network).collect::<Vec<_>>(),
        "Ports": service.spec.endpoint.ports.iter().map(port_json).collect::<Vec<_>>(),
        "Tasks": tasks.map(|entry| task(entry, takers.contains(&entry.id))).collect::<Vec<_>>(),
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

fn task(task: &Task, takes_traffic: bool) -> Value {
    json!({
        "ID": task.id.to_string(),
        "Name": task.name(),
        "NodeID": task.node_id.map(|id| id.to_string()).unwrap_or_default(),
        "Addresses": task.networks.iter().flat_map(|place| &place.addresses).collect::<Vec<_>>(),
        "State": task.status.state.as_str(),
        "TakesTraffic": takes_traffic,
    })
}
