//! The only place of the front door that looks at the wall clock.

use shoal_core::model::Timestamp;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A time that a client names is no longer than this.
const TEXT_BYTES_MAX: usize = 64;

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

/// Read a point of time as Docker's clients name it: so long before `now`, seconds since 1970, or RFC 3339, of which the end may be missing.
pub(super) fn moment(text: &str, now: Timestamp) -> Option<Timestamp> {
    if text.len() > TEXT_BYTES_MAX {
        return None;
    }
    if let Some(nanos) = ago(text) {
        return Some(Timestamp(now.0.saturating_sub(nanos / 1_000_000)));
    }
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_number = |digits: &str| digits.bytes().all(|b| b.is_ascii_digit());
    if is_number(seconds) && is_number(fraction) {
        let millis: String = fraction.chars().chain("000".chars()).take(3).collect();
        return Some(Timestamp(
            seconds.parse::<u64>().ok()?.checked_mul(1000)? + millis.parse::<u64>().ok()?,
        ));
    }
    let whole = [text.to_owned(), format!("{text}Z"), format!("{text}:00Z"), format!("{text}T00:00:00Z")];
    let time = whole.iter().find_map(|text| OffsetDateTime::parse(text, &Rfc3339).ok())?;
    u64::try_from(time.unix_timestamp_nanos() / 1_000_000).ok().map(Timestamp)
}

/// Nanoseconds of a duration such as `1h30m`.
fn ago(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut total = 0.0f64;
    while !rest.is_empty() {
        let (number, tail) = rest.split_at(rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?);
        let (unit, tail) = tail.split_at(tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len()));
        let unit = match unit {
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        total += number.parse::<f64>().ok()? * unit;
        rest = tail;
    }
    (!text.is_empty() && total < 9.2e18).then_some(total as u64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_are_written_as_rfc_3339() {
        assert_eq!(text(Timestamp(0)), "1970-01-01T00:00:00Z");
        assert_eq!(text(Timestamp(1_700_000_000_123)), "2023-11-14T22:13:20.123Z");
        assert_eq!(text(Timestamp(u64::MAX)), "0001-01-01T00:00:00Z");
    }

    #[test]
    fn moments_are_read_as_dockers_clients_name_them() {
        let now = Timestamp(1_700_000_000_000);
        for (text, millis) in [
            ("90m", now.0 - 5_400_000),
            ("1h30m", now.0 - 5_400_000),
            ("999999h", 0),
            ("1600000000", 1_600_000_000_000),
            ("1600000000.25", 1_600_000_000_250),
            ("2023-11-14T22:13:20.123456789Z", 1_700_000_000_123),
            ("2023-11-14T23:13:20+01:00", now.0),
            ("2023-11-14T22:13:20", now.0),
            ("2023-11-14", 1_699_920_000_000),
        ] {
            assert_eq!(moment(text, now), Some(Timestamp(millis)), "{text}");
        }
        for text in ["", "soon", "5x", "1.2.3", "-1h", "2023-13-01", "99999999999999999999"] {
            assert_eq!(moment(text, now), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn reading_never_panics(text: String) {
            let _ = moment(&text, Timestamp(1));
        }
    }
}
