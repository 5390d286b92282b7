//! A leader's heartbeat while its core waits for its own disk.

use std::sync::Arc;
use std::time::Duration;

use openraft::ServerState;

use super::start::Inner;

/// A leader whose disk hangs for longer than this should be replaced.
const PATIENCE: Duration = Duration::from_secs(4);

/// Send bare signs of life for as long as openraft's core cannot.
pub(super) async fn pulse(inner: Arc<Inner>) {
    let interval = inner.timing.heartbeat;
    let mut server = inner.raft.server_metrics();
    while !inner.health.pause(interval).await {
        if server.borrow_and_update().state != ServerState::Leader {
            tokio::select! {
                biased;
                () = inner.health.stopped() => return,
                changed = server.changed() => if changed.is_err() { return },
            }
            continue;
        }
        let busy = inner.health.busy_for();
        // A full disk is no reason to hold on: another manager may have space.
        if busy < interval * 2 || busy > inner.timing.pace.of(PATIENCE) || inner.health.full().is_some() {
            continue;
        }
        let (vote, members) = {
            let metrics = inner.raft.metrics();
            let metrics = metrics.borrow();
            (metrics.vote, Arc::clone(&metrics.membership_config))
        };
        if !vote.committed || vote.leader_id.node_id != inner.me {
            continue;
        }
        for (node, seat) in members.nodes().filter(|(node, _)| **node != inner.me) {
            drop(inner.net.pulse(*node, &seat.addr, vote));
        }
    }
}
