//! `/services`

use std::sync::Arc;

use hyper::{HeaderMap, StatusCode};
use shoal_core::attach;
use shoal_core::model::{
    RegistryAuth, Secret, Service, ServiceId, ServiceMode, ServiceSpec, TaskState, UpdateStatus,
};
use shoal_core::store::{Expect, ObjectId, State, Write};

use super::super::body::{self, Answer};
use super::super::clock;
use super::super::context::Context;
use super::super::convert::{insert_defaults, service_json, service_spec};
use super::super::decode::decode;
use super::super::error::HttpError;
use super::super::names;
use super::super::query::Query;
use super::super::types::{self, ServiceCreated, ServiceStatus, ServiceUpdated};
use super::pick;

const FILTERS: [&str; 5] = ["id", "label", "mode", "name", "runtime"];
/// Header with the credentials of the image's registry.
const REGISTRY_AUTH: &str = "x-registry-auth";
/// Names that are invented at most before a service is refused one.
const INVENTIONS_MAX: u32 = 16;
/// Bytes of credentials.
const REGISTRY_AUTH_BYTES_MAX: usize = 64 << 10;

/// The service that a word means.
///
/// # Errors
/// 404, or 400 if several fit.
pub(super) fn resolve(state: &State, wanted: &str) -> Result<Arc<Service>, HttpError> {
    pick("service", wanted, state.services(), |s| s.id.to_string(), |s| s.spec.name == wanted).cloned()
}

/// `GET /services?filters&status`
pub(in crate::http) async fn list(context: &Context, query: &Query) -> Result<Answer, HttpError> {
    let filters = query.filters(&FILTERS)?;
    for mode in filters.values("mode") {
        if !matches!(mode, "replicated" | "global" | "replicated-job" | "global-job") {
            return Err(HttpError::invalid(format!(
                "invalid mode filter '{mode}': replicated or global is wanted"
            )));
        }
    }
    let snapshot = context.read().await?;
    let services: Vec<_> = snapshot
        .state
        .services()
        .filter(|service| {
            filters.any("id", |prefix| service.id.to_string().starts_with(prefix))
                && filters.any("name", |prefix| service.spec.name.starts_with(prefix))
                && filters.any("mode", |mode| mode == mode_word(&service.spec.mode))
                && filters.labels("label", &service.spec.labels)
                && filters.any("runtime", |runtime| runtime == "container")
        })
        .map(|service| {
            let status = query.flag("status").then(|| status(&snapshot.state, service));
            service_json(service, &snapshot.state, status)
        })
        .collect();
    Ok(snapshot.mark(body::json(StatusCode::OK, &services)))
}

fn mode_word(mode: &ServiceMode) -> &'static str {
    match mode {
        ServiceMode::Replicated { .. } => "replicated",
        ServiceMode::Global => "global",
    }
}

/// How many tasks a service has and shall have.
fn status(state: &State, service: &Service) -> ServiceStatus {
    let live = || state.tasks_of_service(service.id).filter(|task| task.desired <= TaskState::Running);
    let running = live().filter(|task| task.status.state == TaskState::Running).count() as u64;
    let desired = match service.spec.mode {
        ServiceMode::Replicated { replicas } => replicas,
        ServiceMode::Global => live().filter(|task| !task.status.state.is_terminal()).count() as u64,
    };
    ServiceStatus { running_tasks: Some(running), desired_tasks: Some(desired), completed_tasks: Some(0) }
}

/// `GET /services/{id}?insertDefaults`
pub(in crate::http) async fn inspect(
    context: &Context,
    id: &str,
    query: &Query,
) -> Result<Answer, HttpError> {
    let snapshot = context.read().await?;
    let mut json = service_json(&*resolve(&snapshot.state, id)?, &snapshot.state, None);
    if query.flag("insertDefaults") {
        insert_defaults(&mut json);
    }
    Ok(snapshot.mark(body::json(StatusCode::OK, &json)))
}

/// `POST /services/create`
pub(in crate::http) async fn create(
    context: &Context,
    headers: &HeaderMap,
    bytes: &[u8],
) -> Result<Answer, HttpError> {
    let json: types::ServiceSpec = decode(bytes, "Spec")?;
    // A network may have been made a moment ago, at another manager.
    let state = if names_networks(&json) { context.read().await?.state } else { State::default() };
    let mut spec = service_spec(json, &state)?;
    if let Some(auth) = registry_auth(headers)? {
        Arc::make_mut(&mut spec.task).container.registry_auth = Some(auth);
    }
    if spec.name.is_empty() {
        spec.name = invent_name(context, &context.api.state()?)?;
    }
    stays_visible(&state, None, &spec)?;
    let id = context.draw(|rng| ServiceId::random(rng));
    let service = Service::new(id, spec);
    context
        .propose(vec![Expect::Absent(ObjectId::Service(id))], vec![Write::ServiceCreate(Box::new(service))])
        .await?;
    Ok(body::json(StatusCode::CREATED, &ServiceCreated { id: id.to_string(), warnings: None }))
}

/// Refuse a name in a network that a user's container has there already.
fn stays_visible(state: &State, before: Option<&ServiceSpec>, after: &ServiceSpec) -> Result<(), HttpError> {
    attach::hidden(state, before, after).map_or(Ok(()), |hidden| Err(HttpError::conflict(hidden.to_string())))
}

fn names_networks(json: &types::ServiceSpec) -> bool {
    let of_tasks = json.task_template.as_ref().and_then(|task| task.networks.as_ref());
    [json.networks.as_ref(), of_tasks].into_iter().flatten().any(|networks| !networks.is_empty())
}

fn invent_name(context: &Context, state: &State) -> Result<String, HttpError> {
    (0..INVENTIONS_MAX)
        .map(|attempt| context.draw(|rng| names::invent(rng, attempt)))
        .find(|name| state.service_named(name).is_none())
        .ok_or_else(|| HttpError::field("Spec.Name", "no free name could be invented: give one"))
}

/// The credentials that came with a request, as the client encoded them.
fn registry_auth(headers: &HeaderMap) -> Result<Option<RegistryAuth>, HttpError> {
    let Some(value) = headers.get(REGISTRY_AUTH) else { return Ok(None) };
    let bytes = value.as_bytes();
    if bytes.len() > REGISTRY_AUTH_BYTES_MAX {
        return Err(HttpError::field("X-Registry-Auth", "too long"));
    }
    // `{}` in base 64: some clients send credentials that hold nothing.
    let holds_nothing = bytes.is_empty() || bytes == b"e30=" || bytes == b"e30";
    Ok((!holds_nothing).then(|| RegistryAuth(Secret(bytes.to_vec()))))
}

/// `POST /services/{id}/update?version&registryAuthFrom&rollback`
pub(in crate::http) async fn update(
    context: &Context,
    id: &str,
    query: &Query,
    headers: &HeaderMap,
    bytes: &[u8],
) -> Result<Answer, HttpError> {
    let version = query.version("service")?;
    let rollback = match query.get("rollback") {
        None => false,
        Some("previous") => true,
        Some(other) => {
            return Err(HttpError::field("rollback", format!("{other:?} is unknown: previous is wanted")));
        }
    };
    // The body counts for nothing in a rollback; clients send one all the same, and not always a whole one.
    let wanted = if rollback { None } else { Some(decode(bytes, "Spec")?) };
    let snapshot = context.read().await?;
    let wanted = wanted.map(|json| service_spec(json, &snapshot.state)).transpose()?;
    let service = resolve(&snapshot.state, id)?;
    if service.meta.spec_version != version {
        return Err(HttpError::out_of_sequence());
    }
    let spec = match wanted {
        Some(spec) => with_auth(spec, &service, query, headers)?,
        None => previous(&service)?,
    };
    check_same_kind(&service.spec, &spec)?;
    stays_visible(&snapshot.state, Some(&service.spec), &spec)?;
    let mut writes = vec![Write::ServiceSpec(service.id, spec)];
    if rollback {
        // So it goes by the service's rules for going back, and says so.
        writes.push(Write::ServiceUpdate(service.id, Some(UpdateStatus::rollback(clock::now()))));
    } else if service.update.is_some() {
        // What is told of the last update does not hold for this one, and a paused one goes on.
        writes.push(Write::ServiceUpdate(service.id, None));
    }
    context.propose(vec![Expect::SpecVersion(ObjectId::Service(service.id), version)], writes).await?;
    Ok(body::json(StatusCode::OK, &ServiceUpdated { warnings: None }))
}

fn previous(service: &Service) -> Result<ServiceSpec, HttpError> {
    service.previous_spec.clone().ok_or_else(|| {
        HttpError::invalid(format!(
            "rpc error: code = FailedPrecondition desc = service {} does not have a previous spec",
            service.id
        ))
    })
}

/// The specification with the credentials that came along, or those that the service has.
fn with_auth(
    mut spec: ServiceSpec,
    service: &Service,
    query: &Query,
    headers: &HeaderMap,
) -> Result<ServiceSpec, HttpError> {
    let kept = match query.get("registryAuthFrom") {
        None | Some("spec") => Some(&service.spec),
        Some("previous-spec") => service.previous_spec.as_ref(),
        Some(other) => {
            return Err(HttpError::field(
                "registryAuthFrom",
                format!("{other:?} is unknown: spec or previous-spec is wanted"),
            ));
        }
    };
    let kept = kept.and_then(|spec| spec.task.container.registry_auth.clone());
    if let Some(auth) = registry_auth(headers)?.or(kept) {
        Arc::make_mut(&mut spec.task).container.registry_auth = Some(auth);
    }
    if spec.name.is_empty() {
        spec.name.clone_from(&service.spec.name);
    }
    Ok(spec)
}

fn check_same_kind(old: &ServiceSpec, new: &ServiceSpec) -> Result<(), HttpError> {
    if old.name != new.name {
        return Err(HttpError::unsupported(
            "rpc error: code = Unimplemented desc = renaming services is not supported: create one of that name",
        ));
    }
    if mode_word(&old.mode) != mode_word(&new.mode) {
        return Err(HttpError::unsupported(
            "rpc error: code = Unimplemented desc = service mode change is not allowed: create another service",
        ));
    }
    Ok(())
}

/// `DELETE /services/{id}`
pub(in crate::http) async fn remove(context: &Context, id: &str) -> Result<Answer, HttpError> {
    let snapshot = context.read().await?;
    let service = resolve(&snapshot.state, id)?;
    let there = Expect::Exists(ObjectId::Service(service.id));
    context.propose(vec![there], vec![Write::ServiceRemove(service.id)]).await?;
    Ok(body::empty(StatusCode::OK))
}
