//! What one run is like: all of it follows from the seed, and can be printed.

use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use shoal_core::pace::Pace;

use crate::containers::Mishaps;
use crate::fabric::Depth;

const CERT_LIFE_MAX: Duration = Duration::from_secs(90 * 24 * 3600);

/// Which disasters a run may meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// None: only people change things.
    Calm,
    /// A network that loses, doubles, delays, shuffles and clogs.
    Lossy,
    /// Cables and splits.
    Partitions,
    /// Nodes that die and come back, or have no time.
    Crashes,
    /// Disks that are full, slow or rot.
    Disks,
    /// Nodes that leave, are wiped and join again, and that restart one after the other.
    Churn,
    /// All of it, and engines that fail and clocks that are wrong.
    Everything,
}

impl Profile {
    /// Every profile.
    pub const ALL: [Self; 7] = [
        Self::Calm,
        Self::Lossy,
        Self::Partitions,
        Self::Crashes,
        Self::Disks,
        Self::Churn,
        Self::Everything,
    ];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Calm => "calm",
            Self::Lossy => "lossy",
            Self::Partitions => "partitions",
            Self::Crashes => "crashes",
            Self::Disks => "disks",
            Self::Churn => "churn",
            Self::Everything => "everything",
        }
    }

    const fn is(self, other: Self) -> bool {
        matches!(self, Self::Everything) || self as u8 == other as u8
    }
}

/// How often each kind of disaster is drawn, against the sum of all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "each is named like its disaster in `faults`")]
pub struct Weights {
    pub kill: u32,
    pub blackout: u32,
    pub stop: u32,
    pub pause: u32,
    pub starve: u32,
    pub unplug: u32,
    pub split: u32,
    pub one_way: u32,
    pub flap: u32,
    pub storm: u32,
    pub clog: u32,
    pub shuffle: u32,
    pub engine_away: u32,
    pub disk_full: u32,
    pub disk_slow: u32,
    pub rot: u32,
    pub clock_jump: u32,
    pub clock_drift: u32,
    pub rolling: u32,
    pub wipe: u32,
    pub leave: u32,
    pub sever: u32,
    pub forget: u32,
    pub brownout: u32,
    pub shorthanded: u32,
    pub reboot: u32,
    /// Of a hundred runs in which it can happen; at most once in each.
    pub reseated: u32,
}

impl Weights {
    fn of(profile: Profile) -> Self {
        let weight = |on: bool, weight: u32| if on { weight } else { 0 };
        let crashes = profile.is(Profile::Crashes);
        let cuts = profile.is(Profile::Partitions);
        let disks = profile.is(Profile::Disks);
        let lossy = profile.is(Profile::Lossy);
        let churn = profile.is(Profile::Churn);
        let everything = profile == Profile::Everything;
        Self {
            kill: weight(crashes, 8),
            blackout: weight(crashes, 2),
            stop: weight(crashes, 2),
            pause: weight(crashes, 3),
            starve: weight(crashes, 2),
            unplug: weight(cuts, 5),
            split: weight(cuts, 4),
            one_way: weight(cuts, 4),
            flap: weight(cuts, 2),
            storm: weight(lossy, 4),
            clog: weight(lossy, 2),
            shuffle: weight(lossy, 2),
            engine_away: weight(everything, 3),
            disk_full: weight(disks, 2),
            disk_slow: weight(disks, 2),
            rot: weight(disks, 1),
            clock_jump: weight(everything, 6),
            clock_drift: weight(everything, 1),
            rolling: weight(churn, 1),
            wipe: weight(churn, 2),
            leave: weight(churn, 2),
            sever: weight(cuts, 3),
            forget: weight(disks, 3),
            brownout: weight(disks, 4),
            shorthanded: weight(churn, 2),
            reboot: weight(crashes, 3),
            reseated: weight(churn, 25),
        }
    }
}

/// How likely a run with short certificates outlives them: it takes several times as long as others.
const OUTLIVES: f64 = 0.06;

/// Settings of one run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Options {
    /// Where all of it follows from.
    pub seed: u64,
    /// Which disasters.
    pub profile: Profile,
    /// How much of what ships is run.
    pub depth: Depth,
    /// How much slower than usual the cluster beats and loses patience.
    #[serde(default)]
    pub pace: Pace,
    /// Hosts.
    pub hosts: usize,
    /// The first so many of them are managers.
    pub managers: usize,
    /// Virtual time in which things break and people change things.
    pub chaos: Duration,
    /// Virtual time within which all must be well again once nothing breaks any more.
    pub heal: Duration,
    /// Mean time between two disasters; none if zero.
    pub fault_every: Duration,
    /// Mean time between two changes by people.
    pub change_every: Duration,
    /// Least and most time of a packet on the wire.
    pub latency: (Duration, Duration),
    /// Least and most time of a durable write.
    pub sync: (Duration, Duration),
    /// For how long a certificate is good. Longer than any disaster of this run, so that no node misses its renewal;
    /// short ones are not drawn together with clocks that jump about as far.
    pub cert_life: Duration,
    /// Whether the cluster, once it is well, is watched until each certificate that it began with has ended, and restarted
    /// then.
    #[serde(default)]
    pub outlives: bool,
    /// Entries between two snapshots of consensus, and those kept behind one.
    pub snapshots: (u64, u64),
    /// Ended tasks kept for each slot.
    #[serde(default)]
    pub history: u64,
    /// Whether a crash is as when the power fails: what was not synced may be lost, or be there in any part.
    #[serde(default)]
    pub power_cuts: bool,
    /// Whether what nodes write down of their tasks is on the disk, too: in its time, refused while it is full, and there or not when
    /// the machine goes down.
    #[serde(default)]
    pub records: bool,
    /// Whether their certificates, and what they remember of themselves and the managers, are there, too.
    #[serde(default)]
    pub files: bool,
    /// What containers do that they should not.
    pub mishaps: Mishaps,
    /// How often each kind of disaster comes.
    pub weights: Weights,
}

impl Options {
    /// Draw the settings of a run.
    #[must_use]
    pub fn drawn(seed: u64, profile: Profile, depth: Depth, chaos: Duration) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let hosts = rng.random_range(3..=6);
        let managers = if hosts >= 5 && rng.random_bool(0.3) { 5 } else { 3 };
        let everything = profile == Profile::Everything;
        let calm = profile == Profile::Calm;
        let (weights, short_lives) = (Weights::of(profile), rng.random_bool(0.5));
        // Each has its own dice: the rest of the run stays as it was.
        let in_half =
            |dice: u64| profile.is(Profile::Disks) && ChaCha8Rng::seed_from_u64(seed ^ dice).random_bool(0.5);
        Self {
            seed,
            profile,
            depth,
            pace: Pace::USUAL,
            hosts,
            managers,
            chaos,
            heal: Duration::from_secs(180),
            fault_every: if calm {
                Duration::ZERO
            } else {
                Duration::from_millis(rng.random_range(3_000..20_000))
            },
            change_every: Duration::from_millis(rng.random_range(500..4_000)),
            latency: (
                Duration::from_micros(rng.random_range(50..500)),
                Duration::from_micros(rng.random_range(500..8_000)),
            ),
            sync: (
                Duration::from_micros(rng.random_range(20..200)),
                Duration::from_micros(rng.random_range(200..5_000)),
            ),
            cert_life: if short_lives {
                Duration::from_secs(rng.random_range(240..480))
            } else {
                CERT_LIFE_MAX
            },
            snapshots: if rng.random_bool(0.5) {
                (rng.random_range(5..100), rng.random_range(0..20))
            } else {
                (10_000, 500)
            },
            history: rng.random_range(0..=5),
            mishaps: if everything && rng.random_bool(0.5) {
                Mishaps { prepare_fails: 0.05, crashes: 0.1, slow_starts: 0.1, slow_stops: 0.1, sick: 0.2 }
            } else {
                Mishaps::default()
            },
            power_cuts: in_half(0xc07),
            records: in_half(0x7ec0),
            files: in_half(0xf11e),
            outlives: short_lives && rng.random_bool(OUTLIVES),
            weights: Weights {
                clock_jump: if short_lives { 0 } else { weights.clock_jump },
                clock_drift: if short_lives { 0 } else { weights.clock_drift },
                ..weights
            },
        }
    }

    /// The same at another pace: disasters and their ends, changes and certificates keep to it, so that as much happens
    /// in as many heartbeats.
    #[must_use]
    pub fn at(self, pace: Pace) -> Self {
        Self {
            pace,
            heal: pace.of(self.heal),
            fault_every: pace.of(self.fault_every),
            change_every: pace.of(self.change_every),
            cert_life: pace.of(self.cert_life).min(CERT_LIFE_MAX),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_follow_from_the_seed_alone() {
        let draw = |seed| Options::drawn(seed, Profile::Everything, Depth::Full, Duration::from_secs(60));
        for seed in 0..50 {
            let options = draw(seed);
            assert_eq!(options, draw(seed));
            assert!(options.managers <= options.hosts && options.latency.0 <= options.latency.1);
            let text = serde_json::to_string(&options).unwrap();
            assert_eq!(serde_json::from_str::<Options>(&text).unwrap(), options);
        }
        assert!((0..50).any(|seed| draw(seed).hosts != draw(0).hosts));
    }

    #[test]
    fn a_profile_has_no_disaster_of_another() {
        let weights = |profile| Options::drawn(3, profile, Depth::Fast, Duration::ZERO).weights;
        let Weights { kill, blackout, stop, pause, starve, reboot, .. } = weights(Profile::Crashes);
        assert_eq!(weights(Profile::Calm), Weights::default());
        assert_eq!(
            weights(Profile::Crashes),
            Weights { kill, blackout, stop, pause, starve, reboot, ..Weights::default() }
        );
        let all = serde_json::to_value(Weights::of(Profile::Everything)).unwrap();
        assert!(all.as_object().unwrap().values().all(|weight| weight.as_u64() > Some(0)), "{all}");
    }
}
