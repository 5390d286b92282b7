//! A run that never was: five hosts for a minute, a split, a death, a storm, and a broken promise.

use crate::event::{Event, What};

const SECOND: u64 = 1_000_000;
const HOSTS: usize = 5;
/// Where, which, from when, and how and when it ended.
type Ran = (usize, &'static str, u64, Option<(u64, &'static str)>);

const BROKEN_AT: u64 = 52_413_870;

struct Sample {
    events: Vec<Event>,
    random: u64,
}

/// The events, not in order.
pub(super) fn events() -> Vec<Event> {
    let mut sample = Sample { events: Vec::new(), random: 7 };
    sample.lives();
    sample.faults();
    sample.messages();
    sample.elections();
    sample.containers();
    sample.person();
    let text = "h2 and h3 have different states at index 512: slot s2.1 runs on h2 and on h5".to_owned();
    sample.put(BROKEN_AT, What::Broken { judge: "states".to_owned(), text });
    sample.events
}

/// Who leads at a time, for those who hear it.
fn leader(at: u64) -> (usize, u64) {
    if at < 22_100_000 { (1, 1) } else { (3, 2) }
}

fn up(host: usize, at: u64) -> bool {
    let away = match host {
        2 => 50 * SECOND..51_700_000,
        4 => 38 * SECOND..45_200_000,
        _ => 0..0,
    };
    !away.contains(&at)
}

fn cut(from: usize, to: usize, at: u64) -> bool {
    (20 * SECOND..34 * SECOND).contains(&at) && (from <= 2) != (to <= 2)
}

impl Sample {
    fn put(&mut self, at_us: u64, what: What) {
        self.events.push(Event { at_us, what });
    }

    fn below(&mut self, most: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % most
    }

    /// One message, as the network of the moment has it. When it arrived, if it did.
    fn send(&mut self, at: u64, from: usize, to: usize, label: &str, bytes: usize) -> Option<u64> {
        if from == to || !up(from, at) {
            return None;
        }
        let storm = (41 * SECOND..48 * SECOND).contains(&at);
        let takes = 300 + self.below(4_000) + if storm { self.below(40_000) } else { 0 };
        let lost = cut(from, to, at) || (storm && self.below(5) == 0) || !up(to, at + takes);
        let arrived_us = (!lost).then_some(at + takes);
        self.put(at, What::Message { from, to, label: label.to_owned(), bytes, digest: 0, arrived_us });
        arrived_us
    }

    fn lives(&mut self) {
        for host in 1..=HOSTS {
            self.put(host as u64 * 120_000, What::Up { host });
        }
        self.put(38 * SECOND, What::Down { host: 4, killed: true });
        self.put(45_200_000, What::Up { host: 4 });
        self.put(50 * SECOND, What::Held { host: 2, held: true });
        self.put(51_700_000, What::Held { host: 2, held: false });
        self.put(56 * SECOND, What::Down { host: 5, killed: false });
        let text = "snapshot of 41 KiB installed".to_owned();
        self.put(46_100_000, What::Note { host: Some(4), text });
        self.put(58 * SECOND, What::Note { host: None, text: "all faults are mended".to_owned() });
    }

    fn faults(&mut self) {
        let faults: [(u64, u64, &str, &[usize]); 6] = [
            (20 * SECOND, 34 * SECOND, "split: h1 h2 | h3 h4 h5", &[1, 2]),
            (26 * SECOND, 29 * SECOND, "engine away: h3", &[3]),
            (38 * SECOND, 45_200_000, "killed: h4", &[4]),
            (41 * SECOND, 48 * SECOND, "storm: 20% lost, up to 44 ms late", &[]),
            (43 * SECOND, 55 * SECOND, "slow disk: h2, 1.8 s a write", &[2]),
            (50 * SECOND, 51_700_000, "stands still: h2", &[2]),
        ];
        for (id, (from, to, text, hosts)) in (1..).zip(faults) {
            self.put(from, What::Fault { id, text: text.to_owned(), hosts: hosts.to_vec() });
            self.put(to, What::Mended { id });
        }
    }

    fn messages(&mut self) {
        for tick in 8..600 {
            let at = tick * 100_000;
            let (leads, _) = leader(at);
            for host in 1..=HOSTS {
                let begins = at + self.below(9_000);
                let heard = self.send(begins, leads, host, "RaftAppend", 160);
                if let Some(heard) = heard {
                    self.send(heard + 200, host, leads, "RaftAppended", 60);
                }
                if tick % 5 == host as u64 % 5 {
                    let other = 1 + self.below(HOSTS as u64) as usize;
                    self.send(begins + 30_000, host, other, "Gossip", 420);
                }
                if tick % 10 == 2 * (host as u64 - 1) {
                    self.send(begins + 50_000, host, leads, "FromNode", 90);
                }
            }
        }
    }

    fn elections(&mut self) {
        self.put(700_000, What::Leads { host: 1, term: 1 });
        for (candidate, at) in [(5, 21_300_000), (3, 22_040_000)] {
            for host in 1..=HOSTS {
                if let Some(heard) = self.send(at + host as u64 * 150, candidate, host, "RaftVote", 72) {
                    self.send(heard + 900, host, candidate, "RaftVoted", 40);
                }
            }
        }
        self.put(22_100_000, What::Leads { host: 3, term: 2 });
        self.put(23_400_000, What::Follows { host: 1 });
    }

    fn task(&mut self, host: usize, task: &str, from: u64, until: Option<(u64, &str)>) {
        let steps = [(from, "prepared"), (from + 400_000, "started")].into_iter();
        let steps = steps.chain(until).chain(until.map(|(end, _)| (end + 900_000, "removed")));
        for (at, step) in steps {
            self.put(at, What::Task { host, task: task.to_owned(), step: step.to_owned() });
        }
    }

    fn containers(&mut self) {
        let tasks: [Ran; 13] = [
            (2, "s1.1", 3_000_000, None),
            (3, "s1.2", 3_100_000, Some((26_500_000, "exited"))),
            (3, "s1.2b", 29_200_000, None),
            (4, "s1.3", 3_050_000, None),
            (2, "s2.1", 6_000_000, None),
            (5, "s2.1", 28_000_000, None),
            (5, "s2.2", 6_100_000, Some((31_000_000, "stopped"))),
            (1, "s3.1", 9_000_000, Some((24_000_000, "stopped"))),
            (3, "s3.1", 24_600_000, None),
            (4, "s3.2", 9_200_000, Some((47_000_000, "stopped"))),
            (5, "s3.2", 39_000_000, Some((55_500_000, "stopped"))),
            (1, "s4.1", 36_000_000, None),
            (2, "s4.2", 36_200_000, Some((49_000_000, "exited"))),
        ];
        for (host, task, from, until) in tasks {
            self.task(host, task, from, until);
        }
    }

    fn person(&mut self) {
        let asked: [(u64, usize, &str, &str); 9] = [
            (2_700_000, 1, "create s1 of 3", "done"),
            (5_800_000, 3, "create s2 of 2", "done"),
            (8_900_000, 1, "create s3 of 2", "done"),
            (21_000_000, 1, "change s2 to (4, \"image:2\")", "unknown"),
            (23_900_000, 3, "h1 becomes Drain", "done"),
            (30_700_000, 4, "change s2 to (1, \"image:2\")", "done"),
            (35_800_000, 2, "create s4 of 2", "done"),
            (44_000_000, 5, "h4 becomes a worker", "refused"),
            (48_800_000, 3, "remove s4", "unknown"),
        ];
        for (at, host, text, answer) in asked {
            self.put(at, What::Person { host, text: text.to_owned(), answer: answer.to_owned() });
        }
    }
}
