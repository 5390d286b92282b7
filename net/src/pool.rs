//! Open connections: one slot for each peer and protocol, and a list by node, so that a removed node's
//! connections can be closed.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use shoal_core::model::NodeId;
use shoal_wire::Protocol;
use tokio::time::Instant;

use crate::line::Line;

/// After a failed dial, calls fail at once for this long; doubled with each further failure.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_millis(500);
/// Slots that are kept; past that the unused ones go.
const SLOTS_MAX: usize = 4096;

/// Which connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) node_id: Option<NodeId>,
    pub(crate) addr: SocketAddr,
    pub(crate) protocol: Protocol,
}

/// What is known of one connection. Its lock is held across a dial, so that there is one dial at a time; it
/// is this peer's and this protocol's alone.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    pub(crate) connection: Option<Arc<dyn Line>>,
    failure: Option<(Instant, String)>,
    failures: u32,
}

impl Slot {
    /// The open connection, if there is one.
    pub(crate) fn open(&self) -> Option<Arc<dyn Line>> {
        self.connection.clone().filter(|c| c.closed().is_none())
    }

    /// Why no dial is tried now.
    pub(crate) fn backs_off(&self) -> Option<String> {
        let (at, why) = self.failure.as_ref()?;
        let wait = BACKOFF_MIN.saturating_mul(1 << self.failures.min(6)).min(BACKOFF_MAX);
        (at.elapsed() < wait).then(|| why.clone())
    }

    pub(crate) fn failed(&mut self, why: String) {
        self.failures = self.failures.saturating_add(1);
        self.failure = Some((Instant::now(), why));
    }

    pub(crate) fn connected(&mut self, connection: Arc<dyn Line>) {
        *self = Self { connection: Some(connection), failure: None, failures: 0 };
    }
}

/// All slots.
#[derive(Debug, Default)]
pub(crate) struct Pool(Mutex<BTreeMap<Key, Arc<tokio::sync::Mutex<Slot>>>>);

impl Pool {
    pub(crate) fn slot(&self, key: Key) -> Arc<tokio::sync::Mutex<Slot>> {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.len() >= SLOTS_MAX && !slots.contains_key(&key) {
            slots.retain(|_, slot| {
                Arc::strong_count(slot) > 1 || slot.try_lock().is_ok_and(|s| s.open().is_some())
            });
        }
        slots.entry(key).or_default().clone()
    }

    pub(crate) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// Open connections by node, both those we opened and those we accepted.
#[derive(Debug, Default)]
pub(crate) struct Tracked(Mutex<Lines>);

/// Lines by node; none for callers without a certificate.
type Lines = BTreeMap<Option<NodeId>, Vec<Arc<dyn Line>>>;

impl Tracked {
    fn lock(&self) -> std::sync::MutexGuard<'_, Lines> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add(&self, node: Option<NodeId>, connection: &Arc<dyn Line>) {
        let mut tracked = self.lock();
        let list = tracked.entry(node).or_default();
        list.retain(|c| c.closed().is_none());
        list.push(connection.clone());
    }

    pub(crate) fn anonymous(&self) -> usize {
        self.lock().get(&None).map_or(0, |list| list.iter().filter(|c| c.closed().is_none()).count())
    }

    /// How long a packet takes to each node and back, by the fastest of its connections.
    pub(crate) fn round_trips(&self) -> Vec<(NodeId, Duration)> {
        let fastest = |list: &Vec<Arc<dyn Line>>| {
            list.iter().filter(|line| line.closed().is_none()).filter_map(|line| line.round_trip()).min()
        };
        self.lock().iter().filter_map(|(node, list)| Some(((*node)?, fastest(list)?))).collect()
    }

    pub(crate) fn close(&self, nodes: impl Fn(Option<NodeId>) -> bool, code: u32, why: &str) {
        let mut tracked = self.lock();
        tracked.retain(|node, list| {
            let closes = nodes(*node);
            if closes {
                for connection in list.iter() {
                    connection.close(code, why);
                }
            }
            !closes
        });
    }
}
