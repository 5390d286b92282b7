//! What the task runner counts.

/// Counters since the start, and gauges of now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Tasks held now.
    pub tasks: u64,
    /// Tasks in state running now.
    pub running: u64,
    /// Statuses that wait for their acknowledgement now.
    pub reports_pending: u64,
    /// Containers made.
    pub prepared_total: u64,
    /// Containers started.
    pub started_total: u64,
    /// Containers stopped.
    pub stopped_total: u64,
    /// Containers removed.
    pub removed_total: u64,
    /// Tasks that ended well.
    pub completed_total: u64,
    /// Tasks that failed after their start.
    pub failed_total: u64,
    /// Tasks that failed before their start.
    pub rejected_total: u64,
    /// Containers found running after a restart of the node.
    pub adopted_total: u64,
    /// Containers removed because they belonged to no task.
    pub orphans_removed_total: u64,
    /// Steps that the runtime did not answer.
    pub runtime_unavailable_total: u64,
    /// Writes of the node's records that failed.
    pub store_failures_total: u64,
}
