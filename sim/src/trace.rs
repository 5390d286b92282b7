//! What happened, in order: a running hash over everything, and on request the events themselves, so that two
//! runs of a seed can be compared event by event and one can be drawn.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;

use crate::event::{Event, What};
use crate::host::number;

/// Events that are kept at most; the oldest go.
const EVENTS_MAX: usize = 2_000_000;

struct Inner {
    /// `SipHash` with fixed keys: fast, and as good as any where nobody is to be kept out.
    hash: DefaultHasher,
    count: u64,
    began: Instant,
    kept: Option<Vec<Event>>,
}

/// The trace of one simulation. Cheap to clone.
#[derive(Clone)]
pub struct Trace(Arc<Mutex<Inner>>);

fn micros(inner: &Inner, at: Instant) -> u64 {
    u64::try_from(at.saturating_duration_since(inner.began).as_micros()).unwrap_or(u64::MAX)
}

impl Trace {
    /// An empty trace; `keep` also keeps the events. Must be made inside the runtime.
    #[must_use]
    pub fn new(keep: bool) -> Self {
        let inner =
            Inner { hash: DefaultHasher::new(), count: 0, began: Instant::now(), kept: keep.then(Vec::new) };
        Self(Arc::new(Mutex::new(inner)))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something happened.
    pub fn event(&self, what: What) {
        let mut inner = self.lock();
        let at_us = micros(&inner, Instant::now());
        inner.count += 1;
        at_us.hash(&mut inner.hash);
        format!("{what:?}").hash(&mut inner.hash);
        inner.keep(Event { at_us, what });
    }

    /// Something happened that has no kind of its own.
    pub fn note(&self, host: Option<usize>, text: impl Into<String>) {
        self.event(What::Note { host, text: text.into() });
    }

    /// A message or packet arrives now, or was lost.
    pub fn message(&self, label: &str, from: IpAddr, to: IpAddr, bytes: &[u8], sent: Instant, lost: bool) {
        let mut inner = self.lock();
        let (sent_us, now_us) = (micros(&inner, sent), micros(&inner, Instant::now()));
        let (from, to) = (number(from), number(to));
        inner.count += 1;
        (now_us, from, to, label, lost).hash(&mut inner.hash);
        inner.hash.write(bytes);
        if inner.kept.is_some() {
            let arrived_us = (!lost).then_some(now_us);
            let mut digest = DefaultHasher::new();
            digest.write(bytes);
            let (label, bytes, digest) = (label.to_owned(), bytes.len(), digest.finish());
            let what = What::Message { from, to, label, bytes, digest, arrived_us };
            inner.keep(Event { at_us: sent_us, what });
        }
    }

    /// The hash so far, and how many events it covers.
    #[must_use]
    pub fn digest(&self) -> (String, u64) {
        let inner = self.lock();
        (format!("{:016x}", inner.hash.finish()), inner.count)
    }

    /// The events, if they were kept: by the time at which each began to happen.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        let mut events = self.lock().kept.as_mut().map(std::mem::take).unwrap_or_default();
        events.sort_by_key(|event| event.at_us);
        events
    }
}

impl Inner {
    fn keep(&mut self, event: Event) {
        let Some(kept) = &mut self.kept else { return };
        if kept.len() >= EVENTS_MAX {
            kept.drain(..EVENTS_MAX / 10);
        }
        kept.push(event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::ip;

    #[tokio::test(start_paused = true)]
    async fn every_event_changes_the_hash_and_keeping_them_does_not() {
        let run = |keep: bool, last: &str| {
            let trace = Trace::new(keep);
            trace.event(What::Up { host: 1 });
            trace.message("RaftVote", ip(1), ip(2), b"yes", Instant::now(), false);
            trace.note(None, last);
            (trace.digest(), trace.events().len())
        };
        let ((hash, count), none) = run(false, "a");
        assert_eq!((run(true, "a").0, none, run(true, "a").1), ((hash.clone(), count), 0, 3));
        assert_ne!(run(false, "b").0.0, hash);
    }

    #[tokio::test(start_paused = true)]
    async fn messages_of_one_length_are_told_apart_by_what_they_say() {
        let kept = |bytes: &[u8]| {
            let trace = Trace::new(true);
            trace.message("RaftVote", ip(1), ip(2), bytes, Instant::now(), false);
            serde_json::to_string(&trace.events()).unwrap()
        };
        assert_eq!(kept(b"yes"), kept(b"yes"));
        assert_ne!(kept(b"yes"), kept(b"no!"));
    }
}
