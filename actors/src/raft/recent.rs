//! Proposals that were applied lately, so that one that was sent twice is applied once.
//!
//! A manager sends a proposal again, under the same id, when the leader that it gave it to is lost: the entry may
//! or may not have survived. This memory is part of the replicated state: the same on each manager, and in its
//! snapshots.

use imbl::{OrdMap, Vector};
use serde::{Deserialize, Serialize};
use shoal_core::store::ApplyError;

/// Proposals that are remembered. At 60,000 a second, more than the quarter of a second in which a proposal is
/// sent again once there is a new leader.
const CAPACITY: usize = 16_384;

type Outcome = (u64, Result<(), ApplyError>);

/// What came of the newest proposals. Copies share what they have in common: one is made for each snapshot, while nothing is applied.
#[derive(Debug, Clone, Default)]
pub(super) struct Recent {
    /// Oldest first.
    outcomes: Vector<(u128, Outcome)>,
    /// Which one each is, counted from the first one ever.
    places: OrdMap<u128, u64>,
    /// Which one the oldest is.
    first: u64,
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
pub(super) struct Image(Vector<(u128, Outcome)>);

impl Recent {
    pub(super) fn get(&self, id: u128) -> Option<&Outcome> {
        self.outcomes.get(self.at(id)?).map(|(_, outcome)| outcome)
    }

    fn at(&self, id: u128) -> Option<usize> {
        usize::try_from(self.places.get(&id)? - self.first).ok()
    }

    pub(super) fn insert(&mut self, id: u128, outcome: Outcome) {
        self.digest ^= digest(id, &outcome);
        if let Some((_, known)) = self.at(id).and_then(|at| self.outcomes.get_mut(at)) {
            self.digest ^= digest(id, known);
            *known = outcome;
            return;
        }
        self.places.insert(id, self.first + self.outcomes.len() as u64);
        self.outcomes.push_back((id, outcome));
        while self.outcomes.len() > CAPACITY
            && let Some((oldest, outcome)) = self.outcomes.pop_front()
        {
            self.digest ^= digest(oldest, &outcome);
            self.places.remove(&oldest);
            self.first += 1;
        }
    }

    /// Of all that is remembered: the same on every manager at the same index.
    pub(super) fn digest(&self) -> u64 {
        self.digest
    }

    pub(super) fn image(&self) -> Image {
        Image(self.outcomes.clone())
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
        assert_eq!(again.outcomes, recent.outcomes);
    }

    #[test]
    fn one_that_comes_again_takes_no_second_place() {
        let mut recent = Recent::default();
        for id in 0..CAPACITY as u128 + 10 {
            recent.insert(id, (1, Ok(())));
        }
        let before = recent.digest();
        recent.insert(100, (2, Ok(())));
        assert_eq!((recent.get(100), recent.get(101)), (Some(&(2, Ok(()))), Some(&(1, Ok(())))));
        assert_ne!(recent.digest(), before);
        recent.insert(100, (1, Ok(())));
        assert_eq!(
            (recent.digest(), recent.outcomes.len(), recent.places.len()),
            (before, CAPACITY, CAPACITY)
        );
    }

    #[test]
    fn a_copy_keeps_what_it_had() {
        let mut recent = Recent::default();
        recent.insert(1, (1, Ok(())));
        let copy = recent.clone();
        recent.insert(2, (2, Ok(())));
        assert_eq!((copy.get(1), copy.get(2)), (Some(&(1, Ok(()))), None));
    }
}
