//! What the simulator can do on this machine.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use shoal_actors::raft::Timing;
use shoal_core::pace::Pace;
use shoal_sim::fabric::Depth;
use shoal_sim::hooks;
use shoal_sim::large::{self, Figures};
use shoal_sim::options::{Options, Profile};
use shoal_sim::plan::Plan;

use crate::cli;
use crate::jobs;

/// Paces that are measured: as it ships, as Swarm's, whose leaders beat once a second, and slower still.
const FAST: [u32; 3] = [1, 20, 50];
const FULL: [u32; 3] = [1, 5, 10];

const YEAR_S: f64 = 365.25 * 24.0 * 3_600.0;

/// `sim bench`
pub(crate) fn run(words: &cli::Bench) -> anyhow::Result<ExitCode> {
    if words.seconds > 0 {
        println!("Five hosts, three of them managers, a change by people every minute:");
        for (depth, name, paces) in [(Depth::Fast, "fast", &FAST[..]), (Depth::Full, "full", &FULL[..])] {
            for pace in paces.iter().copied().filter_map(Pace::slower) {
                speed(depth, name, pace, words.seconds)?;
            }
        }
    }
    if words.nodes > 0 {
        let figures = large(words.nodes, words.tasks)?;
        tell(&figures)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// One process for each processor, each with a seed of its own, all at once.
fn speed(depth: Depth, name: &str, pace: Pace, seconds: u64) -> anyhow::Result<()> {
    let seconds = seconds * u64::from(pace.times());
    let folder = tempfile::tempdir().context("no folder for the plans")?;
    let mut open = Vec::new();
    for seed in 1..=jobs::count(None) as u64 {
        let plan = Plan::drawn(options(seed, depth, pace, seconds));
        let words = jobs::replay_words(&plan, &folder.path().join(format!("{seed}.json")))?;
        open.push(jobs::start(seed, &words)?);
    }
    let (mut processes, mut speed, mut disasters, mut minutes) = (0, 0.0, 0, 0.0);
    while let Some(ended) = jobs::any(&mut open)? {
        let outcome = ended.outcome;
        if outcome.code != 0 {
            jobs::stop(&mut open);
            anyhow::bail!("seed {} at {name} depth ended badly: {:?}", ended.tag, outcome.found);
        }
        processes += 1;
        speed += outcome.virtual_s / outcome.wall_s.max(0.001);
        disasters += outcome.figures.get("disasters").copied().unwrap_or(0);
        minutes += outcome.virtual_s / 60.0;
    }
    println!(
        "  {name} depth, a heartbeat of consensus every {} ms: {:.0} virtual s a second in each of {processes} processes, {speed:.0} in all, {:.1} disasters a virtual minute; a virtual year takes {:.1} h",
        Timing::at(pace).heartbeat.as_millis(),
        speed / f64::from(processes),
        disasters as f64 / minutes,
        YEAR_S / speed / 3_600.0,
    );
    Ok(())
}

fn options(seed: u64, depth: Depth, pace: Pace, seconds: u64) -> Options {
    let drawn = Options::drawn(seed, Profile::Everything, depth, Duration::from_secs(seconds)).at(pace);
    Options {
        hosts: 5,
        managers: 3,
        // What lasts long ends the plan sooner: a little more often than once a minute.
        fault_every: Duration::from_secs(50),
        change_every: Duration::from_secs(60),
        ..drawn
    }
}

fn large(nodes: usize, tasks: usize) -> anyhow::Result<Figures> {
    let told = hooks::pinned(1, move || hooks::in_virtual_time(large::run(nodes, tasks)));
    told.map_err(|_| anyhow::anyhow!("the large cluster crashed"))?
}

fn tell(figures: &Figures) -> anyhow::Result<()> {
    let a_second = |count: usize, time: Duration| count as f64 / time.as_secs_f64().max(0.001);
    let (created, converged) = (figures.created, figures.converged);
    println!("{} light nodes, {} tasks, three managers, one process:", figures.nodes, figures.tasks);
    println!(
        "  created and running after {:.1} virtual s, {:.1} real s: {:.0} placements/s, {:.0} task writes/s",
        created.0.as_secs_f64(),
        created.1.as_secs_f64(),
        a_second(figures.tasks, created.1),
        // Each task is made, placed and reported.
        a_second(figures.tasks * 3, created.1),
    );
    println!(
        "  a tenth of the nodes lost: {} tasks run elsewhere after {:.1} virtual s, {:.1} real s",
        figures.moved,
        converged.0.as_secs_f64(),
        converged.1.as_secs_f64(),
    );
    println!(
        "  reading all tasks of a service: p50 {:.2} ms, p99 {:.2} ms; {} log entries",
        figures.reads.0.as_secs_f64() * 1_000.0,
        figures.reads.1.as_secs_f64() * 1_000.0,
        figures.entries,
    );
    println!("  most memory: {:.2} GiB", peak_kib()? / f64::from(1 << 20));
    Ok(())
}

/// Most memory that this process had, in KiB.
fn peak_kib() -> anyhow::Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status").context("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    line.trim().trim_end_matches("kB").trim().parse().context("VmHWM")
}
