//! Snapshots, and those who need them.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::cluster::{Cluster, id, trace};
use crate::raft::RaftHandle;

async fn compacted(n: u64, cluster: &Cluster) {
    let began = Instant::now();
    loop {
        let stats = cluster.nodes[&n].metrics();
        if stats.snapshot_index > 100 && stats.log_entries < 150 {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "{stats:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

async fn small(count: u64) -> Cluster {
    let mut cluster = Cluster::new();
    cluster.snapshot_interval = 50;
    cluster.log_keep = 10;
    cluster.form(count).await;
    cluster
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_manager_gets_a_snapshot_and_then_the_rest() {
    let mut cluster = small(1).await;
    for n in 0..300 {
        cluster.write_at(1, n).await;
    }
    compacted(1, &cluster).await;
    cluster.start(2).await;
    let mut events = cluster.nodes[&2].events();
    cluster.nodes[&1].take_seat(id(2), "node-2".into()).await.unwrap();
    cluster.await_traces(2, 0..300).await;
    assert_eq!(cluster.nodes[&2].metrics().snapshots_installed, 1);
    // The first word is that everything has to be read anew.
    assert!(events.recv().await.unwrap().is_empty());
    cluster.write_at(2, 300).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_behind_the_purged_log_catches_up_by_a_snapshot() {
    let mut cluster = small(3).await;
    let leader = cluster.leader().await;
    let lagging = cluster.followers(leader)[0];
    cluster.write_at(leader, 0).await;
    cluster.kill(lagging);
    for n in 1..300 {
        cluster.write_at(leader, n).await;
    }
    compacted(leader, &cluster).await;
    cluster.start(lagging).await;
    cluster.await_traces(lagging, 0..300).await;
    // On a slow machine a newer snapshot may follow the first.
    assert!(cluster.nodes[&lagging].metrics().snapshots_installed >= 1);
    // What it got survives as well.
    cluster.kill(lagging);
    cluster.start(lagging).await;
    cluster.await_traces(lagging, 0..300).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_restarts_from_snapshots_and_logs() {
    let mut cluster = small(3).await;
    for n in 0..400 {
        cluster.write_at(1 + n % 3, n).await;
    }
    for n in 1..=3 {
        compacted(n, &cluster).await;
    }
    for n in 1..=3 {
        cluster.kill(n);
    }
    for n in 1..=3 {
        cluster.start(n).await;
    }
    for n in 1..=3 {
        cluster.await_traces(n, 0..400).await;
    }
    cluster.write_at(2, 400).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_or_missing_snapshot_is_refused_by_name() {
    let mut cluster = small(1).await;
    for n in 0..300 {
        cluster.write_at(1, n).await;
    }
    compacted(1, &cluster).await;
    cluster.kill(1);
    let file = cluster.folder.path().join("1/snapshot");
    let good = std::fs::read(&file).unwrap();
    let mut bad = good.clone();
    let at = bad.len() / 2;
    bad[at] ^= 1;
    std::fs::write(&file, bad).unwrap();
    let config = cluster.config(1);
    let error = RaftHandle::start(config).await.err().unwrap();
    assert!(error.to_string().contains("raft/snapshot is corrupt"), "{error}");
    std::fs::remove_file(&file).unwrap();
    let config = cluster.config(1);
    let error = RaftHandle::start(config).await.err().unwrap();
    assert!(error.to_string().contains("raft/snapshot"), "{error}");
    std::fs::write(&file, good).unwrap();
    cluster.start(1).await;
    cluster.await_traces(1, 0..300).await;
    cluster.nodes[&1].propose(trace(300)).await.unwrap();
    cluster.stop().await;
}
