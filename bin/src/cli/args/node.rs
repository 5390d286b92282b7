//! `shoal node …`.

use std::fmt;

use clap::{Args, Subcommand, ValueEnum};

use super::super::output::Format;
use super::super::words;
use super::{ListArgs, PsArgs};

/// What to do with nodes.
#[derive(Debug, Subcommand)]
pub enum NodeVerb {
    /// List nodes.
    #[command(visible_alias = "list")]
    Ls {
        /// How.
        #[command(flatten)]
        list: ListArgs,
    },
    /// List the tasks of nodes; of this one if none is named.
    Ps {
        /// Ids or names.
        nodes: Vec<String>,
        /// Which.
        #[command(flatten)]
        ps: PsArgs,
    },
    /// Show nodes in full.
    Inspect {
        /// Ids, names or self.
        #[arg(required = true)]
        nodes: Vec<String>,
        /// For people.
        #[arg(long)]
        pretty: bool,
        /// Always json; here for symmetry.
        #[arg(long, value_enum, default_value = "json", hide = true)]
        format: Format,
    },
    /// Change a node.
    Update(NodeUpdate),
    /// Make nodes managers.
    Promote {
        /// Ids or names.
        #[arg(required = true)]
        nodes: Vec<String>,
    },
    /// Make managers workers.
    Demote {
        /// Ids or names.
        #[arg(required = true)]
        nodes: Vec<String>,
    },
    /// Remove nodes from the cluster for good.
    #[command(visible_alias = "remove")]
    Rm {
        /// Ids or names.
        #[arg(required = true)]
        nodes: Vec<String>,
        /// Also if a node is not down.
        #[arg(long, short)]
        force: bool,
    },
}

/// What a node takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Availability {
    /// New tasks.
    Active,
    /// No new tasks.
    Pause,
    /// None; gives its tasks away.
    Drain,
}

impl fmt::Display for Availability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Active => "active",
            Self::Pause => "pause",
            Self::Drain => "drain",
        })
    }
}

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Runs tasks.
    Worker,
    /// Takes part in managing.
    Manager,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Worker => "worker",
            Self::Manager => "manager",
        })
    }
}

/// Flags of `node update`.
#[derive(Debug, Args)]
pub struct NodeUpdate {
    /// Id or name.
    pub node: String,
    /// active, pause or drain.
    #[arg(long, value_name = "WORD")]
    pub availability: Option<Availability>,
    /// worker or manager.
    #[arg(long, value_name = "WORD")]
    pub role: Option<Role>,
    /// Add or change a label; repeatable.
    #[arg(long, value_name = "K=V", value_parser = words::pair)]
    pub label_add: Vec<(String, String)>,
    /// Remove a label; repeatable.
    #[arg(long, value_name = "K")]
    pub label_rm: Vec<String>,
}
