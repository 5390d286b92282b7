//! The runtime as openraft sees it: tokio, with a hook on spawn and on randomness.
//!
//! Everything of one consensus group member runs in a [`Scope`]: its tasks belong to one group, so that they
//! can be ended at once, and its random numbers come from the scope's seed.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use openraft::{AsyncRuntime, TokioRuntime};
use ring::rand::{SecureRandom, SystemRandom};
use shoal_net::task::Scope as Tasks;

/// Where tasks run, and their randomness.
#[derive(Clone)]
pub(super) struct Scope {
    tasks: Tasks,
    rng: Arc<AtomicU64>,
}

tokio::task_local! {
    static SCOPE: Scope;
}

impl Scope {
    pub(super) fn new(tasks: Tasks, seed: Option<u64>) -> Self {
        let seed = seed.unwrap_or_else(|| {
            let mut bytes = [0; 8];
            // Elections only: a fixed number would make ties likelier, nothing worse.
            let _ = SystemRandom::new().fill(&mut bytes);
            u64::from_le_bytes(bytes)
        });
        Self { tasks, rng: Arc::new(AtomicU64::new(seed)) }
    }

    fn current() -> Self {
        SCOPE.try_with(Self::clone).unwrap_or_else(|_| Self::new(Tasks::new(), None))
    }

    /// Run a future inside of the scope: what it spawns belongs to the scope too.
    pub(super) fn enter<F: Future>(&self, future: F) -> impl Future<Output = F::Output> + use<F> {
        SCOPE.scope(self.clone(), future)
    }

    /// Start a task of the scope.
    pub(super) fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        JoinHandle(self.tasks.spawn(self.enter(future)))
    }

    /// The next number of a splitmix64 sequence.
    pub(super) fn random(&self) -> u64 {
        const STEP: u64 = 0x9E37_79B9_7F4A_7C15;
        let mut z = self.rng.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A duration from `low` up to below `high`.
    pub(super) fn random_between(&self, low: Duration, high: Duration) -> Duration {
        let span = u64::try_from(high.saturating_sub(low).as_micros()).unwrap_or(u64::MAX).max(1);
        low + Duration::from_micros(self.random() % span)
    }
}

/// A task that was started, unless its scope had ended.
pub(super) struct JoinHandle<T>(Option<tokio::task::JoinHandle<T>>);

/// A task that did not end well.
#[derive(Debug)]
pub(super) struct JoinError {
    panicked: bool,
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.panicked { "the task panicked" } else { "the task was ended" })
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.get_mut().0 {
            Some(handle) => {
                Pin::new(handle).poll(cx).map_err(|error| JoinError { panicked: error.is_panic() })
            }
            None => Poll::Ready(Err(JoinError { panicked: false })),
        }
    }
}

/// Random numbers of the current scope.
pub(super) struct ScopedRng(Scope);

impl rand_core_06::RngCore for ScopedRng {
    fn next_u32(&mut self) -> u32 {
        (self.0.random() >> 32) as u32
    }

    fn next_u64(&mut self) -> u64 {
        self.0.random()
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let word = self.0.random().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), rand_core_06::Error> {
        self.fill_bytes(bytes);
        Ok(())
    }
}

/// tokio, through the current [`Scope`].
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Runtime;

impl AsyncRuntime for Runtime {
    type JoinError = JoinError;
    type JoinHandle<T: Send + 'static> = JoinHandle<T>;
    type Sleep = tokio::time::Sleep;
    type Instant = tokio::time::Instant;
    type TimeoutError = tokio::time::error::Elapsed;
    type Timeout<R, T: Future<Output = R> + Send> = tokio::time::Timeout<T>;
    type ThreadLocalRng = ScopedRng;
    type OneshotSender<T: Send> = <TokioRuntime as AsyncRuntime>::OneshotSender<T>;
    type OneshotReceiver<T: Send> = <TokioRuntime as AsyncRuntime>::OneshotReceiver<T>;
    type OneshotReceiverError = <TokioRuntime as AsyncRuntime>::OneshotReceiverError;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + Send + 'static,
        T::Output: Send + 'static,
    {
        Scope::current().spawn(future)
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        tokio::time::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        tokio::time::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + Send>(duration: Duration, future: F) -> Self::Timeout<R, F> {
        tokio::time::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + Send>(
        deadline: Self::Instant,
        future: F,
    ) -> Self::Timeout<R, F> {
        tokio::time::timeout_at(deadline, future)
    }

    fn is_panic(error: &Self::JoinError) -> bool {
        error.panicked
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        ScopedRng(Scope::current())
    }

    fn oneshot<T: Send>() -> (Self::OneshotSender<T>, Self::OneshotReceiver<T>) {
        TokioRuntime::oneshot()
    }
}
