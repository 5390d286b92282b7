//! Somebody who writes at one manager and reads at another all the while: a read that is called fresh must hold what was
//! promised before it began.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use shoal_actors::api::{Freshness, NodeApi as _};
use shoal_actors::node::Node;
use shoal_core::store::Command;
use tokio::time::{Instant, sleep, timeout};

use crate::host::clock;

/// Nobody is waited for longer: what matters is to be at the next manager soon.
const CALL_MAX: Duration = Duration::from_millis(300);

/// The reader, and what it found out.
pub struct Reader {
    rng: ChaCha8Rng,
    promised: u64,
    /// What was broken.
    pub found: Vec<String>,
}

type Nodes = RefCell<BTreeMap<usize, Node>>;

impl Reader {
    /// Somebody whose choices follow from the seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { rng: ChaCha8Rng::seed_from_u64(seed ^ 0x7265), promised: 0, found: Vec::new() }
    }

    /// Write and read until the time is over.
    pub async fn go_on(&mut self, nodes: &Nodes, until: Instant, broken: &Cell<bool>) {
        // Not in every run: it keeps the log busy.
        if !self.rng.random_bool(0.5) {
            return;
        }
        while Instant::now() < until && !broken.get() && self.found.is_empty() {
            sleep(Duration::from_millis(self.rng.random_range(20..300))).await;
            if let Some((_, node)) = self.manager(nodes)
                && let Ok(Ok(index)) = timeout(CALL_MAX, node.propose(nothing())).await
            {
                self.promised = self.promised.max(index);
            }
            if let Some((host, node)) = self.manager(nodes)
                && let Ok(Ok((state, freshness))) = timeout(CALL_MAX, node.read()).await
            {
                let stale = freshness == Freshness::Fresh && state.applied() < self.promised;
                let (at, promised) = (state.applied(), self.promised);
                stale.then(|| {
                    self.found
                        .push(format!("h{host} reads index {at} as fresh, {promised} was promised before"));
                });
            }
        }
    }

    fn manager(&mut self, nodes: &Nodes) -> Option<(usize, Node)> {
        let nodes = nodes.borrow();
        let managers: Vec<_> = nodes.iter().filter(|(_, node)| node.raft().is_some()).collect();
        let at = self.rng.random_range(0..managers.len().max(1));
        managers.get(at).map(|(host, node)| (**host, (*node).clone()))
    }
}

/// A command that changes nothing, and has an index all the same.
fn nothing() -> Command {
    Command { at: clock()(), ..Command::default() }
}
