//! Tasks that belong together, are held together and end together: all of a node's, so that one node can be stopped among
//! others in a process.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use quinn::{AsyncTimer, AsyncUdpSocket, Runtime};
use tokio::task::{AbortHandle, JoinHandle};

use crate::threads::Threads;

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

/// Stands before every task of a group and of its children.
#[derive(Debug, Default)]
struct Gate {
    shut: AtomicBool,
    waiting: Mutex<Vec<Waker>>,
}

impl Gate {
    /// Whether a task has to wait; if so it is woken when the gate opens.
    fn holds(&self, task: &Waker) -> bool {
        if !self.shut.load(Ordering::Acquire) {
            return false;
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        // It may have opened meanwhile, and woken who waited by then.
        let shut = self.shut.load(Ordering::Acquire);
        if shut && !waiting.iter().any(|known| known.will_wake(task)) {
            waiting.push(task.clone());
        }
        shut
    }

    fn set(&self, shut: bool) {
        self.shut.store(shut, Ordering::Release);
        if !shut {
            let waiting = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
            waiting.into_iter().for_each(Waker::wake);
        }
    }
}

/// A group of tasks. Cheap to clone; aborting it ends them all, those of its children too, and nothing starts
/// in it any more.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    inner: Arc<Mutex<Inner>>,
    gate: Arc<Gate>,
}

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
        let mut inner = self.lock();
        if inner.ended {
            return None;
        }
        inner.prune();
        let handle = tokio::spawn(self.gated(task));
        inner.handles.push(handle.abort_handle());
        Some(handle)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Work that goes on only while the group is not held, wherever it runs.
    pub fn gated<T, F: Future<Output = T>>(&self, task: F) -> impl Future<Output = T> + use<T, F> {
        let gate = Arc::clone(&self.gate);
        async move {
            let mut task = pin!(task);
            std::future::poll_fn(
                |cx| {
                    if gate.holds(cx.waker()) { Poll::Pending } else { task.as_mut().poll(cx) }
                },
            )
            .await
        }
    }

    /// Hold all tasks of the group where they are, or let them go on: as if the machine had no time for them.
    pub fn hold(&self, held: bool) {
        self.gate.set(held);
    }

    /// A group that ends with this one, and may end before it.
    #[must_use]
    pub fn child(&self) -> Self {
        let child = Self { inner: Arc::default(), gate: Arc::clone(&self.gate) };
        let mut inner = self.lock();
        if inner.ended {
            child.abort();
        } else {
            inner.prune();
            inner.children.push(Arc::downgrade(&child.inner));
        }
        child
    }

    /// End all tasks of the group.
    pub fn abort(&self) {
        let mut inner = self.lock();
        inner.ended = true;
        for handle in inner.handles.drain(..) {
            handle.abort();
        }
        let children = std::mem::take(&mut inner.children);
        drop(inner);
        for child in children.iter().filter_map(Weak::upgrade) {
            Self { inner: child, gate: Arc::clone(&self.gate) }.abort();
        }
    }

    /// Whether the group has ended.
    #[must_use]
    pub fn ended(&self) -> bool {
        self.lock().ended
    }

    /// Tasks that have not ended, those of its children too.
    #[must_use]
    pub fn running(&self) -> usize {
        let inner = self.lock();
        let own = inner.handles.iter().filter(|handle| !handle.is_finished()).count();
        let children: Vec<_> = inner.children.iter().filter_map(Weak::upgrade).collect();
        drop(inner);
        let of = |child| Self { inner: child, gate: Arc::clone(&self.gate) }.running();
        own + children.into_iter().map(of).sum::<usize>()
    }
}

/// quinn's runtime on tokio, with its tasks in a [`Scope`] and tokio's clock, virtual or not.
#[derive(Debug)]
pub(crate) struct ScopedRuntime {
    pub(crate) scope: Scope,
    /// Where its tasks run, for as long as any is held; if there is none, on the thread that needs one.
    pub(crate) thread: Option<Threads>,
}

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
        let _on = self.thread.as_ref().map(|thread| thread.next().enter());
        self.scope.spawn(future);
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
        assert_eq!((parent.running(), one.running(), two.running()), (2, 0, 1));
        parent.abort();
        let late = parent.child();
        late.spawn(std::future::pending::<()>());
        tokio::task::yield_now().await;
        assert_eq!((parent.running(), two.running(), late.running()), (0, 0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_held_scope_stands_still_and_goes_on_late() {
        let scope = Scope::new();
        let began = tokio::time::Instant::now();
        let child = scope.child();
        let work = child.spawn(async move {
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            began.elapsed().as_secs()
        });
        tokio::task::yield_now().await;
        scope.hold(true);
        tokio::time::sleep(std::time::Duration::from_secs(5)).await;
        assert_eq!(scope.running(), 1);
        scope.hold(false);
        assert_eq!(work.unwrap().await.unwrap(), 5);
    }
}
