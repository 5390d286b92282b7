//! Tasks that belong together and end together: all of a node's, so that the simulator can kill one node.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use quinn::{AsyncTimer, AsyncUdpSocket, Runtime};
use tokio::task::AbortHandle;

const PRUNE_AT: usize = 64;

#[derive(Debug, Default)]
struct Inner {
    handles: Vec<AbortHandle>,
    prune_at: usize,
    ended: bool,
}

/// A group of tasks. Cheap to clone; aborting it ends them all, and nothing starts in it any more.
#[derive(Debug, Clone, Default)]
pub struct Scope(Arc<Mutex<Inner>>);

impl Scope {
    /// An empty group.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Run a task in this group.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.ended {
            return;
        }
        if inner.handles.len() >= inner.prune_at.max(PRUNE_AT) {
            inner.handles.retain(|handle| !handle.is_finished());
            inner.prune_at = inner.handles.len() * 2;
        }
        inner.handles.push(tokio::spawn(task).abort_handle());
    }

    /// End all tasks of the group.
    pub fn abort(&self) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.ended = true;
        for handle in inner.handles.drain(..) {
            handle.abort();
        }
    }

    /// Tasks that have not ended.
    #[must_use]
    pub fn running(&self) -> usize {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.handles.iter().filter(|handle| !handle.is_finished()).count()
    }
}

/// quinn's runtime on tokio, with its tasks in a [`Scope`] and tokio's clock, virtual or not.
#[derive(Debug)]
pub struct ScopedRuntime(pub Scope);

#[derive(Debug)]
struct Timer(Pin<Box<tokio::time::Sleep>>);

impl AsyncTimer for Timer {
    fn reset(mut self: Pin<&mut Self>, at: Instant) {
        tokio::time::Sleep::reset(self.0.as_mut(), at.into());
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Future::poll(self.0.as_mut(), cx)
    }
}

impl Runtime for ScopedRuntime {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        Box::pin(Timer(Box::pin(tokio::time::sleep_until(at.into()))))
    }

    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        self.0.spawn(future);
    }

    fn wrap_udp_socket(&self, socket: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        quinn::TokioRuntime.wrap_udp_socket(socket)
    }

    fn now(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_aborted_scope_ends_its_tasks_and_starts_none() {
        let scope = Scope::new();
        scope.spawn(std::future::pending());
        assert_eq!(scope.running(), 1);
        scope.abort();
        scope.spawn(std::future::pending());
        tokio::task::yield_now().await;
        assert_eq!(scope.running(), 0);
    }
}
