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

    /// What kind of failure it is, to the words: without hosts, numbers and names.
    pub(crate) fn shape(&self) -> String {
        let (code, judge) = self.kind();
        let first = self.found.first().filter(|_| code == BROKEN).map_or("", String::as_str);
        let is_word = |word: &&str| !word.contains(|letter: char| letter.is_ascii_digit());
        let words: Vec<&str> = first.split_whitespace().filter(is_word).collect();
        format!("{code} {judge} {}", words.join(" "))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_that_differ_in_names_and_numbers_have_one_shape() {
        let shape =
            |code, what: &str| Outcome { code, found: vec![what.to_owned()], ..Outcome::default() }.shape();
        assert_eq!(shape(BROKEN, "watch: h1 took 2 seats"), shape(BROKEN, "watch: h12 took 3 seats"));
        assert_ne!(shape(BROKEN, "watch: h1 took 2 seats"), shape(BROKEN, "watch: h1 took 2 ports"));
        assert_ne!(shape(BROKEN, "watch: h1"), shape(BROKEN, "logs: h1"));
        assert_eq!(shape(SICK, "a task waits"), shape(SICK, "h2 is down"));
    }
}
