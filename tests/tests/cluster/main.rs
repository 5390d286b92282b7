//! Scenarios on whole clusters of real hosts: `cargo test -p shoal-tests --test cluster -- --ignored [NAME…]`.
//!
//! They are run one after another on five hosts, each on a lab as new. With `--swarm` those that ask for nothing but Docker's
//! own words are run on the engines' own swarm, which shows that they ask for the right thing.

mod away;
mod drain;
mod faults;
mod form;
mod health;
mod leaders;
mod loss;
mod members;
mod mesh;
mod metrics;
mod networks;
mod placement;
mod ports;
mod proxies;
mod quorum;
mod refusals;
mod releases;
mod restarts;
mod runtime;
mod services;
mod streams;
mod up;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, ensure};
use shoal_tests::runner::{self, Scenario};

/// How many hosts the lab has.
const HOSTS: usize = 5;
/// Long enough for a few dozen containers to start on a busy machine.
const START_MAX: Duration = Duration::from_secs(60);
/// How long stopping a task of the tests may take: its grace of a second, and a busy engine.
const STOP_MAX: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let scenarios = [
        form::SCENARIOS,
        services::SCENARIOS,
        placement::SCENARIOS,
        runtime::SCENARIOS,
        refusals::SCENARIOS,
        metrics::SCENARIOS,
        mesh::SCENARIOS,
        streams::SCENARIOS,
        health::SCENARIOS,
        drain::SCENARIOS,
        ports::SCENARIOS,
        releases::SCENARIOS,
        networks::SCENARIOS,
        faults::SCENARIOS,
        loss::SCENARIOS,
        leaders::SCENARIOS,
        proxies::SCENARIOS,
        away::SCENARIOS,
        quorum::SCENARIOS,
        restarts::SCENARIOS,
        members::SCENARIOS,
        up::SCENARIOS,
    ]
    .concat();
    runner::main(&scenarios, HOSTS)
}

/// What is run on Shoal alone.
const fn ours(name: &'static str, run: runner::Run) -> Scenario {
    Scenario { name, both: false, run }
}

/// What the peer can do, too.
const fn both(name: &'static str, run: runner::Run) -> Scenario {
    Scenario { name, both: true, run }
}

/// A text must say something; the whole text is told if it does not.
fn says(text: &str, what: &str) -> Result<()> {
    ensure!(text.to_lowercase().contains(&what.to_lowercase()), "expected {what:?} in: {text}");
    Ok(())
}
