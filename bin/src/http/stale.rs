//! The headers of an answer that may be old.

use hyper::HeaderMap;
use hyper::header::WARNING;

use super::context::header_text;

/// Header that says why an answer may be old.
pub(super) const STALE: &str = "shoal-stale";

/// Say that the answer may be old, and why.
pub(super) fn mark(headers: &mut HeaderMap, reason: &str) {
    headers.insert(STALE, header_text(reason));
    headers.insert(
        WARNING,
        header_text(&format!("199 shoal \"this answer may be stale: {}\"", reason.replace(['"', '\\'], "'"))),
    );
}
