//! Somebody who writes at one manager and reads at another all the while: a read that is called fresh must hold what was
//! promised before it began.

use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use shoal_actors::api::{Freshness, NodeApi as _};
use shoal_actors::node::Node;
use shoal_core::store::Command;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::host::clock;
use crate::world::Nodes;

/// Nobody is waited for longer: what matters is to be at the next manager soon.
const CALL_MAX: Duration = Duration::from_millis(300);

/// The reader, and what it found out.
pub struct Reader {
    rng: ChaCha8Rng,
    promised: u64,
    /// What was broken.
    pub found: Vec<String>,
}

impl Reader {
    /// Somebody whose choices follow from the seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { rng: ChaCha8Rng::seed_from_u64(seed), promised: 0, found: Vec::new() }
    }

    /// Write and read so often.
    pub async fn go_on(&mut self, nodes: &Nodes, rounds: u64) {
        for _ in 0..rounds {
            if !self.found.is_empty() {
                return;
            }
            sleep(Duration::from_millis(self.rng.random_range(20..300))).await;
            let managers: Vec<_> = nodes.borrow().iter().map(|(host, node)| (*host, node.clone())).collect();
            let managers = managers.into_iter().filter(|(_, node)| node.raft().is_some());
            self.round(managers.collect()).await;
        }
    }

    /// One write at whoever is the first to take it, then a read at each.
    async fn round(&mut self, managers: Vec<(usize, Node)>) {
        let mut writes = JoinSet::new();
        for (_, node) in managers.clone() {
            writes.spawn(async move { timeout(CALL_MAX, node.propose(nothing())).await });
        }
        while let Some(answer) = writes.join_next().await {
            if let Ok(Ok(Ok(index))) = answer {
                self.promised = self.promised.max(index);
                break;
            }
        }
        let mut reads = JoinSet::new();
        for (host, node) in managers {
            reads.spawn(async move { (host, timeout(CALL_MAX, node.read()).await) });
        }
        let promised = self.promised;
        while let Some(answer) = reads.join_next().await {
            if let Ok((host, Ok(Ok((state, freshness))))) = answer {
                self.found.extend(stale(host, state.applied(), &freshness, promised));
            }
        }
    }
}

/// What is wrong with a read of the state at an index, where another had been promised before it began.
fn stale(host: usize, index: u64, freshness: &Freshness, promised: u64) -> Option<String> {
    let is_stale = *freshness == Freshness::Fresh && index < promised;
    is_stale.then(|| format!("h{host} reads index {index} as fresh, {promised} was promised before"))
}

/// A command that changes nothing, and has an index all the same.
fn nothing() -> Command {
    Command { at: clock()(), ..Command::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_read_holds_what_was_promised_and_a_stale_one_says_so() {
        assert!(
            stale(1, 7, &Freshness::Fresh, 8).is_some_and(|what| what.contains("reads index 7 as fresh"))
        );
        assert_eq!(stale(1, 8, &Freshness::Fresh, 8), None);
        assert_eq!(stale(1, 7, &Freshness::Stale("no majority".into()), 8), None);
    }
}
