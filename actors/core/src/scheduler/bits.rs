//! A set of dense node indexes, one bit each.

/// A growable set of small numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Bits {
    words: Vec<u64>,
}

impl Bits {
    /// Make room for indexes below `len`.
    pub(super) fn grow(&mut self, len: usize) {
        let words = len.div_ceil(64);
        if self.words.len() < words {
            self.words.resize(words, 0);
        }
    }

    /// Put `index` in or take it out.
    pub(super) fn set(&mut self, index: u32, value: bool) {
        self.grow(index as usize + 1);
        let word = &mut self.words[index as usize / 64];
        let bit = 1 << (index % 64);
        if value {
            *word |= bit;
        } else {
            *word &= !bit;
        }
    }

    /// Whether `index` is in.
    #[cfg(test)]
    pub(super) fn get(&self, index: u32) -> bool {
        self.words.get(index as usize / 64).is_some_and(|word| word >> (index % 64) & 1 == 1)
    }

    /// How many are in.
    pub(super) fn count(&self) -> u32 {
        self.words.iter().map(|word| word.count_ones()).sum()
    }

    /// Keep only what is in `other` too.
    pub(super) fn intersect(&mut self, other: &Self) {
        for (at, word) in self.words.iter_mut().enumerate() {
            *word &= other.words.get(at).copied().unwrap_or_default();
        }
    }

    /// Keep only what passes.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(usize) -> bool) {
        for (at, word) in self.words.iter_mut().enumerate() {
            let mut rest = *word;
            while rest != 0 {
                let bit = rest.trailing_zeros();
                rest &= rest - 1;
                if !keep(at * 64 + bit as usize) {
                    *word &= !(1 << bit);
                }
            }
        }
    }

    /// Visit all that are in, in order.
    pub(super) fn each(&self, mut visit: impl FnMut(usize)) {
        for (at, word) in self.words.iter().enumerate() {
            let mut rest = *word;
            while rest != 0 {
                visit(at * 64 + rest.trailing_zeros() as usize);
                rest &= rest - 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn bits(set: &BTreeSet<u32>) -> Bits {
        let mut bits = Bits::default();
        set.iter().for_each(|index| bits.set(*index, true));
        bits
    }

    proptest! {
        #[test]
        fn bits_behave_as_a_set(a: BTreeSet<u8>, b: BTreeSet<u8>) {
            let a: BTreeSet<u32> = a.into_iter().map(u32::from).collect();
            let b: BTreeSet<u32> = b.into_iter().map(u32::from).collect();
            let mut both = bits(&a);
            both.intersect(&bits(&b));
            let wanted: Vec<usize> = a.intersection(&b).map(|i| *i as usize).collect();
            let mut seen = Vec::new();
            both.each(|index| seen.push(index));
            prop_assert_eq!(&seen, &wanted);
            prop_assert_eq!(both.count() as usize, wanted.len());
            let mut odd = bits(&a);
            odd.retain(|index| index % 2 == 1);
            prop_assert!(a.iter().all(|index| odd.get(*index) == (index % 2 == 1)));
        }
    }
}
