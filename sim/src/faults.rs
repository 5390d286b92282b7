//! What breaks, and how it is mended.

use std::collections::BTreeSet;
use std::time::Duration;

use rand::seq::{IndexedRandom as _, SliceRandom as _};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::host::ip;
use crate::options::Options;
use crate::udp::Weather;

/// One disaster.
#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    /// The process is gone at once, its machine's disk keeps what it will.
    Kill(usize),
    /// The process is asked to stop.
    Stop(usize),
    /// The host hears nobody.
    Unplug(usize),
    /// These hear only each other.
    Split(BTreeSet<usize>),
    /// The wires lose, double and delay.
    Storm(Weather),
    /// The host's engine does not answer.
    EngineAway(usize),
    /// The host's disk takes no more.
    DiskFull(usize),
}

/// Draws disasters.
pub struct Faults {
    rng: ChaCha8Rng,
    options: Options,
}

impl Faults {
    /// As the options have it.
    #[must_use]
    pub fn new(options: &Options) -> Self {
        Self { rng: ChaCha8Rng::seed_from_u64(options.seed ^ 0xfa17), options: options.clone() }
    }

    /// The time until the next disaster, and how long it lasts. `None`: nothing breaks in this run.
    pub fn draw(&mut self) -> Option<(Duration, Fault, Duration)> {
        let total: u32 = self.options.weights.iter().sum();
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
        let mut at = self.rng.random_range(0..total);
        let weights = self.options.weights;
        let kind = weights
            .iter()
            .position(|weight| {
                let here = at < *weight;
                at = at.saturating_sub(*weight);
                here
            })
            .unwrap_or_default();
        let host = self.rng.random_range(1..=self.options.hosts);
        let fault = match kind {
            0 => Fault::Kill(host),
            1 => Fault::Stop(host),
            2 => Fault::Unplug(host),
            3 => Fault::Split(self.side()),
            4 => Fault::Storm(self.storm()),
            5 => Fault::EngineAway(host),
            _ => Fault::DiskFull(host),
        };
        Some((after, fault, lasts))
    }

    fn side(&mut self) -> BTreeSet<usize> {
        let mut hosts: Vec<usize> = (1..=self.options.hosts).collect();
        hosts.shuffle(&mut self.rng);
        let count = self.rng.random_range(1..self.options.hosts);
        hosts.into_iter().take(count).collect()
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
