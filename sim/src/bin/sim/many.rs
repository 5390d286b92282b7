//! Many seeds.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde::Serialize;
use shoal_sim::plan::Plan;

use crate::cli::{self, Kind};
use crate::jobs::{self, Ended};
use crate::one;
use crate::outcome::{DIFFERS, Outcome};

const TELL_EVERY: Duration = Duration::from_millis(200);
const BAR: usize = 24;

/// Words that run one seed in a process of its own.
pub(crate) fn words(seed: u64, kind: &Kind) -> Vec<String> {
    let mut words: Vec<String> = ["run", "--json", "--seed", &seed.to_string()].map(str::to_owned).to_vec();
    words.extend(kind.words());
    words
}

fn again(seed: u64, kind: &Kind) -> String {
    format!("sim run --seed {seed} {}", kind.words().join(" "))
}

/// A failure, for the summary.
#[derive(Serialize)]
struct Failure {
    seed: u64,
    verdict: &'static str,
    found: Vec<String>,
    again: String,
}

/// What many seeds came to.
#[derive(Serialize, Default)]
struct Summary {
    profile: String,
    first: u64,
    seeds: u64,
    passed: u64,
    failed: u64,
    by_verdict: BTreeMap<&'static str, u64>,
    virtual_s: f64,
    wall_s: f64,
    processes: usize,
    events: u64,
    disasters: u64,
    failures: Vec<Failure>,
}

/// One line that says how far it is, rewritten in place on a terminal.
struct Progress {
    began: Instant,
    told: Instant,
    terminal: bool,
}

impl Progress {
    fn new() -> Self {
        let now = Instant::now();
        Self { began: now, told: now, terminal: std::io::stderr().is_terminal() }
    }

    fn tell(&mut self, summary: &Summary, share: f64, last: bool) {
        let every = if self.terminal { TELL_EVERY } else { TELL_EVERY * 150 };
        if !last && self.told.elapsed() < every {
            return;
        }
        self.told = Instant::now();
        let took = self.began.elapsed().as_secs_f64();
        let full = ((share.clamp(0.0, 1.0) * BAR as f64) as usize).min(BAR);
        let rest = if share > 0.0 { took / share - took } else { 0.0 };
        let line = format!(
            "[{}{}] {} seeds, {:.1}/s, {} virtual, {} failed, {} to go",
            "#".repeat(full),
            ".".repeat(BAR - full),
            summary.seeds,
            summary.seeds as f64 / took.max(0.001),
            span(summary.virtual_s),
            summary.failed,
            span(rest),
        );
        let mut err = std::io::stderr();
        let _ = if self.terminal { write!(err, "\r\x1b[K{line}") } else { writeln!(err, "{line}") };
        if last && self.terminal {
            let _ = writeln!(err);
        }
    }

    fn clear(&self) {
        if self.terminal {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

fn span(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7_200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.1} h", s / 3_600.0),
        s => format!("{:.1} days", s / 86_400.0),
    }
}

/// `sim run`
pub(crate) fn run(words: &cli::Run) -> anyhow::Result<ExitCode> {
    let kind = &words.kind;
    if words.seeds == 0 {
        bail!("--seeds: at least one is wanted");
    }
    if words.seeds == 1 && words.time.is_none() {
        #[cfg(feature = "put-back")]
        shoal_core::put_back::set(kind.put_back);
        let plan = Plan::drawn(kind.options(words.seed));
        return one::run(&plan, words.events.as_deref(), words.json, &again(words.seed, kind));
    }
    if words.events.is_some() || words.json {
        bail!("--events and --json are for one seed; --summary is for many");
    }
    let summary = many(words)?;
    if let Some(file) = &words.summary {
        std::fs::write(file, serde_json::to_string_pretty(&summary)? + "\n")
            .with_context(|| file.display().to_string())?;
    }
    println!(
        "{} seeds of {}: {} passed, {} failed; {} virtual in {}, {:.1} seeds/s, {:.0} virtual s a second and process",
        summary.seeds,
        summary.profile,
        summary.passed,
        summary.failed,
        span(summary.virtual_s),
        span(summary.wall_s),
        summary.seeds as f64 / summary.wall_s.max(0.001),
        summary.virtual_s / summary.wall_s.max(0.001) / summary.processes as f64,
    );
    let worst = summary.by_verdict.keys().map(|verdict| code(verdict)).max().unwrap_or(0);
    Ok(ExitCode::from(worst))
}

fn code(verdict: &str) -> u8 {
    (2..=DIFFERS).find(|code| Outcome { code: *code, ..Outcome::default() }.word() == verdict).unwrap_or(0)
}

fn many(run: &cli::Run) -> anyhow::Result<Summary> {
    let kind = &run.kind;
    let mut summary = Summary {
        profile: kind.profile.name().to_owned(),
        first: run.seed,
        processes: jobs::count(run.jobs),
        ..Summary::default()
    };
    let mut progress = Progress::new();
    let (mut open, mut next) = (Vec::new(), run.seed);
    let last = run.seed.saturating_add(run.seeds);
    let mut stop = false;
    loop {
        let over = stop || run.time.map_or(next >= last, |time| progress.began.elapsed() >= time);
        if !over && open.len() < summary.processes {
            open.push(jobs::start(next, &words(next, kind))?);
            next += 1;
            continue;
        }
        let Some(ended) = jobs::any(&mut open)? else { break };
        stop |= take(&mut summary, ended, kind, &progress) && run.fail_fast;
        let share = run.time.map_or(summary.seeds as f64 / run.seeds as f64, |time| {
            progress.began.elapsed().as_secs_f64() / time.as_secs_f64().max(0.001)
        });
        progress.tell(&summary, share, false);
    }
    summary.wall_s = progress.began.elapsed().as_secs_f64();
    progress.tell(&summary, 1.0, true);
    Ok(summary)
}

/// Count one. True if it failed.
fn take(summary: &mut Summary, ended: Ended<u64>, kind: &Kind, progress: &Progress) -> bool {
    let Ended { tag: seed, outcome, said } = ended;
    summary.seeds += 1;
    summary.virtual_s += outcome.virtual_s;
    summary.events += outcome.events;
    summary.disasters += outcome.figures.get("disasters").copied().unwrap_or(0);
    if outcome.code == 0 {
        summary.passed += 1;
        return false;
    }
    summary.failed += 1;
    *summary.by_verdict.entry(outcome.word()).or_default() += 1;
    progress.clear();
    let again = again(seed, kind);
    println!("seed {seed}: {}", outcome.word());
    outcome.found.iter().take(5).for_each(|what| println!("  {what}"));
    if outcome.code == crate::outcome::CRASHED {
        said.lines().take(20).for_each(|line| println!("  {line}"));
    }
    println!("  again: {again}");
    summary.failures.push(Failure { seed, verdict: outcome.word(), found: outcome.found, again });
    true
}

/// `sim check`
pub(crate) fn check(check: &cli::Check) -> anyhow::Result<ExitCode> {
    if check.seeds == 0 {
        bail!("--seeds: at least one is wanted");
    }
    let began = Instant::now();
    let (mut passed, mut failed, mut worst) = (0, 0, 0);
    for seed in check.first..check.first.saturating_add(check.seeds) {
        let words = words(seed, &check.kind);
        let mut both = vec![jobs::start(0, &words)?, jobs::start(1, &words)?];
        let mut ended = Vec::new();
        while let Some(one) = jobs::any(&mut both)? {
            ended.push(one);
        }
        ended.sort_by_key(|one| one.tag);
        let [one, two] = &ended[..] else { bail!("a run is missing") };
        let differs = one.outcome.story() != two.outcome.story();
        // Whatever else came of it: a run that cannot be had again proves nothing.
        let code = if differs { DIFFERS } else { one.outcome.code };
        println!("test seed {seed} ... {} {}", if code == 0 { "ok" } else { "FAILED" }, one.outcome.line());
        if code == 0 {
            passed += 1;
            continue;
        }
        failed += 1;
        worst = worst.max(code);
        one.outcome.found.iter().for_each(|what| println!("  {what}"));
        if code == DIFFERS {
            println!("  two runs differ; the other was: {}", two.outcome.line());
            println!(
                "  the first event that differs: sim differ --seed {seed} {}",
                check.kind.words().join(" ")
            );
        } else {
            print!("{}", one.said);
            println!("  again: {}", again(seed, &check.kind));
        }
    }
    println!(
        "\ntest result: {}. {passed} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out; finished in {:.1}s",
        if failed == 0 { "ok" } else { "FAILED" },
        began.elapsed().as_secs_f64()
    );
    Ok(ExitCode::from(worst))
}
