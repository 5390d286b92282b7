//! What Swarm has and Shoal does not have yet: lists are empty, making one is refused in words.

use hyper::StatusCode;

use super::super::body::{self, Answer};
use super::super::context::Context;
use super::super::error::HttpError;

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
