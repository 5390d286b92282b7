//! The benchmark's answer: one line a figure.

use std::time::Duration;

use crate::cluster::Peer;
use crate::stats::{percentile, seconds};

/// One figure of all who were measured.
#[derive(Debug, Clone)]
pub struct Row {
    /// What was measured.
    pub figure: String,
    /// Ours; none if it was not run.
    pub shoal: Option<String>,
    /// The peer's.
    pub swarm: Option<String>,
    /// The engines' alone, where that says something.
    pub bare: Option<String>,
    /// What ours ought to be.
    pub target: String,
}

impl Row {
    /// One that was not taken yet.
    pub fn new(figure: &str, target: &str) -> Self {
        Self { figure: figure.to_owned(), shoal: None, swarm: None, bare: None, target: target.to_owned() }
    }

    /// Where this peer's figure goes.
    pub fn of(&mut self, peer: Peer) -> &mut Option<String> {
        match peer {
            Peer::Shoal => &mut self.shoal,
            Peer::Swarm => &mut self.swarm,
        }
    }
}

/// All figures of a run.
#[derive(Debug, Default)]
pub struct Table {
    /// In the order in which they were taken.
    pub rows: Vec<Row>,
}

impl Table {
    /// As Markdown.
    pub fn markdown(&self) -> String {
        let mut text =
            "| Figure | Shoal | Docker Swarm | Bare engines | Target |\n|---|---|---|---|---|\n".to_owned();
        for row in &self.rows {
            let cell = |value: &Option<String>| value.clone().unwrap_or_else(|| "–".to_owned());
            text += &format!(
                "| {} | {} | {} | {} | {} |\n",
                row.figure,
                cell(&row.shoal),
                cell(&row.swarm),
                cell(&row.bare),
                row.target
            );
        }
        text
    }
}

/// Several times as their middle, their worst and their number.
pub fn spread(times: &[Duration]) -> String {
    let at = |percent| percentile(times, percent).map_or_else(|| "–".to_owned(), seconds);
    match times {
        [one] => seconds(*one),
        _ => format!("p50 {}, p99 {} ({} runs)", at(50), at(99), times.len()),
    }
}

/// The middle of the ratios round by round: what slows a whole round down leaves it alone.
pub(super) fn ratio(times: &[Duration], others: &[Duration]) -> Option<f64> {
    let mut ratios: Vec<f64> =
        times.iter().zip(others).map(|(time, other)| time.as_secs_f64() / other.as_secs_f64()).collect();
    ratios.sort_by(f64::total_cmp);
    ratios.get(ratios.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratio_is_taken_round_by_round() {
        let seconds = |times: [u64; 3]| times.map(Duration::from_secs);
        assert_eq!(ratio(&seconds([10, 2, 3]), &seconds([20, 2, 3])), Some(1.0));
        assert_eq!(ratio(&[], &[]), None);
    }

    #[test]
    fn figure_that_was_not_taken_is_a_dash() {
        let row = Row {
            figure: "join".to_owned(),
            shoal: None,
            swarm: Some(spread(&[Duration::from_millis(140), Duration::from_millis(160)])),
            bare: None,
            target: "0.1 s".to_owned(),
        };
        let text = Table { rows: vec![row] }.markdown();
        assert!(text.ends_with("| join | – | p50 0.140 s, p99 0.160 s (2 runs) | – | 0.1 s |\n"), "{text}");
    }
}
