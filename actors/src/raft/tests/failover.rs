//! Lost leaders, partitions, restarts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use shoal_core::store::Command;
use tokio::time::{Instant, sleep};

use super::cluster::{Cluster, id, trace};
use crate::raft::ProposeError;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_manager_takes_a_write_and_has_it_applied_when_it_returns() {
    let cluster = Cluster::of(3).await;
    for n in 1..=3 {
        let index = cluster.nodes[&n].propose(trace(n)).await.unwrap();
        assert!(cluster.traces(n).contains(&n));
        assert!(*cluster.nodes[&n].applied().borrow() >= index);
        let read = cluster.nodes[&(n % 3 + 1)].read_index().await.unwrap();
        assert!(read >= index, "{read} {index}");
        assert!(cluster.traces(n % 3 + 1).contains(&n));
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_go_on_within_a_second_of_losing_the_leader() {
    let mut cluster = Cluster::of(3).await;
    let mut times = Vec::new();
    for round in 0..6 {
        let leader = cluster.leader().await;
        let other = cluster.followers(leader)[0];
        cluster.write_at(other, 1000 + round).await;
        if round % 2 == 0 {
            cluster.kill(leader);
        } else {
            cluster.network.isolate(id(leader));
        }
        let took = cluster.write_at(other, 2000 + round).await;
        times.push(took);
        if round % 2 == 0 {
            cluster.start(leader).await;
        } else {
            cluster.network.heal();
        }
        cluster.await_traces(leader, (1000..=1000 + round).chain(2000..=2000 + round)).await;
    }
    times.sort();
    // The benchmark holds each to a second; here other tests keep the machine busy.
    assert!(times[3] < Duration::from_secs(1) && times[5] < Duration::from_secs(3), "{times:?}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proposals_under_way_when_the_leader_is_lost_are_applied_once() {
    let cluster = Cluster::of(3).await;
    for round in 0..3 {
        let leader = cluster.leader().await;
        let follower = cluster.followers(leader)[0];
        let clients: Vec<_> = (0..64)
            .map(|client| {
                let handle = cluster.nodes[&follower].clone();
                tokio::spawn(async move {
                    for n in 0..40 {
                        // Applied a second time, it would be refused: the node exists.
                        handle.propose(trace(round * 10_000 + client * 100 + n)).await.unwrap();
                    }
                })
            })
            .collect();
        sleep(Duration::from_millis(30)).await;
        cluster.network.isolate(id(leader));
        for client in clients {
            client.await.unwrap();
        }
        cluster.network.heal();
        cluster.await_traces(leader, (0..64).map(|client| round * 10_000 + client * 100 + 39)).await;
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_minority_answers_stale_reads_and_refuses_writes_within_five_seconds() {
    let cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    cluster.write_at(leader, 1).await;
    cluster.network.isolate(id(leader));
    let began = Instant::now();
    let error = cluster.nodes[&leader].propose(trace(2)).await.unwrap_err();
    assert!(matches!(error, ProposeError::Unavailable(_) | ProposeError::NoLeader(_)), "{error}");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(error.to_string().contains("1 of 3"), "{error}");
    let began = Instant::now();
    cluster.nodes[&leader].read_index().await.unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(2));
    assert!(cluster.traces(leader).contains(&1));
    // By now it knows that it no longer leads.
    assert_eq!(cluster.nodes[&leader].leadership().borrow().leader, None);
    cluster.network.heal();
    cluster.write_at(leader, 3).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_that_comes_back_from_a_partition_disturbs_nobody() {
    let cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    let term = cluster.nodes[&leader].leadership().borrow().term;
    let other = cluster.followers(leader)[0];
    cluster.network.isolate(id(other));
    // Many times its patience.
    sleep(Duration::from_secs(4)).await;
    cluster.network.heal();
    cluster.write_at(other, 1).await;
    sleep(Duration::from_secs(1)).await;
    let now = cluster.nodes[&leader].leadership().borrow().clone();
    assert_eq!((now.term, now.is_me), (term, true));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_managers_are_killed_under_load() {
    let mut cluster = Cluster::of(3).await;
    let acknowledged = Arc::new(std::sync::Mutex::new(Vec::new()));
    let next = Arc::new(AtomicU64::new(0));
    for victim in [1, 2, 3, 1, 2, 3] {
        let mut clients = Vec::new();
        for handle in cluster.nodes.values() {
            for _ in 0..8 {
                let (handle, next, acknowledged) =
                    (handle.clone(), Arc::clone(&next), Arc::clone(&acknowledged));
                clients.push(tokio::spawn(async move {
                    loop {
                        let n = next.fetch_add(1, Ordering::Relaxed);
                        match handle.propose(trace(n)).await {
                            Ok(_) => acknowledged.lock().unwrap().push(n),
                            Err(_) => sleep(Duration::from_millis(10)).await,
                        }
                    }
                }));
            }
        }
        sleep(Duration::from_millis(300)).await;
        cluster.kill(victim);
        sleep(Duration::from_millis(900)).await;
        for client in clients {
            client.abort();
            let _ = client.await;
        }
        cluster.start(victim).await;
    }
    // All at once, too.
    for n in 1..=3 {
        cluster.kill(n);
    }
    for n in 1..=3 {
        cluster.start(n).await;
    }
    let acknowledged = acknowledged.lock().unwrap().clone();
    assert!(acknowledged.len() > 500, "{}", acknowledged.len());
    for n in 1..=3 {
        cluster.await_traces(n, acknowledged.iter().copied()).await;
    }
    let states: Vec<_> = {
        for n in 1..=3 {
            cluster.nodes[&n].read_index().await.unwrap();
        }
        (1..=3).map(|n| cluster.traces(n)).collect()
    };
    assert!(states.windows(2).all(|pair| pair[0] == pair[1]));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_manager_alone_leads_again_at_once_with_all_it_had() {
    let mut cluster = Cluster::of(1).await;
    for n in 0..50 {
        cluster.write_at(1, n).await;
    }
    cluster.kill(1);
    cluster.start(1).await;
    let began = Instant::now();
    assert_eq!(cluster.leader().await, 1);
    assert!(began.elapsed() < Duration::from_secs(1));
    assert_eq!(cluster.traces(1).len(), 50);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_manager_without_a_majority_still_shows_what_was_committed() {
    let mut cluster = Cluster::of(3).await;
    for n in 0..20 {
        cluster.write_at(1, n).await;
    }
    cluster.await_traces(3, 0..20).await;
    for n in 1..=3 {
        cluster.kill(n);
    }
    cluster.start(3).await;
    cluster.await_traces(3, 0..19).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_carries_a_term_is_taken_by_that_terms_leader_alone() {
    let cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    let term = cluster.nodes[&leader].leadership().borrow().term;
    let fenced = |n, term| Command { term: Some(term), ..trace(n) };
    let follower = cluster.followers(leader)[0];
    let error = cluster.nodes[&follower].propose(fenced(1, term)).await.unwrap_err();
    assert!(matches!(error, ProposeError::NotLeader(_)), "{error}");
    let error = cluster.nodes[&leader].propose(fenced(2, term - 1)).await.unwrap_err();
    assert!(matches!(error, ProposeError::Refused(_)), "{error}");
    cluster.nodes[&leader].propose(fenced(3, term)).await.unwrap();
    assert_eq!(cluster.traces(leader), [3].into());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_of_the_messages_may_be_lost_without_losing_the_leader() {
    // Links that come and go faster than anybody's patience.
    let cluster = Cluster::of(3).await;
    let leader = cluster.leader().await;
    let term = cluster.nodes[&leader].leadership().borrow().term;
    for round in 0..30u64 {
        let other = cluster.followers(leader)[usize::try_from(round % 2).unwrap()];
        cluster.network.cut(id(leader), id(other));
        sleep(Duration::from_millis(80)).await;
        cluster.network.heal();
        sleep(Duration::from_millis(80)).await;
    }
    cluster.write_at(leader, 1).await;
    assert_eq!(cluster.nodes[&leader].leadership().borrow().term, term);
    cluster.stop().await;
}
