//! A failing run, reduced to the events that matter.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use shoal_sim::plan::Plan;

use crate::cli;
use crate::jobs;
use crate::outcome::Outcome;

/// Runs plans in processes of their own.
struct Tries<'a> {
    folder: &'a Path,
    jobs: usize,
    left: u64,
    done: u64,
    wanted: (u8, String),
    extra: Vec<String>,
}

impl Tries<'_> {
    fn words(&self, plan: &Plan, at: usize) -> anyhow::Result<Vec<String>> {
        let mut words = jobs::replay_words(plan, &self.folder.join(format!("try-{at}.json")))?;
        words.extend(self.extra.iter().cloned());
        Ok(words)
    }

    /// The first of these that fails in the wanted way. Those after it are given up.
    fn first(&mut self, plans: &[Plan]) -> anyhow::Result<Option<usize>> {
        let (mut open, mut next, mut best) = (Vec::new(), 0, None::<usize>);
        loop {
            let more = next < plans.len() && best.is_none() && self.left > 0;
            if more && open.len() < self.jobs {
                open.push(jobs::start(next, &self.words(&plans[next], next)?)?);
                (next, self.left, self.done) = (next + 1, self.left - 1, self.done + 1);
                continue;
            }
            let Some(ended) = jobs::any(&mut open)? else { return Ok(best) };
            if ended.outcome.kind() == self.wanted && best.is_none_or(|best| ended.tag < best) {
                best = Some(ended.tag);
            }
            if best.is_some_and(|best| open.iter().all(|job| job.tag > best)) {
                jobs::stop(&mut open);
            }
        }
    }
}

/// `sim shrink`
pub(crate) fn run(words: &cli::Shrink) -> anyhow::Result<ExitCode> {
    let folder = tempfile::tempdir().context("no folder for the tries")?;
    let whole = words.source.plan()?;
    let began = Instant::now();
    #[allow(unused_mut, reason = "some builds have more to say")]
    let mut extra = Vec::new();
    #[cfg(feature = "put-back")]
    if let Some(bug) = words.source.kind.put_back {
        extra.extend(["--put-back".to_owned(), bug.name().to_owned()]);
    }
    let mut tries = Tries {
        folder: folder.path(),
        jobs: jobs::count(words.jobs),
        left: words.runs,
        done: 0,
        wanted: (0, String::new()),
        extra,
    };
    let outcome = once(&mut tries, &whole)?;
    if outcome.code == 0 {
        bail!("this run does not fail, so there is nothing to reduce: {}", words.source.again());
    }
    tries.wanted = outcome.kind();
    println!("seed {}: {} {:?}", outcome.seed, outcome.word(), outcome.found.first());
    let mut plan = cut_time(&mut tries, whole.clone(), &outcome)?;
    plan = fewer(&mut tries, plan)?;
    plan = smaller(&mut tries, plan)?;
    plan.write(&words.output)?;
    println!(
        "{} of {} events are left ({:.1} %), {} hosts of {}; {} runs in {:.0} s",
        plan.len(),
        whole.len(),
        plan.len() as f64 * 100.0 / whole.len().max(1) as f64,
        plan.options.hosts,
        whole.options.hosts,
        tries.done,
        began.elapsed().as_secs_f64(),
    );
    println!("again: sim replay {}", words.output.display());
    Ok(ExitCode::SUCCESS)
}

fn once(tries: &mut Tries<'_>, plan: &Plan) -> anyhow::Result<Outcome> {
    let mut open = vec![jobs::start((), &tries.words(plan, 0)?)?];
    tries.done += 1;
    jobs::any(&mut open)?.map(|ended| ended.outcome).context("the run is gone")
}

/// What comes after the failure does not matter.
fn cut_time(tries: &mut Tries<'_>, plan: Plan, outcome: &Outcome) -> anyhow::Result<Plan> {
    let until = Duration::from_secs_f64(outcome.virtual_s);
    if until >= plan.options.chaos {
        return Ok(plan);
    }
    let mut shorter = plan.clone();
    shorter.options.chaos = until;
    shorter.disasters.retain(|disaster| disaster.at < until);
    shorter.wishes.retain(|wish| wish.at < until);
    let shorter = vec![shorter];
    Ok(match tries.first(&shorter)? {
        Some(_) => shorter.into_iter().next().unwrap_or(plan),
        None => plan,
    })
}

/// Leave out ever smaller parts (Zeller's ddmin), as long as the failure stays.
fn fewer(tries: &mut Tries<'_>, mut plan: Plan) -> anyhow::Result<Plan> {
    let mut parts = 2;
    while plan.len() > 1 {
        let size = plan.len().div_ceil(parts);
        let without = |part: usize| plan.only(|at| at / size != part);
        let candidates: Vec<Plan> = (0..plan.len().div_ceil(size)).map(without).collect();
        match tries.first(&candidates)? {
            Some(part) => {
                plan = candidates.into_iter().nth(part).unwrap_or(plan);
                parts = (parts - 1).max(2);
                eprintln!("{} events are left", plan.len());
            }
            None if size == 1 => break,
            None => parts = (parts * 2).min(plan.len()),
        }
        if tries.left == 0 {
            eprintln!("no more runs are allowed; --runs says how many");
            break;
        }
    }
    if plan.len() == 1 {
        let nothing = vec![plan.only(|_| false)];
        if tries.first(&nothing)?.is_some() {
            return nothing.into_iter().next().context("a plan");
        }
    }
    Ok(plan)
}

/// Fewer hosts, and no more time than the events need.
fn smaller(tries: &mut Tries<'_>, mut plan: Plan) -> anyhow::Result<Plan> {
    loop {
        let named = plan.disasters.iter().flat_map(|disaster| disaster.fault.hosts()).max().unwrap_or(0);
        let mut smaller = plan.clone();
        smaller.options.hosts -= 1;
        smaller.options.managers = smaller.options.managers.min(smaller.options.hosts);
        let may = smaller.options.hosts >= named.max(3);
        if !may || tries.first(&[smaller.clone()])?.is_none() {
            return Ok(plan);
        }
        plan = smaller;
    }
}
