//! The words of the command line.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand, ValueEnum};
use shoal_core::pace::Pace;
use shoal_sim::fabric::Depth;
use shoal_sim::options::{Options, Profile};
use shoal_sim::plan::Plan;

/// Simulated clusters, from seeds and from files.
///
/// Exit codes: 0 all well, 1 wrong use, 2 a crash, 3 a broken promise, 4 not healed, 5 two runs of a seed differ.
#[derive(Parser)]
#[command(name = "sim")]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Run one seed, or many.
    Run(Run),
    /// Run several seeds, each twice in processes of their own, and compare their traces.
    Check(Check),
    /// Run what a file says.
    Replay(Replay),
    /// Write what a seed draws to a file, to be changed and replayed.
    Plan(PlanWords),
    /// Reduce a failing run to the events that matter.
    Shrink(Shrink),
    /// Draw a run, around its failure.
    Show(Show),
    /// Run twice, and show the first event that differs.
    Differ(Differ),
    /// Measure: virtual seconds a second at both depths, and a large cluster.
    Bench(Bench),
    /// Put bugs back one after the other, and see after how many seeds each is found.
    #[cfg(feature = "put-back")]
    Bugs(Bugs),
}

#[derive(Args, Clone)]
pub(crate) struct Kind {
    /// Which disasters.
    #[arg(long, default_value = "everything", value_parser = profile)]
    pub(crate) profile: Profile,
    /// full: QUIC, TLS and gossip as they ship; fast: lines and membership by their contracts.
    #[arg(long, default_value = "full", value_enum)]
    pub(crate) depth: DepthWord,
    /// Virtual seconds of disasters.
    #[arg(long, default_value_t = 120)]
    pub(crate) seconds: u64,
    /// How many hosts; drawn from the seed if not said, as how many of them are managers.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=240))]
    pub(crate) hosts: Option<u16>,
    /// How many times slower than usual the cluster beats and loses patience, and all happens to it.
    #[arg(long, default_value = "1", value_name = "TIMES", value_parser = pace)]
    pub(crate) pace: Pace,
    /// A bug that is put back, in builds that have them.
    #[cfg(feature = "put-back")]
    #[arg(long, value_name = "NAME", value_parser = bug)]
    pub(crate) put_back: Option<shoal_core::put_back::Bug>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DepthWord {
    Full,
    Fast,
}

impl Kind {
    pub(crate) fn options(&self, seed: u64) -> Options {
        let depth = match self.depth {
            DepthWord::Full => Depth::Full,
            DepthWord::Fast => Depth::Fast,
        };
        let drawn =
            Options::drawn(seed, self.profile, depth, Duration::from_secs(self.seconds)).at(self.pace);
        let hosts = self.hosts.map_or(drawn.hosts, usize::from);
        Options { hosts, managers: drawn.managers.min(hosts), ..drawn }
    }

    /// The words that say the same.
    pub(crate) fn words(&self) -> Vec<String> {
        let depth = match self.depth {
            DepthWord::Full => "full",
            DepthWord::Fast => "fast",
        };
        let (seconds, pace) = (self.seconds.to_string(), self.pace.times().to_string());
        let mut words: Vec<String> =
            ["--profile", self.profile.name(), "--depth", depth, "--seconds", &seconds, "--pace", &pace]
                .map(str::to_owned)
                .to_vec();
        words.extend(self.hosts.into_iter().flat_map(|hosts| ["--hosts".to_owned(), hosts.to_string()]));
        #[cfg(feature = "put-back")]
        if let Some(bug) = self.put_back {
            words.extend(["--put-back".to_owned(), bug.name().to_owned()]);
        }
        words
    }
}

fn pace(text: &str) -> Result<Pace, String> {
    let times = text.parse().ok().and_then(Pace::slower);
    times.ok_or_else(|| format!("a whole number from 1 to {} is wanted, not {text:?}", Pace::SLOWEST.times()))
}

fn profile(name: &str) -> Result<Profile, String> {
    Profile::ALL.into_iter().find(|profile| profile.name() == name).ok_or_else(|| {
        let names = Profile::ALL.map(Profile::name).join(", ");
        format!("one of {names} is wanted, not {name:?}")
    })
}

#[cfg(feature = "put-back")]
fn bug(name: &str) -> Result<shoal_core::put_back::Bug, String> {
    shoal_core::put_back::Bug::from_name(name).ok_or_else(|| {
        let names: Vec<_> = shoal_core::put_back::Bug::ALL.iter().map(|bug| bug.name()).collect();
        format!("one of {} is wanted, not {name:?}", names.join(", "))
    })
}

/// `90`, `90s`, `10m`, `2h`.
fn time(text: &str) -> Result<Duration, String> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let seconds = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3_600,
        _ => return Err(format!("a time such as 90s, 10m or 2h is wanted, not {text:?}")),
    };
    let number: u64 = number.parse().map_err(|_| format!("a time such as 90s is wanted, not {text:?}"))?;
    Ok(Duration::from_secs(number.saturating_mul(seconds)))
}

#[derive(Args)]
pub(crate) struct Run {
    /// The seed, or the first of many.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// How many seeds. One of a number is run in this process, and says more.
    #[arg(long, default_value_t = 1, conflicts_with = "time")]
    pub(crate) seeds: u64,
    /// Go on for so long: 90s, 10m, 2h.
    #[arg(long, value_parser = time)]
    pub(crate) time: Option<Duration>,
    /// Processes at once; as many as there are processors if not said.
    #[arg(long, value_name = "N")]
    pub(crate) jobs: Option<usize>,
    /// Stop at the first failure.
    #[arg(long)]
    pub(crate) fail_fast: bool,
    /// With many seeds: write what was found to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) summary: Option<PathBuf>,
    /// With one seed: write every event to this file, a JSON object each.
    #[arg(long, value_name = "FILE")]
    pub(crate) events: Option<PathBuf>,
    /// With one seed: print the outcome as one line of JSON and nothing else.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) kind: Kind,
}

#[derive(Args)]
pub(crate) struct Check {
    /// How many.
    #[arg(long, default_value_t = 8)]
    pub(crate) seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    pub(crate) first: u64,
    #[command(flatten)]
    pub(crate) kind: Kind,
}

/// What is to be run: a file, or what a seed draws.
#[derive(Args)]
pub(crate) struct Source {
    /// A file made by `sim plan` or `sim shrink`.
    #[arg(value_name = "FILE", required_unless_present = "seed", conflicts_with = "seed")]
    pub(crate) file: Option<PathBuf>,
    /// What this seed draws.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    #[command(flatten)]
    pub(crate) kind: Kind,
}

impl Source {
    pub(crate) fn plan(&self) -> anyhow::Result<Plan> {
        match (&self.file, self.seed) {
            (Some(file), _) => Plan::read(file),
            (None, seed) => Ok(Plan::drawn(self.kind.options(seed.context("a file or --seed is wanted")?))),
        }
    }

    /// The words that run it.
    pub(crate) fn again(&self) -> String {
        match (&self.file, self.seed) {
            (Some(file), _) => format!("sim replay {}", file.display()),
            (None, seed) => {
                format!("sim run --seed {} {}", seed.unwrap_or_default(), self.kind.words().join(" "))
            }
        }
    }
}

#[derive(Args)]
pub(crate) struct Replay {
    /// A file made by `sim plan` or `sim shrink`.
    pub(crate) file: PathBuf,
    /// Write every event to this file, a JSON object each.
    #[arg(long, value_name = "FILE")]
    pub(crate) events: Option<PathBuf>,
    /// Print the outcome as one line of JSON and nothing else.
    #[arg(long)]
    pub(crate) json: bool,
    /// A bug that is put back, in builds that have them.
    #[cfg(feature = "put-back")]
    #[arg(long, value_name = "NAME", value_parser = bug)]
    pub(crate) put_back: Option<shoal_core::put_back::Bug>,
}

#[derive(Args)]
pub(crate) struct PlanWords {
    /// The seed.
    #[arg(long)]
    pub(crate) seed: u64,
    /// Where to; standard output if not said.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) kind: Kind,
}

#[derive(Args)]
pub(crate) struct Shrink {
    #[command(flatten)]
    pub(crate) source: Source,
    /// Where to.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// Processes at once; as many as there are processors if not said.
    #[arg(long, value_name = "N")]
    pub(crate) jobs: Option<usize>,
    /// Runs at most.
    #[arg(long, default_value_t = 2_000)]
    pub(crate) runs: u64,
}

#[derive(Args)]
pub(crate) struct Show {
    #[command(flatten)]
    pub(crate) source: Source,
    /// Where to: one file of HTML.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// Virtual seconds before the failure, or before the end.
    #[arg(long, default_value_t = 20)]
    pub(crate) before: u64,
    /// Begin at this virtual second, wherever the failure is.
    #[arg(long, value_name = "SECOND")]
    pub(crate) from: Option<u64>,
    /// Virtual seconds after it.
    #[arg(long, default_value_t = 2)]
    pub(crate) after: u64,
}

#[derive(Args)]
pub(crate) struct Differ {
    #[command(flatten)]
    pub(crate) source: Source,
}

#[derive(Args)]
pub(crate) struct Bench {
    /// Light nodes of the large cluster; 0 leaves it out.
    #[arg(long, default_value_t = 10_000)]
    pub(crate) nodes: usize,
    /// Its tasks.
    #[arg(long, default_value_t = 1_000_000)]
    pub(crate) tasks: usize,
    /// Virtual seconds of the runs at both depths; 0 leaves them out.
    #[arg(long, default_value_t = 600)]
    pub(crate) seconds: u64,
}

#[cfg(feature = "put-back")]
#[derive(Args)]
pub(crate) struct Bugs {
    /// Only these; all if none is named.
    #[arg(value_parser = bug)]
    pub(crate) bugs: Vec<shoal_core::put_back::Bug>,
    /// Seeds at most for each.
    #[arg(long, default_value_t = 1_000)]
    pub(crate) seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    pub(crate) first: u64,
    /// Processes at once; as many as there are processors if not said.
    #[arg(long, value_name = "N")]
    pub(crate) jobs: Option<usize>,
    #[command(flatten)]
    pub(crate) kind: Kind,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_words_are_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_time_is_read_with_its_unit() {
        assert_eq!(time("90"), Ok(Duration::from_secs(90)));
        assert_eq!(time("2h"), Ok(Duration::from_secs(7_200)));
        assert!(time("2 days").unwrap_err().contains("2 days"));
        assert!(time("m").is_err());
    }

    #[test]
    fn the_words_of_a_kind_say_the_same_kind() {
        let kind = |words: &[&str]| {
            let all = [&["sim", "run"], words].concat();
            match Cli::try_parse_from(all).unwrap().verb {
                Verb::Run(run) => run.kind,
                _ => unreachable!(),
            }
        };
        let first = kind(&["--profile", "disks", "--depth", "fast", "--seconds", "7"]);
        let words = first.words();
        let again = kind(&words.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(again.words(), words);
        assert_eq!(again.options(3), first.options(3));
    }
}
