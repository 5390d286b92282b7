//! Keeps the log short, and finishes what a lost leader left half done.

use std::sync::Arc;
use std::time::Duration;

use openraft::{ChangeMembers, ServerState};

use super::start::Inner;

const TICK: Duration = Duration::from_millis(200);
/// A log of this size is followed by a snapshot, however few its entries are.
const LOG_BYTES_MAX: usize = 64 << 20;

/// Do what is due, until consensus stops.
pub(super) async fn keep_house(inner: Arc<Inner>) {
    let mut joint_for = 0u32;
    let mut asked_at = None;
    while !inner.health.pause(inner.timing.pace.of(TICK)).await {
        let (interval, keep) = inner.log_settings();
        let applied = *inner.view.applied.borrow();
        let snapshot = inner.snapshots.newest().map_or(0, |last| last.index);
        let (bytes, entries) = inner.log.volume();
        let large = bytes > LOG_BYTES_MAX;
        let due = applied >= snapshot + interval || (large && applied > snapshot);
        // openraft makes one snapshot at a time; asking again for the same state would only repeat it.
        if due && asked_at != Some(applied) {
            asked_at = Some(applied);
            if inner.raft.trigger().snapshot().await.is_err() {
                return;
            }
        }
        let keep = if large { 0 } else { keep };
        let excess = (entries as u64).saturating_sub(keep + applied.saturating_sub(snapshot));
        if snapshot > keep && (excess > keep / 4 + 16 || (large && excess > 0)) {
            let known = inner.raft.metrics().borrow().snapshot.map_or(0, |last| last.index);
            if known >= snapshot && inner.raft.trigger().purge_log(snapshot - keep).await.is_err() {
                return;
            }
        }
        joint_for = if inner.is_joint() { joint_for + 1 } else { 0 };
        if joint_for >= 10
            && let Ok(_alone) = inner.seats.try_lock()
        {
            joint_for = 0;
            inner.finish_joint().await;
        }
    }
}

impl Inner {
    fn log_settings(&self) -> (u64, u64) {
        let state = self.view.state();
        state.cluster().map_or((self.snapshot_interval, self.log_keep), |cluster| {
            let raft = &cluster.spec.raft;
            (raft.snapshot_interval.max(1), raft.log_entries_for_slow_followers)
        })
    }

    /// Whether this node leads managers whose change was begun and not finished.
    fn is_joint(&self) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        metrics.state == ServerState::Leader
            && metrics.membership_config.membership().get_joint_config().len() > 1
    }

    /// A leader was lost between the two steps of a change: take the second.
    async fn finish_joint(&self) {
        let goal = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow();
            metrics.membership_config.membership().get_joint_config().last().cloned()
        };
        let Some(goal) = goal else { return };
        let change = self.raft.change_membership(ChangeMembers::ReplaceAllVoters(goal), false);
        match tokio::time::timeout(Duration::from_secs(5), change).await {
            Ok(Ok(_)) => tracing::info!("finished a change of managers that was left half done"),
            Ok(Err(error)) => tracing::warn!(%error, "a change of managers is still half done"),
            Err(_) => tracing::warn!("a change of managers is still half done: no majority"),
        }
    }
}
