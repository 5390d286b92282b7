//! What passes through to the engine, with an engine made of canned answers.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;

use super::fake::Fake;
use super::harness::{Server, reply};

/// An engine that hands each connection to the test.
pub(super) struct CannedEngine {
    folder: tempfile::TempDir,
    connections: mpsc::Receiver<UnixStream>,
}

impl CannedEngine {
    pub(super) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("engine.sock")).unwrap();
        let (sender, connections) = mpsc::channel(16);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if sender.send(stream).await.is_err() {
                    break;
                }
            }
        });
        Self { folder, connections }
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.folder.path().join("engine.sock")
    }

    async fn next(&mut self) -> UnixStream {
        soon(self.connections.recv()).await.unwrap()
    }

    /// Answer one request that has a body, and say its head and body.
    pub(super) async fn answer_body(&mut self, answer: &str) -> (String, serde_json::Value) {
        let mut stream = self.next().await;
        let head = read_until(&mut stream, "\r\n\r\n").await;
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")?.parse().ok());
        let mut body = vec![0; length.unwrap_or_default()];
        soon(stream.read_exact(&mut body)).await.unwrap();
        stream.write_all(answer.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        (head, serde_json::from_slice(&body).unwrap_or_default())
    }

    /// Answer one request and say what it was.
    pub(super) async fn answer(&mut self, answer: &str) -> String {
        let mut stream = self.next().await;
        let head = read_until(&mut stream, "\r\n\r\n").await;
        stream.write_all(answer.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        head
    }
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), what).await.expect("it takes too long")
}

async fn read_until(stream: &mut (impl AsyncReadExt + Unpin), end: &str) -> String {
    let mut read = String::new();
    while !read.ends_with(end) {
        let byte = soon(stream.read_u8()).await.unwrap_or_else(|e| panic!("{e} after {read:?}"));
        read.push(char::from(byte));
    }
    read
}

#[tokio::test]
async fn path_query_headers_and_body_arrive_as_they_were_sent() {
    let mut engine = CannedEngine::start();
    let server = Server::start(&Fake::inactive(), Some(&engine.socket())).await;
    let asking = server.ask_with(
        "POST",
        "/v1.41/images/create?fromImage=a%2Fb&tag=1",
        "X-Registry-Auth: zz\r\n",
        "hello",
    );
    let answering = async {
        let mut stream = engine.next().await;
        let head = read_until(&mut stream, "\r\n\r\n").await;
        let body = read_until(&mut stream, "hello").await;
        stream
            .write_all(b"HTTP/1.1 418 Teapot\r\nX-Odd-Case: 1\r\nContent-Length: 3\r\n\r\nabc")
            .await
            .unwrap();
        (head, body)
    };
    let (reply, (head, body)) = tokio::join!(asking, answering);
    assert!(head.starts_with("POST /v1.41/images/create?fromImage=a%2Fb&tag=1 HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("X-Registry-Auth: zz\r\n") && head.contains("Content-Length: 5\r\n"), "{head}");
    assert!(!head.to_lowercase().contains("connection:"), "{head}");
    assert_eq!((body.as_str(), reply.status, reply.body.as_slice()), ("hello", 418, &b"abc"[..]));
    assert!(reply.head.contains("Teapot") && reply.head.contains("X-Odd-Case: 1"), "{}", reply.head);
}

#[tokio::test]
async fn a_streamed_answer_arrives_piece_by_piece() {
    let mut engine = CannedEngine::start();
    let server = Server::start(&Fake::inactive(), Some(&engine.socket())).await;
    let mut client = server.connect().await;
    client.write_all(b"GET /containers/x/logs?follow=1 HTTP/1.1\r\nHost: d\r\n\r\n").await.unwrap();
    let mut stream = engine.next().await;
    read_until(&mut stream, "\r\n\r\n").await;
    stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n").await.unwrap();
    read_until(&mut client, "3\r\none\r\n").await;
    stream.write_all(b"3\r\ntwo\r\n").await.unwrap();
    read_until(&mut client, "3\r\ntwo\r\n").await;
    // The client leaves: the engine is let go, too.
    drop(client);
    let mut rest = Vec::new();
    assert_eq!(soon(stream.read_to_end(&mut rest)).await.unwrap(), 0);
}

#[tokio::test]
async fn a_streamed_request_arrives_piece_by_piece() {
    let mut engine = CannedEngine::start();
    let server = Server::start(&Fake::inactive(), Some(&engine.socket())).await;
    let mut client = server.connect().await;
    client
        .write_all(b"POST /build HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
        .await
        .unwrap();
    let mut stream = engine.next().await;
    read_until(&mut stream, "3\r\none\r\n").await;
    client.write_all(b"3\r\ntwo\r\n0\r\n\r\n").await.unwrap();
    read_until(&mut stream, "3\r\ntwo\r\n0\r\n\r\n").await;
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
    read_until(&mut client, "ok").await;
}

#[tokio::test]
async fn a_hijacked_connection_is_a_plain_pipe_with_half_closes() {
    let mut engine = CannedEngine::start();
    let server = Server::start(&Fake::inactive(), Some(&engine.socket())).await;
    let mut client = server.connect().await;
    client
        .write_all(
            b"POST /exec/x/start HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\
              Content-Length: 2\r\n\r\n{}",
        )
        .await
        .unwrap();
    let mut stream = engine.next().await;
    let head = read_until(&mut stream, "\r\n\r\n{}").await;
    assert!(head.contains("Upgrade: tcp\r\n") && head.contains("Upgrade\r\n"), "{head}");
    let switch = b"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\n\
                   Connection: Upgrade\r\nUpgrade: tcp\r\n\r\nfirst";
    stream.write_all(switch).await.unwrap();
    let head = read_until(&mut client, "\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 101 UPGRADED") && head.contains("raw-stream"), "{head}");
    read_until(&mut client, "first").await;
    client.write_all(b"stdin\0\xff").await.unwrap();
    client.shutdown().await.unwrap();
    let mut input = Vec::new();
    soon(stream.read_to_end(&mut input)).await.unwrap();
    assert_eq!(input, b"stdin\0\xff");
    // The client's input has ended; the engine's output has not.
    let large = vec![7u8; 300_000];
    let (written, read) = tokio::join!(
        async {
            stream.write_all(&large).await.unwrap();
            stream.shutdown().await
        },
        async {
            let mut output = Vec::new();
            soon(client.read_to_end(&mut output)).await.unwrap();
            output
        }
    );
    written.unwrap();
    assert_eq!(read, large);
}

#[tokio::test]
async fn a_refused_upgrade_is_an_ordinary_answer() {
    let mut engine = CannedEngine::start();
    let server = Server::start(&Fake::inactive(), Some(&engine.socket())).await;
    let answer = "HTTP/1.1 404 Not Found\r\nContent-Length: 17\r\n\r\n{\"message\":\"no\"}\n";
    let headers = "Upgrade: tcp\r\n";
    let mut client = server.connect().await;
    let request = format!(
        "POST /containers/x/attach HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\n{headers}Content-Length: 0\r\n\r\n"
    );
    client.write_all(request.as_bytes()).await.unwrap();
    engine.answer(answer).await;
    let head = read_until(&mut client, "\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 404"), "{head}");
    assert_eq!(read_until(&mut client, "\n").await, "{\"message\":\"no\"}\n");
}

#[tokio::test]
async fn an_engine_that_is_away_is_said_to_be_away() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("none.sock");
    let server = Server::start(&Fake::manager(), Some(&socket)).await;
    let reply = server.ask("GET", "/containers/json", "").await;
    assert_eq!(reply.status, 503);
    assert!(reply.message().contains("none.sock does not answer"), "{}", reply.message());
    // The swarm's own part does not need it.
    assert_eq!(server.ask("GET", "/nodes", "").await.status, 200);
    assert_eq!(server.ask("GET", "/_ping", "").await.header("swarm").as_deref(), Some("active/manager"));
    let info = server.ask("GET", "/info", "").await.json();
    assert_eq!((&info["Name"], &info["Swarm"]["Nodes"]), (&json!("host1"), &json!(1)));
    assert_eq!(server.ask("GET", "/version", "").await.json()["ApiVersion"], "1.50");

    let server = Server::start(&Fake::manager(), None).await;
    let reply = server.ask("GET", "/images/json", "").await;
    assert!(reply.status == 503 && reply.message().contains("plain processes"), "{reply:?}");
}

#[tokio::test]
async fn ping_version_and_info_carry_the_engines_words_and_our_swarm() {
    let mut engine = CannedEngine::start();
    let server = Server::start(&Fake::manager(), Some(&engine.socket())).await;
    let ping = "HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nBuilder-Version: 2\r\nSwarm: inactive\r\nOstype: linux\r\n\
                Content-Length: 2\r\n\r\nOK";
    let (ours, asked) = tokio::join!(server.ask("GET", "/_ping", ""), engine.answer(ping));
    assert!(asked.starts_with("GET /_ping "), "{asked}");
    assert_eq!(ours.body, b"OK");
    for (name, value) in [("api-version", "1.41"), ("builder-version", "2"), ("swarm", "active/manager")] {
        assert_eq!(ours.header(name).as_deref(), Some(value), "{name}");
    }
    let body = r#"{"Version":"20.10.24","ApiVersion":"1.41","Components":[{"Name":"Engine"}]}"#;
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let (version, _) = tokio::join!(server.ask("GET", "/v1.41/version", ""), engine.answer(&answer));
    let version = version.json();
    assert_eq!(
        (&version["ApiVersion"], &version["Components"][1]["Name"]),
        (&json!("1.41"), &json!("Shoal"))
    );
    let body = r#"{"ID":"E","Containers":4,"Swarm":{"LocalNodeState":"inactive"}}"#;
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let (info, _) = tokio::join!(server.ask("GET", "/info", ""), engine.answer(&answer));
    let info = info.json();
    assert_eq!((&info["Containers"], &info["Swarm"]["LocalNodeState"]), (&json!(4), &json!("active")));
    assert_eq!(info["Swarm"]["Cluster"]["Spec"]["Orchestration"]["TaskHistoryRetentionLimit"], 5);
}

#[tokio::test]
async fn local_networks_are_the_engines() {
    let mut engine = CannedEngine::start();
    let server = Server::start(&Fake::manager(), Some(&engine.socket())).await;
    let wanted = r#"{"Name":"n","Driver":"bridge"}"#;
    let asking = server.ask("POST", "/networks/create", wanted);
    let answering = async {
        // The name must not be that of a bridge of ours.
        engine.answer("HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}").await;
        let mut stream = engine.next().await;
        let request = read_until(&mut stream, wanted).await;
        stream.write_all(b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}").await.unwrap();
        request
    };
    let (answer, request) = tokio::join!(asking, answering);
    assert!(request.contains(&format!("Content-Length: {}\r\n", wanted.len())), "{request}");
    assert_eq!(answer.status, 201);
    assert_eq!(reply(b"HTTP/1.1 200 OK\r\n\r\n").status, 200);
}
