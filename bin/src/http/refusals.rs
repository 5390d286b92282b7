//! What was refused to clients, counted by kind.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hyper::StatusCode;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;

/// Kinds of refusals: a status each, and one for the rest.
const KINDS: [(u16, &str); 8] = [
    (400, "invalid"),
    (403, "forbidden"),
    (404, "not_found"),
    (409, "conflict"),
    (500, "internal"),
    (501, "unsupported"),
    (503, "unavailable"),
    (0, "other"),
];

/// Requests that were refused, by kind. What the engine refuses of its own is not among them.
#[derive(Debug, Clone, Default)]
pub struct Refusals(Arc<[AtomicU64; KINDS.len()]>);

impl Refusals {
    /// One more.
    pub(super) fn count(&self, status: StatusCode) {
        let at = KINDS.iter().position(|(code, _)| *code == status.as_u16()).unwrap_or(KINDS.len() - 1);
        self.0[at].fetch_add(1, Ordering::Relaxed);
    }
}

impl Collector for Refusals {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Requests that the API refused, or could not answer";
        let mut metric =
            encoder.encode_descriptor("shoal_api_refused_requests", help, None, MetricType::Counter)?;
        for ((_, kind), count) in KINDS.iter().zip(self.0.iter()) {
            let count = ConstCounter::new(count.load(Ordering::Relaxed));
            count.encode(metric.encode_family(&[("kind", *kind)])?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::*;

    #[test]
    fn refusals_are_told_by_kind() {
        let refusals = Refusals::default();
        for status in [409, 409, 404, 418] {
            refusals.count(StatusCode::from_u16(status).unwrap());
        }
        let mut registry = Registry::default();
        registry.register_collector(Box::new(refusals));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for (kind, count) in [("conflict", 2), ("not_found", 1), ("other", 1), ("invalid", 0)] {
            let line = format!("shoal_api_refused_requests_total{{kind=\"{kind}\"}} {count}\n");
            assert!(text.contains(&line), "{text}");
        }
    }
}
