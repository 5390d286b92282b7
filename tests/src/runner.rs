//! Runs scenarios one after another on one lab, in the words of Rust's own test runner.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, anyhow};

use crate::cluster::Peer;
use crate::lab::Lab;
use crate::{requirements, stats};

/// What a scenario does, on a lab as new.
pub type Run = fn(&mut Lab, Peer) -> Result<()>;

/// One scenario.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    /// Its name: a sentence.
    pub name: &'static str,
    /// Whether the peer can do it, too (the rest asks for what only Shoal has).
    pub both: bool,
    /// What it does, on a lab as new.
    pub run: Run,
}

/// What the command line asks for.
#[derive(Debug, Default)]
struct Options {
    filters: Vec<String>,
    skip: Vec<String>,
    exact: bool,
    ignored: bool,
    list: bool,
    swarm: bool,
}

impl Options {
    fn parse(args: impl Iterator<Item = String>) -> Result<Self> {
        let mut options = Self::default();
        let mut args = args;
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--ignored" | "--include-ignored" => options.ignored = true,
                "--list" => options.list = true,
                "--exact" => options.exact = true,
                "--swarm" => options.swarm = true,
                "--skip" => options.skip.extend(args.next()),
                // Words of Rust's runner that change nothing here: one thread, all output shown.
                "--nocapture" | "--no-capture" | "--show-output" | "--quiet" | "-q" => {}
                "--test-threads" | "--format" | "--color" | "-Z" => drop(args.next()),
                other if other.starts_with("--") && other.contains('=') => {}
                other if other.starts_with('-') => return Err(anyhow!("unknown option {other}")),
                filter => options.filters.push(filter.to_owned()),
            }
        }
        Ok(options)
    }

    fn wants(&self, name: &str) -> bool {
        let is = |filter: &String| if self.exact { name == filter } else { name.contains(filter.as_str()) };
        (self.filters.is_empty() || self.filters.iter().any(is)) && !self.skip.iter().any(is)
    }
}

/// Run what the command line asks for, on a lab of `hosts`. Without `--ignored` nothing is run, only named: a lab takes minutes
/// and the machine's root. With `--swarm` the scenarios are run on the peer.
pub fn main(scenarios: &[Scenario], hosts: usize) -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    let wanted: Vec<_> = scenarios.iter().filter(|scenario| options.wants(scenario.name)).collect();
    if options.list {
        wanted.iter().for_each(|scenario| println!("{}: test", scenario.name));
        return ExitCode::SUCCESS;
    }
    let mut run =
        Progress { lab: None, hosts, passed: 0, ignored: 0, failed: Vec::new(), begun: Instant::now() };
    println!("\nrunning {} tests", wanted.len());
    for scenario in &wanted {
        run.one(scenario, &options);
    }
    run.lab = None;
    run.tell(scenarios.len() - wanted.len())
}

/// A run of several scenarios.
struct Progress {
    lab: Option<Lab>,
    hosts: usize,
    passed: usize,
    ignored: usize,
    failed: Vec<(&'static str, String)>,
    begun: Instant,
}

impl Progress {
    fn one(&mut self, scenario: &Scenario, options: &Options) {
        let name = scenario.name;
        if !options.ignored {
            return self.ignore(name, "ignored, a lab of real hosts: run with --ignored");
        }
        if options.swarm && !scenario.both {
            return self.ignore(name, "ignored, asks for what the peer does not have");
        }
        if let Some(missing) = requirements::missing() {
            println!("skipped: {name} needs {missing}");
            self.ignored += 1;
            return;
        }
        println!("test {name} ...");
        let peer = if options.swarm { Peer::Swarm } else { Peer::Shoal };
        let begun = Instant::now();
        let result = self.attempt(scenario, peer);
        let took = stats::seconds(begun.elapsed());
        match result {
            Ok(()) => {
                println!("test {name} ... ok ({took})");
                self.passed += 1;
            }
            Err(error) => {
                let logs = self.keep_logs(name);
                println!("test {name} ... FAILED ({took})\n{error:#}\n{logs}");
                self.failed.push((name, format!("{error:#}\n{logs}")));
            }
        }
        self.clear();
    }

    fn ignore(&mut self, name: &str, why: &str) {
        println!("test {name} ... {why}");
        self.ignored += 1;
    }

    fn attempt(&mut self, scenario: &Scenario, peer: Peer) -> Result<()> {
        if self.lab.is_none() {
            self.lab = Some(Lab::up(self.hosts)?);
        }
        let lab = self.lab.as_mut().ok_or_else(|| anyhow!("no lab"))?;
        catch_unwind(AssertUnwindSafe(|| (scenario.run)(lab, peer))).unwrap_or_else(|panic| {
            let text = panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Err(anyhow!("panicked: {}", text.unwrap_or_default()))
        })
    }

    /// Make the lab as new for the next one; take it down if that fails.
    fn clear(&mut self) {
        if let Some(lab) = &mut self.lab
            && let Err(error) = lab.reset()
        {
            println!("the lab could not be cleared ({error:#}): it is taken down");
            self.lab = None;
        }
    }

    fn keep_logs(&mut self, name: &str) -> String {
        let Some(lab) = &mut self.lab else { return "no lab, no logs".to_owned() };
        let mut lines = lab.ended_nodes();
        let folder = logs_folder().join(name);
        lines.push(match lab.keep_logs(&folder) {
            Ok(()) => format!("logs: {}", folder.display()),
            Err(error) => format!("the logs could not be kept: {error:#}"),
        });
        lines.join("\n")
    }

    fn tell(&self, filtered: usize) -> ExitCode {
        if !self.failed.is_empty() {
            println!("\nfailures:");
            for (name, error) in &self.failed {
                println!("\n---- {name} ----\n{error}");
            }
        }
        let word = if self.failed.is_empty() { "ok" } else { "FAILED" };
        println!(
            "\ntest result: {word}. {} passed; {} failed; {} ignored; 0 measured; {filtered} filtered out; finished in {:.2}s\n",
            self.passed,
            self.failed.len(),
            self.ignored,
            self.begun.elapsed().as_secs_f64()
        );
        if self.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(101) }
    }
}

/// Where logs of failed scenarios are kept: beside what cargo builds.
fn logs_folder() -> PathBuf {
    let beside = std::env::current_exe().ok().and_then(|exe| exe.ancestors().nth(3).map(PathBuf::from));
    beside.unwrap_or_else(std::env::temp_dir).join("lab-logs")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(args: &[&str]) -> Options {
        Options::parse(args.iter().map(|&arg| arg.to_owned())).unwrap()
    }

    #[test]
    fn options_of_rusts_runner_are_understood() {
        let options =
            options(&["--ignored", "--test-threads=1", "--test-threads", "1", "leader", "--skip", "loss"]);
        assert!(options.ignored && options.wants("leader_cut") && !options.wants("leader_loss"));
        assert!(!options.wants("worker"));
    }

    #[test]
    fn exact_names_one_scenario() {
        let options = options(&["--exact", "leader"]);
        assert!(options.wants("leader") && !options.wants("leader_cut"));
    }
}
