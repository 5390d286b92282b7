//! Bodies: reading them within limits, and making answers.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;

use super::error::HttpError;

/// Any error of a body that is passed through.
pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// The body of every answer.
pub(super) type AnyBody = UnsyncBoxBody<Bytes, BoxError>;
/// An answer.
pub(super) type Answer = Response<AnyBody>;

/// Bytes that a body of ours may have at most.
pub(super) const BODY_BYTES_MAX: usize = 4 << 20;
/// How long a body of ours may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// A body that is there already.
pub(super) fn full(bytes: impl Into<Bytes>) -> AnyBody {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// An answer in JSON.
pub(super) fn json<T: Serialize>(status: StatusCode, value: &T) -> Answer {
    match serde_json::to_vec(value) {
        Ok(mut bytes) => {
            bytes.push(b'\n');
            let mut answer = Response::new(full(bytes));
            *answer.status_mut() = status;
            answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            answer
        }
        Err(error) => self::error(&HttpError::internal(format!("the answer cannot be written: {error}"))),
    }
}

/// An answer without content.
pub(super) fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(full(Bytes::new()));
    *answer.status_mut() = status;
    answer
}

/// The answer that carries an error.
pub(super) fn error(error: &HttpError) -> Answer {
    let mut bytes = serde_json::json!({ "message": error.message }).to_string().into_bytes();
    bytes.push(b'\n');
    let mut answer = Response::new(full(bytes));
    *answer.status_mut() = error.status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

/// Read a body whole.
///
/// # Errors
/// It is too large, too slow, or broken off.
pub(super) async fn read(body: Incoming) -> Result<Bytes, HttpError> {
    let known = body.size_hint().lower();
    if known > BODY_BYTES_MAX as u64 {
        return Err(HttpError::too_large(BODY_BYTES_MAX));
    }
    let reading = Limited::new(body, BODY_BYTES_MAX).collect();
    match tokio::time::timeout(BODY_TIMEOUT, reading).await {
        Err(_) => Err(HttpError::slow_body()),
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            Err(HttpError::too_large(BODY_BYTES_MAX))
        }
        Ok(Err(error)) => Err(HttpError::invalid(format!("the request's body broke off: {error}"))),
    }
}

/// Read the engine's answer whole.
///
/// # Errors
/// It is too large or broken off.
pub(super) async fn collect(mut body: AnyBody) -> Result<Bytes, HttpError> {
    let broken = |why: &dyn std::fmt::Display| HttpError::internal(format!("the engine's answer: {why}"));
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| broken(&error))?;
        let data = frame.data_ref().map(Bytes::as_ref).unwrap_or_default();
        if bytes.len() + data.len() > BODY_BYTES_MAX {
            return Err(broken(&format!("it is larger than {BODY_BYTES_MAX} bytes")));
        }
        bytes.extend_from_slice(data);
    }
    Ok(bytes.freeze())
}
