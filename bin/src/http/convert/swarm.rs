//! The cluster.

use std::time::Duration;

use shoal_core::model::{AddressPools, Cluster, ClusterSpec, PoolsError, RootCa};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::super::clock;
use super::super::decode::refuse;
use super::super::error::HttpError;
use super::super::types::{
    CaConfig, ClusterInfo, DispatcherConfig, EncryptionConfig, JoinTokens, Orchestration, RaftConfig, Swarm,
    SwarmSpec, TaskDefaults, TlsInfo, Version, version,
};
use super::{count, duration, nanos, signed};

/// Ticks of raft as Docker shows them; ours is not tuned through them.
const ELECTION_TICK: i64 = 10;
const HEARTBEAT_TICK: i64 = 1;
/// The shortest life of a certificate.
const CERT_EXPIRY_MIN: Duration = Duration::from_secs(3600);
/// The shortest time between two heartbeats of a node.
const HEARTBEAT_MIN: Duration = Duration::from_millis(50);
/// The overlay's port as Docker shows it; ours takes the one that nodes use anyway.
const DATA_PATH_PORT: u32 = 4789;
/// What clients send as the length of ranges where their user said nothing.
const SUBNET_SIZE_UNSAID: i64 = 24;

/// The cluster as `/info` and `/swarm` show it.
#[derive(Debug, Clone, Default)]
pub(in crate::http) struct SwarmView {
    /// The authority that all nodes trust.
    pub(in crate::http) tls: TlsInfo,
}

impl SwarmView {
    /// Read the authority's certificate.
    pub(in crate::http) fn of(root: &RootCa) -> Self {
        let mut tls = TlsInfo { trust_root: Some(pem(&root.cert_der)), ..TlsInfo::default() };
        if let Ok((_, certificate)) = X509Certificate::from_der(&root.cert_der) {
            tls.cert_issuer_subject = Some(base64(certificate.tbs_certificate.subject.as_raw()));
            tls.cert_issuer_public_key = Some(base64(certificate.tbs_certificate.subject_pki.raw));
        }
        Self { tls }
    }
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = (0..3).fold(0u32, |word, at| word << 8 | u32::from(chunk.get(at).copied().unwrap_or(0)));
        for place in 0..4 {
            let digit = (word >> (18 - 6 * place)) as usize & 63;
            text.push(if place <= chunk.len() { char::from(DIGITS[digit]) } else { '=' });
        }
    }
    text
}

fn pem(der: &[u8]) -> String {
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in base64(der).as_bytes().chunks(64) {
        text.push_str(&String::from_utf8_lossy(line));
        text.push('\n');
    }
    text + "-----END CERTIFICATE-----\n"
}

/// Read the cluster's settings over `base`, checked: zero and absent leave the base's value.
///
/// # Errors
/// 400 that names the field and the remedy.
pub(in crate::http) fn swarm_spec(json: SwarmSpec, base: &ClusterSpec) -> Result<ClusterSpec, HttpError> {
    let mut spec = base.clone();
    if json.name.as_deref().is_some_and(|name| !matches!(name, "" | "default")) {
        return Err(HttpError::field("Spec.Name", "a swarm is always named default: leave it out"));
    }
    spec.labels = json.labels.unwrap_or_default();
    if let Some(limit) = json.orchestration.and_then(|o| o.task_history_retention_limit) {
        spec.task_history_limit = count("Spec.Orchestration.TaskHistoryRetentionLimit", Some(limit))?;
    }
    raft(json.raft.unwrap_or_default(), &mut spec)?;
    let path = "Spec.Dispatcher.HeartbeatPeriod";
    let period = duration(path, json.dispatcher.and_then(|d| d.heartbeat_period))?.unwrap_or_default();
    if period > Duration::ZERO {
        if period < HEARTBEAT_MIN {
            return Err(HttpError::field(path, "less than 50 ms: it is in nanoseconds"));
        }
        spec.dispatcher.heartbeat_period = period;
    }
    ca(json.ca_config.unwrap_or_default(), &mut spec)?;
    let driver = json.task_defaults.and_then(|t| t.log_driver).unwrap_or_default();
    if super::service::log_driver("Spec.TaskDefaults.LogDriver", driver)?.is_some() {
        return Err(HttpError::field(
            "Spec.TaskDefaults.LogDriver",
            "a log driver for all services is not supported yet: set it per service",
        ));
    }
    if json.encryption_config.and_then(|e| e.auto_lock_managers).unwrap_or_default() {
        return Err(autolock("Spec.EncryptionConfig.AutoLockManagers"));
    }
    Ok(spec)
}

/// Read from where networks get their ranges.
///
/// # Errors
/// 400 that names the field.
pub(in crate::http) fn address_pools(
    pools: Option<Vec<String>>,
    size: Option<i64>,
) -> Result<AddressPools, HttpError> {
    let pools = pools.unwrap_or_default();
    let unsaid = |size: &i64| *size == 0 || pools.is_empty() && *size == SUBNET_SIZE_UNSAID;
    AddressPools::new(&pools, size.filter(|size| !unsaid(size))).map_err(|error| match error {
        PoolsError::Pool(problem) => HttpError::field("DefaultAddrPool", problem),
        PoolsError::Size(problem) => HttpError::field("SubnetSize", problem),
    })
}

fn pools_json(pools: &AddressPools) -> Vec<String> {
    pools.pools.iter().map(ToString::to_string).collect()
}

/// The error for a wish to lock managers.
pub(in crate::http) fn autolock(path: &str) -> HttpError {
    HttpError::field(path, "locking managers with a key is not supported yet: leave autolock off")
}

fn raft(json: RaftConfig, spec: &mut ClusterSpec) -> Result<(), HttpError> {
    let interval = count("Spec.Raft.SnapshotInterval", json.snapshot_interval)?;
    if interval > 0 {
        spec.raft.snapshot_interval = interval;
    }
    let entries = count("Spec.Raft.LogEntriesForSlowFollowers", json.log_entries_for_slow_followers)?;
    if entries > 0 {
        spec.raft.log_entries_for_slow_followers = entries;
    }
    if let Some(kept) = json.keep_old_snapshots {
        spec.raft.keep_old_snapshots = count("Spec.Raft.KeepOldSnapshots", Some(kept))?;
    }
    for (path, given, fixed) in [
        ("Spec.Raft.ElectionTick", json.election_tick, ELECTION_TICK),
        ("Spec.Raft.HeartbeatTick", json.heartbeat_tick, HEARTBEAT_TICK),
    ] {
        if given.is_some_and(|given| given != 0 && given != fixed) {
            return Err(HttpError::field(path, format!("raft's times are fixed: leave it at {fixed}")));
        }
    }
    Ok(())
}

fn ca(json: CaConfig, spec: &mut ClusterSpec) -> Result<(), HttpError> {
    const LATER: &str = "is not supported yet: the swarm keeps the authority that it made";
    for (field, value) in [
        ("ExternalCAs", &json.external_cas),
        ("SigningCACert", &json.signing_ca_cert),
        ("SigningCAKey", &json.signing_ca_key),
        ("ForceRotate", &json.force_rotate),
    ] {
        refuse(&format!("Spec.CAConfig.{field}"), value.as_ref(), LATER)?;
    }
    let path = "Spec.CAConfig.NodeCertExpiry";
    let expiry = duration(path, json.node_cert_expiry)?.unwrap_or_default();
    if expiry > Duration::ZERO {
        if expiry < CERT_EXPIRY_MIN {
            return Err(HttpError::field(path, "less than an hour: 1h0m0s or more is wanted"));
        }
        spec.ca.node_cert_expiry = expiry;
    }
    Ok(())
}

/// Write the cluster's settings.
fn spec_json(spec: &ClusterSpec) -> SwarmSpec {
    SwarmSpec {
        name: Some(spec.name.clone()),
        labels: Some(spec.labels.clone()),
        orchestration: Some(Orchestration {
            task_history_retention_limit: Some(signed(spec.task_history_limit)),
        }),
        raft: Some(RaftConfig {
            snapshot_interval: Some(signed(spec.raft.snapshot_interval)),
            keep_old_snapshots: Some(signed(spec.raft.keep_old_snapshots)),
            log_entries_for_slow_followers: Some(signed(spec.raft.log_entries_for_slow_followers)),
            election_tick: Some(ELECTION_TICK),
            heartbeat_tick: Some(HEARTBEAT_TICK),
        }),
        dispatcher: Some(DispatcherConfig {
            heartbeat_period: Some(nanos(spec.dispatcher.heartbeat_period)),
        }),
        ca_config: Some(CaConfig {
            node_cert_expiry: Some(nanos(spec.ca.node_cert_expiry)),
            ..CaConfig::default()
        }),
        task_defaults: Some(TaskDefaults::default()),
        encryption_config: Some(EncryptionConfig { auto_lock_managers: Some(false) }),
    }
}

/// Write the cluster without its tokens.
pub(in crate::http) fn cluster_info(cluster: &Cluster) -> ClusterInfo {
    ClusterInfo {
        id: Some(cluster.id.to_string()),
        version: version(cluster.meta.spec_version),
        created_at: Some(clock::text(cluster.meta.created_at)),
        updated_at: Some(clock::text(cluster.meta.updated_at)),
        spec: Some(spec_json(&cluster.spec)),
        tls_info: Some(SwarmView::of(&cluster.root_ca).tls),
        root_rotation_in_progress: Some(false),
        default_addr_pool: Some(pools_json(&cluster.spec.address_pools)),
        subnet_size: Some(cluster.spec.address_pools.size.into()),
        data_path_port: Some(DATA_PATH_PORT),
    }
}

/// Write the cluster with its tokens.
pub(in crate::http) fn swarm_json(cluster: &Cluster) -> Swarm {
    Swarm {
        id: cluster.id.to_string(),
        version: Version { index: Some(cluster.meta.spec_version) },
        created_at: clock::text(cluster.meta.created_at),
        updated_at: clock::text(cluster.meta.updated_at),
        spec: spec_json(&cluster.spec),
        tls_info: SwarmView::of(&cluster.root_ca).tls,
        root_rotation_in_progress: false,
        default_addr_pool: pools_json(&cluster.spec.address_pools),
        subnet_size: cluster.spec.address_pools.size.into(),
        data_path_port: DATA_PATH_PORT,
        join_tokens: JoinTokens {
            worker: cluster.tokens.worker.clone(),
            manager: cluster.tokens.manager.clone(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_the_usual_one() {
        for (plain, coded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }

    #[test]
    fn settings_read_back_as_written() {
        let mut spec = ClusterSpec { task_history_limit: 9, ..ClusterSpec::default() };
        spec.labels.insert("a".into(), "b".into());
        spec.raft.keep_old_snapshots = 3;
        assert_eq!(swarm_spec(spec_json(&spec), &ClusterSpec::default()), Ok(spec));
    }

    #[test]
    fn settings_that_are_not_there_are_refused_by_name() {
        for (json, field) in [
            (r#"{"EncryptionConfig":{"AutoLockManagers":true}}"#, "Spec.EncryptionConfig.AutoLockManagers"),
            (r#"{"Raft":{"ElectionTick":3}}"#, "Spec.Raft.ElectionTick"),
            (r#"{"CAConfig":{"NodeCertExpiry":60000000000}}"#, "Spec.CAConfig.NodeCertExpiry"),
            (r#"{"CAConfig":{"ForceRotate":1}}"#, "Spec.CAConfig.ForceRotate"),
            (r#"{"Dispatcher":{"HeartbeatPeriod":-1}}"#, "Spec.Dispatcher.HeartbeatPeriod"),
            (r#"{"TaskDefaults":{"LogDriver":{"Name":"x"}}}"#, "Spec.TaskDefaults.LogDriver"),
            (r#"{"Name":"other"}"#, "Spec.Name"),
        ] {
            let error = swarm_spec(serde_json::from_str(json).unwrap(), &ClusterSpec::default()).unwrap_err();
            assert!(error.message.starts_with(field), "{}", error.message);
        }
    }
}
