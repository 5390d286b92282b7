//! Containers of a service as they are made and started, told by the engines, at no cost while nothing happens: asking again and
//! again would take processor time from what is measured.

use std::io::{BufRead, BufReader, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::json;

use crate::http;
use crate::lab::Host;

/// A line of a stream of events is no longer than this.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// Listens to engines until dropped.
#[derive(Debug)]
pub struct Starts {
    streams: Vec<UnixStream>,
    threads: Vec<JoinHandle<()>>,
    made: Receiver<Instant>,
    started: Receiver<Instant>,
}

/// Where a stream's events go.
#[derive(Clone)]
struct Reports {
    made: Sender<Instant>,
    started: Sender<Instant>,
}

impl Starts {
    /// Listen to these hosts' engines; what started before does not count.
    ///
    /// # Errors
    /// An engine does not answer.
    pub fn listen<'a>(hosts: impl IntoIterator<Item = &'a Host>, service: &str) -> Result<Self> {
        let label = format!("com.docker.swarm.service.name={service}");
        let filters =
            json!({"type": ["container"], "event": ["create", "start"], "label": [label]}).to_string();
        let ((report_made, made), (report_started, started)) = (channel(), channel());
        let reports = Reports { made: report_made, started: report_started };
        let mut starts = Self { streams: Vec::new(), threads: Vec::new(), made, started };
        for host in hosts {
            let mut stream = UnixStream::connect(host.engine_socket())?;
            let path = format!("/events?filters={}", http::encode(&filters));
            write!(stream, "GET {path} HTTP/1.1\r\nHost: lab\r\n\r\n")?;
            let mut lines = BufReader::new(stream.try_clone()?);
            let mut status = String::new();
            lines.read_line(&mut status)?;
            if !status.contains(" 200 ") {
                bail!("the engine of h{} tells no events: {status}", host.number());
            }
            starts.streams.push(stream);
            let reports = reports.clone();
            starts.threads.push(thread::spawn(move || follow(lines, &reports)));
        }
        Ok(starts)
    }

    /// Wait until so many were made; when the last of them was.
    ///
    /// # Errors
    /// They are not within `limit`.
    pub fn await_made(&self, count: usize, limit: Duration) -> Result<Instant> {
        await_count(&self.made, count, limit, "made")
    }

    /// Wait for so many starts; when the last of them was.
    ///
    /// # Errors
    /// They do not come within `limit`.
    pub fn await_count(&self, count: usize, limit: Duration) -> Result<Instant> {
        await_count(&self.started, count, limit, "started")
    }
}

fn await_count(seen: &Receiver<Instant>, count: usize, limit: Duration, what: &str) -> Result<Instant> {
    let deadline = Instant::now() + limit;
    let mut last = Instant::now();
    for number in 0..count {
        let left = deadline.saturating_duration_since(Instant::now());
        last =
            seen.recv_timeout(left).with_context(|| format!("{number} of {count} containers were {what}"))?;
    }
    Ok(last)
}

impl Drop for Starts {
    fn drop(&mut self) {
        for stream in &self.streams {
            stream.shutdown(Shutdown::Both).ok();
        }
        for thread in self.threads.drain(..) {
            thread.join().ok();
        }
    }
}

fn follow(mut lines: impl BufRead, reports: &Reports) {
    let mut line = String::new();
    while lines.read_line(&mut line).is_ok_and(|read| read > 0 && read <= LINE_BYTES_MAX) {
        // One event a line; the lines between them are the sizes of chunks.
        let report = if line.contains("\"Action\":\"start\"") {
            Some(&reports.started)
        } else if line.contains("\"Action\":\"create\"") {
            Some(&reports.made)
        } else {
            None
        };
        if report.is_some_and(|report| report.send(Instant::now()).is_err()) {
            return;
        }
        line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_are_counted_among_chunks_and_other_events() {
        let text = "\r\n5a\r\n{\"Action\":\"create\",\"Type\":\"container\"}\n\r\n5a\r\n{\"Action\":\"start\"}\n\r\n5\r\n\
                    {\"Action\":\"die\"}\n\r\n5a\r\n{\"Action\":\"start\",\"Type\":\"container\"}\n\r\n0\r\n\r\n";
        let ((report_made, made), (report_started, started)) = (channel(), channel());
        follow(text.as_bytes(), &Reports { made: report_made, started: report_started });
        assert_eq!((made.iter().count(), started.iter().count()), (1, 2));
    }
}
