//! `shoal network …`.

use std::net::IpAddr;

use clap::{Args, Subcommand};

use super::super::output::Format;
use super::super::words;
use super::ListArgs;

/// What to do with networks.
#[derive(Debug, Subcommand)]
pub enum NetworkVerb {
    /// Create a network that spans nodes.
    Create(Box<NetworkCreate>),
    /// List networks: those that span nodes, and those of this node's engine.
    #[command(visible_alias = "list")]
    Ls {
        /// How.
        #[command(flatten)]
        list: ListArgs,
    },
    /// Show networks in full.
    Inspect {
        /// Ids or names.
        #[arg(required = true)]
        networks: Vec<String>,
        /// With the services in them and their tasks.
        #[arg(long, short)]
        verbose: bool,
        /// For people.
        #[arg(long)]
        pretty: bool,
        /// Always json; here for symmetry.
        #[arg(long, value_enum, default_value = "json", hide = true)]
        format: Format,
    },
    /// Show what the names of services lead to: their addresses, and which tasks take traffic.
    Names {
        /// Only those of this service.
        service: Option<String>,
        /// How.
        #[command(flatten)]
        list: ListArgs,
    },
    /// Remove the networks that nothing is in: those that span nodes, and those of this node's engine.
    Prune {
        /// Which: until=24h, label=K[=V], label!=K[=V]; repeatable.
        #[arg(long, value_name = "KEY=VALUE", value_parser = words::pair)]
        filter: Vec<(String, String)>,
    },
    /// Remove networks.
    #[command(visible_alias = "remove")]
    Rm {
        /// Ids or names.
        #[arg(required = true)]
        networks: Vec<String>,
    },
}

/// Flags of `network create`.
#[derive(Debug, Clone, Args)]
pub struct NetworkCreate {
    /// Name.
    pub name: String,
    /// overlay: the one that spans nodes.
    #[arg(long, short, default_value = "overlay", value_parser = ["overlay"])]
    pub driver: String,
    /// Let containers in that are no tasks.
    #[arg(long)]
    pub attachable: bool,
    /// Let its tasks reach nothing outside of it.
    #[arg(long)]
    pub internal: bool,
    /// Give it IPv6 addresses, too.
    #[arg(long)]
    pub ipv6: bool,
    /// Range of its addresses, such as 10.20.0.0/16; chosen if none is said; one of IPv4 and one of IPv6 at most.
    #[arg(long, value_name = "CIDR")]
    pub subnet: Vec<String>,
    /// Address of the nodes in the range at the same place; its first if none is said.
    #[arg(long, value_name = "ADDRESS")]
    pub gateway: Vec<IpAddr>,
    /// Part of the range at the same place that addresses are handed out from; all of it if none is said.
    #[arg(long, value_name = "CIDR")]
    pub ip_range: Vec<String>,
    /// Label; repeatable.
    #[arg(long, short, value_name = "K=V", value_parser = words::pair)]
    pub label: Vec<(String, String)>,
    /// Option of the driver; repeatable.
    #[arg(long, short, value_name = "K=V", value_parser = words::pair)]
    pub opt: Vec<(String, String)>,
}
