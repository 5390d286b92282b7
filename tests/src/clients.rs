//! Clients that change the cluster without a pause, and remember what was promised to them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::http::Api;

/// A service that runs nothing: the cheapest change there is.
pub fn empty_service(name: &str) -> Value {
    json!({
        "Name": name,
        "TaskTemplate": {"ContainerSpec": {"Image": "busybox:latest", "Args": ["sleep", "1d"]}},
        "Mode": {"Replicated": {"Replicas": 0}},
    })
}

/// What is known of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Promise {
    /// It was acknowledged that it is there.
    There,
    /// It was acknowledged that it is gone.
    Gone,
    /// A call failed on the way: either may be true.
    Open,
}

/// How the clients fared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Changes that were acknowledged.
    pub acknowledged: usize,
    /// Calls that failed.
    pub failed: usize,
}

/// Clients at work, one for each manager.
#[derive(Debug)]
pub struct Clients {
    ledger: Arc<Mutex<Ledger>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Ledger {
    promises: BTreeMap<String, Promise>,
    tally: Tally,
    last_failure: String,
}

impl Clients {
    /// Each client keeps to one of these APIs, creates services and removes every third again.
    pub fn start(apis: &[Api]) -> Self {
        let ledger = Arc::new(Mutex::new(Ledger::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let threads = apis
            .iter()
            .enumerate()
            .map(|(client, api)| {
                let (ledger, stop, api) = (Arc::clone(&ledger), Arc::clone(&stop), api.clone());
                thread::spawn(move || work(client, &api, &ledger, &stop))
            })
            .collect();
        Self { ledger, stop, threads }
    }

    /// How they fare so far.
    pub fn tally(&self) -> Tally {
        locked(&self.ledger).tally
    }

    /// End the work, and hold what a manager lists against what was promised.
    ///
    /// # Errors
    /// An acknowledged change is missing.
    pub fn finish(mut self, managers: &[Api]) -> Result<Tally> {
        self.end();
        let ledger = locked(&self.ledger);
        for manager in managers {
            let there = services(manager)?;
            let lost: Vec<_> = ledger
                .promises
                .iter()
                .filter(|(name, promise)| match promise {
                    Promise::There => !there.contains(*name),
                    Promise::Gone => there.contains(*name),
                    Promise::Open => false,
                })
                .collect();
            ensure!(lost.is_empty(), "acknowledged changes were lost: {lost:?} (of {:?})", ledger.tally);
        }
        ensure!(ledger.tally.acknowledged > 0, "no change was accepted at all: {}", ledger.last_failure);
        Ok(ledger.tally)
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().ok();
        }
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.end();
    }
}

/// Names of all services that a manager lists.
///
/// # Errors
/// It does not answer.
pub fn services(manager: &Api) -> Result<BTreeSet<String>> {
    let list = manager.get("/services")?;
    let list = list.as_array().context("no list of services")?;
    Ok(list.iter().filter_map(|service| service["Spec"]["Name"].as_str().map(str::to_owned)).collect())
}

fn work(client: usize, api: &Api, ledger: &Mutex<Ledger>, stop: &AtomicBool) {
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let name = format!("load-{client}-{number}");
        let created = api.post("/services/create", &empty_service(&name)).map(drop);
        let kept = note(ledger, &name, created, Promise::There);
        if kept && number % 3 == 2 {
            let removed = api.delete(&format!("/services/{name}"));
            note(ledger, &name, removed, Promise::Gone);
        }
        thread::sleep(Duration::from_millis(if kept { 10 } else { 100 }));
    }
}

fn note(ledger: &Mutex<Ledger>, name: &str, result: Result<()>, promise: Promise) -> bool {
    let mut ledger = locked(ledger);
    let kept = result.is_ok();
    ledger.promises.insert(name.to_owned(), if kept { promise } else { Promise::Open });
    match result {
        Ok(()) => ledger.tally.acknowledged += 1,
        Err(error) => {
            ledger.tally.failed += 1;
            ledger.last_failure = format!("{error:#}");
        }
    }
    kept
}

fn locked(ledger: &Mutex<Ledger>) -> MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}
