//! Managers come and go.

use std::time::Duration;

use super::cluster::{Cluster, id, trace};
use crate::raft::{RaftHandle, SeatError, StartError, forget};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn up_to_seven_managers_take_seats_and_an_eighth_is_refused() {
    let mut cluster = Cluster::of(7).await;
    assert_eq!(cluster.nodes[&1].voters().len(), 7);
    cluster.start(8).await;
    let error = cluster.nodes[&1].take_seat(id(8), "node-8".into()).await.unwrap_err();
    assert_eq!(error, SeatError::TooMany(7));
    // Asked through another manager, the leader's words come through.
    let error = cluster.nodes[&2].take_seat(id(8), "node-8".into()).await.unwrap_err();
    assert_eq!(error.to_string(), SeatError::TooMany(7).to_string());
    cluster.write_at(7, 1).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_demotion_that_would_lose_quorum_is_refused_with_the_reason() {
    let mut cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    let others = cluster.followers(leader);
    cluster.kill(others[0]);
    // At once, when nobody has missed it yet, as well as later.
    for _ in 0..2 {
        let error = cluster.nodes[&leader].leave_seat(id(others[1])).await.unwrap_err();
        assert_eq!(error, SeatError::QuorumLoss { remaining: 2, reachable: 1, majority: 2 });
    }
    // The lost one may go.
    cluster.nodes[&leader].leave_seat(id(others[0])).await.unwrap();
    cluster.nodes[&leader].leave_seat(id(others[1])).await.unwrap();
    let error = cluster.nodes[&leader].leave_seat(id(leader)).await.unwrap_err();
    assert_eq!(error, SeatError::LastManager);
    cluster.write_at(leader, 1).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_may_leave_and_the_others_go_on() {
    let cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    let other = cluster.followers(leader)[0];
    cluster.write_at(leader, 1).await;
    cluster.nodes[&other].leave_seat(id(leader)).await.unwrap();
    // It steps down by itself once the others hold the new membership: nobody has to take its place first.
    let mut leadership = cluster.nodes[&leader].leadership();
    let stepped_down = leadership.wait_for(|now| !now.is_me);
    tokio::time::timeout(Duration::from_secs(5), stepped_down).await.expect("it still leads").unwrap();
    cluster.write_at(other, 2).await;
    assert_eq!(cluster.nodes[&other].voters().len(), 2);
    assert!(!cluster.nodes[&other].voters().contains_key(&id(leader)));
    assert_ne!(cluster.leader().await, leader);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_seat_may_be_left_and_taken_many_times() {
    let mut cluster = Cluster::of(3).await;
    for round in 0..10 {
        let leader = cluster.leader().await;
        let n = cluster.followers(leader)[0];
        cluster.nodes[&leader].leave_seat(id(n)).await.unwrap();
        cluster.kill(n);
        if round % 2 == 0 {
            // It comes back as a new node would.
            std::fs::remove_dir_all(cluster.folder.path().join(n.to_string())).unwrap();
        }
        cluster.start(n).await;
        cluster.nodes[&leader].take_seat(id(n), format!("node-{n}")).await.unwrap();
        cluster.write_at(n, round).await;
    }
    for n in 1..=3 {
        cluster.await_traces(n, 0..10).await;
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_seat_keeps_its_vote_when_its_address_changes() {
    let cluster = Cluster::of(3).await;
    cluster.nodes[&2].take_seat(id(2), "elsewhere".into()).await.unwrap();
    cluster.write_at(3, 1).await;
    assert_eq!(cluster.nodes[&3].voters()[&id(2)], "elsewhere");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newcomer_that_does_not_answer_gets_no_seat_and_leaves_no_trace() {
    let cluster = Cluster::of(3).await;
    let error = cluster.nodes[&1].take_seat(id(9), "nowhere".into()).await.unwrap_err();
    assert!(matches!(error, SeatError::NotCaughtUp { .. } | SeatError::Unavailable(_)), "{error}");
    assert_eq!(cluster.nodes[&1].voters().len(), 3);
    cluster.write_at(1, 1).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_cluster_can_be_forced_from_one_managers_state() {
    let mut cluster = Cluster::of(3).await;
    for n in 0..20 {
        cluster.write_at(1, n).await;
    }
    cluster.await_traces(2, 0..20).await;
    for n in 1..=3 {
        cluster.kill(n);
    }
    let mut config = cluster.config(2);
    config.force_new_cluster = true;
    cluster.start_with(2, config).await;
    assert_eq!(cluster.leader().await, 2);
    assert_eq!(cluster.nodes[&2].voters().len(), 1);
    cluster.await_traces(2, 0..20).await;
    cluster.write_at(2, 20).await;
    // And it grows again, with new managers.
    cluster.start(4).await;
    cluster.nodes[&2].take_seat(id(4), "node-4".into()).await.unwrap();
    cluster.await_traces(4, 0..=20).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_forced_from_an_empty_disk_and_nothing_begun_twice() {
    let mut cluster = Cluster::new();
    let mut config = cluster.config(1);
    config.force_new_cluster = true;
    let error = RaftHandle::start(config).await.err().unwrap();
    assert!(matches!(error, StartError::NothingToKeep), "{error}");
    cluster.form(1).await;
    let error = cluster.nodes[&1].bootstrap().await.unwrap_err();
    assert!(matches!(error, StartError::AlreadyMember), "{error}");
    cluster.nodes[&1].propose(trace(1)).await.unwrap();
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_lost_its_seat_and_its_log_elects_nobody_who_lacks_what_it_had() {
    let mut cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    let [forgetful, stale] = cluster.followers(leader)[..] else { panic!("three managers") };
    cluster.write_at(leader, 1).await;
    cluster.await_traces(stale, [1]).await;
    cluster.kill(stale);
    cluster.start(4).await;
    cluster.nodes[&leader].take_seat(id(4), "node-4".into()).await.unwrap();
    // It must first be known to be gone, or so many may not go.
    tokio::time::sleep(Duration::from_secs(2)).await;
    cluster.nodes[&leader].leave_seat(id(forgetful)).await.unwrap();
    cluster.write_at(leader, 2).await;
    cluster.kill(forgetful);
    let dir = cluster.folder.path().join(forgetful.to_string());
    forget(&dir, None, id(forgetful)).await.unwrap();
    let left: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert_eq!(left, ["former"]);
    // It comes again with an empty log, and hears of nobody but one who thinks that the two are a majority.
    for (one, other) in [(leader, forgetful), (leader, stale), (4, forgetful), (4, stale)] {
        cluster.network.cut(id(one), id(other));
        cluster.network.cut(id(other), id(one));
    }
    cluster.start(forgetful).await;
    cluster.start(stale).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(!cluster.nodes[&stale].leadership().borrow().is_me, "it was elected by one who had forgotten");
    // With the others about, it follows them, and who had forgotten may have a seat again.
    cluster.network.heal();
    cluster.await_traces(stale, [1, 2]).await;
    let leader = cluster.leader().await;
    cluster.nodes[&leader].take_seat(id(forgetful), format!("node-{forgetful}")).await.unwrap();
    cluster.write_at(forgetful, 3).await;
    cluster.stop().await;
}
