//! Points in time as data: core has no clock of its own.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Milliseconds since the Unix epoch, by the clock of whoever proposed it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// This time and `later` more.
    #[must_use]
    pub fn plus(self, later: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(later.as_millis()).unwrap_or(u64::MAX)))
    }

    /// When a wait of this length that began at this time is over, unless it is. If it seems to begin further ahead than
    /// it lasts it is over: whoever wrote it down had a clock that was wrong, or was put right since.
    #[must_use]
    pub fn waits(self, length: Duration, now: Self) -> Option<Self> {
        let end = self.plus(length);
        (end > now && self <= now.plus(length)).then_some(end)
    }

    /// How long ago `earlier` was; zero if it lies ahead.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_ends_in_time_whichever_clock_began_it() {
        let waits = |began: u64, now: u64| {
            Timestamp(began).waits(Duration::from_millis(100), Timestamp(now)).map(|end| end.0)
        };
        assert_eq!((waits(1_000, 1_000), waits(1_000, 1_099)), (Some(1_100), Some(1_100)));
        assert_eq!((waits(1_000, 1_100), waits(1_000, 2_000)), (None, None));
        // A clock that is a little ahead makes it wait a little longer, one that is far ahead not at all.
        assert_eq!((waits(1_100, 1_000), waits(1_101, 1_000)), (Some(1_200), None));
    }
}
