//! How much a task runner does at once, and how often it looks around.

use std::time::Duration;

/// Bounds of a task runner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Containers made at once. A pull gives its place away.
    pub prepares: usize,
    /// Containers started at once.
    pub starts: usize,
    /// Containers stopped or removed at once.
    pub stops: usize,
    /// Containers of ended tasks that are kept for their logs; the oldest go first.
    pub ended_containers: usize,
    /// Tasks that are held at most; further assignments are refused with a log line.
    pub tasks: usize,
    /// Between two searches for containers that belong to no task.
    pub sweep_interval: Duration,
    /// How long changes are gathered before they are written to disk.
    pub flush_delay: Duration,
}

impl Limits {
    /// Fitting to a host: making a container waits for the engine's disk, starting one keeps two processors busy,
    /// and more at once only makes them wait for each other.
    #[must_use]
    pub fn for_processors(processors: usize) -> Self {
        let starts = processors.saturating_mul(2).clamp(4, 32);
        Self { prepares: starts * 5, starts, ..Self::default() }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            prepares: 20,
            starts: 4,
            stops: 64,
            ended_containers: 200,
            tasks: 20_000,
            sweep_interval: Duration::from_secs(60),
            flush_delay: Duration::from_millis(20),
        }
    }
}
