//! What Swarm has and Shoal does not have yet: lists are empty, making one is refused in words.

use std::sync::Arc;

use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use serde::Deserialize;

use super::super::body::{self, Answer};
use super::super::context::Context;
use super::super::error::HttpError;
use super::super::proxy;

/// `GET /secrets`, `GET /configs`
pub(in crate::http) async fn empty_list(context: &Context) -> Result<Answer, HttpError> {
    let snapshot = context.read().await?;
    Ok(snapshot.mark(body::json(StatusCode::OK, &[(); 0])))
}

/// `POST /secrets/create` and the like
pub(in crate::http) fn refused(noun: &str) -> HttpError {
    HttpError::unsupported(format!(
        "{noun} are not supported yet: give the content to the containers by a bind mount or the environment"
    ))
}

/// `GET /secrets/{id}` and the like
pub(in crate::http) fn missing(noun: &str, id: &str) -> HttpError {
    HttpError::not_found(format!("{noun} {id} not found"))
}

/// `GET /services/{id}/logs`, `GET /tasks/{id}/logs`
pub(in crate::http) fn logs() -> HttpError {
    HttpError::unsupported(
        "logs over the cluster are not supported yet: on the node of the task (service ps names it) use docker \
         logs with the container's id",
    )
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct NetworkCreate {
    driver: Option<String>,
    scope: Option<String>,
    ingress: Option<bool>,
}

/// `POST /networks/create`: local ones are the engine's, those of the whole swarm are not there yet.
pub(in crate::http) async fn network_create(
    context: &Arc<Context>,
    request: Request<Incoming>,
) -> Result<Answer, HttpError> {
    let (parts, incoming) = request.into_parts();
    let bytes = body::read(incoming).await?;
    // Anything malformed is the engine's to judge.
    let wanted: NetworkCreate = serde_json::from_slice(&bytes).unwrap_or_default();
    if wanted.driver.as_deref() == Some("overlay")
        || wanted.scope.as_deref() == Some("swarm")
        || wanted.ingress == Some(true)
    {
        return Err(HttpError::unsupported(
            "overlay networks are not supported yet: create one of driver bridge, which stays on this node",
        ));
    }
    proxy::forward_read(context, parts, bytes).await
}
