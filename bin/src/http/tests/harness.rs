//! A server for one test, and a client that says what came back.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::super::{ApiListener, EngineProxy, ListenAddr, ServeOptions, serve};
use super::fake::Fake;

/// A running server. It stops when this is dropped.
pub(super) struct Server {
    pub(super) folder: tempfile::TempDir,
    pub(super) stop: watch::Sender<bool>,
    pub(super) done: JoinHandle<()>,
}

/// What came back.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: Vec<u8>,
}

impl Reply {
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&self.body)))
    }

    pub(super) fn message(&self) -> String {
        self.json()["message"].as_str().unwrap_or_default().to_owned()
    }

    pub(super) fn header(&self, name: &str) -> Option<String> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    }
}

impl Server {
    pub(super) async fn start(fake: &Arc<Fake>, engine: Option<&Path>) -> Self {
        Self::with(fake, engine, ServeOptions { grace: Duration::from_millis(300), ..Default::default() })
            .await
    }

    pub(super) async fn with(fake: &Arc<Fake>, engine: Option<&Path>, options: ServeOptions) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let addr = ListenAddr::Unix(folder.path().join("api.sock"));
        let listener = ApiListener::bind(&addr, None).await.unwrap();
        let (stop, stopped) = watch::channel(false);
        let engine = EngineProxy { socket: engine.map(Path::to_owned) };
        let done = tokio::spawn(serve(vec![listener], fake.clone(), engine, options, stopped));
        Self { folder, stop, done }
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.folder.path().join("api.sock")
    }

    pub(super) async fn connect(&self) -> UnixStream {
        UnixStream::connect(self.socket()).await.unwrap()
    }

    /// Send one request and read its whole answer.
    pub(super) async fn ask(&self, method: &str, path: &str, body: &str) -> Reply {
        self.ask_with(method, path, "", body).await
    }

    pub(super) async fn ask_with(&self, method: &str, path: &str, headers: &str, body: &str) -> Reply {
        let mut stream = self.connect().await;
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut raw = Vec::new();
        tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut raw)).await.unwrap().unwrap();
        reply(&raw)
    }
}

/// Take an answer apart.
pub(super) fn reply(raw: &[u8]) -> Reply {
    let at = raw.windows(4).position(|w| w == b"\r\n\r\n").expect("an answer has a head");
    let head = String::from_utf8(raw[..at].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let mut body = raw[at + 4..].to_vec();
    if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        body = unchunk(&body);
    }
    Reply { status, head, body }
}

fn unchunk(mut raw: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = raw.windows(2).position(|w| w == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&raw[..end]).unwrap(), 16).unwrap();
        if size == 0 {
            break;
        }
        body.extend_from_slice(&raw[end + 2..end + 2 + size]);
        raw = &raw[end + 4 + size..];
    }
    body
}

/// Percent-encoded filters.
pub(super) fn filters(json: &str) -> String {
    json.bytes().map(|b| format!("%{b:02X}")).collect()
}
