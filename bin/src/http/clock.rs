//! The only place of the front door that looks at the wall clock.

use shoal_core::model::Timestamp;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The present, for the times that users see.
pub(super) fn now() -> Timestamp {
    let millis = OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000;
    Timestamp(u64::try_from(millis).unwrap_or_default())
}

/// A time as Docker writes it: RFC 3339 in UTC.
pub(super) fn text(at: Timestamp) -> String {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(at.0) * 1_000_000)
        .ok()
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_else(|| "0001-01-01T00:00:00Z".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_rfc_3339() {
        assert_eq!(text(Timestamp(0)), "1970-01-01T00:00:00Z");
        assert_eq!(text(Timestamp(1_700_000_000_123)), "2023-11-14T22:13:20.123Z");
        assert_eq!(text(Timestamp(u64::MAX)), "0001-01-01T00:00:00Z");
    }
}
