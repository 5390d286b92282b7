//! The cluster itself: its settings, its certificate authority and its join tokens.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{AddressPools, ClusterId, Meta};

/// Bytes that must not be shown: `Debug` hides them.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret(pub Vec<u8>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// How raft keeps its log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RaftSpec {
    /// Entries between two snapshots.
    pub snapshot_interval: u64,
    /// Entries kept behind a snapshot for slow followers.
    pub log_entries_for_slow_followers: u64,
    /// Old snapshots kept.
    pub keep_old_snapshots: u64,
}

/// How nodes report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DispatcherSpec {
    /// Time between two heartbeats of a session.
    pub heartbeat_period: Duration,
}

/// How certificates are issued.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaSpec {
    /// Life of a node's certificate.
    pub node_cert_expiry: Duration,
}

/// Settings of the cluster that its users may change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterSpec {
    /// Always `default`, as with Docker.
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Ended tasks kept for each slot.
    pub task_history_limit: u64,
    /// Raft's settings.
    pub raft: RaftSpec,
    /// The dispatcher's settings.
    pub dispatcher: DispatcherSpec,
    /// The certificate authority's settings.
    pub ca: CaSpec,
    /// From where networks get the ranges that nobody named.
    pub address_pools: AddressPools,
}

impl Default for ClusterSpec {
    fn default() -> Self {
        Self {
            name: "default".into(),
            labels: BTreeMap::new(),
            task_history_limit: 5,
            raft: RaftSpec {
                snapshot_interval: 10_000,
                log_entries_for_slow_followers: 500,
                keep_old_snapshots: 0,
            },
            dispatcher: DispatcherSpec { heartbeat_period: Duration::from_millis(150) },
            ca: CaSpec { node_cert_expiry: Duration::from_secs(90 * 24 * 3600) },
            address_pools: AddressPools::default(),
        }
    }
}

/// The root certificate and its key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootCa {
    /// DER of the self-signed root certificate.
    pub cert_der: Vec<u8>,
    /// PKCS#8 DER of its key.
    pub key_der: Secret,
}

/// The secrets that let a node join, by role.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinTokens {
    /// Lets in a worker.
    pub worker: String,
    /// Lets in a manager.
    pub manager: String,
}

impl fmt::Debug for JoinTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinTokens(…)")
    }
}

/// The cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// Versions and times.
    pub meta: Meta,
    /// Its name.
    pub id: ClusterId,
    /// Its settings.
    pub spec: ClusterSpec,
    /// Its certificate authority.
    pub root_ca: RootCa,
    /// Its join tokens.
    pub tokens: JoinTokens,
}
