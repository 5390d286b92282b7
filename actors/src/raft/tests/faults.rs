//! Disks that are full, slow or not ours; callers that ask too much.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use openraft::raft::VoteRequest;
use shoal_core::model::NodeStatus;
use shoal_core::store::{Command, Write};
use shoal_wire::{Kind, codec};
use tokio::time::{Instant, sleep};

use super::cluster::{Cluster, id, trace};
use crate::raft::message::Ballot;
use crate::raft::types::Vote;
use crate::raft::{ProposeError, RaftHandle};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_with_a_full_disk_is_replaced_and_comes_back_when_there_is_space() {
    let cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    let other = cluster.followers(leader)[0];
    cluster.write_at(leader, 1).await;
    cluster.disks[&leader].full.store(true, SeqCst);
    let error = cluster.nodes[&leader].propose(trace(2)).await.unwrap_err();
    assert!(error.to_string().contains("disk is full"), "{error}");
    assert!(cluster.nodes[&leader].metrics().disk_full.is_some());
    cluster.write_at(other, 3).await;
    cluster.disks[&leader].full.store(false, SeqCst);
    cluster.await_traces(leader, [1, 3]).await;
    cluster.write_at(leader, 4).await;
    assert!(cluster.nodes[&leader].metrics().disk_full.is_none());
    for n in 1..=3 {
        cluster.await_traces(n, [1, 3, 4]).await;
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_space_on_a_majority_nothing_is_acknowledged_and_nothing_is_lost() {
    let mut cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    for n in 0..20 {
        cluster.write_at(leader, n).await;
    }
    for disk in cluster.disks.values() {
        disk.full.store(true, SeqCst);
    }
    let began = Instant::now();
    for n in 1..=3 {
        cluster.nodes[&n].propose(trace(100 + n)).await.unwrap_err();
    }
    assert!(began.elapsed() < Duration::from_secs(15));
    for disk in cluster.disks.values() {
        disk.full.store(false, SeqCst);
    }
    cluster.write_at(leader, 20).await;
    for n in 1..=3 {
        cluster.kill(n);
        cluster.start(n).await;
    }
    for n in 1..=3 {
        cluster.await_traces(n, 0..=20).await;
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_sync_starts_no_election() {
    let cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    let term = cluster.nodes[&leader].leadership().borrow().term;
    for slow in 1..=3 {
        cluster.disks[&slow].slow_ms.store(1_500, SeqCst);
        cluster.write_at(leader, slow).await;
        cluster.disks[&slow].slow_ms.store(0, SeqCst);
        sleep(Duration::from_secs(2)).await;
        cluster.write_at(leader, 10 + slow).await;
        let now = cluster.nodes[&leader].leadership().borrow().clone();
        assert_eq!((now.term, now.is_me), (term, true), "while the disk of {slow} was slow");
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_key_than_the_logs_is_refused() {
    let mut cluster = Cluster::of(1).await;
    cluster.write_at(1, 1).await;
    cluster.kill(1);
    let key = cluster.folder.path().join("1/key");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&key).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let good = std::fs::read(&key).unwrap();
    std::fs::write(&key, [0; 32]).unwrap();
    let config = cluster.config(1);
    let error = RaftHandle::start(config).await.err().unwrap();
    assert!(error.to_string().contains("another key"), "{error}");
    std::fs::remove_file(&key).unwrap();
    let config = cluster.config(1);
    let error = RaftHandle::start(config).await.err().unwrap();
    assert!(error.to_string().contains("key is missing"), "{error}");
    std::fs::write(&key, good).unwrap();
    cluster.start(1).await;
    cluster.await_traces(1, [1]).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_is_too_large_is_refused_by_name() {
    let cluster = Cluster::of(1).await;
    let status = NodeStatus { message: "x".repeat(2 << 20), ..NodeStatus::default() };
    let command = Command { writes: vec![Write::NodeStatus(id(1), status)], ..Command::default() };
    let error = cluster.nodes[&1].propose(command).await.unwrap_err();
    assert!(matches!(error, ProposeError::TooLarge { limit: 1_048_576, .. }), "{error}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_changes_reach_all_managers() {
    let cluster = Cluster::of(3).await;
    for n in 0..20 {
        let mut command = trace(n);
        let status = NodeStatus { message: "x".repeat(900_000), ..NodeStatus::default() };
        let Write::NodeCreate(node) = &command.writes[0] else { panic!() };
        let status = Write::NodeStatus(node.id, status);
        command.writes.push(status);
        cluster.nodes[&1].propose(command).await.unwrap();
    }
    for n in 1..=3 {
        cluster.await_traces(n, 0..20).await;
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn past_the_limit_proposals_are_refused_at_once() {
    let cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    cluster.network.isolate(id(leader));
    let mut waiting = Vec::new();
    for n in 0..5000 {
        let handle = cluster.nodes[&leader].clone();
        waiting.push(tokio::spawn(async move { handle.propose(trace(n)).await }));
    }
    let mut refused = 0;
    for task in waiting {
        refused += u32::from(matches!(task.await.unwrap(), Err(ProposeError::Overloaded(4096))));
    }
    assert!((900..1000).contains(&refused), "{refused}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_cannot_vote_in_the_name_of_another_nor_send_garbage() {
    let cluster = Cluster::of(3).await;
    let vote = Ballot::V1(VoteRequest::new(Vote::new(99, id(2)), None));
    let body = codec::encode(&vote).unwrap();
    let error = cluster.nodes[&1].handle(id(3), Kind::RaftVote, body).await.unwrap_err();
    assert!(error.contains("speaks for"), "{error}");
    for kind in Kind::ALL {
        assert!(
            cluster.nodes[&1].handle(id(3), *kind, vec![255; 40]).await.is_err() || *kind == Kind::ReadIndex
        );
    }
    cluster.write_at(1, 1).await;
    cluster.stop().await;
}
