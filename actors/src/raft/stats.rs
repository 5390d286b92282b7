//! What consensus has done, for metrics.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Upper bounds of the buckets of every histogram here, in microseconds; one more bucket is above the last.
pub(super) const BOUNDS_US: [u64; 15] = [
    100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000,
    2_000_000, 5_000_000,
];

/// Counts by duration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Histogram {
    /// `(upper bound, count)`, not cumulative; the last bound is `Duration::MAX`.
    pub buckets: Vec<(Duration, u64)>,
    /// Sum of all durations.
    pub sum: Duration,
    /// How many.
    pub count: u64,
}

#[derive(Debug, Default)]
pub(super) struct HistogramCell {
    buckets: [AtomicU64; BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
}

impl HistogramCell {
    pub(super) fn record(&self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let at = BOUNDS_US.iter().position(|bound| us <= *bound).unwrap_or(BOUNDS_US.len());
        self.buckets[at].fetch_add(1, Relaxed);
        self.sum_us.fetch_add(us, Relaxed);
    }

    fn read(&self) -> Histogram {
        let bounds = BOUNDS_US.iter().map(|us| Duration::from_micros(*us)).chain([Duration::MAX]);
        let buckets: Vec<_> = bounds.zip(self.buckets.iter().map(|count| count.load(Relaxed))).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        Histogram { buckets, sum: Duration::from_micros(self.sum_us.load(Relaxed)), count }
    }
}

/// Counted as it happens.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) commit: HistogramCell,
    pub(super) fsync: HistogramCell,
    pub(super) bytes_written: AtomicU64,
    pub(super) proposals: AtomicU64,
    pub(super) proposals_failed: AtomicU64,
    pub(super) batches: AtomicU64,
    pub(super) elections: AtomicU64,
    pub(super) snapshots_built: AtomicU64,
    pub(super) snapshots_installed: AtomicU64,
    pub(super) snapshot_bytes: AtomicU64,
    pub(super) rpcs_failed: AtomicU64,
}

impl Counters {
    pub(super) fn add(counter: &AtomicU64, by: u64) {
        counter.fetch_add(by, Relaxed);
    }

    pub(super) fn fill(&self, stats: &mut RaftStats) {
        stats.commit = self.commit.read();
        stats.fsync = self.fsync.read();
        stats.bytes_written = self.bytes_written.load(Relaxed);
        stats.proposals = self.proposals.load(Relaxed);
        stats.proposals_failed = self.proposals_failed.load(Relaxed);
        stats.batches = self.batches.load(Relaxed);
        stats.elections = self.elections.load(Relaxed);
        stats.snapshots_built = self.snapshots_built.load(Relaxed);
        stats.snapshots_installed = self.snapshots_installed.load(Relaxed);
        stats.snapshot_bytes = self.snapshot_bytes.load(Relaxed);
        stats.rpcs_failed = self.rpcs_failed.load(Relaxed);
    }
}

/// How consensus fares on this node. Counters count from the start of the process.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RaftStats {
    /// Current term.
    pub term: u64,
    /// Whether this node leads.
    pub is_leader: bool,
    /// Index of the newest log entry.
    pub last_log_index: u64,
    /// Index of the newest applied entry.
    pub applied_index: u64,
    /// Index of the newest entry in the snapshot.
    pub snapshot_index: u64,
    /// Entries in the log on disk.
    pub log_entries: u64,
    /// Their bytes.
    pub log_bytes: u64,
    /// Managers.
    pub voters: u64,
    /// Time from proposal to its result, at the leader.
    pub commit: Histogram,
    /// Time of each durable write, sync included; its count is the number of syncs.
    pub fsync: Histogram,
    /// Bytes written to the log.
    pub bytes_written: u64,
    /// Proposals taken here as the leader.
    pub proposals: u64,
    /// Of those, how many failed otherwise than by the state's refusal.
    pub proposals_failed: u64,
    /// Entries that they were grouped in.
    pub batches: u64,
    /// Elections begun by this node.
    pub elections: u64,
    /// Snapshots made here.
    pub snapshots_built: u64,
    /// Snapshots received from a leader.
    pub snapshots_installed: u64,
    /// Size of the newest snapshot.
    pub snapshot_bytes: u64,
    /// Calls to other managers that failed.
    pub rpcs_failed: u64,
    /// Why nothing can be written at present, if so.
    pub disk_full: Option<String>,
    /// Why consensus stopped, if it did.
    pub failed: Option<String>,
}
