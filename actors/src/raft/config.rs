//! What consensus is started with.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use openraft::{Config, SnapshotPolicy};
use shoal_core::model::NodeId;
use shoal_core::pace::Pace;
use shoal_net::task::Scope;

use super::error::StartError;
use super::key::KeySource;
use super::transport::RaftTransport;
use crate::disk::Disk;

/// When silence means what.
///
/// A leader that is gone is replaced after `patience` and two round trips with a durable write each, so
/// with the defaults within about 0.6 s.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timing {
    /// How much slower than usual these are, and how much slower all else is looked at.
    pub pace: Pace,
    /// Time between two heartbeats of a leader. (openraft looks at it every one and a half times as long.)
    pub heartbeat: Duration,
    /// For so long after a leader's last sign of life nobody votes for another.
    pub lease: Duration,
    /// After a silence between these two, drawn anew each time, a manager wants to lead.
    pub patience: (Duration, Duration),
    /// After so long without word from a majority a leader no longer calls itself one.
    pub quorum_lost: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self::at(Pace::USUAL)
    }
}

impl Timing {
    /// The usual one, at this pace.
    #[must_use]
    pub fn at(pace: Pace) -> Self {
        Self {
            pace,
            heartbeat: pace.of(Duration::from_millis(50)),
            lease: pace.of(Duration::from_millis(350)),
            patience: pace.both((Duration::from_millis(400), Duration::from_millis(550))),
            quorum_lost: pace.of(Duration::from_secs(1)),
        }
    }
}

/// Settings of one manager's consensus.
#[derive(Clone)]
pub struct RaftConfig {
    /// This node.
    pub node_id: NodeId,
    /// Its endpoint's address, for the others.
    pub addr: String,
    /// Folder for log, snapshot and key.
    pub dir: PathBuf,
    /// Entries between two snapshots, until the cluster's own settings are known.
    pub snapshot_interval: u64,
    /// Entries kept behind a snapshot for slow followers, until the cluster's own settings are known.
    pub log_keep: u64,
    /// Calls other managers.
    pub transport: Arc<dyn RaftTransport>,
    /// When silence means what.
    pub timing: Timing,
    /// Seed of the elections' randomness; the system's randomness if not said. Keys, salts and the names of
    /// proposals always come from the system's.
    pub seed: Option<u64>,
    /// All of its tasks run in this group: ending it is like killing the process.
    pub tasks: Scope,
    /// Another disk than the folder's.
    pub disk: Option<Arc<dyn Disk>>,
    /// Another source for the key than the file in the folder.
    pub keys: Option<Arc<dyn KeySource>>,
    /// Make this node the only manager, with the state that it has: for when the majority is lost for good.
    pub force_new_cluster: bool,
}

impl RaftConfig {
    /// The usual settings.
    #[must_use]
    pub fn new(node_id: NodeId, addr: String, dir: PathBuf, transport: Arc<dyn RaftTransport>) -> Self {
        Self {
            node_id,
            addr,
            dir,
            snapshot_interval: 10_000,
            log_keep: 500,
            transport,
            timing: Timing::default(),
            seed: None,
            tasks: Scope::new(),
            disk: None,
            keys: None,
            force_new_cluster: false,
        }
    }

    /// The settings as openraft's. Its own elections, snapshots and purges are off: they are ours.
    pub(super) fn for_openraft(&self) -> Result<Config, StartError> {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let (low, high) = self.timing.patience;
        if low >= high || self.timing.lease > low || self.timing.heartbeat * 3 > self.timing.lease {
            return Err(StartError::Settings(format!("{:?} do not fit together", self.timing)));
        }
        let config = Config {
            cluster_name: "shoal".into(),
            heartbeat_interval: millis(self.timing.heartbeat),
            // Only the lease and the time limit of a vote come from these.
            election_timeout_min: millis(self.timing.lease).saturating_sub(1),
            election_timeout_max: millis(self.timing.lease),
            install_snapshot_timeout: 30_000,
            max_payload_entries: 256,
            snapshot_policy: SnapshotPolicy::Never,
            snapshot_max_chunk_size: 1 << 20,
            max_in_snapshot_log_to_keep: u64::MAX / 2,
            enable_elect: false,
            ..Config::default()
        };
        config.validate().map_err(|error| StartError::Settings(error.to_string()))
    }
}
