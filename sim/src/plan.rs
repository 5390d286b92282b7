//! All that happens to a cluster in a run, decided before it begins: what a seed draws, what a failure is reduced to, what
//! a file keeps.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::faults::{self, Disaster};
use crate::options::Options;
use crate::wishes::{self, Wish};

/// Bytes of a file that is read at most.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// A run, before it begins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Its settings.
    pub options: Options,
    /// What breaks.
    pub disasters: Vec<Disaster>,
    /// What people want.
    pub wishes: Vec<Wish>,
}

impl Plan {
    /// What the options' seed draws.
    #[must_use]
    pub fn drawn(options: Options) -> Self {
        let (disasters, wishes) = (faults::drawn(&options), wishes::drawn(&options));
        Self { options, disasters, wishes }
    }

    /// Disasters and wishes together.
    #[must_use]
    pub fn len(&self) -> usize {
        self.disasters.len() + self.wishes.len()
    }

    /// Whether nothing happens.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The same run with only those of its events for which `keep` says so; disasters are counted before wishes.
    #[must_use]
    pub fn only(&self, mut keep: impl FnMut(usize) -> bool) -> Self {
        let mut at = 0;
        let mut next = || {
            at += 1;
            keep(at - 1)
        };
        let disasters = self.disasters.iter().filter(|_| next()).cloned().collect();
        let wishes = self.wishes.iter().filter(|_| next()).cloned().collect();
        Self { options: self.options.clone(), disasters, wishes }
    }

    /// The same events elsewhere: what is left to chance comes from another seed.
    #[must_use]
    pub fn in_world(&self, world: u64) -> Self {
        let mut other = self.clone();
        other.options.seed = other.options.seed.wrapping_add(world);
        other
    }

    /// The same run with only what happens between these times.
    #[must_use]
    pub fn between(&self, from: Duration, until: Duration) -> Self {
        let times = self.times();
        self.only(|at| from <= times[at] && times[at] < until)
    }

    /// All events in the order of time, each by its number as in [`Plan::only`].
    #[must_use]
    pub fn in_time(&self) -> Vec<usize> {
        let times = self.times();
        let mut all: Vec<usize> = (0..times.len()).collect();
        all.sort_by_key(|at| times[*at]);
        all
    }

    fn times(&self) -> Vec<Duration> {
        let disasters = self.disasters.iter().map(|disaster| disaster.at);
        disasters.chain(self.wishes.iter().map(|wish| wish.at)).collect()
    }

    /// What kind of event each is, in the order of [`Plan::only`].
    #[must_use]
    pub fn kinds(&self) -> Vec<String> {
        let kind = |words: String| {
            let end = words.find(|letter: char| !letter.is_ascii_alphanumeric()).unwrap_or(words.len());
            words[..end].to_owned()
        };
        let disasters = self.disasters.iter().map(|disaster| kind(format!("{:?}", disaster.fault)));
        disasters.chain(self.wishes.iter().map(|wish| kind(format!("{:?}", wish.ask)))).collect()
    }

    /// Read a plan from a file.
    ///
    /// # Errors
    /// If there is none, or it is something else.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let name = || format!("{}: no plan of a simulation", path.display());
        let length = std::fs::metadata(path).with_context(name)?.len();
        anyhow::ensure!(length <= FILE_BYTES_MAX, "{}: {length} bytes are too many", path.display());
        serde_json::from_slice(&std::fs::read(path).with_context(name)?).with_context(name)
    }

    /// Write it to a file.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        std::fs::write(path, text + "\n").with_context(|| path.display().to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fabric::Depth;
    use crate::options::Profile;

    fn plan(seed: u64) -> Plan {
        Plan::drawn(Options::drawn(seed, Profile::Everything, Depth::Fast, Duration::from_secs(120)))
    }

    #[test]
    fn a_plan_follows_from_its_seed_and_reads_back_as_written() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("plan.json");
        for seed in 0..20 {
            let drawn = plan(seed);
            assert_eq!(drawn, plan(seed));
            assert!(!drawn.disasters.is_empty() && !drawn.wishes.is_empty());
            drawn.write(&file).unwrap();
            assert_eq!(Plan::read(&file).unwrap(), drawn);
        }
    }

    #[test]
    fn a_part_of_a_plan_has_the_events_that_were_kept_as_they_were() {
        let whole = plan(7);
        assert_eq!(whole.only(|_| true), whole);
        assert!(whole.only(|_| false).is_empty());
        let last = whole.only(|at| at == whole.len() - 1);
        assert_eq!((last.disasters.len(), &last.wishes[..]), (0, &whole.wishes[whole.wishes.len() - 1..]));
    }

    #[test]
    fn a_file_that_is_no_plan_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("other.json");
        std::fs::write(&file, "{}").unwrap();
        assert!(format!("{:#}", Plan::read(&file).unwrap_err()).contains("other.json"));
    }
}
