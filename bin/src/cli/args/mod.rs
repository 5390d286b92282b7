//! The command line's definition. Verbs and flags carry Docker's names, so that hands need not learn anew.

mod local;
mod network;
mod node;
mod service;
mod shared;
mod swarm;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

pub use local::{DemoServerArgs, DownArgs, UpArgs};
pub use network::{NetworkCreate, NetworkVerb};
pub use node::{Availability, NodeUpdate, NodeVerb, Role};
pub use service::{ConvergeArgs, CreateArgs, Mode, ServiceVerb, UpdateArgs};
pub use shared::{EndpointMode, FailureAction, RestartCondition, SharedArgs, UpdateOrder};
pub use swarm::{InitArgs, JoinArgs, SwarmUpdate, SwarmVerb, TokenRole};

use super::host::{HOST_DEFAULT, Host};
use super::output::Format;

/// Shoal: keeps services running on a cluster of hosts.
#[derive(Debug, Parser)]
#[command(name = "shoal", version, max_term_width = 110, disable_help_subcommand = true)]
#[command(
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 begun but not converged when the command ended."
)]
pub struct Cli {
    /// To whom and how to speak.
    #[command(flatten)]
    pub connection: Connection,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// The API that is spoken to.
#[derive(Debug, Args)]
pub struct Connection {
    /// API of a node: unix:///PATH, tcp://HOST:PORT (TLS), http://HOST:PORT (tunnel).
    #[arg(long, short = 'H', global = true, env = "SHOAL_HOST", default_value = HOST_DEFAULT, value_name = "URL")]
    pub host: Host,
    /// Authority of the node's certificate, for tcp://.
    #[arg(long, global = true, env = "SHOAL_TLS_CA", value_name = "FILE", hide_short_help = true)]
    pub tls_ca: Option<PathBuf>,
    /// Our certificate, for tcp://.
    #[arg(long, global = true, env = "SHOAL_TLS_CERT", value_name = "FILE", hide_short_help = true)]
    pub tls_cert: Option<PathBuf>,
    /// Its key, for tcp://.
    #[arg(long, global = true, env = "SHOAL_TLS_KEY", value_name = "FILE", hide_short_help = true)]
    pub tls_key: Option<PathBuf>,
}

/// What there is to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Start a cluster of three nodes with a demo service on this machine.
    Up(UpArgs),
    /// Stop what `shoal up` started and remove all of it.
    Down(DownArgs),
    /// Begin, join, leave and set up a cluster.
    #[command(subcommand)]
    Swarm(SwarmVerb),
    /// The cluster's nodes.
    #[command(subcommand)]
    Node(NodeVerb),
    /// Services: what the cluster keeps running.
    #[command(subcommand)]
    Service(ServiceVerb),
    /// Networks that span nodes: services in one find each other by name.
    #[command(subcommand)]
    Network(NetworkVerb),
    /// Published ports, as one node carries them.
    #[command(subcommand)]
    Port(PortVerb),
    /// What a node knows of itself and its cluster.
    Info {
        /// table or json.
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Versions of this program and of the node.
    Version {
        /// table or json.
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Print a shell's completions.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// The demo service's program.
    #[command(hide = true)]
    DemoServer(DemoServerArgs),
}

/// What there is to do with published ports.
#[derive(Debug, Subcommand)]
pub enum PortVerb {
    /// List the ports that this node listens on for the cluster, and their traffic.
    Ls {
        /// Only those of this service.
        service: Option<String>,
        /// How.
        #[command(flatten)]
        list: ListArgs,
    },
}

/// How a list is printed.
#[derive(Debug, Clone, Copy, Args)]
pub struct ListArgs {
    /// Print ids alone.
    #[arg(long, short)]
    pub quiet: bool,
    /// table or json.
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// Which tasks are listed, and how.
#[derive(Debug, Clone, Args)]
pub struct PsArgs {
    /// Only tasks that match, such as desired-state=running or node=NAME; repeatable.
    #[arg(long, short, value_name = "KEY=VALUE", value_parser = super::words::pair)]
    pub filter: Vec<(String, String)>,
    /// Show ids and messages whole.
    #[arg(long)]
    pub no_trunc: bool,
    /// How.
    #[command(flatten)]
    pub list: ListArgs,
}
