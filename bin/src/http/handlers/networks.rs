//! `/networks`: those that span nodes are answered here, all others are the engine's.

use std::sync::Arc;

use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use serde::Deserialize as _;
use serde_json::Value;
use shoal_actors::api::ApiError;
use shoal_core::model::{Network, NetworkId};
use shoal_core::store::{Expect, ObjectId, State, Write};
use shoal_runtime_docker::BRIDGE_LABEL;

use super::super::body::{self, Answer};
use super::super::context::{Context, Snapshot};
use super::super::convert::network::{
    DRIVER, SCOPE, containers_json, network_json, network_spec, services_json, spans_nodes,
};
use super::super::decode::decode;
use super::super::error::HttpError;
use super::super::fold::Folded;
use super::super::proxy;
use super::super::query::{Filters, Query, escape};
use super::super::types::{self, NetworkCreated};
use super::pick;

const FILTERS: [&str; 7] = ["driver", "id", "label", "name", "scope", "type", "dangling"];

/// The network that a word means.
///
/// # Errors
/// 404, or 400 if several fit.
pub(in crate::http) fn resolve(state: &State, wanted: &str) -> Result<Arc<Network>, HttpError> {
    pick("network", wanted, state.networks(), |n| n.id.to_string(), |n| n.spec.name == wanted).cloned()
}

/// The state, where this node has one; elsewhere all networks are the engine's.
pub(super) async fn read(context: &Context) -> Result<Option<Snapshot>, HttpError> {
    match context.api.state() {
        Err(ApiError::NotInCluster | ApiError::NotManager) => Ok(None),
        _ => context.read().await.map(Some),
    }
}

/// What a word names among our networks; none where it is for the engine to say.
async fn named(context: &Context, wanted: &str) -> Result<Option<(Snapshot, Arc<Network>)>, HttpError> {
    let Some(snapshot) = read(context).await? else { return Ok(None) };
    let network = match resolve(&snapshot.state, wanted) {
        Ok(network) => network,
        Err(error) if error.status == StatusCode::NOT_FOUND => return Ok(None),
        Err(error) => return Err(error),
    };
    let whole = network.spec.name == wanted || network.id.to_string() == wanted;
    // The beginning of an id gives way to a name: the engine may have a network of that one.
    if !whole && engine_has(context, wanted).await { Ok(None) } else { Ok(Some((snapshot, network))) }
}

/// What the engine means by a word, if it has such a network.
pub(super) async fn of_engine_named(context: &Context, wanted: &str) -> Option<Value> {
    let (status, _, bytes) = context.engine.ask(&format!("/networks/{}", escape(wanted))).await.ok()?;
    if status == StatusCode::OK { serde_json::from_slice(&bytes).ok() } else { None }
}

/// Whether the engine has a network of this name.
async fn engine_has(context: &Context, name: &str) -> bool {
    of_engine_named(context, name).await.is_some_and(|network| network["Name"] == name)
}

/// Refuse a request about one of the engine's networks if that is a bridge of ours: the tasks behind it would be cut off.
pub(super) async fn spare_bridge(context: &Context, wanted: &str) -> Result<(), HttpError> {
    let Some(network) = of_engine_named(context, wanted).await else { return Ok(()) };
    let (Some(id), Some(name)) = (network["Labels"][BRIDGE_LABEL].as_str(), network["Name"].as_str()) else {
        return Ok(());
    };
    Err(HttpError::forbidden(format!(
        "network {wanted} is the bridge of network {name} ({id}) of the cluster on this node, which goes with its last task here: \
         ask a manager to remove the network itself"
    )))
}

/// Refuse a name for a network of this node that one of the cluster has, as far as that is known here.
async fn is_free_in_cluster(context: &Context, name: &str) -> Result<(), HttpError> {
    let state = context.api.state().ok();
    let known =
        state.as_ref().and_then(|state| state.network_named(name)).map(|network| network.id.to_string());
    let id = match known {
        Some(id) => Some(id),
        None if name.is_empty() => None,
        // A worker knows those that its tasks are in.
        None => of_engine_named(context, name)
            .await
            .filter(|network| network["Name"] == name)
            .and_then(|network| network["Labels"][BRIDGE_LABEL].as_str().map(str::to_owned)),
    };
    let Some(id) = id else { return Ok(()) };
    Err(HttpError::conflict(format!(
        "network with name {name} already exists: network {name} ({id}) of the cluster spans nodes, and one of this node cannot \
         have its name as well: choose another"
    )))
}

/// Refuse a name for a network of the cluster that one of this node's engine has.
async fn is_free_on_engine(context: &Context, name: &str) -> Result<(), HttpError> {
    let found = of_engine_named(context, name).await.filter(|network| network["Name"] == name);
    let Some(network) = found.filter(|network| network["Labels"].get(BRIDGE_LABEL).is_none()) else {
        return Ok(());
    };
    let text = |field: &str| network[field].as_str().unwrap_or_default().to_owned();
    Err(HttpError::conflict(format!(
        "network with name {name} already exists: this node's engine has network {name} ({}, driver {}) of its own, and one of the \
         cluster cannot have its name as well: remove that one, or choose another",
        text("Id"),
        text("Driver")
    )))
}

/// `POST /networks/create`
pub(in crate::http) async fn create(
    context: &Arc<Context>,
    request: Request<Incoming>,
) -> Result<Answer, HttpError> {
    let (parts, incoming) = request.into_parts();
    let bytes = body::read(incoming).await?;
    // Anything malformed is the engine's to judge.
    let value: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let wanted = types::NetworkCreate::deserialize(Folded(value.clone()));
    if !wanted.map_or_else(|_| is_overlay(&value), |wanted| spans_nodes(&wanted)) {
        is_free_in_cluster(context, name_of(&value)).await?;
        return proxy::forward_read(context, parts, bytes).await;
    }
    let spec = network_spec(decode(&bytes, "")?)?;
    // Only a manager makes one: nobody else need look.
    context.api.state()?;
    is_free_on_engine(context, &spec.name).await?;
    let id = context.draw(|rng| NetworkId::random(rng));
    let create = Write::NetworkCreate(Box::new(Network { id, spec, ..Network::default() }));
    context.propose(vec![Expect::Absent(ObjectId::Network(id))], vec![create]).await?;
    let created = NetworkCreated { id: id.to_string(), warning: String::new() };
    Ok(body::json(StatusCode::CREATED, &created))
}

fn name_of(value: &Value) -> &str {
    let mut fields = value.as_object().into_iter().flatten();
    let name = fields.find(|(key, _)| key.eq_ignore_ascii_case("Name"));
    name.and_then(|(_, name)| name.as_str()).unwrap_or_default()
}

/// Whether one that spans nodes was meant though not all of it can be read: then the words of its refusal are ours.
fn is_overlay(value: &Value) -> bool {
    let says = |name: &str, word: &str| {
        let fields = value.as_object().into_iter().flatten();
        fields.filter(|(key, _)| key.eq_ignore_ascii_case(name)).any(|(_, value)| value == word)
    };
    says("Driver", DRIVER) || says("Scope", SCOPE)
}

/// `GET /networks?filters`
pub(in crate::http) async fn list(context: &Context, path: &str, query: &Query) -> Result<Answer, HttpError> {
    let filters = query.filters(&FILTERS)?;
    let snapshot = read(context).await?;
    let engine = of_engine(context, path).await;
    let mut networks = match (engine, &snapshot) {
        (Ok(Ok(networks)), _) => networks,
        (Ok(Err(answer)), _) => return Ok(answer),
        // Without a cluster and without an engine there is nothing to tell.
        (Err(error), None) => return Err(error),
        (Err(_), Some(_)) => Vec::new(),
    };
    networks.retain(|network| network["Labels"].get(BRIDGE_LABEL).is_none());
    let Some(snapshot) = snapshot else { return Ok(body::json(StatusCode::OK, &networks)) };
    for network in snapshot.state.networks().filter(|network| fits(&filters, &snapshot.state, network)) {
        let mut json = network_json(network);
        json.containers = Some(Default::default());
        let json = serde_json::to_value(json).map_err(|error| HttpError::internal(error.to_string()))?;
        networks.push(json);
    }
    Ok(snapshot.mark(body::json(StatusCode::OK, &networks)))
}

/// The engine's own list, or its own words where it refuses.
pub(super) async fn of_engine(
    context: &Context,
    path: &str,
) -> Result<Result<Vec<Value>, Answer>, HttpError> {
    let (status, headers, bytes) = context.engine.ask(path).await?;
    if status == StatusCode::OK {
        let list = serde_json::from_slice::<Option<Vec<Value>>>(&bytes);
        let wrong =
            |error| HttpError::internal(format!("the engine's list of networks cannot be read: {error}"));
        return Ok(Ok(list.map_err(wrong)?.unwrap_or_default()));
    }
    let mut answer = Response::new(body::full(bytes));
    *answer.status_mut() = status;
    if let Some(kind) = headers.get(hyper::header::CONTENT_TYPE) {
        answer.headers_mut().insert(hyper::header::CONTENT_TYPE, kind.clone());
    }
    Ok(Err(answer))
}

/// Whether a network passes the filters of a list.
fn fits(filters: &Filters, state: &State, network: &Network) -> bool {
    filters.any("driver", |driver| driver == DRIVER)
        && filters.any("scope", |scope| scope == SCOPE)
        && filters.any("type", |kind| kind == "custom")
        && filters.any("id", |part| network.id.to_string().contains(part))
        && filters.any("name", |part| matches(part, &network.spec.name))
        && filters.labels("label", &network.spec.labels)
        && filters.any("dangling", |wanted| matches!(wanted, "true" | "1") != is_used(state, network.id))
}

/// Whether a name holds a part; `^` and `$` tie the part to its ends, as clients write that.
fn matches(part: &str, name: &str) -> bool {
    match (part.strip_prefix('^'), part.strip_suffix('$')) {
        (Some(rest), Some(_)) => rest.trim_end_matches('$') == name,
        (Some(start), None) => name.starts_with(start),
        (None, Some(end)) => name.ends_with(end),
        (None, None) => name.contains(part),
    }
}

pub(super) fn is_used(state: &State, id: NetworkId) -> bool {
    state.services().any(|service| service.networks.iter().any(|place| place.network == id))
        || state
            .tasks()
            .any(|task| task.networks.iter().any(|place| place.network.id == id) && task.occupies_node())
        || state.attachments().any(|container| container.networks.iter().any(|place| place.network.id == id))
}

/// `GET /networks/{id}?verbose&scope`
pub(in crate::http) async fn inspect(
    context: &Arc<Context>,
    request: Request<Incoming>,
    wanted: &str,
) -> Result<Answer, HttpError> {
    let query = Query::parse(request.uri().query())?;
    let is_elsewhere = query.get("scope").is_some_and(|scope| scope != SCOPE);
    let found = if is_elsewhere { None } else { named(context, wanted).await? };
    let Some((snapshot, network)) = found else { return proxy::forward(context, request).await };
    let mut json = network_json(&network);
    let containers = context.api.local().node_id.map(|node| containers_json(&snapshot.state, &network, node));
    json.containers = Some(containers.unwrap_or_default());
    json.services = query.flag("verbose").then(|| services_json(&snapshot.state, &network));
    Ok(snapshot.mark(body::json(StatusCode::OK, &json)))
}

/// `DELETE /networks/{id}`
pub(in crate::http) async fn remove(
    context: &Arc<Context>,
    request: Request<Incoming>,
    wanted: &str,
) -> Result<Answer, HttpError> {
    let Some((_, network)) = named(context, wanted).await? else {
        spare_bridge(context, wanted).await?;
        return proxy::forward(context, request).await;
    };
    let there = Expect::Exists(ObjectId::Network(network.id));
    context.propose(vec![there], vec![Write::NetworkRemove(network.id)]).await?;
    Ok(body::empty(StatusCode::NO_CONTENT))
}
