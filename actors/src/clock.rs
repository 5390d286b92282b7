//! The wall clock, the one place that reads it. The simulator puts another in.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use shoal_core::model::Timestamp;

/// Tells the wall-clock time.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The clock of this machine.
#[must_use]
pub fn system_clock() -> Clock {
    Arc::new(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    })
}
