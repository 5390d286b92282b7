//! What happened, in order: a running hash over everything, and on request the lines themselves, so that two
//! runs of a seed can be compared event by event.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use ring::digest::{Context, SHA256, digest};
use tokio::time::Instant;

struct Inner {
    hash: Context,
    events: u64,
    began: Instant,
    lines: Option<Vec<String>>,
}

/// The trace of one simulation. Cheap to clone.
#[derive(Clone)]
pub struct Trace(Arc<Mutex<Inner>>);

impl Trace {
    /// An empty trace; `keep` also keeps the lines. Must be made inside the runtime.
    #[must_use]
    pub fn new(keep: bool) -> Self {
        let lines = keep.then(Vec::new);
        Self(Arc::new(Mutex::new(Inner {
            hash: Context::new(&SHA256),
            events: 0,
            began: Instant::now(),
            lines,
        })))
    }

    /// Something happened.
    pub fn note(&self, what: &str) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = inner.began.elapsed().as_micros();
        inner.events += 1;
        inner.hash.update(format!("{at} {what}\n").as_bytes());
        if let Some(lines) = &mut inner.lines {
            lines.push(format!("{:>12}.{:06} {what}", at / 1_000_000, at % 1_000_000));
        }
    }

    /// A packet was sent or delivered.
    pub fn packet(&self, what: &str, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let sum = digest(&SHA256, bytes);
        let sum = u32::from_le_bytes([sum.as_ref()[0], sum.as_ref()[1], sum.as_ref()[2], sum.as_ref()[3]]);
        self.note(&format!("{what} {from} {to} {} {sum:08x}", bytes.len()));
    }

    /// The hash so far, and how many events it covers.
    #[must_use]
    pub fn digest(&self) -> (String, u64) {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let hash = inner.hash.clone().finish();
        (hash.as_ref()[..8].iter().map(|b| format!("{b:02x}")).collect(), inner.events)
    }

    /// The lines, if they were kept.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).lines.clone().unwrap_or_default()
    }
}
