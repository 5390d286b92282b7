//! What is wrong with the disk at the moment, if anything, and whether we are stopping.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

#[derive(Debug, Default)]
struct Inner {
    full: Option<String>,
    failed: Option<String>,
    busy: Option<Instant>,
}

/// Shared between the log, which knows, and everybody who acts on it.
#[derive(Debug)]
pub(super) struct Health {
    inner: Mutex<Inner>,
    stop: watch::Sender<bool>,
}

impl Default for Health {
    fn default() -> Self {
        Self { inner: Mutex::default(), stop: watch::Sender::new(false) }
    }
}

impl Health {
    fn with<T>(&self, f: impl FnOnce(&mut Inner) -> T) -> T {
        f(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A write begins, or ended.
    pub(super) fn busy(&self, since: Option<Instant>) {
        self.with(|inner| inner.busy = since);
    }

    /// For how long the current write has been under way.
    pub(super) fn busy_for(&self) -> Duration {
        self.with(|inner| inner.busy).map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// The disk is full, or no longer.
    pub(super) fn set_full(&self, reason: Option<String>) {
        self.with(|inner| {
            match (&inner.full, &reason) {
                (None, Some(reason)) => {
                    tracing::error!(reason, "raft's disk is full: nothing is acknowledged")
                }
                (Some(_), None) => tracing::info!("raft's disk has space again"),
                _ => {}
            }
            inner.full = reason;
        });
    }

    pub(super) fn full(&self) -> Option<String> {
        self.with(|inner| inner.full.clone())
    }

    /// The disk failed for good: raft stops.
    pub(super) fn fail(&self, reason: String) {
        if self.is_stopping() {
            tracing::debug!(reason, "while raft stops");
            return;
        }
        self.with(|inner| {
            tracing::error!(reason, "raft's disk failed");
            inner.failed.get_or_insert(reason);
        });
    }

    pub(super) fn failed(&self) -> Option<String> {
        self.with(|inner| inner.failed.clone())
    }

    pub(super) fn stop(&self) {
        self.stop.send_replace(true);
    }

    pub(super) fn is_stopping(&self) -> bool {
        *self.stop.borrow()
    }

    /// Wait for the stop.
    pub(super) async fn stopped(&self) {
        let _ = self.stop.subscribe().wait_for(|stop| *stop).await;
    }

    /// Wait, but not beyond the stop. Returns whether we are stopping.
    pub(super) async fn pause(&self, pause: Duration) -> bool {
        let _ = tokio::time::timeout(pause, self.stopped()).await;
        self.is_stopping()
    }
}
