//! `/_ping`, `/version` and `/info`: the engine's answers with the swarm's part in place of its own.

use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, TRANSFER_ENCODING};
use hyper::{HeaderMap, Method, Response, StatusCode};
use serde_json::{Value, json};
use shoal_actors::api::{Local, LocalState};
use shoal_core::model::{Role, constraint::normal_arch};

use super::super::body::{self, Answer, empty, full};
use super::super::context::Context;
use super::super::convert::cluster_info;
use super::super::error::HttpError;
use super::super::route::{API_MAX, API_MIN, ApiVersion};
use super::super::types::{Peer, SwarmInfo};

const SHOAL_VERSION: &str = env!("CARGO_PKG_VERSION");

/// The API version to advertise: what passes through is spoken by the engine.
fn api_version(engine: Option<&str>) -> ApiVersion {
    engine.and_then(ApiVersion::parse).map_or(API_MAX, |engine| engine.min(API_MAX))
}

fn state_word(local: &Local) -> &'static str {
    match local.state {
        LocalState::Inactive => "inactive",
        LocalState::Pending => "pending",
        LocalState::Active => "active",
        LocalState::Error => "error",
    }
}

/// `GET|HEAD /_ping`
pub(in crate::http) async fn ping(context: &Context, method: &Method) -> Answer {
    let mut headers = HeaderMap::new();
    if context.engine.is_configured()
        && let Ok((_, of_engine, _)) = context.engine.ask("/_ping").await
    {
        headers = of_engine;
        for name in [CONTENT_LENGTH, TRANSFER_ENCODING, hyper::header::CONNECTION, hyper::header::DATE] {
            headers.remove(name);
        }
    }
    let mut set = |name: &'static str, value: String| {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    let local = context.api.local();
    set("api-version", api_version(context.engine.api_version().as_deref()).to_string());
    set(
        "swarm",
        match (local.state, local.is_manager) {
            (LocalState::Active, true) => "active/manager".to_owned(),
            (LocalState::Active, false) => "active/worker".to_owned(),
            _ => state_word(&local).to_owned(),
        },
    );
    set("server", format!("Shoal/{SHOAL_VERSION} ({})", std::env::consts::OS));
    for (name, value) in [
        ("ostype", std::env::consts::OS),
        ("docker-experimental", "false"),
        ("cache-control", "no-cache, no-store, must-revalidate"),
        ("pragma", "no-cache"),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    let mut answer = if method == Method::HEAD { empty(StatusCode::OK) } else { Response::new(full("OK")) };
    *answer.headers_mut() = headers;
    answer
}

/// What the engine says to a question, as an object; none if it is away or there is none.
async fn of_engine(context: &Context, path: &str) -> Option<Result<serde_json::Map<String, Value>, Answer>> {
    if !context.engine.is_configured() {
        return None;
    }
    let (status, _, bytes) = context.engine.ask(path).await.ok()?;
    if status != StatusCode::OK {
        // The engine's own words, such as a client that is too new for it.
        let mut answer = Response::new(full(bytes));
        *answer.status_mut() = status;
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        return Some(Err(answer));
    }
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(object)) => Some(Ok(object)),
        _ => None,
    }
}

/// `GET /version`
pub(in crate::http) async fn version(context: &Context, path: &str) -> Answer {
    let component = json!({
        "Name": "Shoal",
        "Version": SHOAL_VERSION,
        "Details": { "ApiVersion": API_MAX.to_string(), "MinAPIVersion": API_MIN.to_string() },
    });
    let mut object = match of_engine(context, path).await {
        Some(Ok(object)) => object,
        Some(Err(answer)) => return answer,
        None => {
            let own = json!({
                "Platform": { "Name": "Shoal" },
                "Version": SHOAL_VERSION,
                "Os": std::env::consts::OS,
                "Arch": normal_arch(std::env::consts::ARCH),
            });
            own.as_object().cloned().unwrap_or_default()
        }
    };
    match object.get_mut("Components") {
        Some(Value::Array(components)) => components.push(component),
        _ => {
            object.insert("Components".into(), Value::Array(vec![component]));
        }
    }
    let advertised = api_version(object.get("ApiVersion").and_then(Value::as_str));
    object.insert("ApiVersion".into(), advertised.to_string().into());
    object.insert("MinAPIVersion".into(), API_MIN.to_string().into());
    body::json(StatusCode::OK, &object)
}

/// `GET /info`
pub(in crate::http) async fn info(context: &Context, path: &str) -> Result<Answer, HttpError> {
    let local = context.api.local();
    let mut object = match of_engine(context, path).await {
        Some(Ok(object)) => object,
        Some(Err(answer)) => return Ok(answer),
        None => own_info(context, &local),
    };
    let swarm = serde_json::to_value(swarm_info(context, &local))
        .map_err(|error| HttpError::internal(error.to_string()))?;
    object.insert("Swarm".into(), swarm);
    Ok(body::json(StatusCode::OK, &object))
}

/// What can be said of this host without an engine.
fn own_info(context: &Context, local: &Local) -> serde_json::Map<String, Value> {
    let description = local.description.clone().unwrap_or_default();
    let warnings: Vec<&str> = if context.engine.is_configured() {
        vec!["WARNING: the local Docker engine does not answer"]
    } else {
        vec!["WARNING: there is no Docker engine on this node: tasks run as plain processes"]
    };
    let own = json!({
        "ID": local.node_id.map(|id| id.to_string()).unwrap_or_default(),
        "Name": description.hostname,
        "ServerVersion": description.engine.version,
        "OperatingSystem": description.platform.os,
        "OSType": std::env::consts::OS,
        "Architecture": description.platform.architecture,
        "NCPU": description.resources.nano_cpus / 1_000_000_000,
        "MemTotal": description.resources.memory_bytes,
        "Containers": 0, "ContainersRunning": 0, "ContainersPaused": 0, "ContainersStopped": 0, "Images": 0,
        "Driver": "", "DriverStatus": [], "SystemStatus": null,
        "Plugins": { "Volume": null, "Network": null, "Authorization": null, "Log": null },
        "Labels": description.engine.labels.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>(),
        "Warnings": warnings,
    });
    own.as_object().cloned().unwrap_or_default()
}

/// `.Swarm` of `/info`.
fn swarm_info(context: &Context, local: &Local) -> SwarmInfo {
    let mut info = SwarmInfo {
        node_id: Some(local.node_id.map(|id| id.to_string()).unwrap_or_default()),
        node_addr: Some(local.addr.map(|addr| addr.ip().to_string()).unwrap_or_default()),
        local_node_state: Some(state_word(local).to_owned()),
        control_available: Some(local.is_manager && local.state == LocalState::Active),
        error: Some(local.error.clone()),
        ..SwarmInfo::default()
    };
    if local.state != LocalState::Inactive {
        let peer = |(id, addr): &(_, String)| Peer {
            node_id: Some(shoal_core::model::NodeId::to_string(id)),
            addr: Some(addr.clone()),
        };
        info.remote_managers = Some(local.managers.iter().map(peer).collect());
    }
    if local.is_manager
        && let Ok(state) = context.api.state()
    {
        let managers = state.nodes().filter(|node| node.spec.role == Role::Manager).count();
        info.nodes = Some(state.nodes().len() as u64);
        info.managers = Some(managers as u64);
        info.cluster = state.cluster().map(|cluster| cluster_info(cluster));
    }
    info
}
