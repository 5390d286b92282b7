//! Proposals that were applied lately, so that one that was sent twice is applied once.
//!
//! A manager sends a proposal again, under the same id, when the leader that it gave it to is lost: the entry may
//! or may not have survived. This memory is part of the replicated state: the same on each manager, and in its
//! snapshots.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use shoal_core::store::ApplyError;

/// Proposals that are remembered. At 60,000 a second, more than the quarter of a second in which a proposal is
/// sent again once there is a new leader.
const CAPACITY: usize = 16_384;

type Outcome = (u64, Result<(), ApplyError>);

/// What came of the newest proposals.
#[derive(Debug, Clone, Default)]
pub(super) struct Recent {
    outcomes: BTreeMap<u128, Outcome>,
    order: VecDeque<u128>,
    /// Of all that is remembered, whatever the order.
    digest: u64,
}

/// A number that tells one proposal at its index from others.
fn digest(id: u128, (index, outcome): &Outcome) -> u64 {
    let words = [id as u64, (id >> 64) as u64, *index, u64::from(outcome.is_ok())];
    words.into_iter().fold(0, |sum, word| (sum ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29))
}

/// As it is written into snapshots: oldest first.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Image(Vec<(u128, Outcome)>);

impl Recent {
    pub(super) fn get(&self, id: u128) -> Option<&Outcome> {
        self.outcomes.get(&id)
    }

    pub(super) fn insert(&mut self, id: u128, outcome: Outcome) {
        self.digest ^= digest(id, &outcome);
        match self.outcomes.insert(id, outcome) {
            None => self.order.push_back(id),
            Some(before) => self.digest ^= digest(id, &before),
        }
        while self.order.len() > CAPACITY {
            if let Some(oldest) = self.order.pop_front()
                && let Some(outcome) = self.outcomes.remove(&oldest)
            {
                self.digest ^= digest(oldest, &outcome);
            }
        }
    }

    /// Of all that is remembered: the same on every manager at the same index.
    pub(super) fn digest(&self) -> u64 {
        self.digest
    }

    pub(super) fn image(&self) -> Image {
        Image(self.order.iter().filter_map(|id| Some((*id, self.outcomes.get(id)?.clone()))).collect())
    }
}

impl From<Image> for Recent {
    fn from(Image(outcomes): Image) -> Self {
        let mut recent = Self::default();
        for (id, outcome) in outcomes {
            recent.insert(id, outcome);
        }
        recent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_are_forgotten_and_an_image_brings_back_the_rest() {
        let mut recent = Recent::default();
        for id in 0..20_000u32 {
            recent.insert(id.into(), (id.into(), Ok(())));
        }
        let again = Recent::from(recent.image());
        assert!(again.get(20_000 - CAPACITY as u128 - 1).is_none());
        assert_eq!(again.get(19_999), Some(&(19_999, Ok(()))));
        assert_eq!(again.digest(), recent.digest());
        assert_ne!(again.digest(), Recent::default().digest());
        assert_eq!((again.order, again.outcomes), (recent.order, recent.outcomes));
    }
}
