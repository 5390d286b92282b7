//! Membership by its contract, in place of gossip, whose cost grows with the square of the nodes: all who reach each other
//! know the same, what one says of itself is known to the others a few rounds later, and who is silent is taken for dead
//! after about as long as phi-accrual would take. In a storm somebody is now and then taken for dead by mistake.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use shoal_core::model::{ClusterId, NodeId};
use shoal_core::pace::Pace;
use shoal_core::task::BoxFuture;
use shoal_net::gossip::{GossipConfig, Member, Membership, View};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::links::Links;

const ROUND: Duration = Duration::from_millis(100);
/// Who was not heard for so long is taken for dead.
const SILENCE: Duration = Duration::from_millis(450);
/// So long a mistake lasts.
const MISTAKE: Duration = Duration::from_millis(300);
/// Chance of a mistake in a round of a storm.
const MISTAKES: f64 = 0.01;

/// Who talks with whom: the same number, the same talk.
type Talk = u64;

struct Process {
    says: Member,
    cluster: ClusterId,
    talk: Talk,
    held: bool,
    view: View,
    changed: watch::Sender<u64>,
}

#[derive(Debug, Clone)]
struct Known {
    member: Member,
    heard: Instant,
}

struct State {
    pace: Pace,
    links: Links,
    rng: ChaCha8Rng,
    processes: BTreeMap<SocketAddr, Process>,
    /// What is known in each talk.
    known: BTreeMap<Talk, BTreeMap<NodeId, Known>>,
    /// What that looked like last.
    views: BTreeMap<Talk, View>,
    mistakes: BTreeMap<NodeId, Instant>,
    stormy: bool,
    talks: Talk,
    wires: u64,
    dirty: bool,
}

/// The membership of one simulation. Cheap to clone.
#[derive(Clone)]
pub struct Members(Arc<Mutex<State>>);

impl Members {
    /// Membership over these links' wires. Must be made inside the runtime.
    #[must_use]
    pub fn new(seed: u64, pace: Pace, links: Links) -> Self {
        let state = State {
            pace,
            links,
            rng: ChaCha8Rng::seed_from_u64(seed),
            processes: BTreeMap::new(),
            known: BTreeMap::new(),
            views: BTreeMap::new(),
            mistakes: BTreeMap::new(),
            stormy: false,
            talks: 0,
            wires: 0,
            dirty: false,
        };
        let members = Self(Arc::new(Mutex::new(state)));
        tokio::spawn(rounds(members.clone(), pace));
        members
    }

    /// How quickly all of them beat.
    #[must_use]
    pub fn pace(&self) -> Pace {
        self.lock().pace
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A node takes part.
    #[must_use]
    pub fn join(&self, config: &GossipConfig) -> Arc<dyn Membership> {
        let mut state = self.lock();
        let says = Member {
            node_id: config.node_id,
            incarnation: config.incarnation,
            addr: config.addr,
            alive: true,
            values: BTreeMap::new(),
        };
        state.talks += 1;
        let talk = state.talks;
        let known = Known { member: says.clone(), heard: Instant::now() };
        state.known.insert(talk, BTreeMap::from([(config.node_id, known)]));
        let view = View::from([says.clone()]);
        let (changed, _) = watch::channel(0);
        let process = Process { says, cluster: config.cluster_id, talk, held: false, view, changed };
        state.processes.insert(config.addr, process);
        state.dirty = true;
        drop(state);
        Arc::new(Handle { members: self.clone(), addr: config.addr })
    }

    /// The process at this address is gone.
    pub fn gone(&self, addr: SocketAddr) {
        let mut state = self.lock();
        state.dirty |= state.processes.remove(&addr).is_some();
    }

    /// The process at this address stands still, or goes on.
    pub fn hold(&self, addr: SocketAddr, held: bool) {
        let mut state = self.lock();
        if let Some(process) = state.processes.get_mut(&addr) {
            process.held = held;
            state.dirty = true;
        }
    }

    /// The process at this address says something else of itself than it would.
    pub fn say(&self, addr: SocketAddr, key: &str, value: String) {
        if let Some(process) = self.lock().processes.get_mut(&addr) {
            process.says.values.insert(key.to_owned(), value);
        }
    }

    /// The wires lose so much that mistakes are made, or no more.
    pub fn set_stormy(&self, stormy: bool) {
        self.lock().stormy = stormy;
    }
}

async fn rounds(members: Members, pace: Pace) {
    loop {
        tokio::time::sleep(pace.of(ROUND)).await;
        let changed = members.lock().round();
        for process in changed {
            process.send_modify(|count| *count += 1);
        }
    }
}

impl State {
    /// One round. Returns whose view has changed.
    fn round(&mut self) -> Vec<watch::Sender<u64>> {
        let now = Instant::now();
        let wires = self.links.wires(|wires| wires.version());
        if self.dirty || wires != self.wires {
            (self.dirty, self.wires) = (false, wires);
            self.regroup();
        }
        if self.stormy && self.rng.random_bool(MISTAKES) && !self.processes.is_empty() {
            let at = self.rng.random_range(0..self.processes.len());
            if let Some(process) = self.processes.values().nth(at) {
                self.mistakes.insert(process.says.node_id, now + self.pace.of(MISTAKE));
            }
        }
        self.mistakes.retain(|_, until| *until > now);
        self.talk(now)
    }

    /// Who reaches whom, both ways; whoever stands still reaches nobody.
    fn regroup(&mut self) {
        let addrs: Vec<(SocketAddr, ClusterId, bool)> =
            self.processes.iter().map(|(addr, p)| (*addr, p.cluster, p.held)).collect();
        let whole = self.links.wires(|wires| wires.whole());
        let mut left: BTreeSet<usize> = (0..addrs.len()).collect();
        let mut groups: Vec<Vec<usize>> = Vec::new();
        while let Some(first) = left.pop_first() {
            let (mut group, mut edge) = (vec![first], vec![first]);
            while let Some(one) = edge.pop() {
                let heard: Vec<usize> = left
                    .iter()
                    .copied()
                    .filter(|other| {
                        let (a, b) = (&addrs[one], &addrs[*other]);
                        let both = a.1 == b.1 && !a.2 && !b.2;
                        both && (whole
                            || self.links.wires(|w| !w.cut(a.0.ip(), b.0.ip()) && !w.cut(b.0.ip(), a.0.ip())))
                    })
                    .collect();
                for other in heard {
                    left.remove(&other);
                    group.push(other);
                    edge.push(other);
                }
            }
            groups.push(group);
        }
        let mut known = BTreeMap::new();
        for group in groups {
            self.talks += 1;
            let mut together: BTreeMap<NodeId, Known> = BTreeMap::new();
            let before: BTreeSet<Talk> =
                group.iter().filter_map(|at| self.processes.get(&addrs[*at].0)).map(|p| p.talk).collect();
            for talk in before {
                for (id, theirs) in self.known.get(&talk).into_iter().flatten() {
                    let newer = together.get(id).is_none_or(|ours| {
                        (ours.member.incarnation, ours.heard) < (theirs.member.incarnation, theirs.heard)
                    });
                    if newer {
                        together.insert(*id, theirs.clone());
                    }
                }
            }
            for at in group {
                if let Some(process) = self.processes.get_mut(&addrs[at].0) {
                    process.talk = self.talks;
                }
            }
            known.insert(self.talks, together);
        }
        self.known = known;
    }

    /// In each talk everybody says what is new.
    fn talk(&mut self, now: Instant) -> Vec<watch::Sender<u64>> {
        for process in self.processes.values() {
            let Some(known) = self.known.get_mut(&process.talk) else { continue };
            let id = process.says.node_id;
            match known.get_mut(&id) {
                Some(ours) if ours.member.incarnation > process.says.incarnation => {}
                Some(ours) => {
                    ours.heard = now;
                    if ours.member != process.says {
                        ours.member = process.says.clone();
                    }
                }
                None => {
                    known.insert(id, Known { member: process.says.clone(), heard: now });
                }
            }
        }
        let mut views: BTreeMap<Talk, View> = BTreeMap::new();
        let mut changed = Vec::new();
        let (known, mistakes, silence) = (&self.known, &self.mistakes, self.pace.of(SILENCE));
        for process in self.processes.values_mut() {
            let view = views.entry(process.talk).or_insert_with(|| {
                let members = known.get(&process.talk).into_iter().flat_map(BTreeMap::values);
                let now: View = members
                    .map(|known| {
                        let silent = now.duration_since(known.heard) > silence;
                        let alive = !silent && !mistakes.contains_key(&known.member.node_id);
                        Member { alive, ..known.member.clone() }
                    })
                    .collect();
                // The same as before is the same slice as before: comparing it is for nothing.
                self.views.get(&process.talk).filter(|before| ***before == *now).cloned().unwrap_or(now)
            });
            if !Arc::ptr_eq(view, &process.view) {
                process.view = Arc::clone(view);
                changed.push(process.changed.clone());
            }
        }
        self.views = views;
        changed
    }
}

struct Handle {
    members: Members,
    addr: SocketAddr,
}

impl Membership for Handle {
    fn set_self(&self, key: &str, value: String) {
        self.members.say(self.addr, key, value);
    }

    fn view(&self) -> View {
        self.members.lock().processes.get(&self.addr).map_or_else(|| View::from([]), |p| p.view.clone())
    }

    fn subscribe(&self) -> watch::Receiver<u64> {
        let state = self.members.lock();
        match state.processes.get(&self.addr) {
            Some(process) => process.changed.subscribe(),
            None => watch::channel(0).1,
        }
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move { self.members.gone(self.addr) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{address, ip};
    use crate::trace::Trace;

    struct World {
        links: Links,
        members: Members,
    }

    fn world() -> World {
        let links = Links::new(1, Pace::USUAL, Trace::new(false));
        World { members: Members::new(2, Pace::USUAL, links.clone()), links }
    }

    fn join(world: &World, number: usize, incarnation: u64) -> Arc<dyn Membership> {
        world.members.join(&GossipConfig {
            pace: Pace::USUAL,
            node_id: NodeId::from_u128(number as u128),
            cluster_id: ClusterId::from_u128(1),
            incarnation,
            addr: address(number),
            seeds: Vec::new(),
        })
    }

    fn alive(member: &Arc<dyn Membership>) -> Vec<u128> {
        member.view().iter().filter(|m| m.alive).map(|m| m.node_id.as_u128()).collect()
    }

    async fn rounds(count: u32) {
        tokio::time::sleep(ROUND * count).await;
    }

    #[tokio::test(start_paused = true)]
    async fn all_who_reach_each_other_know_the_same() {
        let world = world();
        let all: Vec<_> = (1..=3).map(|number| join(&world, number, 1)).collect();
        all[0].set_self("role", "manager".into());
        rounds(3).await;
        for member in &all {
            assert_eq!(alive(member), [1, 2, 3]);
            let view = member.view();
            assert_eq!(view[0].values.get("role").map(String::as_str), Some("manager"));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_silent_are_dead_and_come_back_with_a_newer_incarnation() {
        let world = world();
        let one = join(&world, 1, 1);
        let _two = join(&world, 2, 1);
        rounds(3).await;
        world.members.gone(address(2));
        rounds(2).await;
        assert_eq!(alive(&one), [1, 2], "not yet");
        rounds(6).await;
        assert_eq!(alive(&one), [1]);
        assert_eq!(one.view().len(), 2, "the dead are known");
        let _two = join(&world, 2, 2);
        rounds(3).await;
        assert_eq!(alive(&one), [1, 2]);
        assert_eq!(one.view()[1].incarnation, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn both_sides_of_a_split_take_each_other_for_dead_until_it_heals() {
        let world = world();
        let all: Vec<_> = (1..=3).map(|number| join(&world, number, 1)).collect();
        rounds(3).await;
        world.links.wires(|wires| wires.split(&BTreeSet::from([ip(1)])));
        rounds(8).await;
        assert_eq!((alive(&all[0]), alive(&all[1])), (vec![1], vec![2, 3]));
        world.links.wires(|wires| wires.split(&BTreeSet::new()));
        rounds(3).await;
        assert_eq!(alive(&all[0]), [1, 2, 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn two_that_hear_a_third_hear_each_other_through_it() {
        let world = world();
        let all: Vec<_> = (1..=3).map(|number| join(&world, number, 1)).collect();
        world.links.wires(|wires| wires.set_blocked(ip(1), ip(2), true));
        rounds(8).await;
        assert_eq!(alive(&all[0]), [1, 2, 3]);
        assert_eq!(alive(&all[1]), [1, 2, 3]);
    }
}
