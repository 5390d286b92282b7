//! `/containers/create` and what puts containers into networks: in those of the cluster they get places from the managers,
//! all others are the engine's.

use std::sync::Arc;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode};
use serde_json::{Map, Value};
use shoal_actors::api::{ApiError, LocalState};
use shoal_core::attach::{Ask, Wanted};
use shoal_core::model::{Attachment, AttachmentId, TaskNetwork};
use shoal_runtime_docker as runtime;

use super::super::body::{self, Answer};
use super::super::context::Context;
use super::super::error::HttpError;
use super::super::proxy;
use super::super::query::{Query, escape};
use super::networks::{of_engine_named, spare_bridge};

/// A container as the engine knows it.
struct Container {
    id: String,
    name: String,
    /// What its user chose as its hostname.
    hostname: Option<String>,
    /// Whether it is a task's.
    is_task: bool,
}

impl Container {
    /// Its id and name.
    fn names(&self) -> (String, String) {
        (self.id.clone(), self.name.clone())
    }
}

/// Places in those of the networks that are the cluster's; none if none is, which is for the engine to judge.
async fn enter(
    context: &Context,
    container: (String, String),
    networks: Vec<Wanted>,
) -> Result<Option<Arc<Attachment>>, HttpError> {
    if networks.is_empty()
        || !context.engine.is_configured()
        || context.api.local().state != LocalState::Active
    {
        return Ok(None);
    }
    let id = context.draw(|rng| AttachmentId::random(rng));
    let words: Vec<String> = networks.iter().map(|wanted| wanted.network.clone()).collect();
    let error = match context.api.attach(Ask::Enter { id, container, networks }).await {
        Ok(told) => return Ok(told.into_iter().next()),
        Err(error) => error,
    };
    // Nobody says whose they are. What the engine has of its own goes on as without a cluster.
    let unknown = matches!(error, ApiError::NoLeader(_) | ApiError::NotInCluster);
    if unknown && are_the_engines(context, &words).await { Ok(None) } else { Err(error.into()) }
}

/// Whether the engine has all of these networks, and none of them for the cluster.
async fn are_the_engines(context: &Context, words: &[String]) -> bool {
    for word in words {
        let Some(network) = of_engine_named(context, word).await else { return false };
        if network["Labels"].get(runtime::BRIDGE_LABEL).is_some() {
            return false;
        }
    }
    true
}

/// Give back what came of [`enter`]. What fails here is given back when the node looks at its containers.
async fn leave(context: &Context, attachment: &Attachment, network: Option<&TaskNetwork>) {
    let network = network.map(|place| place.network.id);
    if let Err(error) = context.api.attach(Ask::Leave { id: attachment.id, network }).await {
        tracing::info!(%error, container = attachment.title(), "a place in a network is given back later");
    }
}

/// `POST /containers/create`
pub(in crate::http) async fn create(
    context: &Arc<Context>,
    request: Request<Incoming>,
) -> Result<Answer, HttpError> {
    let (parts, incoming) = request.into_parts();
    let bytes = body::read(incoming).await?;
    // Anything malformed is the engine's to judge.
    let wanted: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let networks = runtime::wanted(&wanted);
    let name = Query::parse(parts.uri.query())?.get("name").unwrap_or_default().to_owned();
    let (Some(attachment), Value::Object(mut wanted)) =
        (enter(context, (String::new(), name), networks).await?, wanted)
    else {
        return proxy::forward_read(context, parts, bytes).await;
    };
    if let Err(problem) = runtime::enter_new(&mut wanted, &attachment) {
        leave(context, &attachment, None).await;
        return Err(HttpError::field("NetworkingConfig.EndpointsConfig", problem));
    }
    make(context, parts, Value::Object(wanted), &attachment).await
}

/// Let the engine make a container, and tell the managers which it is. If it is not known whether it was made, the node
/// finds out when it looks at its containers.
async fn make(
    context: &Arc<Context>,
    parts: Parts,
    wanted: Value,
    attachment: &Attachment,
) -> Result<Answer, HttpError> {
    let answer = proxy::forward_read(context, parts, wanted.to_string().into()).await?;
    if !answer.status().is_success() {
        leave(context, attachment, None).await;
        return Ok(answer);
    }
    let (head, content) = answer.into_parts();
    let bytes = body::collect(content).await?;
    let answer: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let id = answer["Id"].as_str().unwrap_or_default();
    if let Err(error) = tell(context, attachment, id).await {
        // Its addresses might be another's soon, and the client takes it for not made.
        if remove(context, id).await {
            leave(context, attachment, None).await;
        }
        return Err(error);
    }
    Ok(Response::from_parts(head, body::full(bytes)))
}

/// Tell the managers which container has the places.
async fn tell(context: &Context, attachment: &Attachment, id: &str) -> Result<(), HttpError> {
    let container = inspect(context, id).await?;
    let container = container.ok_or_else(|| HttpError::conflict("the container was removed meanwhile"))?;
    context.api.attach(Ask::Made { id: attachment.id, container: container.names() }).await?;
    Ok(())
}

/// Remove a container. Returns whether the engine has it no more.
async fn remove(context: &Context, id: &str) -> bool {
    let request = Request::builder()
        .method(Method::DELETE)
        .uri(format!("/containers/{}?force=1&v=1", escape(id)))
        .header(hyper::header::HOST, "docker")
        .body(body::full(Bytes::new()));
    let Ok(request) = request else { return false };
    match context.engine.send(request).await {
        Ok(answer) => answer.status().is_success() || answer.status() == StatusCode::NOT_FOUND,
        Err(error) => {
            tracing::warn!(id, %error, "a container that is in no network after all could not be removed");
            false
        }
    }
}

/// What the engine knows of a container; none if it has none of that name.
async fn inspect(context: &Context, word: &str) -> Result<Option<Container>, HttpError> {
    let (status, _, bytes) = context.engine.ask(&format!("/containers/{}/json", escape(word))).await?;
    if status == StatusCode::NOT_FOUND {
        return Ok(None);
    }
    let wrong =
        || HttpError::internal(format!("the engine does not describe its container {word}: {status}"));
    let container: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let text = |field: &str| container[field].as_str().map(ToOwned::to_owned).ok_or_else(wrong);
    Ok(Some(Container {
        id: text("Id")?,
        name: text("Name")?.trim_start_matches('/').to_owned(),
        hostname: runtime::hostname(&container),
        is_task: runtime::is_task(&container),
    }))
}

/// The container that a request to put one into a network, or out of one, is about; none if the engine has none of that name.
async fn container_of(
    context: &Context,
    request: &Map<String, Value>,
) -> Result<Option<Container>, HttpError> {
    let named = request.iter().filter(|(key, _)| key.eq_ignore_ascii_case("Container"));
    match named.filter_map(|(_, value)| value.as_str()).next() {
        Some(word) if context.engine.is_configured() => inspect(context, word).await,
        _ => Ok(None),
    }
}

/// The request's path with the network's name on the engine in place of what the client called it.
fn renamed(parts: &mut Parts, network: &str, verb: &str) -> Result<(), HttpError> {
    let path = parts.uri.path();
    let version = path.strip_prefix("/v").and_then(|rest| rest.split('/').next());
    let version = version.map(|version| format!("/v{version}")).unwrap_or_default();
    let uri = format!("{version}/networks/{}/{verb}", escape(network));
    parts.uri = uri.parse().map_err(|_| HttpError::invalid(format!("{uri:?} is no path")))?;
    Ok(())
}

/// What the managers have of a container. Without a cluster, or while they are away, the engine goes on alone: what leaves
/// a network then is given back in time.
async fn attachment_of(context: &Context, container: &Container) -> Option<Arc<Attachment>> {
    let all = context.api.attach(Ask::List).await.unwrap_or_default();
    all.into_iter().find(|attachment| attachment.container == container.id)
}

fn place_in<'a>(attachment: &'a Attachment, network: &str) -> Option<&'a TaskNetwork> {
    attachment.networks.iter().find(|place| runtime::is_named(place, network))
}

/// Pass on what is about a network of the engine's alone.
async fn engines(
    context: &Arc<Context>,
    parts: Parts,
    bytes: Bytes,
    network: &str,
) -> Result<Answer, HttpError> {
    spare_bridge(context, network).await?;
    proxy::forward_read(context, parts, bytes).await
}

/// `POST /networks/{id}/connect`
pub(in crate::http) async fn connect(
    context: &Arc<Context>,
    request: Request<Incoming>,
    network: &str,
) -> Result<Answer, HttpError> {
    let (mut parts, incoming) = request.into_parts();
    let bytes = body::read(incoming).await?;
    let Ok(Value::Object(mut wanted)) = serde_json::from_slice(&bytes) else {
        return engines(context, parts, bytes, network).await;
    };
    let config = wanted.keys().find(|key| key.eq_ignore_ascii_case("EndpointConfig")).cloned();
    let config = config.unwrap_or_else(|| "EndpointConfig".to_owned());
    let settings = wanted.remove(&config).unwrap_or_default();
    let aliases = runtime::aliases(&settings);
    // One that is not there, or in no network of the cluster, is the engine's to judge.
    let Some(container) = container_of(context, &wanted).await? else {
        return engines(context, parts, bytes, network).await;
    };
    let known = attachment_of(context, &container).await;
    if let Some(place) = known.as_ref().and_then(|known| place_in(known, network)) {
        // The engine refuses it in its own words.
        renamed(&mut parts, &place.network.name, "connect")?;
        return proxy::forward_read(context, parts, bytes).await;
    }
    let aliases = aliases.into_iter().chain(container.hostname.clone()).collect();
    let wish = Wanted { network: network.to_owned(), aliases };
    let Some(attachment) = enter(context, container.names(), vec![wish]).await? else {
        return engines(context, parts, bytes, network).await;
    };
    let place = place_in(&attachment, network);
    let place =
        place.ok_or_else(|| HttpError::internal(format!("no place in network {network} was given")))?;
    let answer = if container.is_task {
        let problem = format!("{} is a task: change its service with --network-add", container.name);
        Err(HttpError::forbidden(problem))
    } else {
        match runtime::enter(settings, place) {
            Ok(settings) => {
                wanted.insert(config, settings);
                renamed(&mut parts, &place.network.name, "connect")?;
                proxy::forward_read(context, parts, Value::Object(wanted).to_string().into()).await
            }
            Err(why) => Err(HttpError::field("EndpointConfig", why)),
        }
    };
    // An engine that broke off may have connected it: the node finds out.
    if answer.as_ref().map_or_else(|refused| refused.status.is_client_error(), |a| !a.status().is_success()) {
        leave(context, &attachment, Some(place)).await;
    }
    answer
}

/// `POST /networks/{id}/disconnect`
pub(in crate::http) async fn disconnect(
    context: &Arc<Context>,
    request: Request<Incoming>,
    network: &str,
) -> Result<Answer, HttpError> {
    let (mut parts, incoming) = request.into_parts();
    let bytes = body::read(incoming).await?;
    let wanted: Map<String, Value> = serde_json::from_slice(&bytes).unwrap_or_default();
    let attachment = match container_of(context, &wanted).await? {
        Some(container) => attachment_of(context, &container).await,
        None => None,
    };
    let place = attachment.as_ref().and_then(|attachment| place_in(attachment, network));
    let (Some(attachment), Some(place)) = (&attachment, place) else {
        return engines(context, parts, bytes, network).await;
    };
    renamed(&mut parts, &place.network.name, "disconnect")?;
    let answer = proxy::forward_read(context, parts, bytes).await?;
    if answer.status().is_success() {
        leave(context, attachment, Some(place)).await;
    }
    Ok(answer)
}

/// `POST /containers/{id}/rename?name`
pub(in crate::http) async fn rename(
    context: &Arc<Context>,
    request: Request<Incoming>,
    word: &str,
) -> Result<Answer, HttpError> {
    let name =
        Query::parse(request.uri().query())?.get("name").map(|name| name.trim_start_matches('/').to_owned());
    let container = if context.engine.is_configured() { inspect(context, word).await? } else { None };
    let attachment = match &container {
        Some(container) => attachment_of(context, container).await,
        None => None,
    };
    // Without a name, or in no network of the cluster, it is the engine's to judge.
    let (Some(name), Some(container), Some(attachment)) = (name, container, attachment) else {
        return proxy::forward(context, request).await;
    };
    let wish = |place: &TaskNetwork| Wanted { network: place.network.id.to_string(), aliases: Vec::new() };
    // The managers hear it first: they refuse what would hide a service.
    let known = (container.id.clone(), name);
    enter(context, known, attachment.networks.iter().map(wish).collect()).await?;
    let answer = proxy::forward(context, request).await;
    if !answer.as_ref().is_ok_and(|answer| answer.status().is_success())
        && let Err(error) =
            context.api.attach(Ask::Made { id: attachment.id, container: container.names() }).await
    {
        tracing::info!(%error, container = attachment.title(), "a container's old name is told later");
    }
    answer
}
