//! On virtual time, in one thread, with a disk in memory: as a simulator runs it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::cluster::{id, trace};
use super::disks::MemDisk;
use shoal_net::task::Scope;

use crate::raft::replay::COMMITTED;
use crate::raft::{MemoryNetwork, ProposeError, RaftConfig, RaftHandle};

struct Simulated {
    network: MemoryNetwork,
    disks: BTreeMap<u64, MemDisk>,
    nodes: BTreeMap<u64, (RaftHandle, Scope)>,
}

impl Simulated {
    async fn start(&mut self, n: u64, seed: u64) {
        let group = Scope::new();
        let mut config =
            RaftConfig::new(id(n), format!("node-{n}"), "unused".into(), self.network.transport(id(n)));
        config.disk = Some(Arc::new(self.disks.entry(n).or_default().clone()));
        config.tasks = group.clone();
        config.seed = Some(seed * 100 + n);
        let handle = RaftHandle::start(config).await.unwrap();
        self.network.join(id(n), handle.clone());
        self.nodes.insert(n, (handle, group));
    }

    /// As with kill -9.
    fn kill(&mut self, n: u64) {
        let (_, group) = self.nodes.remove(&n).unwrap();
        self.network.part(id(n));
        group.abort();
    }

    async fn leader(&self) -> u64 {
        loop {
            if let Some((n, _)) =
                self.nodes.iter().find(|(_, (handle, _))| handle.leadership().borrow().is_me)
            {
                return *n;
            }
            sleep(Duration::from_millis(1)).await;
        }
    }
}

/// So many managers.
async fn managers(count: u64, seed: u64) -> Simulated {
    let mut cluster =
        Simulated { network: MemoryNetwork::default(), disks: BTreeMap::new(), nodes: BTreeMap::new() };
    cluster.network.set_latency(Duration::from_millis(2));
    cluster.start(1, seed).await;
    cluster.nodes[&1].0.bootstrap().await.unwrap();
    for n in 2..=count {
        cluster.start(n, seed).await;
        cluster.nodes[&1].0.take_seat(id(n), format!("node-{n}")).await.unwrap();
    }
    cluster
}

/// Kill the leader five times; what happened when, by the virtual clock.
async fn story(seed: u64) -> String {
    let mut cluster = managers(3, seed).await;
    let began = Instant::now();
    let mut story = String::new();
    for round in 0..5 {
        let leader = cluster.leader().await;
        cluster.nodes[&leader].0.propose(trace(round)).await.unwrap();
        cluster.kill(leader);
        let lost = Instant::now();
        let (other, _) = cluster.nodes.values().next().unwrap();
        other.propose(trace(100 + round)).await.unwrap();
        let took = lost.elapsed();
        assert!(took < Duration::from_secs(1), "{took:?}");
        writeln!(story, "{:?}: {leader} lost, {took:?} until a write", began.elapsed()).unwrap();
        cluster.start(leader, seed).await;
        sleep(Duration::from_secs(2)).await;
        let applied: Vec<_> = cluster.nodes.values().map(|(handle, _)| *handle.applied().borrow()).collect();
        writeln!(story, "{applied:?}").unwrap();
        assert!(applied.windows(2).all(|pair| pair[0] == pair[1]), "{story}");
    }
    story
}

fn on_virtual_time<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.unwrap().block_on(future)
}

#[test]
fn a_seed_tells_the_same_story_each_time() {
    let run = |seed| on_virtual_time(story(seed));
    let told: Vec<_> = (0..4).map(run).collect();
    for (seed, story) in (0..4).zip(&told) {
        assert_eq!(run(seed), *story);
    }
    assert!(told.windows(2).any(|pair| pair[0] != pair[1]), "the seed changes nothing");
}

#[test]
fn a_leader_that_starts_again_has_to_be_elected_again() {
    on_virtual_time(async {
        let mut cluster = managers(3, 1).await;
        let leader = cluster.leader().await;
        let before = cluster.nodes[&leader].0.leadership().borrow().term;
        let mut written = 0;
        for n in 0..8 {
            written = cluster.nodes[&leader].0.propose(trace(n)).await.unwrap();
        }
        // What was committed is noted, but not durably: a power cut may leave no note, or one that is older.
        cluster.kill(leader);
        assert!(cluster.disks[&leader].files.lock().unwrap().remove(COMMITTED).is_some());
        cluster.start(leader, 2).await;
        let (restarted, _) = &cluster.nodes[&leader];
        let read = loop {
            match restarted.read_index().await {
                Ok(read) => break read,
                Err(error) => assert!(matches!(error, ProposeError::NoLeader(_)), "{error}"),
            }
        };
        assert!(read >= written, "{read} is older than {written}");
        assert!(restarted.leadership().borrow().term > before);
    });
}

#[test]
fn a_leader_that_takes_its_own_seat_and_fails_before_it_is_known_holds_nobody_up() {
    on_virtual_time(async {
        let mut cluster = managers(2, 1).await;
        let (leader, _) = cluster.nodes[&1].clone();
        let leaving = tokio::spawn(async move { leader.leave_seat(id(1)).await });
        // The other one has the first half of the change, and never hears of the second.
        while cluster.nodes[&2].0.voter_groups().len() < 2 {
            sleep(Duration::from_micros(100)).await;
        }
        cluster.network.cut(id(1), id(2));
        while cluster.nodes[&1].0.voters().contains_key(&id(1)) {
            sleep(Duration::from_micros(100)).await;
        }
        cluster.kill(1);
        leaving.abort();
        cluster.network.heal();
        sleep(Duration::from_secs(2)).await;
        cluster.start(1, 2).await;
        while cluster.nodes[&1].0.voters().is_empty() {
            sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(cluster.nodes[&1].0.voter_groups(), [[id(2)].into()], "it has forgotten what it wrote");
        assert_eq!(cluster.nodes[&2].0.voter_groups().len(), 2, "the other one has heard of it");
        let leads = tokio::time::timeout(Duration::from_secs(5), cluster.leader()).await;
        assert_eq!(leads, Ok(2));
        cluster.nodes[&2].0.propose(trace(1)).await.unwrap();
        cluster.nodes[&2].0.leave_seat(id(1)).await.unwrap();
        assert_eq!(cluster.nodes[&2].0.voters().keys().collect::<Vec<_>>(), [&id(2)]);
        cluster.nodes[&2].0.propose(trace(2)).await.unwrap();
    });
}
