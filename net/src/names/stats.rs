//! What the name server did, counted.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use shoal_core::model::NetworkId;

use crate::stats::add;
pub(super) use crate::stats::count;

/// An address at which names are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressStats {
    /// The address.
    pub address: IpAddr,
    /// The network whose gateway it is; none if programs outside ask there.
    pub network: Option<NetworkId>,
    /// Why it cannot be listened on; empty if it can.
    pub error: String,
}

/// Figures of this node's name server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NameStats {
    /// By address.
    pub addresses: Vec<AddressStats>,
    /// Questions that were read.
    pub queries: u64,
    /// Of those, answered from what is known of the cluster.
    pub answered: u64,
    /// Of those, handed on to the host's name servers.
    pub forwarded: u64,
    /// Of those, refused: whoever asked is not in the network, or asked for what is not done here.
    pub refused: u64,
    /// Of those, failed: no name server of the host answered, or too many were asked already.
    pub failures: u64,
    /// Messages that are no questions; they were dropped.
    pub malformed: u64,
    /// TCP connections that were closed at once because there were too many.
    pub connections_refused: u64,
    /// Answers by the host's name servers.
    pub upstream_answers: u64,
    /// Time until they came, in all, in microseconds.
    pub upstream_us: u64,
}

/// Figures as they are counted.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) queries: AtomicU64,
    pub(super) answered: AtomicU64,
    pub(super) forwarded: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) failures: AtomicU64,
    pub(super) malformed: AtomicU64,
    pub(super) connections_refused: AtomicU64,
    upstream_answers: AtomicU64,
    upstream_us: AtomicU64,
}

impl Counters {
    /// A name server of the host answered after so long.
    pub(super) fn upstream(&self, took: Duration) {
        count(&self.upstream_answers);
        add(&self.upstream_us, u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    pub(super) fn read(&self, addresses: Vec<AddressStats>) -> NameStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        NameStats {
            addresses,
            queries: get(&self.queries),
            answered: get(&self.answered),
            forwarded: get(&self.forwarded),
            refused: get(&self.refused),
            failures: get(&self.failures),
            malformed: get(&self.malformed),
            connections_refused: get(&self.connections_refused),
            upstream_answers: get(&self.upstream_answers),
            upstream_us: get(&self.upstream_us),
        }
    }
}
