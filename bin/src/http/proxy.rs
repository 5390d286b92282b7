//! To the local engine and back, as it came: bodies stream both ways, and a connection that the engine takes
//! over (`attach`, `exec`, `/session`, `/grpc`) becomes a plain pipe, half-closes included.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, EXPECT, HOST, HeaderValue, UPGRADE};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;

use super::body::{self, Answer, AnyBody, BODY_BYTES_MAX, BoxError};
use super::context::Context;
use super::error::HttpError;
use super::server::{Place, stopped};

/// How long the engine may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a question of our own (`_ping`, `info`) may take.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a hijacked connection lives on after the engine has said its last word.
const LINGER: Duration = Duration::from_secs(10);
/// Headers that concern one connection only.
const HOP_BY_HOP: [&str; 5] = ["connection", "keep-alive", "proxy-connection", "te", "upgrade"];

/// Where the local Docker engine listens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EngineProxy {
    /// Its unix socket; none where tasks run as plain processes.
    pub socket: Option<PathBuf>,
}

/// The local engine.
pub(super) struct Engine {
    at: EngineProxy,
    // What it said last, so that clients are told the same while it restarts.
    api_version: Mutex<Option<String>>,
}

impl Engine {
    pub(super) fn new(at: EngineProxy) -> Self {
        Self { at, api_version: Mutex::new(None) }
    }

    /// Whether there is one at all.
    pub(super) fn is_configured(&self) -> bool {
        self.at.socket.is_some()
    }

    /// The API version that it named last.
    pub(super) fn api_version(&self) -> Option<String> {
        self.api_version.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn away(&self, error: impl std::fmt::Display) -> HttpError {
        let socket = self.at.socket.as_ref().map(|s| s.display().to_string()).unwrap_or_default();
        HttpError::unavailable(format!("the Docker engine at {socket} does not answer: {error}"))
    }

    async fn connect(&self) -> Result<UnixStream, HttpError> {
        let Some(socket) = &self.at.socket else {
            return Err(HttpError::unavailable(
                "there is no Docker engine on this node: it runs its tasks as plain processes, so only the \
                 swarm's own endpoints are answered here",
            ));
        };
        match tokio::time::timeout(CONNECT_TIMEOUT, UnixStream::connect(socket)).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(self.away(error)),
            Err(_) => Err(self.away("no connection within 5 s")),
        }
    }

    /// Send a request over a connection of its own.
    ///
    /// # Errors
    /// 503 if the engine is away.
    pub(super) async fn send(&self, request: Request<AnyBody>) -> Result<Response<Incoming>, HttpError> {
        let stream = self.connect().await?;
        let (mut sender, connection) = http1::Builder::new()
            .preserve_header_case(true)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.away(error))?;
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "a connection to the engine ended in an error");
            }
        });
        let response = sender.send_request(request).await.map_err(|error| self.away(error))?;
        if let Some(version) = response.headers().get("api-version").and_then(|v| v.to_str().ok()) {
            *self.api_version.lock().unwrap_or_else(PoisonError::into_inner) = Some(version.to_owned());
        }
        Ok(response)
    }

    /// Ask a question of our own.
    ///
    /// # Errors
    /// 503 if the engine is away or slow.
    pub(super) async fn ask(&self, path: &str) -> Result<(StatusCode, HeaderMap, Bytes), HttpError> {
        self.say(&Method::GET, path).await
    }

    /// A request of our own without a body.
    ///
    /// # Errors
    /// 503 if the engine is away or slow.
    pub(super) async fn say(
        &self,
        method: &Method,
        path: &str,
    ) -> Result<(StatusCode, HeaderMap, Bytes), HttpError> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "docker")
            .body(body::full(Bytes::new()))
            .map_err(|error| HttpError::internal(error.to_string()))?;
        let asking = async {
            let (parts, body) = self.send(request).await?.into_parts();
            let bytes = Limited::new(body, BODY_BYTES_MAX)
                .collect()
                .await
                .map_err(|error| self.away(error))?
                .to_bytes();
            Ok((parts.status, parts.headers, bytes))
        };
        match tokio::time::timeout(ASK_TIMEOUT, asking).await {
            Ok(answered) => answered,
            Err(_) => Err(self.away("no answer within 5 s")),
        }
    }
}

/// Pass a request on.
///
/// # Errors
/// 503 if the engine is away.
pub(super) async fn forward(context: &Arc<Context>, request: Request<Incoming>) -> Result<Answer, HttpError> {
    let upgrades = request.headers().contains_key(UPGRADE);
    if upgrades {
        return forward_upgrade(context, request).await;
    }
    let (mut parts, incoming) = request.into_parts();
    strip(&mut parts.headers);
    let request = Request::from_parts(parts, incoming.map_err(BoxError::from).boxed_unsync());
    Ok(pass_back(context.engine.send(strip_origin(request)).await?))
}

/// Pass a request on whose body was read already.
///
/// # Errors
/// 503 if the engine is away.
pub(super) async fn forward_read(
    context: &Arc<Context>,
    mut parts: hyper::http::request::Parts,
    bytes: Bytes,
) -> Result<Answer, HttpError> {
    strip(&mut parts.headers);
    parts.headers.remove(hyper::header::TRANSFER_ENCODING);
    parts.headers.insert(hyper::header::CONTENT_LENGTH, HeaderValue::from(bytes.len()));
    let request = Request::from_parts(parts, body::full(bytes));
    Ok(pass_back(context.engine.send(strip_origin(request)).await?))
}

async fn forward_upgrade(
    context: &Arc<Context>,
    mut request: Request<Incoming>,
) -> Result<Answer, HttpError> {
    let client = hyper::upgrade::on(&mut request);
    let place = request.extensions_mut().remove::<Place>();
    let (mut parts, incoming) = request.into_parts();
    // The body comes first and whole: after the engine's 101 only raw bytes flow.
    let bytes = body::read(incoming).await?;
    let upgrade = parts.headers.get(UPGRADE).cloned();
    strip(&mut parts.headers);
    parts.headers.remove(hyper::header::TRANSFER_ENCODING);
    parts.headers.insert(hyper::header::CONTENT_LENGTH, HeaderValue::from(bytes.len()));
    parts.headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    if let Some(upgrade) = upgrade {
        parts.headers.insert(UPGRADE, upgrade);
    }
    let request = strip_origin(Request::from_parts(parts, body::full(bytes)));
    let mut response = context.engine.send(request).await?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(pass_back(response));
    }
    let engine = hyper::upgrade::on(&mut response);
    tokio::spawn(splice(client, engine, context.stop.clone(), place));
    let (parts, _) = response.into_parts();
    Ok(Response::from_parts(parts, body::full(Bytes::new())))
}

/// The request's address without scheme and host, as an engine wants it.
fn strip_origin<B>(mut request: Request<B>) -> Request<B> {
    if let Some(path) = request.uri().path_and_query().cloned()
        && request.uri().authority().is_some()
    {
        *request.uri_mut() = path.into();
    }
    request.headers_mut().entry(HOST).or_insert(HeaderValue::from_static("docker"));
    request
}

fn strip(headers: &mut HeaderMap) {
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
    // Our own server has answered it.
    headers.remove(EXPECT);
}

fn pass_back(response: Response<Incoming>) -> Answer {
    let (mut parts, body) = response.into_parts();
    for name in HOP_BY_HOP {
        parts.headers.remove(name);
    }
    Response::from_parts(parts, body.map_err(BoxError::from).boxed_unsync())
}

/// Both ends of a hijacked connection, until both have closed.
async fn splice(
    client: OnUpgrade,
    engine: OnUpgrade,
    mut stop: tokio::sync::watch::Receiver<bool>,
    place: Option<Place>,
) {
    let ends = async { Ok::<(Upgraded, Upgraded), hyper::Error>((client.await?, engine.await?)) };
    match ends.await {
        Ok((client, engine)) => {
            tokio::select! {
                biased;
                () = pipe(TokioIo::new(client), TokioIo::new(engine)) => {}
                () = stopped(&mut stop) => {}
            }
        }
        Err(error) => tracing::debug!(%error, "a connection could not be taken over"),
    }
    drop(place);
}

/// Copy both ways. The client's half-close is passed on and the engine's answer still awaited; after the engine
/// has ended, the client is given a moment to end, too.
async fn pipe(client: impl AsyncRead + AsyncWrite, engine: impl AsyncRead + AsyncWrite) {
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (mut from_engine, mut to_engine) = tokio::io::split(engine);
    let up = async {
        // Errors mean that an end is gone, which is how such connections end.
        let _ = tokio::io::copy(&mut from_client, &mut to_engine).await;
        let _ = to_engine.shutdown().await;
    };
    let down = async {
        let _ = tokio::io::copy(&mut from_engine, &mut to_client).await;
        let _ = to_client.shutdown().await;
    };
    let (mut up, mut down) = (std::pin::pin!(up), std::pin::pin!(down));
    tokio::select! {
        biased;
        () = down.as_mut() => {
            let _ = tokio::time::timeout(LINGER, up).await;
        }
        () = up.as_mut() => down.await,
    }
}
