//! How quickly a cluster beats, looks and loses patience.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How many times slower than usual a cluster beats, looks and loses patience.
///
/// All of a cluster's nodes keep the same pace, so that one's silence means the same to all. What takes its time for
/// other reasons (a packet, a disk, a container, a person's delay) is not touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Pace(u32);

impl Default for Pace {
    fn default() -> Self {
        Self::USUAL
    }
}

impl Pace {
    /// That of every cluster, unless it is said.
    pub const USUAL: Self = Self(1);
    /// Slowest: a leader beats every three seconds, and one that is lost is replaced within half a minute.
    pub const SLOWEST: Self = Self(60);

    /// So many times slower; none if that is out of bounds.
    #[must_use]
    pub const fn slower(times: u32) -> Option<Self> {
        if times == 0 || times > Self::SLOWEST.0 { None } else { Some(Self(times)) }
    }

    /// How many times slower than usual.
    #[must_use]
    pub const fn times(self) -> u32 {
        self.0
    }

    /// A time at this pace.
    #[must_use]
    pub const fn of(self, usual: Duration) -> Duration {
        usual.saturating_mul(self.0)
    }

    /// Two times at this pace.
    #[must_use]
    pub const fn both(self, usual: (Duration, Duration)) -> (Duration, Duration) {
        (self.of(usual.0), self.of(usual.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_pace_changes_nothing_and_none_stands_still() {
        let second = Duration::from_secs(1);
        assert_eq!(Pace::default().of(second), second);
        assert_eq!(
            Pace::slower(20).map(|pace| pace.both((second, second * 2))),
            Some((second * 20, second * 40))
        );
        assert_eq!((Pace::slower(0), Pace::slower(61)), (None, None));
    }
}
