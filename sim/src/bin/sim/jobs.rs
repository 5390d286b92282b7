//! Runs in processes of their own, several at once: nothing of one run is left for the next, and a crash is one run's.

use std::io::Read as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use shoal_sim::plan::Plan;

use crate::outcome::{CRASHED, Outcome};

/// How often a process is asked whether it has ended.
const ASK_EVERY: Duration = Duration::from_millis(2);

/// A run in a process of its own.
pub(crate) struct Job<T> {
    /// What the asker knows it by.
    pub(crate) tag: T,
    child: Child,
}

/// How it ended, and what it said on the way.
pub(crate) struct Ended<T> {
    pub(crate) tag: T,
    pub(crate) outcome: Outcome,
    pub(crate) said: String,
}

/// As many as there are processors, if nobody said another number.
pub(crate) fn count(said: Option<usize>) -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    said.unwrap_or(processors).clamp(1, 1024)
}

/// Words for a process that replays this plan, which is written to a file first.
pub(crate) fn replay_words(plan: &Plan, file: &Path) -> anyhow::Result<Vec<String>> {
    plan.write(file)?;
    Ok(vec!["replay".to_owned(), "--json".to_owned(), file.display().to_string()])
}

/// Begin one.
pub(crate) fn start<T>(tag: T, words: &[String]) -> anyhow::Result<Job<T>> {
    let program = std::env::current_exe().context("this program's own file")?;
    let child = Command::new(program)
        .args(words)
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("another process of this program")?;
    Ok(Job { tag, child })
}

fn finish<T>(mut job: Job<T>, code: Option<i32>) -> Ended<T> {
    let (mut out, mut said) = (String::new(), String::new());
    if let Some(pipe) = &mut job.child.stdout {
        let _ = pipe.read_to_string(&mut out);
    }
    if let Some(pipe) = &mut job.child.stderr {
        let _ = pipe.read_to_string(&mut said);
    }
    let told: Option<Outcome> = out.lines().last().and_then(|line| serde_json::from_str(line).ok());
    let outcome = told.unwrap_or_else(|| Outcome {
        code: CRASHED,
        found: vec![format!("the process ended with {code:?} and told nothing")],
        ..Outcome::default()
    });
    Ended { tag: job.tag, outcome, said }
}

/// Wait until one of them has ended; none if there is none.
pub(crate) fn any<T>(jobs: &mut Vec<Job<T>>) -> anyhow::Result<Option<Ended<T>>> {
    while !jobs.is_empty() {
        for at in 0..jobs.len() {
            if let Some(status) = jobs[at].child.try_wait()? {
                return Ok(Some(finish(jobs.swap_remove(at), status.code())));
            }
        }
        std::thread::sleep(ASK_EVERY);
    }
    Ok(None)
}

/// End them all.
pub(crate) fn stop<T>(jobs: &mut Vec<Job<T>>) {
    for mut job in jobs.drain(..) {
        let _ = job.child.kill();
        let _ = job.child.wait();
    }
}
