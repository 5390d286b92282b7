//! Threads beside the actors', each with an event loop of its own.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::{Builder, Handle};
use tokio::sync::watch;

/// A few threads. Dropped, they end, and all that runs on them.
#[derive(Debug)]
pub struct Threads {
    handles: Vec<Handle>,
    next: AtomicUsize,
    stop: watch::Sender<bool>,
}

impl Threads {
    /// So many, one at least.
    pub(crate) fn start(name: &str, count: usize) -> io::Result<Self> {
        let stop = watch::channel(false).0;
        let mut threads = Self { handles: Vec::new(), next: AtomicUsize::new(0), stop };
        for number in 0..count.max(1) {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            threads.handles.push(runtime.handle().clone());
            let mut stopped = threads.stop.subscribe();
            let run = move || {
                let _ = runtime.block_on(stopped.wait_for(|stop| *stop));
            };
            std::thread::Builder::new().name(format!("{name}-{number}")).spawn(run)?;
        }
        Ok(threads)
    }

    /// All of them.
    pub(crate) fn all(&self) -> &[Handle] {
        &self.handles
    }

    /// By turns.
    pub(crate) fn next(&self) -> &Handle {
        &self.handles[self.next.fetch_add(1, Ordering::Relaxed) % self.handles.len()]
    }

    /// End them. Does not wait: they end as soon as they look.
    pub(crate) fn stop(&self) {
        self.stop.send_replace(true);
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.stop();
    }
}
