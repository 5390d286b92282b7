//! The HTTP client: a connection for each request, over a unix socket, TLS or plain TCP.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::host::Host;

/// No answer of the API that we read is larger.
const ANSWER_BYTES_MAX: usize = 256 << 20;
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Why a request came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The node was not reached.
    #[error("cannot reach the node at {host}: {why}\n{hint}")]
    Unreachable {
        /// Where.
        host: String,
        /// The system's words.
        why: String,
        /// What to do.
        hint: &'static str,
    },
    /// The node answered, and refused.
    #[error("{message}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// The node's words.
        message: String,
    },
    /// The answer could not be understood.
    #[error("the node at {host} answered something unexpected: {why}")]
    Garbled {
        /// Where.
        host: String,
        /// What was wrong.
        why: String,
    },
}

impl ClientError {
    /// Whether the node says that there is no such thing.
    pub(crate) fn is_missing(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }

    /// Whether the node was not reached at all.
    pub(crate) fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Its body.
    pub(crate) body: Bytes,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A client of one node's API (or of an engine's, which speaks alike).
#[derive(Clone)]
pub struct Client {
    host: Host,
    tls: Option<Arc<ClientConfig>>,
    answer_timeout: Duration,
}

impl Client {
    /// A client of the API at `host`. `tls` is needed for a TLS host alone.
    #[must_use]
    pub fn new(host: Host, tls: Option<Arc<ClientConfig>>) -> Self {
        Self { host, tls, answer_timeout: ANSWER_TIMEOUT }
    }

    /// The same client with more or less patience for an answer.
    #[must_use]
    pub(crate) fn patience(mut self, answer_timeout: Duration) -> Self {
        self.answer_timeout = answer_timeout;
        self
    }

    /// Where the API is.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Ask for an object.
    ///
    /// # Errors
    /// If the node is not reached or refuses.
    pub async fn get(&self, path: &str) -> Result<Value, ClientError> {
        let answer = self.send(Method::GET, path, &[], Bytes::new()).await?;
        self.json(&answer)
    }

    /// Post an object; the answer is null where the body is empty.
    ///
    /// # Errors
    /// If the node is not reached or refuses.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, ClientError> {
        self.post_with(path, &[], body).await
    }

    /// Post an object with further headers.
    pub(crate) async fn post_with(
        &self,
        path: &str,
        headers: &[(&str, String)],
        body: &Value,
    ) -> Result<Value, ClientError> {
        let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        let mut all = vec![("content-type", "application/json".to_owned())];
        all.extend_from_slice(headers);
        let answer = self.send(Method::POST, path, &all, body).await?;
        if answer.body.iter().all(u8::is_ascii_whitespace) { Ok(Value::Null) } else { self.json(&answer) }
    }

    /// Delete an object.
    ///
    /// # Errors
    /// If the node is not reached or refuses.
    pub async fn delete(&self, path: &str) -> Result<(), ClientError> {
        self.send(Method::DELETE, path, &[], Bytes::new()).await.map(|_| ())
    }

    /// Send a request and read the whole answer.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, String)],
        body: Bytes,
    ) -> Result<Answer, ClientError> {
        let mut request = Request::builder().method(method).uri(path).header("host", self.authority());
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let request = request.body(Full::new(body)).map_err(|e| self.garbled(e))?;
        let stream = match timeout(DIAL_TIMEOUT, self.dial()).await {
            Ok(dialled) => dialled?,
            Err(_) => return Err(self.unreachable("no answer within 5 s")),
        };
        match timeout(self.answer_timeout, self.exchange(stream, request)).await {
            Ok(answer) => answer,
            Err(_) => {
                let seconds = self.answer_timeout.as_secs();
                Err(self.unreachable(format!("it took the request and gave no answer within {seconds} s")))
            }
        }
    }

    async fn exchange(
        &self,
        stream: Box<dyn Stream>,
        request: Request<Full<Bytes>>,
    ) -> Result<Answer, ClientError> {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| self.unreachable(e))?;
        let connection = tokio::spawn(connection);
        let outcome = async {
            let answer = sender.send_request(request).await.map_err(|e| self.unreachable(words(&e)))?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX)
                .collect()
                .await
                .map_err(|e| self.garbled(e))?
                .to_bytes();
            if status.is_client_error() || status.is_server_error() {
                return Err(refused(status, &body));
            }
            Ok(Answer { body })
        }
        .await;
        connection.abort();
        outcome
    }

    async fn dial(&self) -> Result<Box<dyn Stream>, ClientError> {
        match &self.host {
            Host::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(|e| self.not_dialled(&e))?;
                Ok(Box::new(stream))
            }
            Host::Plain(addr) => {
                Ok(Box::new(TcpStream::connect(addr).await.map_err(|e| self.not_dialled(&e))?))
            }
            Host::Tls(addr) => {
                let tls = self.tls.clone().ok_or_else(|| self.unreachable("no certificates were given"))?;
                let host = addr.rsplit_once(':').map_or(addr.as_str(), |(host, _)| host);
                let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
                let name = ServerName::try_from(host).map_err(|e| self.unreachable(e))?;
                let stream = TcpStream::connect(addr).await.map_err(|e| self.not_dialled(&e))?;
                let connector = tokio_rustls::TlsConnector::from(tls);
                Ok(Box::new(connector.connect(name, stream).await.map_err(|e| self.unreachable(e))?))
            }
        }
    }

    fn authority(&self) -> String {
        match &self.host {
            Host::Unix(_) => "shoal".to_owned(),
            Host::Tls(addr) | Host::Plain(addr) => addr.clone(),
        }
    }

    fn json(&self, answer: &Answer) -> Result<Value, ClientError> {
        serde_json::from_slice(&answer.body).map_err(|e| self.garbled(e))
    }

    fn garbled(&self, why: impl ToString) -> ClientError {
        ClientError::Garbled { host: self.host.to_string(), why: why.to_string() }
    }

    fn unreachable(&self, why: impl ToString) -> ClientError {
        let hint = "Is `node` running there? Name another with --host or SHOAL_HOST; `shoal up` starts a cluster here.";
        ClientError::Unreachable { host: self.host.to_string(), why: why.to_string(), hint }
    }

    fn not_dialled(&self, error: &std::io::Error) -> ClientError {
        let hint = match error.kind() {
            std::io::ErrorKind::PermissionDenied => {
                "Your user may not use this socket: run as root, or as the socket's group."
            }
            _ => return self.unreachable(error),
        };
        ClientError::Unreachable { host: self.host.to_string(), why: error.to_string(), hint }
    }
}

/// hyper hides the cause (a refused certificate, a reset) one level down.
fn words(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn refused(status: StatusCode, body: &[u8]) -> ClientError {
    let told =
        serde_json::from_slice::<Value>(body).ok().and_then(|v| v["message"].as_str().map(str::to_owned));
    let message = told.unwrap_or_else(|| {
        let text = String::from_utf8_lossy(body);
        let text: String = text.trim().chars().take(400).collect();
        if text.is_empty() { format!("the node answered {status}") } else { text }
    });
    ClientError::Refused { status: status.as_u16(), message }
}

/// Percent-encode a part of a path or a query's value.
pub(crate) fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(byte as char),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// `?filters=` with one filter.
pub(crate) fn filters(pairs: &[(&str, &[&str])]) -> String {
    let map: serde_json::Map<String, Value> =
        pairs.iter().map(|(k, v)| ((*k).to_owned(), Value::from(v.to_vec()))).collect();
    format!("filters={}", encode(&Value::Object(map).to_string()))
}
