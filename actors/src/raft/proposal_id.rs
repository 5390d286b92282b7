//! Names for proposals: never the same twice, also not after a restart.

use std::sync::atomic::{AtomicU64, Ordering};

use shoal_core::model::NodeId;

/// Hands out names: half of one is the node's, half of it counts from a random number of
/// this start (it comes with the salt of a file: not from the seed, which a restart repeats).
#[derive(Debug)]
pub(super) struct ProposalIds {
    node: u64,
    next: AtomicU64,
}

impl ProposalIds {
    /// `start` is a random number of this start.
    pub(super) fn new(node: NodeId, start: u64) -> Self {
        let folded = (node.as_u128() >> 64) as u64 ^ node.as_u128() as u64;
        Self { node: folded, next: AtomicU64::new(start) }
    }

    pub(super) fn next(&self) -> u128 {
        u128::from(self.node) << 64 | u128::from(self.next.fetch_add(1, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ_between_proposals_starts_and_nodes() {
        let mut seen = std::collections::BTreeSet::new();
        for node in 1..4 {
            for start in [0, 1 << 20, u64::MAX - 5000] {
                let ids = ProposalIds::new(NodeId::from(node), start);
                assert!((0..1000).all(|_| seen.insert(ids.next())));
            }
        }
    }
}
