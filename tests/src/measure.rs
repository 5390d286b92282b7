//! Times that both the scenarios and the benchmark take.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use crate::clients::empty_service;
use crate::cluster::Cluster;
use crate::starts::Starts;

/// A client gives up on one call after this, and tries again.
const ATTEMPT_MAX: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(10);

/// From now until the first write is acknowledged by any of these managers, each asked by a client that tries without a pause.
///
/// # Errors
/// None is within `limit`; the last answer is told.
pub fn next_write(cluster: &Cluster<'_>, managers: &[usize], tag: &str, limit: Duration) -> Result<Duration> {
    let begun = Instant::now();
    let done = AtomicBool::new(false);
    let (report, reports) = mpsc::channel();
    let mut last = anyhow!("nobody was asked");
    thread::scope(|scope| {
        for &manager in managers {
            let (api, report, done) = (cluster.api_within(manager, ATTEMPT_MAX), report.clone(), &done);
            scope.spawn(move || {
                for attempt in 0.. {
                    if done.load(Ordering::Relaxed) || begun.elapsed() > limit {
                        return;
                    }
                    let name = format!("{tag}-{manager}-{attempt}");
                    let answer = api.post("/services/create", &empty_service(&name)).map(|_| begun.elapsed());
                    if report.send(answer).is_err() {
                        return;
                    }
                    thread::sleep(PAUSE);
                }
            });
        }
        drop(report);
        for answer in &reports {
            match answer {
                Ok(took) => {
                    done.store(true, Ordering::Relaxed);
                    return Ok(took);
                }
                Err(error) => last = error,
            }
        }
        Err(last.context(format!("no write was accepted within {limit:?}")))
    })
}

/// Pull the leader's cable; how long until a write is accepted elsewhere. The cable stays pulled; whose it was comes first.
///
/// # Errors
/// There is no leader, or no write is accepted within `limit`.
pub fn leader_cut(
    cluster: &Cluster<'_>,
    managers: &[usize],
    tag: &str,
    limit: Duration,
) -> Result<(usize, Duration)> {
    let at = managers.first().copied().unwrap_or(1);
    let leader = cluster.leader(at)?;
    let others: Vec<_> = managers.iter().copied().filter(|&host| host != leader).collect();
    cluster.lab.cut(leader)?;
    Ok((leader, next_write(cluster, &others, tag, limit)?))
}

/// How long it took from a pulled cable.
#[derive(Debug, Clone, Copy)]
pub struct Failover {
    /// Until all containers were made elsewhere: by then the loss was noticed, decided on and told. The rest is the engines'.
    pub made: Duration,
    /// Until all of them ran.
    pub running: Duration,
}

/// Pull a worker's cable; how long until all of a service's tasks are made and run on other hosts. The cable stays pulled.
///
/// # Errors
/// They do not within `limit`.
pub fn worker_cut(
    cluster: &Cluster<'_>,
    worker: usize,
    service: &str,
    count: usize,
    limit: Duration,
) -> Result<Failover> {
    let others = cluster.lab.hosts().iter().filter(|host| host.number() != worker && host.has_engine());
    let starts = Starts::listen(others, service)?;
    cluster.lab.cut(worker)?;
    let begun = Instant::now();
    let (made, running) = (starts.await_made(count, limit)?, starts.await_count(count, limit)?);
    // A container that started and failed would have been counted, too.
    cluster.await_running(service, count, &[worker], limit)?;
    Ok(Failover { made: made.duration_since(begun), running: running.duration_since(begun) })
}
