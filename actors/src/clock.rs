//! The wall clock, the one place that reads it, and the time of a reign, which does not jump as that one may.
//! The simulator puts another wall clock in.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use shoal_core::model::Timestamp;
use shoal_core::put_back::{Bug, is_put_back};
use tokio::time::Instant;

/// Tells the time.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// A reign's time comes near to the wall clock's by one part in so many: an hour in less than three days.
const SLEW: u32 = 64;

/// The clock of this machine.
#[must_use]
pub fn system_clock() -> Clock {
    Arc::new(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    })
}

#[derive(Clone, Copy)]
struct Reading {
    /// Nanoseconds since the Unix epoch, by this clock.
    nanos: u128,
    at: Instant,
}

/// The time by which a leader decides: it begins with the wall clock's and then goes on steadily, whatever jumps that
/// one makes, so that no wait that began in a reign ends before its time. It follows the wall clock slowly.
#[derive(Clone)]
pub struct ReignClock {
    wall: Clock,
    last: Arc<Mutex<Option<Reading>>>,
}

impl ReignClock {
    /// The wall clock's time, until a reign begins.
    #[must_use]
    pub fn new(wall: Clock) -> Self {
        Self { wall, last: Arc::default() }
    }

    /// A reign begins.
    pub fn begin(&self) {
        let reading = Reading { nanos: nanos((self.wall)()), at: Instant::now() };
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(reading);
    }

    /// What it tells, as others are told the time.
    #[must_use]
    pub fn reading(&self) -> Clock {
        let clock = self.clone();
        Arc::new(move || clock.now())
    }

    fn now(&self) -> Timestamp {
        let wall = (self.wall)();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(reading) = last.as_mut().filter(|_| !is_put_back(Bug::ClockBackNotSeen)) else {
            return wall;
        };
        let now = Instant::now();
        let passed = now.saturating_duration_since(reading.at);
        *reading = Reading { nanos: steady(reading.nanos, nanos(wall), passed), at: now };
        Timestamp(u64::try_from(reading.nanos / 1_000_000).unwrap_or(u64::MAX))
    }
}

fn nanos(time: Timestamp) -> u128 {
    u128::from(time.0) * 1_000_000
}

/// The time after so much has passed: that much later, and a little nearer to the wall clock's.
fn steady(before: u128, wall: u128, passed: Duration) -> u128 {
    let now = before + passed.as_nanos();
    let most = (passed / SLEW).as_nanos();
    match wall > now {
        true => now + (wall - now).min(most),
        false => now - (now - wall).min(most),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_reigns_time_follows_the_wall_clock_slowly_and_never_goes_back() {
        let wall = Arc::new(AtomicU64::new(1_000_000));
        let told = Arc::clone(&wall);
        let reign = ReignClock::new(Arc::new(move || Timestamp(told.load(Ordering::Relaxed))));
        let now = reign.reading();
        wall.store(2_000_000, Ordering::Relaxed);
        assert_eq!(now(), Timestamp(2_000_000), "nobody reigns");

        reign.begin();
        wall.store(2_300_000, Ordering::Relaxed);
        assert_eq!(now(), Timestamp(2_000_000), "jumped ahead");
        tokio::time::advance(Duration::from_secs(64)).await;
        assert_eq!(now(), Timestamp(2_065_000), "a second nearer after 64");
        wall.store(1_000_000, Ordering::Relaxed);
        assert_eq!(now(), Timestamp(2_065_000), "jumped back");
        tokio::time::advance(Duration::from_secs(64)).await;
        assert_eq!(now(), Timestamp(2_128_000), "a second nearer from above");
        wall.store(2_192_500, Ordering::Relaxed);
        tokio::time::advance(Duration::from_secs(64)).await;
        assert_eq!(now(), Timestamp(2_192_500), "as near as can be");

        reign.begin();
        wall.store(9_000_000, Ordering::Relaxed);
        assert_eq!(now(), Timestamp(2_192_500));
        reign.begin();
        assert_eq!(now(), Timestamp(9_000_000), "another reign");
    }
}
