//! The wires between hosts, whatever travels on them: latency, loss, duplication, clogged ways and such on which one packet
//! overtakes another, cut cables, partitions.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// How the wires behave. Drawn from the seed, changed by faults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Weather {
    /// Least and most time on the wire.
    pub latency: (Duration, Duration),
    /// Chance that a packet is lost.
    pub loss: f64,
    /// Chance that a packet arrives twice.
    pub duplication: f64,
}

impl Default for Weather {
    fn default() -> Self {
        Self { latency: (Duration::from_micros(200), Duration::from_millis(2)), loss: 0.0, duplication: 0.0 }
    }
}

/// The wires of one simulation.
pub(crate) struct Wires {
    rng: ChaCha8Rng,
    weather: Weather,
    unplugged: BTreeSet<IpAddr>,
    /// Ways, from and to, on which nothing passes.
    blocked: BTreeSet<(IpAddr, IpAddr)>,
    /// Ways on which everything takes so much longer.
    clogged: BTreeMap<(IpAddr, IpAddr), Duration>,
    /// Ways on which some of it takes up to so much longer, so that what was sent later comes sooner.
    shuffled: BTreeMap<(IpAddr, IpAddr), Duration>,
    /// Its own dice: a way that is shuffled does not shift what comes to the others.
    shuffle: ChaCha8Rng,
    /// Addresses by side; no packet crosses sides. Empty: no partition.
    sides: BTreeMap<IpAddr, u8>,
    /// Counts up with each change of what can reach what.
    version: u64,
    pub(crate) sent: u64,
    pub(crate) lost: u64,
}

impl Wires {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            rng: ChaCha8Rng::seed_from_u64(seed),
            weather: Weather::default(),
            unplugged: BTreeSet::new(),
            blocked: BTreeSet::new(),
            clogged: BTreeMap::new(),
            shuffled: BTreeMap::new(),
            shuffle: ChaCha8Rng::seed_from_u64(seed ^ 0x5fff),
            sides: BTreeMap::new(),
            version: 0,
            sent: 0,
            lost: 0,
        }
    }

    pub(crate) fn set_weather(&mut self, weather: Weather) {
        self.weather = weather;
    }

    pub(crate) fn set_plugged(&mut self, host: IpAddr, plugged: bool) {
        self.version += 1;
        if plugged {
            self.unplugged.remove(&host);
        } else {
            self.unplugged.insert(host);
        }
    }

    pub(crate) fn set_blocked(&mut self, from: IpAddr, to: IpAddr, blocked: bool) {
        self.version += 1;
        if blocked {
            self.blocked.insert((from, to));
        } else {
            self.blocked.remove(&(from, to));
        }
    }

    /// Nothing passes between the two in either way, or all does.
    pub(crate) fn set_apart(&mut self, (one, other): (IpAddr, IpAddr), apart: bool) {
        self.set_blocked(one, other, apart);
        self.set_blocked(other, one, apart);
    }

    pub(crate) fn set_clogged(&mut self, from: IpAddr, to: IpAddr, by: Duration) {
        if by.is_zero() {
            self.clogged.remove(&(from, to));
        } else {
            self.clogged.insert((from, to), by);
        }
    }

    pub(crate) fn set_shuffled(&mut self, from: IpAddr, to: IpAddr, by: Duration) {
        if by.is_zero() {
            self.shuffled.remove(&(from, to));
        } else {
            self.shuffled.insert((from, to), by);
        }
    }

    pub(crate) fn split(&mut self, left: &BTreeSet<IpAddr>) {
        self.version += 1;
        self.sides = left.iter().map(|host| (*host, 1)).collect();
    }

    /// Counts up with each change of what can reach what.
    pub(crate) const fn version(&self) -> u64 {
        self.version
    }

    /// Whether everything reaches everything.
    pub(crate) fn whole(&self) -> bool {
        self.unplugged.is_empty() && self.blocked.is_empty() && self.sides.is_empty()
    }

    /// Whether nothing passes this way.
    pub(crate) fn cut(&self, from: IpAddr, to: IpAddr) -> bool {
        from != to
            && !self.whole()
            && (self.unplugged.contains(&from)
                || self.unplugged.contains(&to)
                || self.blocked.contains(&(from, to))
                || self.sides.get(&from) != self.sides.get(&to))
    }

    /// The time on the wire of one packet that passes.
    pub(crate) fn latency(&mut self, from: IpAddr, to: IpAddr) -> Duration {
        let (least, most) = self.weather.latency;
        let clogged = if self.clogged.is_empty() { None } else { self.clogged.get(&(from, to)).copied() };
        self.rng.random_range(least..=most) + clogged.unwrap_or_default() + self.held_up(from, to)
    }

    /// What a packet is held up on a way that is shuffled: every other not at all.
    fn held_up(&mut self, from: IpAddr, to: IpAddr) -> Duration {
        let most = if self.shuffled.is_empty() { None } else { self.shuffled.get(&(from, to)).copied() };
        match most {
            Some(most) if self.shuffle.random_bool(0.5) => self.shuffle.random_range(Duration::ZERO..=most),
            _ => Duration::ZERO,
        }
    }

    /// Whether the next packet is lost, and whether it arrives twice. Drawn in any case, so that a change of weather does
    /// not shift what comes later.
    pub(crate) fn mishap(&mut self) -> (bool, bool) {
        let (lost, twice) = (self.rng.random::<f64>(), self.rng.random::<f64>());
        (lost < self.weather.loss, twice < self.weather.duplication)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::ip;

    #[test]
    fn a_cut_is_what_was_cut_and_nothing_else() {
        let mut wires = Wires::new(1);
        let (a, b, c) = (ip(1), ip(2), ip(3));
        assert!(wires.whole() && !wires.cut(a, b));
        wires.set_blocked(a, b, true);
        assert!(wires.cut(a, b) && !wires.cut(b, a) && !wires.cut(a, c));
        wires.set_blocked(a, b, false);
        wires.split(&BTreeSet::from([a, b]));
        assert!(wires.cut(a, c) && wires.cut(c, b) && !wires.cut(a, b));
        wires.split(&BTreeSet::new());
        wires.set_plugged(c, false);
        assert!(wires.cut(a, c) && wires.cut(c, a) && !wires.cut(c, c));
        wires.set_plugged(c, true);
        assert!(wires.whole());
    }

    #[test]
    fn a_clogged_way_is_slow_one_way() {
        let mut wires = Wires::new(1);
        wires.set_clogged(ip(1), ip(2), Duration::from_secs(2));
        assert!(wires.latency(ip(1), ip(2)) >= Duration::from_secs(2));
        assert!(wires.latency(ip(2), ip(1)) < Duration::from_secs(1));
    }

    #[test]
    fn on_a_shuffled_way_one_overtakes_another_and_none_is_lost() {
        let mut wires = Wires::new(1);
        let by = Duration::from_millis(500);
        wires.set_shuffled(ip(1), ip(2), by);
        let takes: Vec<Duration> = (0..100).map(|_| wires.latency(ip(1), ip(2))).collect();
        let (quick, slow) = (Duration::from_millis(2), Duration::from_millis(250));
        assert!(takes.iter().any(|time| *time <= quick) && takes.iter().any(|time| *time > slow));
        assert!(takes.iter().all(|time| *time <= quick + by) && !wires.mishap().0);
        assert!(wires.latency(ip(2), ip(1)) <= quick);
        wires.set_shuffled(ip(1), ip(2), Duration::ZERO);
        assert!((0..100).all(|_| wires.latency(ip(1), ip(2)) <= quick));
    }

    #[test]
    fn a_shuffled_way_shifts_nothing_that_comes_later() {
        let (mut one, mut other) = (Wires::new(1), Wires::new(1));
        one.set_shuffled(ip(1), ip(2), Duration::from_secs(1));
        for _ in 0..10 {
            let _ = (one.latency(ip(1), ip(2)), other.latency(ip(1), ip(2)));
        }
        assert_eq!(one.latency(ip(2), ip(1)), other.latency(ip(2), ip(1)));
    }
}
