//! How a run ended, for people and for other processes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A part of the program panicked.
pub(crate) const CRASHED: u8 = 2;
/// A promise was broken.
pub(crate) const BROKEN: u8 = 3;
/// The cluster did not heal.
pub(crate) const SICK: u8 = 4;
/// One seed, two runs, two stories.
pub(crate) const DIFFERS: u8 = 5;

/// How a run ended.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Its seed.
    pub(crate) seed: u64,
    /// As the process' exit code.
    pub(crate) code: u8,
    /// What was found, each with its judge before it.
    pub(crate) found: Vec<String>,
    /// Hash over all events.
    pub(crate) hash: String,
    /// How many.
    pub(crate) events: u64,
    /// Figures of the run.
    pub(crate) figures: BTreeMap<String, u64>,
    /// Virtual seconds.
    pub(crate) virtual_s: f64,
    /// Real seconds.
    pub(crate) wall_s: f64,
}

impl Outcome {
    pub(crate) const fn word(&self) -> &'static str {
        match self.code {
            0 => "ok",
            CRASHED => "CRASHED",
            BROKEN => "BROKEN",
            SICK => "NOT HEALED",
            DIFFERS => "DIFFERS",
            _ => "FAILED",
        }
    }

    /// What kind of failure it is: the same kind is the same bug, most likely.
    pub(crate) fn kind(&self) -> (u8, String) {
        let judge = match self.code {
            BROKEN => self.found.first().and_then(|what| what.split_once(':')).map(|(judge, _)| judge),
            _ => None,
        };
        (self.code, judge.unwrap_or_default().to_owned())
    }

    /// What must be the same in two runs.
    pub(crate) fn story(&self) -> (u8, &str, u64) {
        (self.code, &self.hash, self.events)
    }

    /// One line for people.
    pub(crate) fn line(&self) -> String {
        let figures: Vec<_> = self.figures.iter().map(|(name, value)| format!("{name}={value}")).collect();
        format!(
            "seed {}: {}; hash={} events={} {} virtual={:.0}s wall={:.2}s speed={:.0}",
            self.seed,
            self.word(),
            self.hash,
            self.events,
            figures.join(" "),
            self.virtual_s,
            self.wall_s,
            self.virtual_s / self.wall_s.max(0.001),
        )
    }
}
