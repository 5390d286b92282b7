//! `sim`: run simulated clusters from seeds.

use std::panic;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::{Args, Parser, Subcommand};
#[cfg(feature = "put-back")]
use shoal_core::put_back::Bug;
use shoal_sim::options::{Options, Profile};
use shoal_sim::run::{Report, Verdict};
use shoal_sim::trace::Trace;
use shoal_sim::{hooks, run};

/// A part of the program panicked.
const CRASHED: u8 = 2;
/// A promise was broken.
const BROKEN: u8 = 3;
/// The cluster did not heal.
const SICK: u8 = 4;
/// One seed, two runs, two stories.
const DIFFERS: u8 = 5;

static PANICKED: AtomicBool = AtomicBool::new(false);

/// Simulated clusters, from seeds.
///
/// Exit codes: 0 all well, 1 wrong use, 2 a crash, 3 a broken promise, 4 not healed, 5 two runs of a seed differ.
#[derive(Parser)]
#[command(name = "sim")]
struct Cli {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Run one seed.
    Run {
        /// The seed.
        #[arg(long)]
        seed: u64,
        /// Write every event to this file, a line each.
        #[arg(long, value_name = "FILE")]
        events: Option<PathBuf>,
        /// Put this bug back.
        #[cfg(feature = "put-back")]
        #[arg(long, value_name = "NAME", value_parser = bug)]
        put_back: Option<Bug>,
        #[command(flatten)]
        kind: Kind,
    },
    /// Run several seeds, each twice in processes of their own, and compare their traces.
    Check {
        /// How many.
        #[arg(long, default_value_t = 8)]
        seeds: u64,
        /// The first of them.
        #[arg(long, default_value_t = 1)]
        first: u64,
        #[command(flatten)]
        kind: Kind,
    },
}

#[derive(Args, Clone)]
struct Kind {
    /// Which disasters: calm, lossy, partitions, crashes, everything.
    #[arg(long, default_value = "everything", value_parser = profile)]
    profile: Profile,
    /// Virtual seconds of disasters.
    #[arg(long, default_value_t = 120)]
    seconds: u64,
}

fn profile(name: &str) -> Result<Profile, String> {
    Profile::ALL
        .into_iter()
        .find(|profile| profile.name() == name)
        .ok_or_else(|| format!("calm, lossy, partitions, crashes or everything is wanted, not {name:?}"))
}

#[cfg(feature = "put-back")]
fn bug(name: &str) -> Result<Bug, String> {
    let names = || Bug::ALL.iter().map(|bug| bug.name()).collect::<Vec<_>>().join(", ");
    Bug::from_name(name).ok_or_else(|| format!("one of these is wanted, not {name:?}: {}", names()))
}

fn main() -> anyhow::Result<ExitCode> {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(said) => {
            said.print()?;
            return Ok(if said.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS });
        }
    };
    match cli.command {
        #[cfg(not(feature = "put-back"))]
        Verb::Run { seed, events, kind } => run_one(seed, events, &kind),
        #[cfg(feature = "put-back")]
        Verb::Run { seed, events, put_back, kind } => {
            shoal_core::put_back::set(put_back);
            run_one(seed, events, &kind)
        }
        Verb::Check { seeds, first, kind } => check(seeds, first, &kind),
    }
}

struct Told {
    report: anyhow::Result<Report>,
    hash: String,
    events: u64,
    virtual_time: Duration,
    lines: Vec<String>,
}

fn run_one(seed: u64, events: Option<PathBuf>, kind: &Kind) -> anyhow::Result<ExitCode> {
    if std::env::var_os("RUST_LOG").is_some() {
        tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .with_writer(std::io::stderr)
            .with_ansi(false)
            .init();
    }
    let options = Options::drawn(seed, kind.profile, Duration::from_secs(kind.seconds));
    println!("{}", serde_json::to_string(&options)?);
    let folder = tempfile::tempdir().context("no folder for the simulated hosts")?;
    let path = folder.path().to_owned();
    let keep = events.is_some();
    let tell = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        PANICKED.store(true, Ordering::SeqCst);
        tell(info);
    }));
    let began = hooks::real_elapsed();
    let told = hooks::pinned(seed, move || simulate(&options, &path, keep));
    let took = hooks::real_elapsed() - began;
    let Ok(told) = told else {
        println!("seed {seed}: CRASHED");
        return Ok(ExitCode::from(CRASHED));
    };
    let told = told?;
    if let Some(file) = events {
        std::fs::write(&file, told.lines.join("\n")).with_context(|| file.display().to_string())?;
    }
    let (word, code) = match (&told.report, PANICKED.load(Ordering::SeqCst)) {
        (_, true) => ("CRASHED", CRASHED),
        (Err(error), _) => {
            println!("{error:#}");
            ("NOT HEALED", SICK)
        }
        (Ok(Report { verdict: Verdict::Sick(what), .. }), _) => {
            println!("still: {what}");
            ("NOT HEALED", SICK)
        }
        (Ok(Report { verdict: Verdict::Broken(found), .. }), _) => {
            found.iter().for_each(|what| println!("broken: {what}"));
            ("BROKEN", BROKEN)
        }
        (Ok(_), _) => ("ok", 0),
    };
    let figures = told.report.map(|report| report.figures).unwrap_or_default();
    let figures: Vec<_> = figures.iter().map(|(name, value)| format!("{name}={value}")).collect();
    println!(
        "seed {seed}: {word}; hash={} events={} {} virtual={}s wall={:.1}s speed={:.0}",
        told.hash,
        told.events,
        figures.join(" "),
        told.virtual_time.as_secs(),
        took.as_secs_f64(),
        told.virtual_time.as_secs_f64() / took.as_secs_f64(),
    );
    Ok(ExitCode::from(code))
}

fn simulate(options: &Options, folder: &std::path::Path, keep: bool) -> anyhow::Result<Told> {
    let system = actix_rt::System::with_tokio_rt(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        #[allow(clippy::expect_used, reason = "actix takes no error here, and nothing can go on without it")]
        runtime.expect("a runtime without threads and sockets")
    });
    system.block_on(async {
        hooks::begin_clock();
        let began = tokio::time::Instant::now();
        let trace = Trace::new(keep);
        let report = run::run(options, folder, &trace).await;
        let (hash, events) = trace.digest();
        Ok(Told { report, hash, events, virtual_time: began.elapsed(), lines: trace.lines() })
    })
}

fn start(seed: u64, kind: &Kind) -> anyhow::Result<Child> {
    let program = std::env::current_exe().context("this program's own file")?;
    Command::new(program)
        .args(words(seed, kind))
        .env_remove("RUST_LOG")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("another process of this program")
}

fn words(seed: u64, kind: &Kind) -> Vec<String> {
    [
        "run",
        "--seed",
        &seed.to_string(),
        "--profile",
        kind.profile.name(),
        "--seconds",
        &kind.seconds.to_string(),
    ]
    .map(str::to_owned)
    .to_vec()
}

/// What must be the same in two runs.
fn story(line: &str) -> &str {
    line.split(" virtual=").next().unwrap_or(line)
}

fn check(seeds: u64, first: u64, kind: &Kind) -> anyhow::Result<ExitCode> {
    if seeds == 0 {
        bail!("--seeds: at least one is wanted");
    }
    let began = Instant::now();
    let (mut passed, mut failed, mut worst) = (0, 0, 0);
    for seed in first..first.saturating_add(seeds) {
        let (one, two) = (start(seed, kind)?, start(seed, kind)?);
        let (one, two) = (one.wait_with_output()?, two.wait_with_output()?);
        let text = String::from_utf8_lossy(&one.stdout).into_owned();
        let again = String::from_utf8_lossy(&two.stdout).into_owned();
        let (line, other) = (text.lines().last().unwrap_or(""), again.lines().last().unwrap_or(""));
        let code = one.status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(CRASHED);
        let code = if code == 0 && story(line) != story(other) { DIFFERS } else { code };
        println!("test seed {seed} ... {} {line}", if code == 0 { "ok" } else { "FAILED" });
        if code == 0 {
            passed += 1;
            continue;
        }
        failed += 1;
        worst = worst.max(code);
        if code == DIFFERS {
            println!("two runs differ; the other was: {other}");
        } else {
            print!("{text}{}", String::from_utf8_lossy(&one.stderr));
        }
        println!("again: sim {}", words(seed, kind).join(" "));
    }
    println!(
        "\ntest result: {}. {passed} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out; finished in {:.1}s",
        if failed == 0 { "ok" } else { "FAILED" },
        began.elapsed().as_secs_f64()
    );
    Ok(ExitCode::from(worst))
}
