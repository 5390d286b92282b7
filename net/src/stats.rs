//! Figures of an endpoint.

use std::sync::atomic::{AtomicU64, Ordering};

/// Figures of an endpoint since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Connections open now.
    pub connections: u64,
    /// Connections opened by us.
    pub dialled_total: u64,
    /// Attempts of ours that failed.
    pub dial_failures_total: u64,
    /// Connections accepted.
    pub accepted_total: u64,
    /// Handshakes of others that failed: certificates of another authority, expired, none in time.
    pub handshake_failures_total: u64,
    /// Callers refused after the handshake: removed nodes, wrong names.
    pub refused_callers_total: u64,
    /// Messages refused by the table of access.
    pub refused_messages_total: u64,
    /// Calls made.
    pub calls_total: u64,
    /// Calls that got no answer.
    pub call_failures_total: u64,
    /// Gossip messages sent.
    pub gossip_sent_total: u64,
    /// Gossip messages received.
    pub gossip_received_total: u64,
    /// Gossip messages dropped: queue full, no connection.
    pub gossip_dropped_total: u64,
}

macro_rules! counters {
    ($($name:ident),*) => {
        #[derive(Debug, Default)]
        pub(crate) struct Counters { $(pub(crate) $name: AtomicU64),* }

        impl Counters {
            pub(crate) fn read(&self, connections: u64) -> Stats {
                Stats { connections, $($name: self.$name.load(Ordering::Relaxed)),* }
            }
        }
    };
}

counters! {
    dialled_total, dial_failures_total, accepted_total, handshake_failures_total, refused_callers_total,
    refused_messages_total, calls_total, call_failures_total, gossip_sent_total, gossip_received_total,
    gossip_dropped_total
}

pub(crate) fn count(counter: &AtomicU64) {
    add(counter, 1);
}

pub(crate) fn add(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}
