//! The few calls that are made without a command line, over a unix socket or a stream that somebody opened.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// The largest answer taken.
const ANSWER_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its head, one line each, names in small letters.
    pub head: Vec<(String, String)>,
    /// Its body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as JSON.
    ///
    /// # Errors
    /// It is none.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("not JSON: {}", self.text()))
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A line of the head.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// Somebody who answers HTTP on a unix socket.
#[derive(Debug, Clone)]
pub struct Api {
    socket: PathBuf,
    limit: Duration,
}

impl Api {
    /// On this socket; a call that takes longer than `limit` fails.
    pub fn new(socket: &Path, limit: Duration) -> Self {
        Self { socket: socket.to_owned(), limit }
    }

    /// Make a call.
    ///
    /// # Errors
    /// No answer in time, or none that is HTTP.
    pub fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Answer> {
        let stream = UnixStream::connect(&self.socket)
            .with_context(|| format!("connecting to {}", self.socket.display()))?;
        stream.set_write_timeout(Some(self.limit))?;
        exchange(stream, |stream, left| stream.set_read_timeout(Some(left)), self.limit, method, path, body)
            .with_context(|| format!("{method} {path} on {}", self.socket.display()))
    }

    /// Read JSON.
    ///
    /// # Errors
    /// As [`Self::call`], or another status than 200.
    pub fn get(&self, path: &str) -> Result<Value> {
        let answer = self.call("GET", path, None)?;
        ensure!(answer.status == 200, "GET {path} answered {}: {}", answer.status, answer.text());
        answer.json()
    }

    /// Write JSON (null: no body), and read what comes back (null: an empty body).
    ///
    /// # Errors
    /// As [`Self::call`], or another status than one of success.
    pub fn post(&self, path: &str, body: &Value) -> Result<Value> {
        // A body that nobody reads makes the server reset the connection, and its answer may be lost.
        let answer = self.call("POST", path, Some(body).filter(|body| !body.is_null()))?;
        ensure!(
            (200..300).contains(&answer.status),
            "POST {path} answered {}: {}",
            answer.status,
            answer.text()
        );
        if answer.body.is_empty() { Ok(Value::Null) } else { answer.json() }
    }

    /// Delete something.
    ///
    /// # Errors
    /// As [`Self::call`], or another status than one of success.
    pub fn delete(&self, path: &str) -> Result<()> {
        let answer = self.call("DELETE", path, None)?;
        ensure!(
            (200..300).contains(&answer.status),
            "DELETE {path} answered {}: {}",
            answer.status,
            answer.text()
        );
        Ok(())
    }
}

/// One request and its answer on a stream of any kind. `arm` sets how long the next read may wait.
///
/// # Errors
/// The stream breaks, ends early, is too slow, or does not speak HTTP.
pub fn exchange<S: Read + Write>(
    mut stream: S,
    arm: impl Fn(&S, Duration) -> std::io::Result<()>,
    limit: Duration,
    method: &str,
    path: &str,
    body: Option<&Value>,
) -> Result<Answer> {
    let deadline = Instant::now() + limit;
    let body = body.map(Value::to_string).unwrap_or_default();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: lab\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    stream.flush()?;
    let mut bytes = Vec::new();
    let mut chunk = [0; 16 * 1024];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        ensure!(!left.is_zero(), "no answer within {limit:?}");
        arm(&stream, left)?;
        let read = match stream.read(&mut chunk) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                bail!("no answer within {limit:?}")
            }
            Err(error) => return Err(error.into()),
        };
        bytes.extend_from_slice(&chunk[..read]);
        ensure!(bytes.len() as u64 <= ANSWER_BYTES_MAX, "an answer above {ANSWER_BYTES_MAX} bytes");
        // Some servers keep the connection in spite of the request: the answer's own length tells its end.
        if complete(&bytes) {
            break;
        }
    }
    parse(&bytes)
}

/// A text as part of a query.
pub fn encode(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded += &format!("%{byte:02X}");
        }
    }
    encoded
}

/// Where the head ends.
fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|window| window == b"\r\n\r\n")
}

/// Whether a whole answer is there, as far as its own head can tell.
fn complete(bytes: &[u8]) -> bool {
    let Some(end) = head_end(bytes) else { return false };
    let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
    let length =
        head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    match length {
        Some(length) => bytes.len() >= end + 4 + length,
        None => head.contains("transfer-encoding: chunked") && bytes.ends_with(b"0\r\n\r\n"),
    }
}

fn parse(bytes: &[u8]) -> Result<Answer> {
    let end = head_end(bytes).context("the answer ended within its head")?;
    let head = std::str::from_utf8(&bytes[..end]).context("a head that is not text")?;
    let mut lines = head.split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.split(' ').nth(1)?.parse().ok())
        .context("an answer without a status")?;
    let head: Vec<_> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let chunked = head.iter().any(|(name, value)| name == "transfer-encoding" && value.contains("chunked"));
    let rest = &bytes[end + 4..];
    let body = if chunked { unchunk(rest)? } else { rest.to_vec() };
    Ok(Answer { status, head, body })
}

/// The body inside chunks.
fn unchunk(mut rest: &[u8]) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = rest.windows(2).position(|window| window == b"\r\n").context("a chunk without a size")?;
        let size = std::str::from_utf8(&rest[..line])?.split(';').next().unwrap_or_default();
        let size = usize::from_str_radix(size.trim(), 16).context("a chunk's size")?;
        rest = &rest[line + 2..];
        if size == 0 {
            return Ok(body);
        }
        ensure!(rest.len() >= size + 2, "the answer ended within a chunk");
        body.extend_from_slice(&rest[..size]);
        rest = &rest[size + 2..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunked_answer_is_put_together() {
        let answer = parse(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n",
        )
        .unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (200, "abcde"));
    }

    #[test]
    fn answer_cut_within_a_chunk_is_refused() {
        assert!(parse(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nabc").is_err());
        assert!(parse(b"HTTP/1.1 200 OK\r\nContent").is_err());
    }

    #[test]
    fn answer_is_complete_with_its_length() {
        assert!(!complete(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab"));
        assert!(complete(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"));
    }
}
