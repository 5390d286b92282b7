//! A service: what shall run, how often, where and how.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::constraint::Constraint;
use super::{
    Meta, NetworkAttachment, Platform, ResourceRequirements, Secret, ServiceId, ServiceNetwork, Timestamp,
};

/// How many tasks a service has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServiceMode {
    /// So many, anywhere.
    Replicated {
        /// How many.
        replicas: u64,
    },
    /// One on every node that fits.
    Global,
}

/// What kind of thing is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountKind {
    /// A path of the host.
    Bind,
    /// A volume of the engine.
    Volume,
    /// Memory.
    Tmpfs,
}

/// A mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// What kind.
    pub kind: MountKind,
    /// Path or volume name; empty for an anonymous volume or tmpfs.
    pub source: String,
    /// Path in the container.
    pub target: String,
    /// Whether writing is refused.
    pub read_only: bool,
    /// Bind propagation (`rprivate` …), if any.
    pub propagation: Option<String>,
    /// Whether a volume starts without the image's content.
    pub no_copy: bool,
    /// Labels of the volume.
    pub volume_labels: BTreeMap<String, String>,
    /// Volume driver and its options.
    pub volume_driver: Option<(String, BTreeMap<String, String>)>,
    /// Bytes of a tmpfs; 0 for no limit.
    pub tmpfs_size_bytes: u64,
    /// File mode of a tmpfs; 0 for the engine's default.
    pub tmpfs_mode: u32,
}

/// A health check, as Docker runs it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthConfig {
    /// `["CMD", …]`, `["CMD-SHELL", …]` or `["NONE"]`; empty inherits the image's.
    pub test: Vec<String>,
    /// Between two checks; zero inherits.
    pub interval: Duration,
    /// For one check; zero inherits.
    pub timeout: Duration,
    /// Before failures count; zero inherits.
    pub start_period: Duration,
    /// Failures in a row that mean unhealthy; zero inherits.
    pub retries: u64,
}

/// A limit of the kernel on a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// `nofile` …
    pub name: String,
    /// Soft limit.
    pub soft: i64,
    /// Hard limit.
    pub hard: i64,
}

/// Credentials for a registry, as the client encoded them (`X-Registry-Auth`).
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistryAuth(pub Secret);

impl fmt::Debug for RegistryAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RegistryAuth(…)")
    }
}

/// What runs in a task's container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// Image reference.
    pub image: String,
    /// Labels of the container.
    pub labels: BTreeMap<String, String>,
    /// Entry point in place of the image's (Docker's service API says `Command`).
    pub command: Vec<String>,
    /// Arguments (Docker's service API says `Args`).
    pub args: Vec<String>,
    /// Host name inside.
    pub hostname: String,
    /// `K=V` each.
    pub env: Vec<String>,
    /// Working folder.
    pub dir: String,
    /// `user[:group]`.
    pub user: String,
    /// Further groups.
    pub groups: Vec<String>,
    /// Whether an init process is put before the command; the engine's default if unsaid.
    pub init: Option<bool>,
    /// Whether it has a terminal.
    pub tty: bool,
    /// Whether its standard input stays open.
    pub open_stdin: bool,
    /// Whether its root file system is read-only.
    pub read_only: bool,
    /// Signal that asks it to stop; the image's if empty.
    pub stop_signal: String,
    /// Time between that signal and the kill; 10 s if unsaid.
    pub stop_grace_period: Option<Duration>,
    /// What is mounted.
    pub mounts: Vec<Mount>,
    /// Extra lines of `/etc/hosts` as `IP name…` (Docker's service format).
    pub hosts: Vec<String>,
    /// DNS servers.
    pub dns_nameservers: Vec<String>,
    /// DNS search domains.
    pub dns_search: Vec<String>,
    /// DNS options.
    pub dns_options: Vec<String>,
    /// Health check.
    pub healthcheck: Option<HealthConfig>,
    /// Kernel settings.
    pub sysctls: BTreeMap<String, String>,
    /// Capabilities added.
    pub cap_add: Vec<String>,
    /// Capabilities dropped.
    pub cap_drop: Vec<String>,
    /// Limits.
    pub ulimits: Vec<Ulimit>,
    /// Credentials for the pull.
    pub registry_auth: Option<RegistryAuth>,
}

/// Default of [`ContainerSpec::stop_grace_period`].
pub(crate) const STOP_GRACE_PERIOD_DEFAULT: Duration = Duration::from_secs(10);

impl ContainerSpec {
    /// Whether containers of both are alike. Credentials only matter while an image is pulled.
    #[must_use]
    pub fn runs_as(&self, other: &Self) -> bool {
        if self.registry_auth == other.registry_auth {
            return self == other;
        }
        let mut other = other.clone();
        other.registry_auth.clone_from(&self.registry_auth);
        *self == other
    }

    /// The grace that applies.
    #[must_use]
    pub fn stop_grace(&self) -> Duration {
        self.stop_grace_period.unwrap_or(STOP_GRACE_PERIOD_DEFAULT)
    }
}

/// When a task is started anew.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum RestartCondition {
    /// Never.
    None,
    /// After a failure.
    OnFailure,
    /// After any end.
    #[default]
    Any,
}

/// How a task that ended is replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartPolicy {
    /// When.
    pub condition: RestartCondition,
    /// After how long.
    pub delay: Duration,
    /// How often at most; 0 for no bound.
    pub max_attempts: u64,
    /// Counted over how long; zero for ever.
    pub window: Duration,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self {
            condition: RestartCondition::Any,
            delay: Duration::from_secs(5),
            max_attempts: 0,
            window: Duration::ZERO,
        }
    }
}

/// A wish for spread over the values of a label.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preference {
    /// `node.labels.zone`, `engine.labels.rack`, or a node attribute such as `node.hostname`.
    pub spread: String,
}

/// Where a task may and would rather run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// All must hold.
    pub constraints: Vec<Constraint>,
    /// In order of weight.
    pub preferences: Vec<Preference>,
    /// Tasks of the service on one node at most; 0 for no bound.
    pub max_replicas: u64,
    /// Systems that the image runs on; any if empty. Empty fields match all.
    pub platforms: Vec<Platform>,
}

/// Where a container's output goes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogDriver {
    /// `json-file` …
    pub name: String,
    /// Its options.
    pub options: BTreeMap<String, String>,
}

/// What each task of a service runs and needs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskSpec {
    /// Its container.
    pub container: ContainerSpec,
    /// Its limits and reservations.
    pub resources: ResourceRequirements,
    /// When it is started anew.
    pub restart: RestartPolicy,
    /// Where it runs.
    pub placement: Placement,
    /// Where its output goes.
    pub log_driver: Option<LogDriver>,
    /// The networks that it is in.
    pub networks: Vec<NetworkAttachment>,
    /// A counter that forces new tasks though nothing else changed.
    pub force_update: u64,
}

/// Transport protocol of a port.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// How a port is published.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PortMode {
    /// On every node, through the mesh.
    #[default]
    Ingress,
    /// On the node of the task alone.
    Host,
}

/// A published port.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortConfig {
    /// A name for it.
    pub name: String,
    /// Protocol.
    pub protocol: Protocol,
    /// Port in the container.
    pub target_port: u16,
    /// Port outside. 0 leaves it open: the engine chooses (mode host), or the cluster does, once and for all (mode ingress).
    pub published_port: u16,
    /// How.
    pub mode: PortMode,
    /// Where on a host: at its addresses that lie in one of these ranges. None means everywhere.
    pub at: Vec<IpNet>,
}

/// How a service is found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum EndpointMode {
    /// By one virtual address.
    #[default]
    Vip,
    /// By the addresses of its tasks.
    Dnsrr,
}

/// How a service is reached.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointSpec {
    /// How its name resolves.
    pub mode: EndpointMode,
    /// Its ports.
    pub ports: Vec<PortConfig>,
}

impl EndpointSpec {
    /// Its ports that are published in this way.
    pub fn ports_in(&self, mode: PortMode) -> impl Iterator<Item = &PortConfig> {
        self.ports.iter().filter(move |port| port.mode == mode)
    }
}

/// What happens when an update fails.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureAction {
    /// Stop it and wait for the user.
    #[default]
    Pause,
    /// Go on.
    Continue,
    /// Go back to the previous specification.
    Rollback,
}

/// Which comes first, the new task or the old one's end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum UpdateOrder {
    /// Old ends, then new starts.
    #[default]
    StopFirst,
    /// New runs, then old ends.
    StartFirst,
}

/// How changed tasks are rolled out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateConfig {
    /// Slots at once; 0 for all.
    pub parallelism: u64,
    /// Between two batches.
    pub delay: Duration,
    /// What a failure does.
    pub failure_action: FailureAction,
    /// How long a new task is watched.
    pub monitor: Duration,
    /// Millionths of the tasks that may fail (so that equality is exact).
    pub max_failure_millionths: u32,
    /// Which comes first.
    pub order: UpdateOrder,
}

impl Default for UpdateConfig {
    fn default() -> Self {
        Self {
            parallelism: 1,
            delay: Duration::ZERO,
            failure_action: FailureAction::Pause,
            monitor: Duration::from_secs(5),
            max_failure_millionths: 0,
            order: UpdateOrder::StopFirst,
        }
    }
}

/// Where an update stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum UpdateState {
    /// Under way.
    Updating,
    /// Stopped by a failure.
    Paused,
    /// Done.
    Completed,
}

/// How far an update is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateStatus {
    /// Where it stands.
    pub state: UpdateState,
    /// Since when.
    pub started_at: Timestamp,
    /// When it ended.
    pub completed_at: Option<Timestamp>,
    /// In words.
    pub message: String,
}

impl UpdateStatus {
    /// A rollback begins, because a user wants it.
    #[must_use]
    pub fn rollback(at: Timestamp) -> Self {
        let message = format!("{ROLLBACK_STARTED} by a user");
        Self { state: UpdateState::Updating, started_at: at, completed_at: None, message }
    }
}

/// How the words of a rollback's beginning begin.
pub(crate) const ROLLBACK_STARTED: &str = "rollback started";

/// What the user asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSpec {
    /// Name, unique among services.
    pub name: String,
    /// Labels of the service.
    pub labels: BTreeMap<String, String>,
    /// How many.
    pub mode: ServiceMode,
    /// What.
    pub task: Arc<TaskSpec>,
    /// How changes roll out.
    pub update: Option<UpdateConfig>,
    /// How a rollback rolls out.
    pub rollback: Option<UpdateConfig>,
    /// How it is reached.
    pub endpoint: EndpointSpec,
}

/// A service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Versions and times.
    pub meta: Meta,
    /// Its id.
    pub id: ServiceId,
    /// What is asked for now.
    pub spec: ServiceSpec,
    /// What was asked for before.
    pub previous_spec: Option<ServiceSpec>,
    /// Spec version at which the task specification last changed: older tasks are outdated.
    pub task_spec_version: u64,
    /// How far the last update is.
    pub update: Option<UpdateStatus>,
    /// Its places in its networks. Set by `apply` alone.
    pub networks: Vec<ServiceNetwork>,
}

impl Service {
    /// One that is not in the state yet: the rest is set as it is applied.
    #[must_use]
    pub fn new(id: ServiceId, spec: ServiceSpec) -> Self {
        Self {
            meta: Meta::default(),
            id,
            spec,
            previous_spec: None,
            task_spec_version: 0,
            update: None,
            networks: Vec::new(),
        }
    }
}
