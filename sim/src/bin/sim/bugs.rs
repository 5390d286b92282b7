//! Bugs put back one after the other: proof that the simulator finds such.

use std::process::ExitCode;
use std::time::Instant;

use shoal_core::put_back::Bug;

use crate::cli::{self, Kind};
use crate::jobs;
use crate::many;
use crate::outcome::Outcome;

/// The first seed that finds it, and how that run ended.
fn find(bug: Bug, words: &cli::Bugs) -> anyhow::Result<Option<(u64, Outcome)>> {
    let kind = Kind { put_back: Some(bug), ..words.kind.clone() };
    let (mut open, mut next) = (Vec::new(), words.first);
    let last = words.first.saturating_add(words.seeds);
    let mut found: Option<(u64, Outcome)> = None;
    loop {
        if found.is_none() && next < last && open.len() < jobs::count(words.jobs) {
            open.push(jobs::start(next, &many::words(next, &kind))?);
            next += 1;
            continue;
        }
        let Some(ended) = jobs::any(&mut open)? else { return Ok(found) };
        let sooner = found.as_ref().is_none_or(|(seed, _)| ended.tag < *seed);
        if ended.outcome.code != 0 && sooner {
            found = Some((ended.tag, ended.outcome));
        }
    }
}

/// A line of Markdown.
fn line(bug: Bug, words: &cli::Bugs, found: Option<&(u64, Outcome)>) -> String {
    let Some((seed, outcome)) = found else {
        return format!("| `{}` | not found | {} |", bug.name(), words.seeds);
    };
    let (_, judge) = outcome.kind();
    let by = if judge.is_empty() { outcome.word().to_lowercase() } else { format!("`{judge}`") };
    format!("| `{}` | {by} | {} |", bug.name(), seed - words.first + 1)
}

/// `sim bugs`
pub(crate) fn run(words: &cli::Bugs) -> anyhow::Result<ExitCode> {
    let bugs = if words.bugs.is_empty() { Bug::ALL.to_vec() } else { words.bugs.clone() };
    println!("| Bug | Found by | After seeds |\n|---|---|---|");
    let (mut count, began) = (0, Instant::now());
    for bug in &bugs {
        let found = find(*bug, words)?;
        count += usize::from(found.is_some());
        println!("{}", line(*bug, words, found.as_ref()));
    }
    println!(
        "\n{count} of {} bugs were found ({:.1} %) in {:.0} s",
        bugs.len(),
        count as f64 * 100.0 / bugs.len().max(1) as f64,
        began.elapsed().as_secs_f64()
    );
    Ok(if count == bugs.len() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
