//! The one definition of the daemon's flags. Each is taken as text here and validated where all sources are.

use clap::{CommandFactory, Parser};

use super::keys::Key;

/// Shoal's daemon: runs containers of a cluster on this host, and takes part in managing it.
///
/// Starts without a cluster and waits for `init` or `join` through its API, unless --init or --join says otherwise.
#[derive(Debug, Parser)]
#[command(name = "node", version, max_term_width = 110)]
#[command(
    after_help = "Flags outweigh the environment, which outweighs the file. Lists replace, they are not joined."
)]
pub(super) struct Flags {
    /// TOML file with any of these settings under the flags' names.
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<String>,
    /// Folder for keys, log and state; private to the daemon [default: /var/lib/shoal].
    #[arg(long, value_name = "DIR")]
    pub(super) data_dir: Option<String>,
    /// UDP address for all traffic between nodes [default: 0.0.0.0:2377].
    #[arg(long, value_name = "ADDR:PORT")]
    pub(super) listen: Option<String>,
    /// Address at which the other nodes reach this one [default: the address of the way to them].
    #[arg(long, value_name = "ADDR[:PORT]")]
    pub(super) advertise: Option<String>,
    /// Where the HTTP API is served, unix://PATH or tcp://ADDR:PORT; repeatable [default: unix:///run/shoal/shoal.sock].
    #[arg(long, value_name = "URL")]
    pub(super) api: Vec<String>,
    /// PEM file of the authority whose client certificates a tcp:// API accepts.
    #[arg(long, value_name = "FILE")]
    pub(super) api_ca: Option<String>,
    /// PEM file of the certificate (chain) that a tcp:// API shows.
    #[arg(long, value_name = "FILE")]
    pub(super) api_cert: Option<String>,
    /// PEM file of that certificate's key.
    #[arg(long, value_name = "FILE")]
    pub(super) api_key: Option<String>,
    /// What runs the containers: a Docker engine's unix://PATH, or process for plain child processes [default: unix:///var/run/docker.sock].
    #[arg(long, value_name = "URL|process")]
    pub(super) engine: Option<String>,
    /// TCP address for /metrics [default: none, not served].
    #[arg(long, value_name = "ADDR:PORT")]
    pub(super) metrics: Option<String>,
    /// Address of this host at which the cluster's published ports answer; repeatable [default: all].
    #[arg(long, value_name = "ADDR")]
    pub(super) publish_address: Vec<String>,
    /// Address of this host at which programs outside the cluster's networks may ask for names, over UDP and TCP [default: none].
    #[arg(long, value_name = "ADDR")]
    pub(super) names_address: Option<String>,
    /// Begin a new cluster if this node is in none.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub(super) init: Option<String>,
    /// Join a cluster if this node is in none; the variable or the file keep the token out of the process list.
    #[arg(long, value_name = "TOKEN@ADDR:PORT[,ADDR:PORT...]")]
    pub(super) join: Option<String>,
    /// After the majority of managers is lost for good: go on alone from this node's own state.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub(super) force_new_cluster: Option<String>,
    /// Range that networks of the cluster that --init begins get theirs from; repeatable [default: 10.128.0.0/9].
    #[arg(long, value_name = "CIDR")]
    pub(super) default_addr_pool: Vec<String>,
    /// Length of those ranges' prefix [default: 24, or 20 where no pool is said].
    #[arg(long, value_name = "N")]
    pub(super) default_addr_pool_mask_length: Option<String>,
    /// Whether this node takes tasks when it inits or joins: active, pause or drain [default: active].
    #[arg(long, value_name = "WORD")]
    pub(super) availability: Option<String>,
    /// Name that this node reports [default: the host's name].
    #[arg(long, value_name = "NAME")]
    pub(super) name: Option<String>,
    /// Label of this node's engine, for constraints on engine.labels.K; repeatable.
    #[arg(long, value_name = "K=V")]
    pub(super) label: Vec<String>,
    /// Logs as text or json, on stderr [default: text].
    #[arg(long, value_name = "FORMAT")]
    pub(super) log_format: Option<String>,
    /// error, warn, info, debug, trace, or filters such as info,shoal_net=debug [default: info].
    #[arg(long, value_name = "LEVEL")]
    pub(super) log_level: Option<String>,
}

impl Flags {
    /// What was said for a key; empty if nothing.
    pub(super) fn values(&self, key: Key) -> Vec<String> {
        let one = |value: &Option<String>| value.iter().cloned().collect();
        match key.name {
            "data-dir" => one(&self.data_dir),
            "listen" => one(&self.listen),
            "advertise" => one(&self.advertise),
            "api" => self.api.clone(),
            "api-ca" => one(&self.api_ca),
            "api-cert" => one(&self.api_cert),
            "api-key" => one(&self.api_key),
            "engine" => one(&self.engine),
            "metrics" => one(&self.metrics),
            "publish-address" => self.publish_address.clone(),
            "names-address" => one(&self.names_address),
            "init" => one(&self.init),
            "join" => one(&self.join),
            "force-new-cluster" => one(&self.force_new_cluster),
            "default-addr-pool" => self.default_addr_pool.clone(),
            "default-addr-pool-mask-length" => one(&self.default_addr_pool_mask_length),
            "availability" => one(&self.availability),
            "name" => one(&self.name),
            "label" => self.label.clone(),
            "log-format" => one(&self.log_format),
            "log-level" => one(&self.log_level),
            _ => Vec::new(),
        }
    }
}

/// The daemon's command line, its help naming each flag's variable.
#[must_use]
pub fn command() -> clap::Command {
    Flags::command().mut_args(|arg| {
        let name = arg.get_long().unwrap_or_default();
        let variable = match Key::by_name(name) {
            Some(key) => key.variable(),
            None if name == "config" => super::keys::CONFIG_VARIABLE.to_owned(),
            None => return arg,
        };
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        arg.help(format!("{help} [env: {variable}]"))
    })
}
