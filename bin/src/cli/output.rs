//! What commands print: tables for people, JSON for programs.

use std::fmt::Write as _;

use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// In which form a command prints.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// The API's objects, as JSON.
    Json,
}

/// Rows under headings, columns as wide as they need to be.
pub(crate) fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([headings[column].len()]).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    let mut out = String::new();
    let mut line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut text = String::new();
        for (cell, width) in cells.zip(&widths) {
            let _ = write!(text, "{cell:<width$}   ");
        }
        out.push_str(text.trim_end());
        out.push('\n');
    };
    line(&mut headings.iter().copied());
    for row in rows {
        line(&mut row.iter().map(String::as_str));
    }
    out
}

/// JSON as people and `jq` read it.
pub(crate) fn json(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}

/// Print to stdout. A reader that has gone (`| head`) is no error of ours.
pub(crate) fn print(text: &str) {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    let _ = out
        .write_all(text.as_bytes())
        .and_then(|()| if text.ends_with('\n') { Ok(()) } else { out.write_all(b"\n") });
}

/// The text at a pointer such as `/Spec/Name`; empty if there is none.
pub(crate) fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The number at a pointer, if there is one.
pub(crate) fn number(value: &Value, pointer: &str) -> Option<u64> {
    value.pointer(pointer).and_then(Value::as_u64)
}

/// The items of a list; none if it is no list.
pub(crate) fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// `5 minutes ago` from RFC 3339.
pub(crate) fn age(stamp: &str, now: OffsetDateTime) -> String {
    match OffsetDateTime::parse(stamp, &Rfc3339) {
        Ok(then) => {
            let seconds = (now - then).whole_seconds().max(0);
            if seconds < 1 { "just now".into() } else { format!("{} ago", span(seconds)) }
        }
        Err(_) => String::new(),
    }
}

fn span(seconds: i64) -> String {
    let (count, unit) = match seconds {
        0..=119 => (seconds, "second"),
        120..=7199 => (seconds / 60, "minute"),
        7200..=172_799 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let out =
            table(&["ID", "NAME"], &[vec!["1".into(), "web".into()], vec!["12345".into(), String::new()]]);
        assert_eq!(out, "ID      NAME\n1       web\n12345\n");
    }

    #[test]
    fn ages_are_told_in_the_largest_fitting_unit() {
        let now = OffsetDateTime::parse("2026-01-02T00:00:00Z", &Rfc3339).expect("valid");
        for (stamp, words) in [
            ("2026-01-02T00:00:00.5Z", "just now"),
            ("2026-01-01T23:59:59Z", "1 second ago"),
            ("2026-01-01T23:49:59.123456789Z", "10 minutes ago"),
            ("2026-01-01T00:00:00Z", "24 hours ago"),
            ("2025-12-01T00:00:00Z", "32 days ago"),
            ("nonsense", ""),
        ] {
            assert_eq!(age(stamp, now), words, "{stamp}");
        }
    }
}
