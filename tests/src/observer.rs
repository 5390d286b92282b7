//! A continuous look at all engines: does any service run more often than asked?

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::engine;
use crate::http::Api;
use crate::lab::Lab;

const EVERY: Duration = Duration::from_millis(200);
/// An engine's picture older than this says nothing about now.
const PICTURE_AGE_MAX: Duration = Duration::from_secs(2);

/// The longest time that a service was above its count, and by how many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Excess {
    /// Without a break.
    pub longest: Duration,
    /// Most tasks above the count in all the time.
    pub most: usize,
}

/// Watches until it is finished or dropped.
#[derive(Debug)]
pub struct Observer {
    shared: Arc<Mutex<Picture>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Observer {
    /// Watch all engines of a lab.
    pub fn start(lab: &Lab) -> Self {
        let shared = Arc::new(Mutex::new(Picture::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let threads = lab
            .hosts()
            .iter()
            .map(|host| {
                let (shared, stop) = (Arc::clone(&shared), Arc::clone(&stop));
                let (number, engine) = (host.number(), Api::new(&host.engine_socket(), PICTURE_AGE_MAX));
                thread::spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        let seen = engine::running(&engine).ok();
                        locked(&shared).take(number, seen, Instant::now());
                        thread::sleep(EVERY);
                    }
                })
            })
            .collect();
        Self { shared, stop, threads }
    }

    /// From now on a service shall run no more often than this.
    pub fn expect(&self, service: &str, count: usize) {
        locked(&self.shared).expect(service, count, Instant::now());
    }

    /// Nobody can tell this host to stop anything (its cable is pulled): leave it out.
    pub fn mute(&self, host: usize) {
        locked(&self.shared).muted.insert(host);
    }

    /// It is in reach again: from now on what it runs counts.
    pub fn unmute(&self, host: usize) {
        locked(&self.shared).muted.remove(&host);
    }

    /// End the watch.
    ///
    /// # Errors
    /// A service was above its count for longer than `allowed`, without a break.
    pub fn finish(mut self, allowed: Duration) -> Result<BTreeMap<String, Excess>> {
        self.end();
        let worst = locked(&self.shared).worst.clone();
        for (service, excess) in &worst {
            if excess.longest > allowed {
                bail!(
                    "{service} ran up to {} tasks above its count, for {:?} without a break ({allowed:?} allowed)",
                    excess.most,
                    excess.longest
                );
            }
        }
        Ok(worst)
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().ok();
        }
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.end();
    }
}

/// What was seen last on each host, and what that means.
#[derive(Debug, Default)]
struct Picture {
    hosts: BTreeMap<usize, (Instant, BTreeMap<String, usize>)>,
    counts: BTreeMap<String, usize>,
    above_since: BTreeMap<String, Instant>,
    worst: BTreeMap<String, Excess>,
    muted: BTreeSet<usize>,
}

impl Picture {
    fn expect(&mut self, service: &str, count: usize, now: Instant) {
        self.counts.insert(service.to_owned(), count);
        // What is above only the new count may take its time from now.
        if let Some(since) = self.above_since.get_mut(service) {
            *since = now;
        }
    }

    fn take(&mut self, host: usize, seen: Option<Vec<engine::Container>>, now: Instant) {
        match seen {
            None => {
                self.hosts.remove(&host);
            }
            Some(containers) => {
                let mut counts = BTreeMap::new();
                for container in containers {
                    *counts.entry(container.service).or_insert(0) += 1;
                }
                self.hosts.insert(host, (now, counts));
            }
        }
        self.judge(now);
    }

    fn judge(&mut self, now: Instant) {
        for (service, &count) in &self.counts {
            let running: usize = self
                .hosts
                .iter()
                .filter(|(host, (at, _))| {
                    !self.muted.contains(host) && now.duration_since(*at) <= PICTURE_AGE_MAX
                })
                .filter_map(|(_, (_, counts))| counts.get(service))
                .sum();
            if running <= count {
                self.above_since.remove(service);
                continue;
            }
            let since = *self.above_since.entry(service.clone()).or_insert(now);
            let worst = self.worst.entry(service.clone()).or_default();
            worst.longest = worst.longest.max(now.duration_since(since));
            worst.most = worst.most.max(running - count);
        }
    }
}

fn locked(shared: &Mutex<Picture>) -> MutexGuard<'_, Picture> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn containers(count: usize) -> Option<Vec<engine::Container>> {
        let one = |n| engine::Container {
            id: format!("{n}"),
            service: "web".to_owned(),
            task: format!("t{n}"),
            slot: format!("web.{n}"),
        };
        Some((0..count).map(one).collect())
    }

    #[test]
    fn excess_over_all_hosts_is_timed_without_breaks() {
        let (mut picture, begin) = (Picture::default(), Instant::now());
        let at = |seconds| begin + Duration::from_secs(seconds);
        picture.expect("web", 3, begin);
        picture.take(1, containers(2), at(0));
        picture.take(2, containers(2), at(1));
        assert_eq!(picture.worst["web"].most, 1);
        picture.take(1, containers(1), at(2));
        picture.take(2, containers(3), at(3));
        picture.take(1, containers(1), at(4));
        assert_eq!(picture.worst["web"].longest, Duration::from_secs(1));
    }

    #[test]
    fn muted_and_silent_hosts_do_not_count() {
        let (mut picture, begin) = (Picture::default(), Instant::now());
        picture.expect("web", 3, begin);
        picture.muted.insert(2);
        picture.take(1, containers(3), begin);
        picture.take(2, containers(3), begin);
        picture.take(3, containers(1), begin);
        assert_eq!(picture.worst["web"].most, 1);
        picture.take(3, None, begin + Duration::from_secs(9));
        assert!(picture.above_since.is_empty());
    }
}
