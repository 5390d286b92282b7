//! One run, in this process.

use std::io::{BufWriter, Write as _};
use std::panic;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use shoal_sim::event::Event;
use shoal_sim::picture::{self, Window};
use shoal_sim::plan::Plan;
use shoal_sim::run::{Report, Verdict};
use shoal_sim::trace::Trace;
use shoal_sim::{hooks, run};

use crate::cli;
use crate::outcome::{BROKEN, CRASHED, Outcome, SICK};

static PANICKED: AtomicBool = AtomicBool::new(false);

struct Told {
    report: anyhow::Result<Report>,
    hash: String,
    count: u64,
    virtual_time: Duration,
    events: Vec<Event>,
}

/// Live through a plan.
pub(crate) fn live(plan: &Plan, keep: bool) -> anyhow::Result<(Outcome, Vec<Event>)> {
    if std::env::var_os("RUST_LOG").is_some() {
        let _ = tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .with_writer(std::io::stderr)
            .with_ansi(false)
            .try_init();
    }
    let tell = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        PANICKED.store(true, Ordering::SeqCst);
        tell(info);
    }));
    let seed = plan.options.seed;
    let began = hooks::real_elapsed();
    let plan = plan.clone();
    let told = hooks::pinned(seed, move || simulate(&plan, keep));
    let wall_s = (hooks::real_elapsed() - began).as_secs_f64();
    let Ok(told) = told else {
        return Ok((Outcome { seed, code: CRASHED, wall_s, ..Outcome::default() }, Vec::new()));
    };
    let told = told?;
    let (code, found) = match (&told.report, PANICKED.load(Ordering::SeqCst)) {
        (_, true) => (CRASHED, vec!["a part of the program panicked".to_owned()]),
        (Err(error), _) => (SICK, vec![format!("{error:#}")]),
        (Ok(Report { verdict: Verdict::Sick(what), .. }), _) => (SICK, vec![what.clone()]),
        (Ok(Report { verdict: Verdict::Broken(found), .. }), _) => (BROKEN, found.clone()),
        (Ok(_), _) => (0, Vec::new()),
    };
    let figures = told.report.map(|report| report.figures).unwrap_or_default();
    let outcome = Outcome {
        seed,
        code,
        found,
        hash: told.hash,
        events: told.count,
        figures: figures.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        virtual_s: told.virtual_time.as_secs_f64(),
        wall_s,
    };
    Ok((outcome, told.events))
}

fn simulate(plan: &Plan, keep: bool) -> anyhow::Result<Told> {
    hooks::in_virtual_time(async {
        let began = tokio::time::Instant::now();
        let trace = Trace::new(keep);
        let report = run::run(plan, &trace).await;
        let (hash, count) = trace.digest();
        Ok(Told { report, hash, count, virtual_time: began.elapsed(), events: trace.events() })
    })
}

fn write_events(file: &Path, events: &[Event]) -> anyhow::Result<()> {
    let name = || file.display().to_string();
    let mut out = BufWriter::new(std::fs::File::create(file).with_context(name)?);
    for event in events {
        serde_json::to_writer(&mut out, event).with_context(name)?;
        out.write_all(b"\n").with_context(name)?;
    }
    out.flush().with_context(name)
}

/// Live through a plan, and tell.
pub(crate) fn run(plan: &Plan, events: Option<&Path>, json: bool, again: &str) -> anyhow::Result<ExitCode> {
    if !json {
        println!("{}", serde_json::to_string(&plan.options)?);
    }
    let (outcome, kept) = live(plan, events.is_some())?;
    if let Some(file) = events {
        write_events(file, &kept)?;
    }
    if json {
        println!("{}", serde_json::to_string(&outcome)?);
    } else {
        for what in &outcome.found {
            println!("{}: {what}", if outcome.code == SICK { "still" } else { "broken" });
        }
        println!("{}", outcome.line());
        if outcome.code != 0 {
            println!("again: {again}");
        }
    }
    Ok(ExitCode::from(outcome.code))
}

/// `sim replay`
pub(crate) fn replay(words: &cli::Replay) -> anyhow::Result<ExitCode> {
    #[cfg(feature = "put-back")]
    shoal_core::put_back::set(words.put_back);
    let plan = Plan::read(&words.file)?;
    run(&plan, words.events.as_deref(), words.json, &format!("sim replay {}", words.file.display()))
}

/// `sim plan`
pub(crate) fn plan(words: &cli::PlanWords) -> anyhow::Result<ExitCode> {
    let plan = Plan::drawn(words.kind.options(words.seed));
    match &words.output {
        Some(file) => plan.write(file)?,
        None => println!("{}", serde_json::to_string_pretty(&plan)?),
    }
    Ok(ExitCode::SUCCESS)
}

/// `sim show`
pub(crate) fn show(words: &cli::Show) -> anyhow::Result<ExitCode> {
    #[cfg(feature = "put-back")]
    shoal_core::put_back::set(words.source.kind.put_back);
    let plan = words.source.plan()?;
    let (outcome, events) = live(&plan, true)?;
    let (before, after) = (Duration::from_secs(words.before), Duration::from_secs(words.after));
    // What never healed is told at the end; what is of interest is what had happened when things broke.
    let broken_at = match outcome.code {
        SICK => Some(events.last().map_or(0, |event| event.at_us)),
        _ => None,
    };
    let window = words.from.map_or_else(
        || Window::around(&events, broken_at, before, after),
        |from| Window { from_us: from * 1_000_000, to_us: (from + words.before + words.after) * 1_000_000 },
    );
    let mut options = serde_json::to_value(&plan.options)?;
    if let Some(options) = options.as_object_mut() {
        options.insert("command".into(), words.source.again().into());
    }
    let title = format!("seed {}: {}", outcome.seed, outcome.word());
    std::fs::write(&words.output, picture::draw(&title, &options, plan.options.hosts, &events, window))
        .with_context(|| words.output.display().to_string())?;
    println!("{}", outcome.line());
    outcome.found.iter().take(5).for_each(|what| println!("  {what}"));
    println!("drawn: {}", words.output.display());
    Ok(ExitCode::SUCCESS)
}
