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
            // Before it waits, whoever else wants the processor has a turn: on a busy host more has come by then, and is done at once.
            let runtime =
                Builder::new_current_thread().enable_all().on_thread_park(std::thread::yield_now).build()?;
            threads.handles.push(runtime.handle().clone());
            let mut stopped = threads.stop.subscribe();
            let run = move || {
                work_in_batches();
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

/// Ask the kernel to let whoever runs go on when something comes for this thread, which then finds more to do at once: its share of
/// the processor stays as it is. Answering each packet at once costs a third of what a busy host can carry.
fn work_in_batches() {
    let none = libc::sched_param { sched_priority: 0 };
    // SAFETY: takes numbers alone, and reads its third argument; 0 is the calling thread.
    if unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const none) } != 0 {
        let error = io::Error::last_os_error();
        tracing::debug!(%error, "the kernel lets this thread interrupt whatever runs");
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.stop();
    }
}
