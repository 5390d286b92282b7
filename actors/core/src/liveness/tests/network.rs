//! A small model of the network under the detector: heartbeats in a stream that is resent when a packet
//! is lost, gossip between all nodes, and a leader's clock that may stand still.

use std::time::Duration;

use rand::Rng as _;
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;

use crate::liveness::{Detector, DetectorConfig, PeerView, Suspects, Verdict, Witnesses};
use crate::model::{NodeId, Timestamp};
use crate::pace::Pace;

const STEP_MS: u64 = 50;
const HEARTBEAT_MS: u64 = 300;
const GOSSIP_MS: u64 = 150;
const GOSSIP_PEERS: usize = 3;
const STALE_MS: u64 = 1_000;
const TICK_MS: u64 = 100;
const NODES: usize = 6;

fn id(at: usize) -> NodeId {
    NodeId::from_u128(at as u128 + 1)
}

/// What one node knows of another: how fresh, and whom that one suspected then.
#[derive(Debug, Clone, Copy, Default)]
struct News {
    at: u64,
    suspects: [bool; NODES],
}

struct Network {
    rng: ChaCha8Rng,
    loss: f64,
    now: u64,
    dead: [bool; NODES],
    /// No packet passes between these two.
    cut: [[bool; NODES]; NODES],
    known: [[News; NODES]; NODES],
    /// When a lost heartbeat is sent again, and how long after that.
    resend: [Option<(u64, u64)>; NODES],
    /// Whose heartbeat has arrived and is not read yet.
    arrived: [bool; NODES],
    starved_until: u64,
    ticked: u64,
    detector: Detector,
    /// Every change of verdict as (time, node, verdict).
    story: Vec<(u64, usize, Verdict)>,
}

impl Network {
    fn new(seed: u64, loss: f64) -> Self {
        let start = 1_000_000;
        let mut detector =
            Detector::new(DetectorConfig::for_heartbeat(Duration::from_millis(HEARTBEAT_MS), Pace::USUAL));
        (0..NODES).for_each(|at| assert!(detector.expect(id(at), Timestamp(start))));
        let fresh = News { at: start, suspects: [false; NODES] };
        Self {
            rng: ChaCha8Rng::seed_from_u64(seed),
            loss,
            now: start,
            dead: [false; NODES],
            cut: [[false; NODES]; NODES],
            known: [[fresh; NODES]; NODES],
            resend: [None; NODES],
            arrived: [false; NODES],
            starved_until: 0,
            ticked: start,
            detector,
            story: Vec::new(),
        }
    }

    fn passes(&mut self, from: usize, to: usize) -> bool {
        !self.dead[from] && !self.dead[to] && !self.cut[from][to] && !self.rng.random_bool(self.loss)
    }

    fn cut_off(&mut self, node: usize, cut: bool) {
        for other in 0..NODES {
            self.cut[node][other] = cut && node != other;
            self.cut[other][node] = cut && node != other;
        }
    }

    /// A heartbeat into the stream, which delivers in order: what is lost is sent again after 100, 200, 400 … ms
    /// or with the next heartbeat.
    fn heartbeat(&mut self, node: usize) {
        self.resend[node] = Some((self.now, 100));
        self.send(node);
    }

    fn send(&mut self, node: usize) {
        let Some((at, pause)) = self.resend[node].filter(|(at, _)| *at <= self.now) else { return };
        if node == 0 || self.passes(node, 0) {
            self.resend[node] = None;
            self.arrived[node] = true;
        } else {
            self.resend[node] = Some((at + pause, pause * 2));
        }
    }

    fn gossip(&mut self, node: usize) {
        let mut suspects = [false; NODES];
        for (other, suspect) in suspects.iter_mut().enumerate() {
            *suspect = self.now - self.known[node][other].at > STALE_MS;
        }
        self.known[node][node] = News { at: self.now, suspects };
        for _ in 0..GOSSIP_PEERS {
            let peer = self.rng.random_range(0..NODES);
            let starved = self.now < self.starved_until && (peer == 0 || node == 0);
            // An exchange takes a packet each way, and then a third.
            if peer == node || starved || !self.passes(node, peer) || !self.passes(peer, node) {
                continue;
            }
            for subject in 0..NODES {
                let (a, b) = (self.known[node][subject], self.known[peer][subject]);
                let newest = if a.at >= b.at { a } else { b };
                self.known[node][subject] = newest;
                self.known[peer][subject] = newest;
            }
        }
    }

    fn witnesses(&self) -> Witnesses {
        let views = self.known[0].iter().enumerate().map(|(at, news)| {
            let mut suspects = Suspects::default();
            (0..NODES).filter(|other| news.suspects[*other]).for_each(|other| suspects.insert(id(other), 1));
            PeerView { node: id(at), incarnation: 1, alive: self.now - news.at <= STALE_MS, suspects }
        });
        Witnesses::new(id(0), views)
    }

    fn tick(&mut self) {
        let now = Timestamp(self.now);
        let late = (self.now - self.ticked).saturating_sub(TICK_MS);
        self.ticked = self.now;
        self.detector.on_tick(now, Duration::from_millis(late));
        let witnesses = self.witnesses();
        (0..NODES).for_each(|at| self.detector.evidence(id(at), witnesses.evidence(id(at))));
        for (node, verdict, _) in self.detector.decide(now) {
            let at = usize::try_from(node.as_u128() - 1).expect("small");
            let known = self.story.iter().rev().find(|(_, node, _)| *node == at).map(|(_, _, v)| *v);
            if known != Some(verdict) {
                self.story.push((self.now, at, verdict));
            }
        }
    }

    fn step(&mut self) {
        self.now += STEP_MS;
        for node in (0..NODES).filter(|node| !self.dead[*node]).collect::<Vec<_>>() {
            if (self.now / STEP_MS + node as u64).is_multiple_of(HEARTBEAT_MS / STEP_MS) {
                self.heartbeat(node);
            }
            self.send(node);
            if (self.now / STEP_MS + node as u64).is_multiple_of(GOSSIP_MS / STEP_MS) {
                self.gossip(node);
            }
        }
        if self.now < self.starved_until {
            return;
        }
        // The worst order: the timer fires before what has arrived is read.
        if self.now - self.ticked >= TICK_MS {
            self.tick();
        }
        for node in 0..NODES {
            if std::mem::take(&mut self.arrived[node]) {
                self.detector.heard(id(node), Timestamp(self.now));
            }
        }
    }

    fn run(&mut self, ms: u64) {
        let end = self.now + ms;
        while self.now < end {
            self.step();
        }
    }

    fn kill(&mut self, node: usize) -> u64 {
        self.dead[node] = true;
        self.now
    }

    fn downs(&self) -> Vec<(u64, usize)> {
        self.story.iter().filter(|(_, _, v)| *v == Verdict::Down).map(|(at, node, _)| (*at, *node)).collect()
    }
}

#[test]
fn no_live_node_dies_under_twenty_percent_loss() {
    for seed in 0..30 {
        let mut network = Network::new(seed, 0.2);
        network.run(120_000);
        assert_eq!(network.downs(), [], "seed {seed}");
    }
}

#[test]
fn a_dead_node_is_down_within_two_seconds_even_under_loss() {
    for (seed, loss) in (0..400).map(|seed| (seed, if seed % 2 == 0 { 0.0 } else { 0.2 })) {
        let mut network = Network::new(seed, loss);
        network.run(5_000 + seed * STEP_MS);
        let died = network.kill(3);
        network.run(3_000);
        let downs = network.downs();
        assert!(downs.len() == 1 && downs[0].1 == 3, "seed {seed}: {downs:?}");
        let bound = if loss == 0.0 { 1_800 } else { 2_000 };
        assert!(downs[0].0 - died <= bound, "seed {seed}: down after {} ms", downs[0].0 - died);
    }
}

#[test]
fn two_nodes_that_die_at_once_are_both_down_within_two_seconds() {
    for seed in 0..50 {
        let mut network = Network::new(seed, 0.0);
        network.run(5_000 + seed * STEP_MS);
        let died = network.kill(3);
        network.kill(4);
        network.run(3_000);
        let mut downs = network.downs();
        downs.sort_by_key(|(_, node)| *node);
        assert_eq!(downs.iter().map(|(_, node)| *node).collect::<Vec<_>>(), [3, 4], "seed {seed}");
        assert!(downs.iter().all(|(at, _)| at - died <= 2_000), "seed {seed}: {downs:?} after {died}");
    }
}

#[test]
fn a_node_cut_off_from_the_leader_alone_is_unreachable_and_not_down() {
    for seed in 0..20 {
        let mut network = Network::new(seed, 0.1);
        network.run(5_000);
        (network.cut[0][3], network.cut[3][0]) = (true, true);
        network.run(60_000);
        assert_eq!(network.downs(), [], "seed {seed}");
        let last = network.story.iter().rev().find(|(_, node, _)| *node == 3).map(|(_, _, v)| *v);
        assert_eq!(last, Some(Verdict::Unreachable), "seed {seed}");
    }
}

#[test]
fn a_node_whose_words_pass_one_way_only_is_not_down() {
    for seed in 0..20 {
        let mut network = Network::new(seed, 0.0);
        network.run(5_000);
        network.cut[3][0] = true;
        network.run(30_000);
        assert_eq!(network.downs(), [], "seed {seed}");
    }
}

#[test]
fn a_leader_that_is_cut_off_from_all_condemns_nobody_at_first() {
    for seed in 0..100 {
        let mut network = Network::new(seed, if seed % 2 == 0 { 0.0 } else { 0.2 });
        network.run(5_000 + seed * STEP_MS);
        network.cut_off(0, true);
        network.run(9_000);
        assert_eq!(network.downs(), [], "seed {seed}");
        network.cut_off(0, false);
        network.run(20_000);
        assert_eq!(network.downs(), [], "seed {seed} after the heal");
    }
}

#[test]
fn a_starved_leader_condemns_nobody_when_it_wakes() {
    for seed in 0..100 {
        let mut network = Network::new(seed, 0.1);
        network.run(5_000 + seed * STEP_MS);
        network.starved_until = network.now + 1_000 + seed * 100;
        network.run(20_000);
        assert_eq!(network.downs(), [], "seed {seed}");
    }
}

#[test]
fn short_cuts_kill_nobody_and_long_ones_are_told_once_each_way() {
    let mut network = Network::new(1, 0.0);
    network.run(5_000);
    for _ in 0..30 {
        network.cut_off(3, true);
        network.run(500);
        network.cut_off(3, false);
        network.run(1_000);
    }
    assert_eq!(network.downs(), []);
    for round in 1..=10 {
        network.cut_off(3, true);
        network.run(3_000);
        assert_eq!(network.downs().len(), round);
        network.cut_off(3, false);
        network.run(6_000);
        assert_eq!(network.story.last().map(|(_, _, v)| *v), Some(Verdict::Up));
    }
    assert!(network.story.iter().skip(NODES).all(|(_, node, _)| *node == 3));
}
