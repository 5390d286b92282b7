//! The cluster.

use std::fmt;

use serde_json::Value;

use super::{Driver, Map, TlsInfo, Version, object};

object! {
    /// The cluster's settings.
    SwarmSpec {
        name: String,
        labels: Map,
        orchestration: Orchestration,
        raft: RaftConfig,
        dispatcher: DispatcherConfig,
        #[serde(rename = "CAConfig")]
        ca_config: CaConfig,
        task_defaults: TaskDefaults,
        encryption_config: EncryptionConfig,
    }
}

object! {
    /// The orchestrator's settings.
    Orchestration {
        task_history_retention_limit: i64,
    }
}

object! {
    /// Raft's settings.
    RaftConfig {
        snapshot_interval: i64,
        keep_old_snapshots: i64,
        log_entries_for_slow_followers: i64,
        election_tick: i64,
        heartbeat_tick: i64,
    }
}

object! {
    /// The dispatcher's settings.
    DispatcherConfig {
        heartbeat_period: i64,
    }
}

object! {
    /// The certificate authority's settings.
    CaConfig {
        node_cert_expiry: i64,
        #[serde(rename = "ExternalCAs")]
        external_cas: Value,
        #[serde(rename = "SigningCACert")]
        signing_ca_cert: Value,
        #[serde(rename = "SigningCAKey")]
        signing_ca_key: Value,
        force_rotate: Value,
    }
}

object! {
    /// Defaults of tasks.
    TaskDefaults {
        log_driver: Driver,
    }
}

object! {
    /// Encryption at rest.
    EncryptionConfig {
        auto_lock_managers: bool,
    }
}

object! {
    /// `POST /swarm/init`
    InitRequest {
        listen_addr: String,
        advertise_addr: String,
        data_path_addr: String,
        data_path_port: i64,
        force_new_cluster: bool,
        spec: SwarmSpec,
        auto_lock_managers: bool,
        availability: String,
        default_addr_pool: Vec<String>,
        subnet_size: i64,
    }
}

/// `POST /swarm/join`. Its `Debug` hides the token.
#[derive(Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct JoinRequest {
    pub listen_addr: Option<String>,
    pub advertise_addr: Option<String>,
    pub data_path_addr: Option<String>,
    pub remote_addrs: Option<Vec<String>>,
    pub join_token: Option<String>,
    pub availability: Option<String>,
}

impl fmt::Debug for JoinRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinRequest({:?})", self.remote_addrs)
    }
}

object! {
    /// `POST /swarm/unlock`
    UnlockRequest {
        unlock_key: Value,
    }
}

object! {
    /// `GET /swarm/unlockkey`
    UnlockKey {
        unlock_key: String,
    }
}

/// `GET /swarm`
#[derive(Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Swarm {
    #[serde(rename = "ID")]
    pub id: String,
    pub version: Version,
    pub created_at: String,
    pub updated_at: String,
    pub spec: SwarmSpec,
    #[serde(rename = "TLSInfo")]
    pub tls_info: TlsInfo,
    pub root_rotation_in_progress: bool,
    pub default_addr_pool: Vec<String>,
    pub subnet_size: u32,
    pub data_path_port: u32,
    pub join_tokens: JoinTokens,
}

impl fmt::Debug for Swarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Swarm({})", self.id)
    }
}

/// The tokens that let a node join. Its `Debug` hides them.
#[derive(Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct JoinTokens {
    pub worker: String,
    pub manager: String,
}

impl fmt::Debug for JoinTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinTokens(…)")
    }
}

object! {
    /// The cluster without its tokens, as in `GET /info`.
    ClusterInfo {
        #[serde(rename = "ID")]
        id: String,
        version: Version,
        created_at: String,
        updated_at: String,
        spec: SwarmSpec,
        #[serde(rename = "TLSInfo")]
        tls_info: TlsInfo,
        root_rotation_in_progress: bool,
        default_addr_pool: Vec<String>,
        subnet_size: u32,
        data_path_port: u32,
    }
}

object! {
    /// `.Swarm` of `GET /info`.
    SwarmInfo {
        #[serde(rename = "NodeID")]
        node_id: String,
        node_addr: String,
        local_node_state: String,
        control_available: bool,
        error: String,
        remote_managers: Vec<Peer>,
        nodes: u64,
        managers: u64,
        cluster: ClusterInfo,
    }
}

object! {
    /// A manager and where it is.
    Peer {
        #[serde(rename = "NodeID")]
        node_id: String,
        addr: String,
    }
}
