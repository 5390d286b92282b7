//! How much may be under way at once, in all and for each source.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

#[derive(Debug, Default)]
struct Now {
    all: usize,
    each: BTreeMap<IpAddr, usize>,
}

/// A limit, and what is taken of it.
#[derive(Debug)]
pub(super) struct Limit {
    all: usize,
    each: usize,
    now: Mutex<Now>,
}

/// A part of the limit, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Taken {
    limit: Arc<Limit>,
    source: IpAddr,
}

impl Limit {
    /// So many in all, and for each source.
    pub(super) fn new((all, each): (usize, usize)) -> Self {
        Self { all, each, now: Mutex::default() }
    }

    /// One more for this source; none if that is too much.
    pub(super) fn take(self: &Arc<Self>, source: IpAddr) -> Option<Taken> {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        let its = now.each.get(&source).copied().unwrap_or_default();
        if now.all >= self.all || its >= self.each {
            return None;
        }
        now.all += 1;
        now.each.insert(source, its + 1);
        Some(Taken { limit: Arc::clone(self), source })
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut now = self.limit.now.lock().unwrap_or_else(PoisonError::into_inner);
        now.all -= 1;
        match now.each.get_mut(&self.source) {
            Some(its) if *its > 1 => *its -= 1,
            _ => drop(now.each.remove(&self.source)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_source_takes_all_and_what_is_dropped_is_given_back() {
        let limit = Arc::new(Limit::new((3, 2)));
        let [one, two] = [IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2])];
        let first = limit.take(one);
        let second = limit.take(one);
        assert!(first.is_some() && second.is_some() && limit.take(one).is_none());
        let third = limit.take(two);
        assert!(third.is_some() && limit.take(two).is_none());
        drop(first);
        assert!(limit.take(two).is_some());
        drop((second, third));
        let now = limit.now.lock().unwrap();
        assert!(now.all == 0 && now.each.is_empty());
    }
}
