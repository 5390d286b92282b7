//! `shoal swarm …`.

use clap::{Args, Subcommand, ValueEnum};

use super::super::output::Format;
use super::super::words;

/// What to do with the cluster.
#[derive(Debug, Subcommand)]
pub enum SwarmVerb {
    /// Begin a cluster with this node.
    Init(InitArgs),
    /// Join a cluster as what the token allows.
    Join(JoinArgs),
    /// Show, or change, the token that lets nodes in.
    JoinToken {
        /// For workers or managers.
        role: TokenRole,
        /// Make a new token; the old one is refused from then on.
        #[arg(long)]
        rotate: bool,
        /// Print the token alone.
        #[arg(long, short)]
        quiet: bool,
        /// table or json.
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Leave the cluster.
    Leave {
        /// Leave though the cluster may lose its quorum or its last manager by it.
        #[arg(long, short)]
        force: bool,
    },
    /// Change the cluster's settings.
    Update(SwarmUpdate),
    /// Print the cluster's root certificate.
    Ca {
        /// table (PEM) or json.
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
}

/// Whom a token lets in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TokenRole {
    /// Workers.
    Worker,
    /// Managers.
    Manager,
}

/// Settings of a cluster.
#[derive(Debug, Clone, Default, Args)]
pub struct SwarmUpdate {
    /// Life of node certificates.
    #[arg(long, value_parser = words::duration, value_name = "DURATION")]
    pub cert_expiry: Option<i64>,
    /// Time between two heartbeats of a node.
    #[arg(long, value_parser = words::duration, value_name = "DURATION")]
    pub dispatcher_heartbeat: Option<i64>,
    /// Ended tasks kept for each slot.
    #[arg(long, value_name = "N")]
    pub task_history_limit: Option<i64>,
    /// Raft entries between two snapshots.
    #[arg(long, value_name = "N")]
    pub snapshot_interval: Option<u64>,
    /// Old raft snapshots kept.
    #[arg(long, value_name = "N")]
    pub max_snapshots: Option<u64>,
}

/// Flags of `init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// Address for the other nodes: ADDR[:PORT].
    #[arg(long, value_name = "ADDR[:PORT]", default_value = "")]
    pub advertise_addr: String,
    /// Address that Docker's command line would listen on; Shoal's is set when `node` starts.
    #[arg(long, value_name = "ADDR:PORT", default_value = "0.0.0.0:2377", hide_short_help = true)]
    pub listen_addr: String,
    /// active, pause or drain.
    #[arg(long, default_value = "active", value_name = "WORD")]
    pub availability: super::node::Availability,
    /// Go on alone from this node's state after the majority is lost for good.
    #[arg(long)]
    pub force_new_cluster: bool,
    /// Range that networks get theirs from; repeatable [default: 10.128.0.0/9].
    #[arg(long, value_name = "CIDR")]
    pub default_addr_pool: Vec<String>,
    /// Length of their prefix [default: 24, or 20 where no --default-addr-pool is said].
    #[arg(long, value_name = "N")]
    pub default_addr_pool_mask_length: Option<u8>,
    /// Settings.
    #[command(flatten)]
    pub settings: SwarmUpdate,
}

/// Flags of `join`.
#[derive(Debug, Args)]
pub struct JoinArgs {
    /// The join token.
    #[arg(long, env = "SHOAL_JOIN_TOKEN", hide_env_values = true)]
    pub token: String,
    /// Address for the other nodes: ADDR[:PORT].
    #[arg(long, value_name = "ADDR[:PORT]", default_value = "")]
    pub advertise_addr: String,
    /// Address that Docker's command line would listen on; Shoal's is set when `node` starts.
    #[arg(long, value_name = "ADDR:PORT", default_value = "0.0.0.0:2377", hide_short_help = true)]
    pub listen_addr: String,
    /// active, pause or drain.
    #[arg(long, default_value = "active", value_name = "WORD")]
    pub availability: super::node::Availability,
    /// Managers: HOST:PORT.
    #[arg(required = true, value_name = "HOST:PORT")]
    pub remotes: Vec<String>,
}
