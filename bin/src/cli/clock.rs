//! The one place where the command line asks for the time of day: ages in tables are for people.

use time::OffsetDateTime;

/// Now.
pub(crate) fn now() -> OffsetDateTime {
    OffsetDateTime::from(std::time::SystemTime::now())
}
