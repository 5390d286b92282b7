//! A failing run, reduced to the events that matter.
//!
//! Whatever is left out shifts what chance does in the rest of a run: a failure that needs a race is gone then, though the
//! events that bring it about are all there. So what is left is tried in other worlds, too: with the same events at the same
//! times, and other seeds for all that is left to chance.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use shoal_sim::plan::Plan;

use crate::cli;
use crate::jobs;
use crate::outcome::{Outcome, SICK};

/// Everything is tried in so many worlds; what is left then in more.
const WORLDS: [u64; 4] = [1, 4, 16, 64];
/// So few events need no other worlds to be understood.
const ENOUGH: usize = 2;
/// What happened so long before the failure is tried alone.
const WINDOWS_S: [u64; 5] = [3, 8, 15, 30, 60];

/// A plan that fails, and how.
struct Failing {
    plan: Plan,
    outcome: Outcome,
}

/// Runs plans in processes of their own.
struct Tries<'a> {
    folder: &'a Path,
    jobs: usize,
    left: u64,
    done: u64,
    wanted: String,
    extra: Vec<String>,
}

impl Tries<'_> {
    fn words(&self, plan: &Plan, at: usize) -> anyhow::Result<Vec<String>> {
        let mut words = jobs::replay_words(plan, &self.folder.join(format!("try-{at}.json")))?;
        words.extend(self.extra.iter().cloned());
        Ok(words)
    }

    /// The first of these that fails in the wanted way: each in its own world first, then in others. Those after it are
    /// given up.
    fn first(&mut self, plans: &[Plan], worlds: u64) -> anyhow::Result<Option<Failing>> {
        let plans = (0..worlds).flat_map(|world| plans.iter().map(move |plan| plan.in_world(world)));
        let mut next = plans.enumerate();
        let (mut open, mut tried, mut best) = (Vec::new(), BTreeMap::new(), None::<(usize, Failing)>);
        loop {
            let more = best.is_none() && self.left > 0 && open.len() < self.jobs;
            if let Some((at, plan)) = more.then(|| next.next()).flatten() {
                open.push(jobs::start(at, &self.words(&plan, at)?)?);
                tried.insert(at, plan);
                (self.left, self.done) = (self.left - 1, self.done + 1);
                continue;
            }
            let Some(ended) = jobs::any(&mut open)? else { return Ok(best.map(|(_, failing)| failing)) };
            let Some(plan) = tried.remove(&ended.tag) else { continue };
            let sooner = best.as_ref().is_none_or(|(best, _)| ended.tag < *best);
            if sooner && ended.outcome.shape() == self.wanted {
                best = Some((ended.tag, Failing { plan, outcome: ended.outcome }));
            }
            if best.as_ref().is_some_and(|(best, _)| open.iter().all(|job| job.tag > *best)) {
                jobs::stop(&mut open);
            }
        }
    }

    /// Take the first of these that fails in the wanted way, if one does.
    fn take(&mut self, failing: &mut Failing, plans: &[Plan], worlds: u64) -> anyhow::Result<bool> {
        let Some(found) = self.first(plans, worlds)? else { return Ok(false) };
        if found.plan.len() < failing.plan.len() {
            eprintln!("{} events are left, after {} runs", found.plan.len(), self.done);
        }
        *failing = found;
        Ok(true)
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
        wanted: String::new(),
        extra,
    };
    let outcome = once(&mut tries, &whole)?;
    if outcome.code == 0 {
        bail!("this run does not fail, so there is nothing to reduce: {}", words.source.again());
    }
    tries.wanted = outcome.shape();
    println!("seed {}: {} {:?}", outcome.seed, outcome.word(), outcome.found.first());
    let mut failing = Failing { plan: whole.clone(), outcome };
    for worlds in WORLDS {
        reduce(&mut tries, &mut failing, worlds)?;
        if tries.left == 0 {
            eprintln!("no more runs are allowed; --runs says how many");
        }
        if tries.left == 0 || failing.plan.len() <= ENOUGH {
            break;
        }
    }
    let plan = failing.plan;
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
    println!("{:?}", failing.outcome.found.first());
    println!("again: sim replay {}", words.output.display());
    Ok(ExitCode::SUCCESS)
}

fn once(tries: &mut Tries<'_>, plan: &Plan) -> anyhow::Result<Outcome> {
    let mut open = vec![jobs::start((), &tries.words(plan, 0)?)?];
    tries.done += 1;
    jobs::any(&mut open)?.map(|ended| ended.outcome).context("the run is gone")
}

/// All that can be left out, in so many worlds.
fn reduce(tries: &mut Tries<'_>, failing: &mut Failing, worlds: u64) -> anyhow::Result<()> {
    cut_time(tries, failing, worlds)?;
    classes(tries, failing, worlds)?;
    fewer(tries, failing, worlds)?;
    cut_time(tries, failing, worlds)?;
    smaller(tries, failing, worlds)
}

/// What comes after the failure does not matter, and often neither does what came long before it.
fn cut_time(tries: &mut Tries<'_>, failing: &mut Failing, worlds: u64) -> anyhow::Result<()> {
    // What never healed is told long after it broke.
    if failing.outcome.code == SICK {
        return Ok(());
    }
    let until = Duration::from_secs_f64(failing.outcome.virtual_s);
    if until < failing.plan.options.chaos {
        let mut shorter = failing.plan.between(Duration::ZERO, until);
        shorter.options.chaos = until;
        tries.take(failing, &[shorter], worlds)?;
    }
    let windows = WINDOWS_S.iter().map(|seconds| {
        let seconds = failing.plan.options.pace.of(Duration::from_secs(*seconds));
        failing.plan.between(until.saturating_sub(seconds), until)
    });
    let mut shorter: Vec<Plan> = windows.filter(|plan| plan.len() < failing.plan.len()).collect();
    shorter.dedup();
    tries.take(failing, &shorter, worlds).map(drop)
}

/// All events of a kind at once.
fn classes(tries: &mut Tries<'_>, failing: &mut Failing, worlds: u64) -> anyhow::Result<()> {
    let kinds = failing.plan.kinds();
    let disasters: BTreeSet<&str> =
        kinds[..failing.plan.disasters.len()].iter().map(|kind| &**kind).collect();
    let wishes: BTreeSet<&str> = kinds[failing.plan.disasters.len()..].iter().map(|kind| &**kind).collect();
    let mut groups = vec![wishes.clone(), disasters.clone()];
    groups.extend(wishes.iter().chain(&disasters).map(|kind| BTreeSet::from([*kind])));
    for group in groups {
        let kinds = failing.plan.kinds();
        let without = failing.plan.only(|at| !group.contains(&*kinds[at]));
        if without.len() < failing.plan.len() {
            tries.take(failing, &[without], worlds)?;
        }
    }
    Ok(())
}

/// Leave out ever smaller parts (Zeller's ddmin), as long as the failure stays. What happens together goes together.
fn fewer(tries: &mut Tries<'_>, failing: &mut Failing, worlds: u64) -> anyhow::Result<()> {
    let mut parts = 2;
    while failing.plan.len() > 1 && tries.left > 0 {
        let order = failing.plan.in_time();
        let size = order.len().div_ceil(parts);
        let without = |part: &[usize]| failing.plan.only(|at| !part.contains(&at));
        let candidates: Vec<Plan> = order.chunks(size).map(without).collect();
        if tries.take(failing, &candidates, worlds)? {
            parts = (parts - 1).max(2);
        } else if size == 1 {
            break;
        } else {
            parts = (parts * 2).min(order.len());
        }
    }
    if failing.plan.len() == 1 {
        let nothing = failing.plan.only(|_| false);
        tries.take(failing, &[nothing], worlds)?;
    }
    Ok(())
}

/// Fewer hosts.
fn smaller(tries: &mut Tries<'_>, failing: &mut Failing, worlds: u64) -> anyhow::Result<()> {
    loop {
        let named = failing.plan.disasters.iter().flat_map(|disaster| disaster.fault.hosts()).max();
        let mut smaller = failing.plan.clone();
        smaller.options.hosts -= 1;
        smaller.options.managers = smaller.options.managers.min(smaller.options.hosts);
        let may = smaller.options.hosts >= named.unwrap_or_default().max(3);
        if !may || !tries.take(failing, &[smaller], worlds)? {
            return Ok(());
        }
    }
}
