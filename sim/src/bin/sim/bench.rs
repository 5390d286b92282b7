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
use crate::one;

/// Paces that are measured: as it ships, as Swarm's, whose leaders beat once a second, and slower still.
const FAST: [u32; 3] = [1, 20, 50];
const FULL: [u32; 3] = [1, 5, 10];

const YEAR_S: f64 = 365.25 * 24.0 * 3_600.0;

/// `sim bench`
pub(crate) fn run(words: &cli::Bench) -> anyhow::Result<ExitCode> {
    if words.seconds > 0 {
        println!("Five hosts, three of them managers, a disaster and a change by people about every minute:");
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

fn speed(depth: Depth, name: &str, pace: Pace, seconds: u64) -> anyhow::Result<()> {
    let seconds = seconds * u64::from(pace.times());
    let (outcome, _) = one::live(&Plan::drawn(options(depth, pace, seconds)), false)?;
    anyhow::ensure!(outcome.code == 0, "the run at {name} depth ended badly: {:?}", outcome.found);
    let speed = outcome.virtual_s / outcome.wall_s.max(0.001);
    println!(
        "  {name} depth, a heartbeat of consensus every {} ms: {speed:.0} virtual s a second ({:.0} virtual s in {:.1} s, {} disasters); a virtual year takes {:.1} h",
        Timing::at(pace).heartbeat.as_millis(),
        outcome.virtual_s,
        outcome.wall_s,
        outcome.figures.get("disasters").copied().unwrap_or(0),
        YEAR_S / speed / 3_600.0,
    );
    Ok(())
}

fn options(depth: Depth, pace: Pace, seconds: u64) -> Options {
    let drawn = Options::drawn(1, Profile::Everything, depth, Duration::from_secs(seconds)).at(pace);
    Options {
        hosts: 5,
        managers: 3,
        fault_every: Duration::from_secs(55),
        change_every: Duration::from_secs(60),
        ..drawn
    }
}

fn large(nodes: usize, tasks: usize) -> anyhow::Result<Figures> {
    let folder = one::folder()?;
    let path = folder.path().to_owned();
    let told = hooks::pinned(1, move || one::in_virtual_time(large::run(nodes, tasks, &path)));
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
