//! What breaks, and when. Drawn before the run begins, so that a run can be lived through again without some of it.

use std::collections::BTreeSet;
use std::time::Duration;

use rand::seq::{IndexedRandom as _, SliceRandom as _};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::host::ip;
use crate::options::Options;
use crate::wires::Weather;

/// One disaster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Fault {
    /// The process is gone at once, its machine's disk keeps what it will.
    Kill(usize),
    /// So many processes are gone at once, as when the power fails.
    Blackout(BTreeSet<usize>),
    /// The process is asked to stop.
    Stop(usize),
    /// The process stands still: its machine has no time for it.
    Pause(usize),
    /// The process stands still again and again.
    Starve(usize),
    /// The host hears nobody.
    Unplug(usize),
    /// These hear only each other.
    Split(BTreeSet<usize>),
    /// What these say does not reach the others, and they hear all.
    OneWay(BTreeSet<usize>),
    /// The host's cable is loose: it comes and goes.
    Flap(usize),
    /// The wires lose, double and delay.
    Storm(Weather),
    /// What these say to the others takes so much longer.
    Clog(BTreeSet<usize>, Duration),
    /// Of what these say to the others some takes up to so much longer, and is overtaken; nothing is lost.
    Shuffle(BTreeSet<usize>, Duration),
    /// The host's engine does not answer.
    EngineAway(usize),
    /// The host's disk takes no more.
    DiskFull(usize),
    /// Each durable write on the host takes so much longer.
    DiskSlow(usize, Duration),
    /// The process is gone, and a bit of what it had written has flipped; the number says which.
    Rot(usize, u64),
    /// The host's clock is ahead or behind by so many milliseconds.
    ClockJump(usize, i64),
    /// The host's clock gains or loses so many milliseconds in a second.
    ClockDrift(usize, i64),
    /// All processes are asked to stop and are started again, one after the other.
    Rolling,
    /// The machine is lost with all that it had, and comes back as a new one.
    Wipe(usize),
    /// The node leaves the cluster, and joins again.
    Leave(usize),
    /// The two hear all others, but not each other.
    Sever(usize, usize),
    /// The process is gone, and what its node had written down of its tasks; the containers run on.
    Forget(usize),
    /// The host's disk takes up to so much longer for each write, and then the power fails.
    Brownout(usize, Duration),
    /// The first are gone, so that hardly a majority of the managers is left; meanwhile somebody demotes the second.
    Shorthanded(BTreeSet<usize>, usize),
    /// The machine goes down and comes up again: its engine's containers are there, and ended.
    Reboot(usize),
    /// A manager hears nobody while a worker is promoted and another manager demoted and promoted again; then it hears that
    /// one alone, which hears nobody else.
    Reseated(Recast),
}

/// Hosts whose nodes change their roles while one of them is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recast {
    /// The manager that hears nothing of it.
    pub away: usize,
    /// The manager that is demoted and promoted again.
    pub again: usize,
    /// The worker that is promoted before.
    pub new: usize,
}

impl Fault {
    /// Whom it touches; nobody named: all.
    #[must_use]
    pub fn hosts(&self) -> Vec<usize> {
        match self {
            Self::Kill(host)
            | Self::Stop(host)
            | Self::Pause(host)
            | Self::Starve(host)
            | Self::Unplug(host)
            | Self::Flap(host)
            | Self::EngineAway(host)
            | Self::DiskFull(host)
            | Self::DiskSlow(host, _)
            | Self::Rot(host, _)
            | Self::ClockJump(host, _)
            | Self::ClockDrift(host, _)
            | Self::Wipe(host)
            | Self::Leave(host)
            | Self::Forget(host)
            | Self::Reboot(host)
            | Self::Brownout(host, _) => vec![*host],
            Self::Sever(one, other) => vec![*one, *other],
            Self::Shorthanded(gone, demoted) => gone.iter().chain([demoted]).copied().collect(),
            Self::Reseated(Recast { away, again, new }) => vec![*away, *again, *new],
            Self::Split(hosts)
            | Self::OneWay(hosts)
            | Self::Clog(hosts, _)
            | Self::Shuffle(hosts, _)
            | Self::Blackout(hosts) => hosts.iter().copied().collect(),
            Self::Storm(_) | Self::Rolling => Vec::new(),
        }
    }
}

/// A disaster and its time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Disaster {
    /// When it begins, after the cluster was formed.
    pub at: Duration,
    /// How long it lasts.
    pub lasts: Duration,
    /// What it is.
    pub fault: Fault,
}

/// How long a loose cable holds or does not.
pub const FLAP_EVERY: Duration = Duration::from_millis(700);
/// How long a starved process stands still, and has time.
pub const STARVE: (Duration, Duration) = (Duration::from_millis(400), Duration::from_millis(60));
/// Furthest jump of a clock: five minutes.
const CLOCK_JUMP_MS_MAX: i64 = 300_000;
/// A clock that drifts wins or loses a tenth at most.
const CLOCK_DRIFT_MS_MAX: i64 = 100;
/// No disaster lasts longer, at any pace: a successor waits for its predecessor but a minute, and then both may run.
const LASTS_MAX: Duration = Duration::from_secs(45);
/// So long after others are gone somebody demotes a manager.
pub const DEMOTE_AFTER: Duration = Duration::from_secs(5);
/// For so long at least they are gone.
const SHORTHANDED_MIN: Duration = Duration::from_secs(10);
const STALL_MS_MAX: u64 = 2_000;
const CLOG_MS_MAX: u64 = 3_000;
const SHUFFLE_MS_MAX: u64 = 400;

/// Makes a disaster of one kind, at this host if it is one of a host.
type Make = fn(&mut Faults, usize) -> Fault;

/// Draws disasters.
struct Faults {
    rng: ChaCha8Rng,
    options: Options,
}

/// All disasters of a run, in order.
#[must_use]
pub fn drawn(options: &Options) -> Vec<Disaster> {
    let mut faults =
        Faults { rng: ChaCha8Rng::seed_from_u64(options.seed ^ 0xfa17), options: options.clone() };
    let (mut all, mut at) = (Vec::new(), Duration::ZERO);
    while let Some((after, fault, lasts)) = faults.draw() {
        at += after;
        if at >= options.chaos {
            break;
        }
        all.push(Disaster { at, lasts, fault });
    }
    if let Some(rare) = reseated(options) {
        let after = all.partition_point(|disaster| disaster.at <= rare.at);
        all.insert(after, rare);
    }
    all
}

/// Others can be promoted past a manager that is away only where three are enough. Its own dice: runs without it stay as
/// they were.
fn reseated(options: &Options) -> Option<Disaster> {
    let mut rng = ChaCha8Rng::seed_from_u64(options.seed ^ 0x5ea7);
    let drawn = rng.random_range(0..100) < options.weights.reseated;
    if !drawn || options.fault_every.is_zero() || options.managers != 3 || options.hosts == 3 {
        return None;
    }
    let away = rng.random_range(1..=3);
    let again = away % 3 + 1;
    let again = if rng.random_bool(0.5) { again } else { again % 3 + 1 };
    let new = rng.random_range(4..=options.hosts);
    Some(Disaster {
        at: rng.random_range(Duration::ZERO..=options.chaos / 2),
        lasts: options.pace.of(Duration::from_secs(rng.random_range(15..30))).min(LASTS_MAX),
        fault: Fault::Reseated(Recast { away, again, new }),
    })
}

impl Faults {
    /// The time until the next disaster, and how long it lasts. `None`: nothing breaks in this run.
    fn draw(&mut self) -> Option<(Duration, Fault, Duration)> {
        let weights = self.options.weights;
        let kinds: [(u32, Make); 26] = [
            (weights.kill, |_, host| Fault::Kill(host)),
            (weights.blackout, |faults, _| Fault::Blackout(faults.most())),
            (weights.stop, |_, host| Fault::Stop(host)),
            (weights.pause, |_, host| Fault::Pause(host)),
            (weights.starve, |_, host| Fault::Starve(host)),
            (weights.unplug, |_, host| Fault::Unplug(host)),
            (weights.split, |faults, _| Fault::Split(faults.side())),
            (weights.one_way, |faults, _| Fault::OneWay(faults.side())),
            (weights.flap, |_, host| Fault::Flap(host)),
            (weights.storm, |faults, _| Fault::Storm(faults.storm())),
            (weights.clog, |faults, _| {
                let by = Duration::from_millis(faults.rng.random_range(100..CLOG_MS_MAX));
                Fault::Clog(faults.side(), by)
            }),
            (weights.shuffle, |faults, _| {
                let by = Duration::from_millis(faults.rng.random_range(5..SHUFFLE_MS_MAX));
                Fault::Shuffle(faults.side(), by)
            }),
            (weights.engine_away, |_, host| Fault::EngineAway(host)),
            (weights.disk_full, |_, host| Fault::DiskFull(host)),
            (weights.disk_slow, |faults, host| {
                Fault::DiskSlow(host, Duration::from_millis(faults.rng.random_range(20..STALL_MS_MAX)))
            }),
            (weights.rot, |faults, host| Fault::Rot(host, faults.rng.random())),
            (weights.clock_jump, |faults, host| {
                Fault::ClockJump(host, faults.rng.random_range(-CLOCK_JUMP_MS_MAX..=CLOCK_JUMP_MS_MAX))
            }),
            (weights.clock_drift, |faults, host| {
                Fault::ClockDrift(host, faults.rng.random_range(-CLOCK_DRIFT_MS_MAX..=CLOCK_DRIFT_MS_MAX))
            }),
            (weights.rolling, |_, _| Fault::Rolling),
            (weights.wipe, |_, host| Fault::Wipe(host)),
            (weights.leave, |_, host| Fault::Leave(host)),
            (weights.sever, |faults, host| Fault::Sever(host, faults.other(host))),
            (weights.forget, |_, host| Fault::Forget(host)),
            (weights.brownout, |faults, host| {
                Fault::Brownout(host, Duration::from_millis(faults.rng.random_range(500..STALL_MS_MAX)))
            }),
            (weights.shorthanded, |faults, _| faults.shorthanded()),
            (weights.reboot, |_, host| Fault::Reboot(host)),
        ];
        let total: u32 = kinds.iter().map(|(weight, _)| weight).sum();
        if self.options.fault_every.is_zero() || total == 0 {
            return None;
        }
        let after = self.options.fault_every.mul_f64(self.rng.random_range(0.1..2.0));
        // Some are over before anybody could notice, some last.
        let lasts = Duration::from_millis(match self.rng.random_range(0..3) {
            0 => self.rng.random_range(50..1_000),
            1 => self.rng.random_range(1_000..5_000),
            _ => self.rng.random_range(5_000..20_000),
        });
        let lasts = self.options.pace.of(lasts).min(LASTS_MAX);
        let mut at = self.rng.random_range(0..total);
        let host = self.rng.random_range(1..=self.options.hosts);
        let drawn = kinds.into_iter().find(|(weight, _)| {
            let here = at < *weight;
            at = at.saturating_sub(*weight);
            here
        });
        let (_, make) = drawn?;
        let fault = make(self, host);
        let least = if matches!(fault, Fault::Shorthanded(..)) {
            self.options.pace.of(SHORTHANDED_MIN)
        } else {
            Duration::ZERO
        };
        Some((after, fault, lasts.max(least)))
    }

    /// Another host than this one.
    fn other(&mut self, host: usize) -> usize {
        let other = self.rng.random_range(1..self.options.hosts);
        if other < host { other } else { other + 1 }
    }

    /// As many managers as can be spared, and one of the others.
    fn shorthanded(&mut self) -> Fault {
        let mut managers: Vec<usize> = (1..=self.options.managers).collect();
        managers.shuffle(&mut self.rng);
        let spared = managers.split_off((self.options.managers - 1) / 2);
        Fault::Shorthanded(managers.into_iter().collect(), spared[0])
    }

    fn side(&mut self) -> BTreeSet<usize> {
        let mut hosts: Vec<usize> = (1..=self.options.hosts).collect();
        hosts.shuffle(&mut self.rng);
        let count = self.rng.random_range(1..self.options.hosts);
        hosts.into_iter().take(count).collect()
    }

    /// All hosts, or all but one.
    fn most(&mut self) -> BTreeSet<usize> {
        let spared = self.rng.random_range(0..=self.options.hosts);
        (1..=self.options.hosts).filter(|host| *host != spared).collect()
    }

    fn storm(&mut self) -> Weather {
        let most = *[5, 20, 80].choose(&mut self.rng).unwrap_or(&5);
        Weather {
            latency: (self.options.latency.0, self.options.latency.1 + Duration::from_millis(most)),
            loss: self.rng.random_range(0.0..0.3),
            duplication: self.rng.random_range(0.0..0.1),
        }
    }
}

/// The addresses of hosts.
#[must_use]
pub fn addresses(hosts: &BTreeSet<usize>) -> BTreeSet<std::net::IpAddr> {
    hosts.iter().map(|host| ip(*host)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fabric::Depth;
    use crate::options::Profile;

    #[test]
    fn roles_are_recast_where_there_is_somebody_to_promote_and_nothing_else_changes_by_it() {
        let mut seen = 0;
        for seed in 0..300 {
            let minute = Duration::from_secs(60);
            let with = Options::drawn(seed, Profile::Everything, Depth::Fast, minute);
            let mut without = with.clone();
            without.weights.reseated = 0;
            let (mut all, others) = (drawn(&with), drawn(&without));
            assert!(all.is_sorted_by_key(|disaster| disaster.at));
            all.retain(|disaster| {
                let Fault::Reseated(Recast { away, again, new }) = disaster.fault else { return true };
                seen += 1;
                assert!(with.managers == 3 && away != again && (4..=with.hosts).contains(&new));
                assert!((1..=3).contains(&away) && (1..=3).contains(&again));
                false
            });
            assert_eq!(all, others);
        }
        assert!(seen > 10, "{seen}");
    }
}
