//! Whole clusters of real processes on real hosts, through the front door only.
//!
//! A [`lab::Lab`] is a set of hosts on one Linux machine: each has its own network, hostname, mounts and processes, and its own
//! real Docker engine. A [`cluster::Cluster`] is a cluster on such a lab, of Shoal or of the peer that it is measured against
//! ([`cluster::Peer`]), and knows nothing of either but the commands and calls that everybody may use. An
//! [`observer::Observer`] watches all engines all the time and tells when a service ran more often than asked.

pub mod bench;
pub mod clients;
pub mod cluster;
pub mod engine;
pub mod http;
pub mod lab;
pub mod measure;
pub mod observer;
pub mod pattern;
pub mod prometheus;
pub mod requirements;
pub mod runner;
pub mod sh;
pub mod starts;
pub mod stats;
pub mod traffic;
pub mod wait;
