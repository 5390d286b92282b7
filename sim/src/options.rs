//! What one run is like: all of it follows from the seed, and can be printed.

use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

/// Which disasters a run may meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// None: only people change things.
    Calm,
    /// A network that loses, doubles and delays.
    Lossy,
    /// Cables and splits.
    Partitions,
    /// Nodes that die and come back.
    Crashes,
    /// All of it, and engines and disks that fail.
    Everything,
}

impl Profile {
    /// Every profile.
    pub const ALL: [Self; 5] = [Self::Calm, Self::Lossy, Self::Partitions, Self::Crashes, Self::Everything];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Calm => "calm",
            Self::Lossy => "lossy",
            Self::Partitions => "partitions",
            Self::Crashes => "crashes",
            Self::Everything => "everything",
        }
    }

    const fn is(self, other: Self) -> bool {
        matches!(self, Self::Everything) || self as u8 == other as u8
    }
}

/// Settings of one run.
#[derive(Debug, Clone, Serialize)]
pub struct Options {
    /// Where all of it follows from.
    pub seed: u64,
    /// Which disasters.
    pub profile: Profile,
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
    /// For how long a certificate is good. Longer than any disaster of this run, so that no node misses its renewal.
    pub cert_life: Duration,
    /// Chance that a container ends by itself.
    pub container_crashes: f64,
    /// Weights of: kill, stop, unplug, split, weather, engine away, disk full.
    pub weights: [u32; 7],
}

impl Options {
    /// Draw the settings of a run.
    #[must_use]
    pub fn drawn(seed: u64, profile: Profile, chaos: Duration) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let hosts = rng.random_range(3..=6);
        let managers = if hosts >= 5 && rng.random_bool(0.3) { 5 } else { 3 };
        let weight = |on: bool, weight: u32| if on { weight } else { 0 };
        let crashes = profile.is(Profile::Crashes);
        let cuts = profile.is(Profile::Partitions);
        let everything = profile == Profile::Everything;
        let calm = profile == Profile::Calm;
        Self {
            seed,
            profile,
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
            cert_life: if rng.random_bool(0.5) {
                Duration::from_secs(rng.random_range(240..480))
            } else {
                Duration::from_secs(90 * 24 * 3600)
            },
            container_crashes: if everything && rng.random_bool(0.5) { 0.1 } else { 0.0 },
            weights: [
                weight(crashes, 4),
                weight(crashes, 1),
                weight(cuts, 3),
                weight(cuts, 2),
                weight(profile.is(Profile::Lossy), 2),
                weight(everything, 1),
                weight(everything, 1),
            ],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_follow_from_the_seed_alone() {
        let draw = |seed| Options::drawn(seed, Profile::Everything, Duration::from_secs(60));
        for seed in 0..50 {
            let options = draw(seed);
            assert_eq!(format!("{options:?}"), format!("{:?}", draw(seed)));
            assert!(options.managers <= options.hosts && options.latency.0 <= options.latency.1);
        }
        assert!((0..50).any(|seed| draw(seed).hosts != draw(0).hosts));
    }

    #[test]
    fn a_profile_has_no_disaster_of_another() {
        let weights = |profile| Options::drawn(3, profile, Duration::ZERO).weights;
        assert_eq!(weights(Profile::Calm), [0; 7]);
        assert_eq!(weights(Profile::Crashes)[2..], [0; 5]);
        assert!(weights(Profile::Everything).iter().all(|weight| *weight > 0));
    }
}
