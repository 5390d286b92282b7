//! Tests of consensus: the log against a model, whole clusters over a network in memory with real disks.

mod cluster;
mod disks;
mod failover;
mod faults;
mod log;
mod membership;
mod simulated;
mod snapshots;
mod suite;
