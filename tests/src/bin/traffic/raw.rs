//! Connections that do not speak HTTP, beside those that do: they show what becomes of ends, resets and bytes that wait.
//!
//! Such a connection begins with the line `raw KEY WORD`, or is an HTTP request for `/upgrade`, after whose answer it echoes. How it
//! fares is kept under its key, for `GET /told/KEY`.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Result, bail};
use shoal_tests::pattern;

/// Keys that are remembered; what comes after them is served all the same.
const KEYS_MAX: usize = 4096;

/// What became of connections, by the key that they gave.
#[derive(Default)]
pub(crate) struct Told(Mutex<BTreeMap<String, String>>);

impl Told {
    pub(crate) fn of(&self, key: &str) -> String {
        let told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.get(key).cloned().unwrap_or_else(|| "nothing".to_owned())
    }

    fn note(&self, key: &str, what: String) {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() < KEYS_MAX || told.contains_key(key) {
            told.insert(key.to_owned(), what);
        }
    }
}

/// Serve a connection that began with this line.
pub(crate) fn serve(line: &str, reader: BufReader<&TcpStream>, told: &Told) -> Result<()> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (key, result) = match words.as_slice() {
        ["raw", key, "gather"] => (key, gather(reader)),
        ["raw", key, "give", count] => (key, give(count.parse()?, reader, |what| told.note(key, what))),
        ["raw", key, "break"] => (key, break_off(reader.into_inner())),
        ["raw", key, "late"] => {
            std::thread::sleep(Duration::from_millis(300));
            (key, break_off(reader.into_inner()))
        }
        ["raw", key, "echo"] => (key, echo(reader)),
        _ => bail!("an odd line: {line}"),
    };
    told.note(key, result.unwrap_or_else(|error| format!("failed: {error}")));
    Ok(())
}

/// Take all until the client has finished, and only then say how much it was.
fn gather(mut reader: BufReader<&TcpStream>) -> Result<String> {
    let said = format!("got {}", pattern::check(&mut reader)?);
    reader.get_mut().write_all(said.as_bytes())?;
    Ok(said)
}

/// Send so many bytes and finish, then take all until the client has finished, too.
fn give(count: u64, mut reader: BufReader<&TcpStream>, note: impl Fn(String)) -> Result<String> {
    pattern::write(reader.get_mut(), count, |sent| note(format!("sent {sent}")))?;
    reader.get_ref().shutdown(Shutdown::Write)?;
    Ok(format!("got {}", pattern::check(&mut reader)?))
}

/// Close without a word of farewell.
fn break_off(stream: &TcpStream) -> Result<String> {
    socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO))?;
    Ok("broken off".to_owned())
}

/// Send each line back.
pub(crate) fn echo(mut reader: BufReader<&TcpStream>) -> Result<String> {
    let mut line = String::new();
    while reader.read_line(&mut line)? > 0 {
        reader.get_mut().write_all(line.as_bytes())?;
        line.clear();
    }
    Ok("finished".to_owned())
}

/// Answer a request to go on without HTTP.
pub(crate) fn upgrade(mut reader: BufReader<&TcpStream>) -> Result<()> {
    reader
        .get_mut()
        .write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")?;
    echo(reader).map(drop)
}

/// Send each client's bytes back, many clients at a time, on one thread.
pub(crate) fn hold(port: u16) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(("::", port)).await?;
        loop {
            let Ok((mut stream, _)) = listener.accept().await else {
                // There is no place for more: those that are there go on.
                tokio::task::yield_now().await;
                continue;
            };
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                // A client that breaks off is its own affair.
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    })
}
