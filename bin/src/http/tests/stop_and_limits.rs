//! What the server bears, and how it stops.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::super::{ServeOptions, serve_metrics};
use super::fake::Fake;
use super::harness::{Server, reply};

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_before_it_is_read() {
    let server = Server::start(&Fake::manager(), None).await;
    let mut stream = server.connect().await;
    let head =
        "POST /services/create HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Length: 999999999\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut raw = Vec::new();
    stream.read_to_end(&mut raw).await.unwrap();
    let reply = reply(&raw);
    assert!(reply.status == 413 && reply.message().contains("4194304 bytes"), "{reply:?}");
}

#[tokio::test]
async fn headers_that_are_too_large_are_refused() {
    let server = Server::start(&Fake::manager(), None).await;
    let mut stream = server.connect().await;
    let head = format!("GET /nodes HTTP/1.1\r\nHost: d\r\nX: {}\r\n\r\n", "x".repeat(200 << 10));
    // The server may hang up before all is written.
    let _ = stream.write_all(head.as_bytes()).await;
    let mut raw = Vec::new();
    let _ = stream.read_to_end(&mut raw).await;
    assert!(raw.is_empty() || reply(&raw).status == 431, "{}", String::from_utf8_lossy(&raw));
    assert_eq!(server.ask("GET", "/nodes", "").await.status, 200);
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_a_place() {
    let options =
        ServeOptions { connections_max: 2, grace: Duration::from_millis(100), ..ServeOptions::default() };
    let server = Server::with(&Fake::manager(), None, options).await;
    let (first, _second) = (server.connect().await, server.connect().await);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let third = server.ask("GET", "/_ping", "");
    tokio::pin!(third);
    assert!(tokio::time::timeout(Duration::from_millis(200), third.as_mut()).await.is_err());
    drop(first);
    assert_eq!(third.await.status, 200);
}

#[tokio::test]
async fn a_stop_ends_idle_connections_and_endless_streams_and_removes_the_socket() {
    let mut server = Server::start(&Fake::manager(), None).await;
    let mut idle = server.connect().await;
    let mut events = server.connect().await;
    events.write_all(b"GET /events HTTP/1.1\r\nHost: d\r\n\r\n").await.unwrap();
    let mut some = [0; 16];
    events.read_exact(&mut some).await.unwrap();
    let before = Instant::now();
    server.stop.send(true).unwrap();
    (&mut server.done).await.unwrap();
    assert!(before.elapsed() < Duration::from_secs(2));
    let mut rest = Vec::new();
    let _ = events.read_to_end(&mut rest).await;
    assert_eq!(idle.read(&mut some).await.unwrap(), 0);
    assert!(!server.socket().exists());
}

#[tokio::test]
async fn metrics_are_served_as_open_metrics_and_nothing_else_is() {
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let (told, bound) = tokio::sync::oneshot::channel();
    let render = Arc::new(|| "shoal_up 1\n# EOF\n".to_owned());
    let serving = tokio::spawn(serve_metrics(([127, 0, 0, 1], 0).into(), render, stopped, |addr| {
        told.send(addr).unwrap();
    }));
    let addr = bound.await.unwrap();
    let ask = async |request: &'static str| {
        let mut stream = tokio::net::TcpStream::connect(addr).await.unwrap();
        let request = format!("{request} HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut raw = Vec::new();
        stream.read_to_end(&mut raw).await.unwrap();
        reply(&raw)
    };
    let metrics = ask("GET /metrics").await;
    assert_eq!(metrics.body, b"shoal_up 1\n# EOF\n");
    assert!(
        metrics.header("content-type").unwrap().starts_with("application/openmetrics-text; version=1.0.0")
    );
    assert_eq!(ask("GET /").await.status, 200);
    assert_eq!(ask("GET /swarm").await.status, 404);
    assert_eq!(ask("POST /metrics").await.status, 405);
    stop.send(true).unwrap();
    serving.await.unwrap().unwrap();
}
