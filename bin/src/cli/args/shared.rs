//! What `service create` and `service update` share.

use clap::{Args, ValueEnum};

use super::super::words;

/// Restart conditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RestartCondition {
    /// Never.
    None,
    /// After failures.
    OnFailure,
    /// Always.
    Any,
}

/// Orders of an update.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum UpdateOrder {
    /// Old ends, then new starts.
    StopFirst,
    /// New runs, then old ends.
    StartFirst,
}

/// What a failed update does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FailureAction {
    /// Stops.
    Pause,
    /// Goes on.
    Continue,
    /// Goes back.
    Rollback,
}

/// How a service is found in its networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EndpointMode {
    /// By one virtual address.
    Vip,
    /// By the addresses of its tasks.
    Dnsrr,
}

/// Flags that `create` and `update` share; each sets one value.
#[derive(Debug, Clone, Default, Args)]
pub struct SharedArgs {
    /// Number of tasks.
    #[arg(long, value_name = "N")]
    pub replicas: Option<u64>,
    /// Processors at most.
    #[arg(long, value_parser = words::cpus, value_name = "CPUS")]
    pub limit_cpu: Option<i64>,
    /// Memory at most.
    #[arg(long, value_parser = words::bytes, value_name = "BYTES")]
    pub limit_memory: Option<i64>,
    /// Processes at most.
    #[arg(long, value_name = "N")]
    pub limit_pids: Option<i64>,
    /// Processors kept free.
    #[arg(long, value_parser = words::cpus, value_name = "CPUS")]
    pub reserve_cpu: Option<i64>,
    /// Memory kept free.
    #[arg(long, value_parser = words::bytes, value_name = "BYTES")]
    pub reserve_memory: Option<i64>,
    /// Tasks on one node at most.
    #[arg(long, value_name = "N")]
    pub replicas_max_per_node: Option<u64>,
    /// When an ended task is replaced.
    #[arg(long, value_name = "WORD")]
    pub restart_condition: Option<RestartCondition>,
    /// After how long.
    #[arg(long, value_parser = words::duration, value_name = "DURATION")]
    pub restart_delay: Option<i64>,
    /// How often at most.
    #[arg(long, value_name = "N")]
    pub restart_max_attempts: Option<u64>,
    /// Counted over how long.
    #[arg(long, value_parser = words::duration, value_name = "DURATION")]
    pub restart_window: Option<i64>,
    /// Signal that stops the container.
    #[arg(long, value_name = "SIGNAL")]
    pub stop_signal: Option<String>,
    /// Time until it is killed.
    #[arg(long, value_parser = words::duration, value_name = "DURATION")]
    pub stop_grace_period: Option<i64>,
    /// USER[:GROUP].
    #[arg(long, short)]
    pub user: Option<String>,
    /// Folder in the container.
    #[arg(long, short, value_name = "PATH")]
    pub workdir: Option<String>,
    /// The container's host name.
    #[arg(long)]
    pub hostname: Option<String>,
    /// Put an init process before the command.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub init: Option<bool>,
    /// Give it a terminal.
    #[arg(long, short, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub tty: Option<bool>,
    /// Make its root file system read-only.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub read_only: Option<bool>,
    /// Command that tells whether it is healthy.
    #[arg(long, value_name = "COMMAND", conflicts_with = "no_healthcheck")]
    pub health_cmd: Option<String>,
    /// Time between two checks.
    #[arg(long, value_parser = words::duration, value_name = "DURATION", conflicts_with = "no_healthcheck")]
    pub health_interval: Option<i64>,
    /// Time for one check.
    #[arg(long, value_parser = words::duration, value_name = "DURATION", conflicts_with = "no_healthcheck")]
    pub health_timeout: Option<i64>,
    /// Failures that mean unhealthy.
    #[arg(long, value_name = "N", conflicts_with = "no_healthcheck")]
    pub health_retries: Option<u64>,
    /// Time before failures count.
    #[arg(long, value_parser = words::duration, value_name = "DURATION", conflicts_with = "no_healthcheck")]
    pub health_start_period: Option<i64>,
    /// Without the image's health check.
    #[arg(long)]
    pub no_healthcheck: bool,
    /// Command in place of the image's, as a shell would split it.
    #[arg(long, value_name = "COMMAND")]
    pub entrypoint: Option<String>,
    /// How it is found in its networks: by one virtual address or by its tasks' addresses.
    #[arg(long, value_name = "WORD")]
    pub endpoint_mode: Option<EndpointMode>,
    /// Slots updated at once; 0 for all.
    #[arg(long, value_name = "N")]
    pub update_parallelism: Option<u64>,
    /// Time between two batches.
    #[arg(long, value_parser = words::duration, value_name = "DURATION")]
    pub update_delay: Option<i64>,
    /// How long a new task is watched for failure.
    #[arg(long, value_parser = words::duration, value_name = "DURATION")]
    pub update_monitor: Option<i64>,
    /// Share of tasks that may fail.
    #[arg(long, value_name = "RATIO")]
    pub update_max_failure_ratio: Option<f64>,
    /// Which comes first.
    #[arg(long, value_name = "WORD")]
    pub update_order: Option<UpdateOrder>,
    /// What a failure does.
    #[arg(long, value_name = "WORD")]
    pub update_failure_action: Option<FailureAction>,
    /// Send this user's registry credentials along.
    #[arg(long)]
    pub with_registry_auth: bool,
}
