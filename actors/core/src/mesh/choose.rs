//! Which backend a connection is given to.

use super::Backend;
use crate::model::NodeId;

/// How busy a backend is, as seen by the node that chooses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    /// Connections of this node that it has open.
    pub open: u32,
    /// Whether a connection to it failed lately.
    pub failed: bool,
    /// Whether it was tried for this very connection already.
    pub tried: bool,
}

/// The backend with the fewest connections; among those the node's own, among the rest by turns. Those that failed lately
/// come last, those that were tried already not at all.
#[must_use]
pub fn choose(
    backends: &[Backend],
    load: impl Fn(&Backend) -> Load,
    here: NodeId,
    turn: usize,
) -> Option<&Backend> {
    let count = backends.len();
    let rated = backends.iter().enumerate().filter_map(|(at, backend)| {
        let load = load(backend);
        let distance = (at + count - turn % count) % count;
        (!load.tried).then_some(((load.failed, load.open, backend.node != here, distance), backend))
    });
    rated.min_by_key(|(rate, _)| *rate).map(|(_, backend)| backend)
}
