//! What the judges know of the world itself: who is up, who could hear whom, and since when.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use shoal_actors::node::Node;
use shoal_core::model::NodeId;
use shoal_core::pace::Pace;
use shoal_core::store::State;
use tokio::time::Instant;

use crate::faults::{Fault, Recast};

/// One look at the world.
pub struct Sight<'a> {
    /// The nodes that are up, by host.
    pub nodes: &'a BTreeMap<usize, Node>,
    /// The state of each of them that is a manager.
    pub states: &'a BTreeMap<usize, State>,
    /// Hosts whose nodes are being started or stopped: a process is there, and may well be heard.
    pub turning: &'a BTreeSet<usize>,
    /// What is broken now.
    pub faults: &'a [Fault],
    /// How many hosts there are.
    pub hosts: usize,
}

/// Since when hosts are well, and pairs of them can speak to each other.
#[derive(Default)]
pub(super) struct Sky {
    /// At which all times are meant.
    pace: Pace,
    up: BTreeMap<usize, Instant>,
    gone: BTreeMap<usize, Instant>,
    linked: BTreeMap<(usize, usize), Instant>,
    apart: BTreeMap<(usize, usize), Instant>,
    /// Faults of the wire have overlapped: the end of one may have mended another, so nothing is sure until all ended.
    unsure: bool,
}

/// Whether the host can do its work as far as the fault goes.
fn strikes(fault: &Fault, host: usize) -> bool {
    match fault {
        Fault::Blackout(all) | Fault::Shorthanded(all, _) => all.contains(&host),
        Fault::Rolling => true,
        Fault::Kill(it)
        | Fault::Stop(it)
        | Fault::Pause(it)
        | Fault::Starve(it)
        | Fault::DiskFull(it)
        | Fault::DiskSlow(it, _)
        | Fault::Rot(it, _)
        | Fault::Forget(it)
        | Fault::Reboot(it)
        | Fault::Brownout(it, _)
        | Fault::ClockDrift(it, _)
        | Fault::Wipe(it)
        | Fault::Leave(it) => *it == host,
        Fault::Unplug(_)
        | Fault::Split(_)
        | Fault::OneWay(_)
        | Fault::Flap(_)
        | Fault::Storm(_)
        | Fault::Clog(..)
        | Fault::Shuffle(..)
        | Fault::Sever(..)
        | Fault::Reseated(_)
        | Fault::ClockJump(..)
        | Fault::EngineAway(_) => false,
    }
}

/// Whether the fault is between the two.
fn parts(fault: &Fault, a: usize, b: usize) -> bool {
    match fault {
        Fault::Flap(it) => *it == a || *it == b,
        Fault::OneWay(side) | Fault::Clog(side, _) | Fault::Shuffle(side, _) => {
            side.contains(&a) != side.contains(&b)
        }
        Fault::Storm(_) => true,
        // Each of the two is cut off at some time of it.
        Fault::Reseated(Recast { away, again, .. }) => [a, b].iter().any(|it| it == away || it == again),
        _ => cuts(fault, a, b),
    }
}

/// Whether nothing at all passes between the two, in either way.
fn cuts(fault: &Fault, a: usize, b: usize) -> bool {
    match fault {
        Fault::Unplug(it) => *it == a || *it == b,
        Fault::Split(side) => side.contains(&a) != side.contains(&b),
        Fault::Sever(one, other) => (*one, *other) == (a, b) || (*one, *other) == (b, a),
        _ => false,
    }
}

fn is_of_the_wire(fault: &Fault) -> bool {
    matches!(
        fault,
        Fault::Unplug(_)
            | Fault::Flap(_)
            | Fault::Split(_)
            | Fault::OneWay(_)
            | Fault::Storm(_)
            | Fault::Clog(..)
            | Fault::Shuffle(..)
            | Fault::Sever(..)
            | Fault::Reseated(_)
    )
}

/// Note whether something holds now, and since when.
fn note<K: Ord>(since: &mut BTreeMap<K, Instant>, key: K, holds: bool) {
    if holds {
        since.entry(key).or_insert_with(Instant::now);
    } else {
        since.remove(&key);
    }
}

impl Sky {
    /// Nothing seen so far, of a cluster of this pace.
    pub(super) fn new(pace: Pace) -> Self {
        Self { pace, ..Self::default() }
    }

    fn long<K: Ord>(&self, since: &BTreeMap<K, Instant>, key: &K, time: Duration) -> bool {
        since.get(key).is_some_and(|at| at.elapsed() >= self.pace.of(time))
    }

    /// Look up.
    pub(super) fn look(&mut self, sight: &Sight<'_>) {
        let wires = sight.faults.iter().filter(|fault| is_of_the_wire(fault)).count();
        self.unsure = wires > 1 || (self.unsure && wires > 0);
        for host in 1..=sight.hosts {
            let struck = sight.faults.iter().any(|fault| strikes(fault, host));
            note(&mut self.up, host, sight.nodes.contains_key(&host) && !struck);
            let there = sight.nodes.contains_key(&host) || sight.turning.contains(&host);
            note(&mut self.gone, host, !there);
            for other in host + 1..=sight.hosts {
                let parted = sight.faults.iter().any(|fault| parts(fault, host, other));
                note(&mut self.linked, (host, other), !parted);
                let cut = !self.unsure && sight.faults.iter().any(|fault| cuts(fault, host, other));
                note(&mut self.apart, (host, other), cut);
            }
        }
    }

    /// Of these hosts some are up and hear each other from now on, and some are gone.
    #[cfg(test)]
    pub(super) fn of(up: &[usize], gone: &[usize]) -> Self {
        let mut sky = Self::default();
        for host in up {
            note(&mut sky.up, *host, true);
            up.iter()
                .filter(|other| *other > host)
                .for_each(|other| note(&mut sky.linked, (*host, *other), true));
        }
        gone.iter().for_each(|host| note(&mut sky.gone, *host, true));
        sky
    }

    /// Whether the host has been up and well for so long.
    #[must_use]
    pub(super) fn well(&self, host: usize, time: Duration) -> bool {
        self.long(&self.up, &host, time)
    }

    /// Whether no process has been on the host for so long.
    #[must_use]
    pub(super) fn dead(&self, host: usize, time: Duration) -> bool {
        self.long(&self.gone, &host, time)
    }

    /// Whether the two could hear each other without fail for so long.
    #[must_use]
    pub(super) fn linked(&self, a: usize, b: usize, time: Duration) -> bool {
        a == b || self.long(&self.linked, &(a.min(b), a.max(b)), time)
    }

    /// Whether nothing has passed between the two for so long.
    #[must_use]
    pub(super) fn apart(&self, a: usize, b: usize, time: Duration) -> bool {
        a != b && self.long(&self.apart, &(a.min(b), a.max(b)), time)
    }

    /// Whether two that are well could hear each other for so long.
    #[must_use]
    pub(super) fn sound(&self, a: usize, b: usize, time: Duration) -> bool {
        self.well(a, time) && self.well(b, time) && self.linked(a, b, time)
    }
}

/// The number of a host, from the name of its node.
#[must_use]
pub fn host_number(name: &str) -> Option<usize> {
    name.strip_prefix('h')?.parse().ok()
}

/// Hosts of the managers that vote, as this one knows.
#[must_use]
pub(super) fn voters(node: &Node, state: &State) -> BTreeSet<usize> {
    let voters = node.raft().map(|raft| raft.voters()).unwrap_or_default();
    hosts_of(voters.keys(), state)
}

/// Hosts of those who must agree once the seats are as they shall be, as this one knows.
#[must_use]
pub(super) fn voters_to_be(node: &Node, state: &State) -> BTreeSet<usize> {
    let groups = node.raft().map(|raft| raft.voter_groups()).unwrap_or_default();
    hosts_of(groups.last().into_iter().flatten(), state)
}

fn hosts_of<'a>(nodes: impl Iterator<Item = &'a NodeId>, state: &State) -> BTreeSet<usize> {
    nodes.filter_map(|id| host_number(state.node(*id)?.hostname())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn links_are_counted_from_the_end_of_what_broke_them() {
        let (nodes, second) = (BTreeMap::new(), Duration::from_secs(1));
        let mut sky = Sky::default();
        let mut look = |faults: &[Fault]| {
            sky.look(&Sight {
                nodes: &nodes,
                states: &BTreeMap::new(),
                turning: &BTreeSet::new(),
                faults,
                hosts: 3,
            });
            (sky.linked(1, 2, second), sky.linked(2, 3, second), sky.apart(1, 2, second), sky.dead(1, second))
        };
        assert_eq!(look(&[Fault::Unplug(1)]), (false, false, false, false));
        tokio::time::advance(second).await;
        assert_eq!(look(&[Fault::Unplug(1)]), (false, true, true, true));
        assert_eq!(look(&[Fault::OneWay([1, 2].into())]), (false, false, false, true));
        tokio::time::advance(second).await;
        assert_eq!(look(&[]), (true, false, false, true));
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_long_to_stop_is_not_dead() {
        let (nodes, second) = (BTreeMap::new(), Duration::from_secs(1));
        let mut sky = Sky::default();
        let mut look = |turning: &BTreeSet<usize>| {
            sky.look(&Sight { nodes: &nodes, states: &BTreeMap::new(), turning, faults: &[], hosts: 1 });
            sky.dead(1, second)
        };
        assert!(!look(&[1].into()));
        tokio::time::advance(second).await;
        assert!(!look(&[1].into()));
        assert!(!look(&[].into()));
        tokio::time::advance(second).await;
        assert!(look(&[].into()));
    }
}
