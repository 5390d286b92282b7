//! What the mesh did, counted.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ipnet::IpNet;
use shoal_core::model::{Protocol, ServiceId};

pub(super) use crate::stats::add;

/// Where the buckets of times end, in microseconds; one more has what took longer.
pub const TIMES_US: [u64; 11] =
    [100, 250, 500, 1_000, 2_500, 5_000, 10_000, 50_000, 250_000, 1_000_000, 5_000_000];

/// How long something took, by how often.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Times {
    /// By bucket.
    pub counts: [u64; TIMES_US.len() + 1],
    /// In all, in microseconds.
    pub sum_us: u64,
}

impl Times {
    /// How often it was.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// Times, as they are counted.
#[derive(Debug, Default)]
pub(super) struct Histogram {
    counts: [AtomicU64; TIMES_US.len() + 1],
    sum_us: AtomicU64,
}

impl Histogram {
    pub(super) fn note(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        add(&self.counts[TIMES_US.partition_point(|end| *end < us)], 1);
        add(&self.sum_us, us);
    }

    pub(super) fn read(&self) -> Times {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Times { counts: self.counts.each_ref().map(get), sum_us: get(&self.sum_us) }
    }
}

/// Figures of one published port on this node, since it was published.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PortStats {
    /// The service's name.
    pub service: String,
    /// Protocol.
    pub protocol: Protocol,
    /// The port.
    pub published: u16,
    /// The port in its containers.
    pub target: u16,
    /// The ranges that the addresses of hosts lie in at which it shall be listened on; none for all.
    pub at: Vec<IpNet>,
    /// The addresses of this host at which it is; the unspecified one stands for all of a family.
    pub here: Vec<IpAddr>,
    /// Tasks that take its traffic.
    pub backends: usize,
    /// Why it cannot be listened on here; empty if it can.
    pub error: String,
    /// Connections that clients opened.
    pub accepted: u64,
    /// Of those, open now.
    pub open: u64,
    /// Of those, refused because no task could take them.
    pub refused: u64,
    /// Tries that failed before a task was found.
    pub retries: u64,
    /// Times that a connection went on with another task, between two exchanges.
    pub moved: u64,
    /// Datagrams of clients that were dropped because their task took them too slowly.
    pub dropped: u64,
    /// Time until a task was connected.
    pub connect: Times,
    /// Time from the first byte of a request to the first of its answer, where HTTP/1 is followed.
    pub first_byte: Times,
    /// Bytes from clients.
    pub bytes_in: u64,
    /// Bytes to clients.
    pub bytes_out: u64,
}

/// Figures of this node's part of the mesh.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MeshStats {
    /// By port.
    pub ports: Vec<PortStats>,
    /// Connections that other nodes made to tasks here.
    pub served: u64,
    /// Of those, asked for what is not here or takes nothing new.
    pub served_refused: u64,
    /// Connections broken off because their task had to stop.
    pub cut: u64,
    /// Connections and flows that were made to tasks here under their client's own address.
    pub kept: u64,
}

/// Figures of a port, as they are counted.
#[derive(Debug, Default)]
pub(super) struct PortCounters {
    pub(super) accepted: AtomicU64,
    pub(super) open: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) retries: AtomicU64,
    pub(super) moved: AtomicU64,
    pub(super) dropped: AtomicU64,
    pub(super) connect: Histogram,
    pub(super) first_byte: Histogram,
    pub(super) bytes_in: AtomicU64,
    pub(super) bytes_out: AtomicU64,
}

/// A published port as it is counted: whatever becomes of its addresses.
pub(super) type Port = (Protocol, u16, ServiceId);

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) served: AtomicU64,
    pub(super) served_refused: AtomicU64,
    pub(super) cut: AtomicU64,
    ports: Mutex<BTreeMap<Port, Arc<PortCounters>>>,
}

impl Counters {
    pub(super) fn port(&self, port: Port) -> Arc<PortCounters> {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner).entry(port).or_default().clone()
    }

    /// Only these ports are published still.
    pub(super) fn keep(&self, ports: &BTreeSet<Port>) {
        let mut all = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|port, _| ports.contains(port));
    }

    pub(super) fn read(&self, ports: Vec<(Port, PortStats)>) -> MeshStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let count = |(port, stats): (Port, PortStats)| {
            let counted = self.port(port);
            PortStats {
                accepted: get(&counted.accepted),
                open: get(&counted.open),
                refused: get(&counted.refused),
                retries: get(&counted.retries),
                moved: get(&counted.moved),
                dropped: get(&counted.dropped),
                connect: counted.connect.read(),
                first_byte: counted.first_byte.read(),
                bytes_in: get(&counted.bytes_in),
                bytes_out: get(&counted.bytes_out),
                ..stats
            }
        };
        MeshStats {
            kept: 0,
            ports: ports.into_iter().map(count).collect(),
            served: get(&self.served),
            served_refused: get(&self.served_refused),
            cut: get(&self.cut),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Each time is in the one bucket that it belongs to.
        #[test]
        fn times_are_counted_where_they_belong(all in prop::collection::vec(0u64..20_000_000, 0..50)) {
            let histogram = Histogram::default();
            all.iter().for_each(|us| histogram.note(Duration::from_micros(*us)));
            let times = histogram.read();
            prop_assert_eq!((times.count(), times.sum_us), (all.len() as u64, all.iter().sum()));
            for (at, end) in TIMES_US.iter().enumerate() {
                let within = times.counts[..=at].iter().sum::<u64>();
                prop_assert_eq!(within, all.iter().filter(|us| *us <= end).count() as u64);
            }
        }
    }
}
