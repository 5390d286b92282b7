//! Tasks that belong together and end together: all of a node's, so that the simulator can kill one node.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Instant;

use quinn::{AsyncTimer, AsyncUdpSocket, Runtime};
use tokio::task::{AbortHandle, JoinHandle};

const PRUNE_AT: usize = 64;

#[derive(Debug, Default)]
struct Inner {
    handles: Vec<AbortHandle>,
    children: Vec<Weak<Mutex<Inner>>>,
    prune_at: usize,
    ended: bool,
}

impl Inner {
    fn prune(&mut self) {
        if self.handles.len() + self.children.len() >= self.prune_at.max(PRUNE_AT) {
            self.handles.retain(|handle| !handle.is_finished());
            self.children.retain(|child| child.strong_count() > 0);
            self.prune_at = (self.handles.len() + self.children.len()) * 2;
        }
    }
}

/// A group of tasks. Cheap to clone; aborting it ends them all, those of its children too, and nothing starts
/// in it any more.
#[derive(Debug, Clone, Default)]
pub struct Scope(Arc<Mutex<Inner>>);

impl Scope {
    /// An empty group.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Run a task in this group. `None` if the group has ended.
    pub fn spawn<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> Option<JoinHandle<T>> {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.ended {
            return None;
        }
        inner.prune();
        let handle = tokio::spawn(task);
        inner.handles.push(handle.abort_handle());
        Some(handle)
    }

    /// A group that ends with this one, and may end before it.
    #[must_use]
    pub fn child(&self) -> Self {
        let child = Self::default();
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.ended {
            child.abort();
        } else {
            inner.prune();
            inner.children.push(Arc::downgrade(&child.0));
        }
        child
    }

    /// End all tasks of the group.
    pub fn abort(&self) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.ended = true;
        for handle in inner.handles.drain(..) {
            handle.abort();
        }
        let children = std::mem::take(&mut inner.children);
        drop(inner);
        for child in children.iter().filter_map(Weak::upgrade) {
            Self(child).abort();
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
        scope.spawn(std::future::pending::<()>());
        assert_eq!(scope.running(), 1);
        scope.abort();
        scope.spawn(std::future::pending::<()>());
        tokio::task::yield_now().await;
        assert_eq!(scope.running(), 0);
    }

    #[tokio::test]
    async fn children_end_with_their_parent_and_not_the_other_way() {
        let parent = Scope::new();
        let (one, two) = (parent.child(), parent.child());
        for scope in [&parent, &one, &two] {
            scope.spawn(std::future::pending::<()>());
        }
        one.abort();
        tokio::task::yield_now().await;
        assert_eq!((parent.running(), one.running(), two.running()), (1, 0, 1));
        parent.abort();
        let late = parent.child();
        late.spawn(std::future::pending::<()>());
        tokio::task::yield_now().await;
        assert_eq!((parent.running(), two.running(), late.running()), (0, 0, 0));
    }
}
