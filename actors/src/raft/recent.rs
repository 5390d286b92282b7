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
}

/// As it is written into snapshots: oldest first.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Image(Vec<(u128, Outcome)>);

impl Recent {
    pub(super) fn get(&self, id: u128) -> Option<&Outcome> {
        self.outcomes.get(&id)
    }

    pub(super) fn insert(&mut self, id: u128, outcome: Outcome) {
        if self.outcomes.insert(id, outcome).is_none() {
            self.order.push_back(id);
        }
        while self.order.len() > CAPACITY {
            if let Some(oldest) = self.order.pop_front() {
                self.outcomes.remove(&oldest);
            }
        }
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
        assert_eq!((again.order, again.outcomes), (recent.order, recent.outcomes));
    }
}
