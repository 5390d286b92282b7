//! The metrics, on an address of their own and without certificates: numbers only.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::server::stopped;

/// What a scraper is told that it gets.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Connections at once.
const CONNECTIONS_MAX: usize = 64;
/// How long a request's headers may take, and how long a connection may idle.
const HEADER_TIMEOUT: Duration = Duration::from_secs(120);
/// Pause after a failed accept.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// Makes the metrics' text.
type Render = Arc<dyn Fn() -> String + Send + Sync>;

/// Answer `GET /metrics` at `addr` with what `render` gives, until `stop` becomes true.
/// `bound` is told the address, for port 0.
///
/// # Errors
/// The address is in use or refused.
pub async fn serve_metrics(
    addr: SocketAddr,
    render: Render,
    mut stop: watch::Receiver<bool>,
    bound: impl FnOnce(SocketAddr),
) -> io::Result<()> {
    let listener = TcpListener::bind(addr).await?;
    bound(listener.local_addr()?);
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stopped(&mut stop) => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        match (accepted, Arc::clone(&places).try_acquire_owned()) {
            (Ok((stream, _)), Ok(place)) => {
                let render = Arc::clone(&render);
                connections.spawn(async move {
                    connection(stream, render).await;
                    drop(place);
                });
            }
            (Ok(_), Err(_)) => tracing::warn!("too many connections for metrics: one refused"),
            (Err(error), _) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
    connections.shutdown().await;
    Ok(())
}

async fn connection(stream: TcpStream, render: Render) {
    let service = service_fn(move |request| {
        let answer = page(&request, &render);
        async move { Ok::<_, Infallible>(answer) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = pin!(serving).await {
        tracing::debug!(%error, "a metrics connection ended in an error");
    }
}

fn page(request: &Request<Incoming>, render: &Render) -> Response<Full<Bytes>> {
    let plain = |status, text: &'static str| {
        let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
        *response.status_mut() = status;
        response
    };
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered here\n");
    }
    match request.uri().path() {
        "/metrics" => {
            let mut response = Response::new(Full::new(Bytes::from(render())));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(OPEN_METRICS));
            response
        }
        "/" => plain(StatusCode::OK, "Shoal's metrics are at /metrics\n"),
        _ => plain(StatusCode::NOT_FOUND, "not found: the metrics are at /metrics\n"),
    }
}
