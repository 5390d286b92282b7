//! From an address to its handler. What is not the swarm's goes to the engine.

use std::fmt;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::{Method, Request};

use super::body::{self, Answer};
use super::context::Context;
use super::error::HttpError;
use super::handlers::{
    containers, events, later, names, networks, nodes, ports, prune, services, swarm, system, tasks,
};
use super::proxy;
use super::query::{Query, unescape};

/// A version of Docker's API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ApiVersion {
    major: u16,
    minor: u16,
}

/// The oldest version that is spoken here.
pub(super) const API_MIN: ApiVersion = ApiVersion { major: 1, minor: 24 };
/// The newest.
pub(super) const API_MAX: ApiVersion = ApiVersion { major: 1, minor: 50 };

impl ApiVersion {
    /// Read `1.41`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.split_once('.')?;
        let number = |digits: &str| {
            let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
            plain.then(|| digits.parse::<u16>().unwrap_or(u16::MAX))
        };
        Some(Self { major: number(major)?, minor: number(minor)? })
    }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// Nouns whose addresses are all answered here.
const OURS: [&str; 7] = ["swarm", "nodes", "services", "tasks", "secrets", "configs", "shoal"];

/// Answer a request.
pub(super) async fn answer(context: Arc<Context>, request: Request<Incoming>) -> Answer {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let answer = dispatch(&context, request).await.unwrap_or_else(|error| {
        context.refusals.count(error.status);
        body::error(&error)
    });
    tracing::debug!(%method, path, status = answer.status().as_u16(), "answered");
    answer
}

/// The version that an address names, and the rest of it in parts.
fn split(path: &str) -> Result<(Option<ApiVersion>, Vec<String>), HttpError> {
    let mut parts =
        path.split('/').skip(1).map(|part| unescape(part, false)).collect::<Result<Vec<_>, _>>()?;
    let version = parts.first().and_then(|part| part.strip_prefix('v')).and_then(ApiVersion::parse);
    if version.is_some() {
        parts.remove(0);
    }
    Ok((version, parts))
}

fn check(version: ApiVersion) -> Result<(), HttpError> {
    if version < API_MIN {
        return Err(HttpError::invalid(format!(
            "client version {version} is too old. Minimum supported API version is {API_MIN}, please upgrade \
             your client to a newer version"
        )));
    }
    if version > API_MAX {
        return Err(HttpError::invalid(format!(
            "client version {version} is too new. Maximum supported API version is {API_MAX}"
        )));
    }
    Ok(())
}

async fn dispatch(context: &Arc<Context>, request: Request<Incoming>) -> Result<Answer, HttpError> {
    let (version, parts) = split(request.uri().path())?;
    version.map_or(Ok(()), check)?;
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let method = request.method().clone();
    match (method.as_str(), parts.as_slice()) {
        ("GET" | "HEAD", ["_ping"]) => Ok(system::ping(context, &method).await),
        ("GET", ["version"]) => Ok(system::version(context, &whole_path(&request)).await),
        ("GET", ["info"]) => system::info(context, &whole_path(&request)).await,
        ("GET", ["events"]) => events::stream(context, request).await,
        ("GET", ["networks"]) => {
            let query = Query::parse(request.uri().query())?;
            networks::list(context, &whole_path(&request), &query).await
        }
        ("POST", ["networks", "prune"]) => {
            prune::networks(context, &Query::parse(request.uri().query())?).await
        }
        ("POST", ["networks", "create"]) => networks::create(context, request).await,
        ("GET", ["networks", id]) => networks::inspect(context, request, id).await,
        ("DELETE", ["networks", id]) => networks::remove(context, request, id).await,
        ("POST", ["networks", id, "connect"]) => containers::connect(context, request, id).await,
        ("POST", ["networks", id, "disconnect"]) => containers::disconnect(context, request, id).await,
        ("POST", ["containers", "create"]) => containers::create(context, request).await,
        ("POST", ["containers", id, "rename"]) => containers::rename(context, request, id).await,
        (_, [noun, ..]) if OURS.contains(noun) => ours(context, request, &parts).await,
        _ => proxy::forward(context, request).await,
    }
}

/// The request's path and query, as they came.
fn whole_path(request: &Request<Incoming>) -> String {
    request.uri().path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string)
}

async fn ours(context: &Context, request: Request<Incoming>, parts: &[&str]) -> Result<Answer, HttpError> {
    let (head, incoming) = request.into_parts();
    let query = Query::parse(head.uri.query())?;
    let bytes = body::read(incoming).await?;
    match (&head.method, parts) {
        (&Method::GET, ["swarm"]) => swarm::inspect(context).await,
        (&Method::POST, ["swarm", "init"]) => swarm::init(context, &bytes).await,
        (&Method::POST, ["swarm", "join"]) => swarm::join(context, &bytes).await,
        (&Method::POST, ["swarm", "leave"]) => swarm::leave(context, &query).await,
        (&Method::POST, ["swarm", "update"]) => swarm::update(context, &query, &bytes).await,
        (&Method::GET, ["swarm", "unlockkey"]) => swarm::unlock_key(context).await,
        (&Method::POST, ["swarm", "unlock"]) => Err(swarm::unlock(context, &bytes)),

        (&Method::GET, ["nodes"]) => nodes::list(context, &query).await,
        (&Method::GET, ["nodes", id]) => nodes::inspect(context, id).await,
        (&Method::DELETE, ["nodes", id]) => nodes::remove(context, id, &query).await,
        (&Method::POST, ["nodes", id, "update"]) => nodes::update(context, id, &query, &bytes).await,

        (&Method::GET, ["services"]) => services::list(context, &query).await,
        (&Method::POST, ["services", "create"]) => services::create(context, &head.headers, &bytes).await,
        (&Method::GET, ["services", id]) => services::inspect(context, id, &query).await,
        (&Method::DELETE, ["services", id]) => services::remove(context, id).await,
        (&Method::POST, ["services", id, "update"]) => {
            services::update(context, id, &query, &head.headers, &bytes).await
        }
        (&Method::GET, ["tasks"]) => tasks::list(context, &query).await,
        (&Method::GET, ["tasks", id]) => tasks::inspect(context, id).await,
        (&Method::GET, ["services" | "tasks", _, "logs"]) => Err(later::logs()),

        (&Method::GET, ["shoal", "v1", "ports"]) => Ok(ports::list(context, &query)),
        (&Method::GET, ["shoal", "v1", "names"]) => names::list(context, &query).await,

        (&Method::GET, ["secrets" | "configs"]) => later::empty_list(context).await,
        (&Method::POST, [noun @ ("secrets" | "configs"), "create"]) => Err(later::refused(noun)),
        (_, [noun @ ("secrets" | "configs"), id, ..]) => Err(later::missing(noun.trim_end_matches('s'), id)),
        _ => Err(HttpError::no_page()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn versions_are_taken_off_the_path_and_compared_as_numbers() {
        let (version, parts) = split("/v1.41/services/a%2Fb/logs").unwrap();
        assert_eq!(
            (version, parts),
            (ApiVersion::parse("1.41"), vec!["services".to_owned(), "a/b".to_owned(), "logs".to_owned()])
        );
        assert_eq!(split("/volumes").unwrap(), (None, vec!["volumes".to_owned()]));
        assert_eq!(split("/vile/1").unwrap().0, None);
        assert!(ApiVersion::parse("1.9") < ApiVersion::parse("1.24"));
        for text in ["1", "1.", ".1", "1.x", "1.2.3", "+1.4"] {
            assert_eq!(ApiVersion::parse(text), None, "{text}");
        }
    }

    #[test]
    fn too_old_and_too_new_clients_are_told_what_is_spoken() {
        let told = |text| check(ApiVersion::parse(text).unwrap()).map_err(|e| e.message);
        assert!(told("1.23").unwrap_err().contains("Minimum supported API version is 1.24"));
        assert!(told("1.51").unwrap_err().contains("Maximum supported API version is 1.50"));
        assert!(told("99999999.1").is_err());
        assert_eq!((told("1.24"), told("1.50")), (Ok(()), Ok(())));
    }

    proptest! {
        #[test]
        fn splitting_never_panics(path: String) {
            let _ = split(&path);
        }
    }
}
