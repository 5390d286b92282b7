//! `shoal up`, `shoal down` and the demo's program.

use std::path::PathBuf;

use clap::Args;

/// Where the local cluster lives.
#[derive(Debug, Clone, Args)]
pub struct DirArgs {
    /// Folder of the local cluster [default: $XDG_STATE_HOME/shoal or ~/.local/state/shoal].
    #[arg(long, env = "SHOAL_DIR", value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// Flags of `up`.
#[derive(Debug, Clone, Args)]
pub struct UpArgs {
    /// Where.
    #[command(flatten)]
    pub dir: DirArgs,
    /// UDP port of the nodes, on 127.0.0.1, 127.0.0.2 and 127.0.0.3.
    #[arg(long, default_value_t = 2377, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: u16,
    /// TCP port of the first node's metrics on 127.0.0.1; the others take the next two.
    #[arg(long, default_value_t = 9421, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..65533))]
    pub metrics_port: u16,
    /// What runs the containers: unix://PATH of a Docker engine, or process; by default the local engine if it answers.
    #[arg(long, value_name = "URL|process")]
    pub engine: Option<String>,
    /// Copies of the demo service.
    #[arg(long, default_value_t = 6, value_name = "N")]
    pub replicas: u64,
    /// Only the cluster, without the demo service.
    #[arg(long)]
    pub no_demo: bool,
}

/// Flags of `down`.
#[derive(Debug, Clone, Args)]
pub struct DownArgs {
    /// Where.
    #[command(flatten)]
    pub dir: DirArgs,
}

/// Flags of the demo's program.
#[derive(Debug, Clone, Args)]
pub struct DemoServerArgs {
    /// Address to answer HTTP on; port 0 takes any free one.
    #[arg(long, default_value = "0.0.0.0:8080")]
    pub listen: std::net::SocketAddr,
}
