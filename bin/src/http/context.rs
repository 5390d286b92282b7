//! What every handler is given.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::Response;
use hyper::header::HeaderValue;
use rand::RngCore;
use rand::rngs::StdRng;
use shoal_actors::api::{Freshness, NodeApi};
use shoal_core::store::{Command, Expect, State, Write};

use super::body::AnyBody;
use super::clock;
use super::error::HttpError;
use super::proxy::Engine;
use super::refusals::Refusals;

/// How long a write may take before the client is told that nobody leads.
const WRITE_TIMEOUT: Duration = Duration::from_millis(5_000);
/// How long a read may take.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// What every handler is given.
pub(super) struct Context {
    /// The node.
    pub(super) api: Arc<dyn NodeApi>,
    /// The local engine.
    pub(super) engine: Engine,
    /// Counts what is refused.
    pub(super) refusals: Refusals,
    /// For identifiers and invented names.
    pub(super) rng: Mutex<StdRng>,
    /// Rises when the server stops.
    pub(super) stop: tokio::sync::watch::Receiver<bool>,
}

/// A snapshot to answer from, and whether it may be old.
pub(super) struct Snapshot {
    /// The state.
    pub(super) state: State,
    stale: Option<String>,
}

impl Snapshot {
    /// Say in the answer's headers if it may be old.
    pub(super) fn mark(&self, mut answer: Response<AnyBody>) -> Response<AnyBody> {
        if let Some(reason) = &self.stale {
            super::stale::mark(answer.headers_mut(), reason);
        }
        answer
    }
}

impl Context {
    /// Draw from the generator.
    pub(super) fn draw<T>(&self, draw: impl FnOnce(&mut dyn RngCore) -> T) -> T {
        draw(&mut *self.rng.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The state, no older than this call where that can be had.
    ///
    /// # Errors
    /// As of [`NodeApi::read`].
    pub(super) async fn read(&self) -> Result<Snapshot, HttpError> {
        match tokio::time::timeout(READ_TIMEOUT, self.api.read()).await {
            Ok(read) => {
                let (state, freshness) = read?;
                let stale = match freshness {
                    Freshness::Fresh => None,
                    Freshness::Stale(reason) => Some(reason),
                };
                Ok(Snapshot { state, stale })
            }
            Err(_) => {
                Ok(Snapshot { state: self.api.state()?, stale: Some("no answer from the leader".into()) })
            }
        }
    }

    /// Commit writes that rely on `expects`.
    ///
    /// # Errors
    /// As of [`NodeApi::propose`]; 503 if there is no answer in time.
    pub(super) async fn propose(&self, expects: Vec<Expect>, writes: Vec<Write>) -> Result<u64, HttpError> {
        let command = Command { term: None, at: clock::now(), expects, writes };
        match tokio::time::timeout(WRITE_TIMEOUT, self.api.propose(command)).await {
            Ok(done) => Ok(done?),
            Err(_) => Err(HttpError::unavailable(format!(
                "the cluster did not commit the change within {} s: it may have no leader; whether the change \
                 will still be made is not known",
                WRITE_TIMEOUT.as_secs()
            ))),
        }
    }
}

/// Text as a header's value; what a header cannot carry becomes a blank.
pub(super) fn header_text(text: &str) -> HeaderValue {
    let safe: String =
        text.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { ' ' }).take(512).collect();
    HeaderValue::from_str(&safe).unwrap_or_else(|_| HeaderValue::from_static("unknown"))
}
