//! Accepting connections, within limits, until told to stop.

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rand::SeedableRng;
use rand::rngs::StdRng;
use shoal_actors::api::NodeApi;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use super::context::Context;
use super::listen::{ApiListener, Socket};
use super::proxy::{Engine, EngineProxy};
use super::refusals::Refusals;
use super::{route, tls};

/// Bytes that a request's line and headers may have: registry credentials for several registries fit.
const HEADER_BYTES_MAX: usize = 128 << 10;
/// Headers that a request may have.
const HEADERS_MAX: usize = 128;
/// How long a request's headers may take, and how long a connection may idle between two requests.
const HEADER_TIMEOUT: Duration = Duration::from_secs(300);
/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after a failed accept (no file descriptors left).
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// Limits of the server.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// Connections at once, hijacked ones included; further ones wait.
    pub connections_max: usize,
    /// How long running requests and streams are given at the stop.
    pub grace: Duration,
    /// Counts what is refused.
    pub refusals: Refusals,
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self { connections_max: 1024, grace: Duration::from_secs(3), refusals: Refusals::default() }
    }
}

/// Any stream of bytes.
trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connection's place among the allowed ones; whoever takes the connection over takes this, too.
pub(super) type Place = Arc<OwnedSemaphorePermit>;

/// Answer at the listeners until `stop` becomes true (or its sender is gone); then let running requests end.
pub async fn serve(
    listeners: Vec<ApiListener>,
    api: Arc<dyn NodeApi>,
    engine: EngineProxy,
    options: ServeOptions,
    stop: watch::Receiver<bool>,
) {
    let context = Arc::new(Context {
        api,
        engine: Engine::new(engine),
        refusals: options.refusals,
        rng: Mutex::new(StdRng::from_os_rng()),
        stop: stop.clone(),
    });
    let places = Arc::new(Semaphore::new(options.connections_max));
    let mut loops = JoinSet::new();
    for listener in listeners {
        let accept = AcceptLoop {
            context: Arc::clone(&context),
            places: Arc::clone(&places),
            grace: options.grace,
            stop: stop.clone(),
        };
        loops.spawn(accept.run(listener));
    }
    while loops.join_next().await.is_some() {}
}

/// Resolves when the server shall stop.
pub(super) async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone: nobody could stop us any more, so that is a stop, too.
    let _ = stop.wait_for(|stop| *stop).await;
}

struct AcceptLoop {
    context: Arc<Context>,
    places: Arc<Semaphore>,
    grace: Duration,
    stop: watch::Receiver<bool>,
}

impl AcceptLoop {
    async fn run(mut self, listener: ApiListener) {
        let mut connections = JoinSet::new();
        loop {
            let place = tokio::select! {
                biased;
                () = stopped(&mut self.stop) => break,
                place = Arc::clone(&self.places).acquire_owned() => place,
            };
            let Ok(place) = place else { break };
            let accepted = tokio::select! {
                biased;
                () = stopped(&mut self.stop) => break,
                Some(_) = connections.join_next() => continue,
                accepted = accept(&listener) => accepted,
            };
            match accepted {
                Ok(stream) => {
                    let (context, stop, grace) = (Arc::clone(&self.context), self.stop.clone(), self.grace);
                    connections.spawn(connection(stream, context, Arc::new(place), stop, grace));
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_BACKOFF).await;
                }
            }
        }
        drop(listener);
        while connections.join_next().await.is_some() {}
    }
}

/// A connection before its handshake.
enum Accepted {
    Plain(Box<dyn Io>),
    Tls(tokio::net::TcpStream, tokio_rustls::TlsAcceptor),
}

async fn accept(listener: &ApiListener) -> io::Result<Accepted> {
    match &listener.socket {
        Socket::Unix { listener, .. } => {
            listener.accept().await.map(|(stream, _)| Accepted::Plain(Box::new(stream)))
        }
        Socket::Tls { listener, acceptor } => {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            Ok(Accepted::Tls(stream, acceptor.clone()))
        }
    }
}

async fn handshake(accepted: Accepted) -> Option<Box<dyn Io>> {
    match accepted {
        Accepted::Plain(stream) => Some(stream),
        Accepted::Tls(stream, acceptor) => {
            let peer = stream.peer_addr().ok();
            match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => Some(Box::new(stream)),
                Ok(Err(error)) => {
                    tracing::info!(?peer, error = tls::handshake_error(&error), "TLS handshake refused");
                    None
                }
                Err(_) => {
                    tracing::info!(?peer, "TLS handshake timed out");
                    None
                }
            }
        }
    }
}

async fn connection(
    accepted: Accepted,
    context: Arc<Context>,
    place: Place,
    mut stop: watch::Receiver<bool>,
    grace: Duration,
) {
    let Some(stream) = handshake(accepted).await else { return };
    let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(Arc::clone(&place));
        let context = Arc::clone(&context);
        async move { Ok::<_, Infallible>(route::answer(context, request).await) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_header_size(HEADER_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .preserve_header_case(true)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut serving = pin!(serving);
    let ended = tokio::select! {
        biased;
        ended = serving.as_mut() => Some(ended),
        () = stopped(&mut stop) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            serving.as_mut().graceful_shutdown();
            tokio::time::timeout(grace, serving).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended in an error");
    }
}
