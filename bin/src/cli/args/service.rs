//! `shoal service …`.

use clap::{Args, Subcommand, ValueEnum};
use serde_json::Value;

use super::super::output::Format;
use super::super::spec::values;
use super::super::words;
use super::{ListArgs, PsArgs, SharedArgs};

/// What to do with services.
#[derive(Debug, Subcommand)]
pub enum ServiceVerb {
    /// Create a service.
    Create(Box<CreateArgs>),
    /// List services.
    #[command(visible_alias = "list")]
    Ls {
        /// How.
        #[command(flatten)]
        list: ListArgs,
    },
    /// List the tasks of services.
    Ps {
        /// Ids or names.
        #[arg(required = true)]
        services: Vec<String>,
        /// Which.
        #[command(flatten)]
        ps: PsArgs,
    },
    /// Show services in full.
    Inspect {
        /// Ids or names.
        #[arg(required = true)]
        services: Vec<String>,
        /// For people.
        #[arg(long)]
        pretty: bool,
        /// Always json; here for symmetry.
        #[arg(long, value_enum, default_value = "json", hide = true)]
        format: Format,
    },
    /// Change how many replicas services have.
    Scale {
        /// Which and how many.
        #[arg(required = true, value_name = "SERVICE=REPLICAS", value_parser = values::scale)]
        targets: Vec<(String, u64)>,
        /// How to wait.
        #[command(flatten)]
        converge: ConvergeArgs,
    },
    /// Change a service.
    Update(Box<UpdateArgs>),
    /// Take back the last change of a service.
    Rollback {
        /// Id or name.
        service: String,
        /// How to wait.
        #[command(flatten)]
        converge: ConvergeArgs,
    },
    /// Remove services.
    #[command(visible_alias = "remove")]
    Rm {
        /// Ids or names.
        #[arg(required = true)]
        services: Vec<String>,
        /// How to wait.
        #[command(flatten)]
        converge: ConvergeArgs,
    },
}

/// Whether and how long to wait until the cluster is as asked.
#[derive(Debug, Clone, Default, Args)]
pub struct ConvergeArgs {
    /// Do not wait.
    #[arg(long, short)]
    pub detach: bool,
    /// Show no progress.
    #[arg(long, short)]
    pub quiet: bool,
    /// Give up waiting after this time, with exit code 3 [default: wait for ever].
    #[arg(long, value_parser = words::duration, value_name = "DURATION")]
    pub timeout: Option<i64>,
}

/// How many tasks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// As many as asked.
    #[default]
    Replicated,
    /// One on every node.
    Global,
}

/// Flags of `create`.
#[derive(Debug, Clone, Default, Args)]
pub struct CreateArgs {
    /// Name of the service.
    #[arg(long)]
    pub name: Option<String>,
    /// replicated or global.
    #[arg(long, value_enum, default_value_t)]
    pub mode: Mode,
    /// Nodes it may run on, such as node.labels.zone==a; repeatable.
    #[arg(long, value_name = "EXPR")]
    pub constraint: Vec<String>,
    /// Spread over a label's values, spread=node.labels.zone; repeatable.
    #[arg(long, value_name = "spread=KEY", value_parser = values::preference)]
    pub placement_pref: Vec<Value>,
    /// Variable; without a value it is taken from here; repeatable.
    #[arg(long, short, value_name = "K[=V]")]
    pub env: Vec<String>,
    /// File of variables; repeatable.
    #[arg(long, value_name = "FILE")]
    pub env_file: Vec<String>,
    /// Label of the service; repeatable.
    #[arg(long, short, value_name = "K=V", value_parser = words::pair)]
    pub label: Vec<(String, String)>,
    /// Label of its containers; repeatable.
    #[arg(long, value_name = "K=V", value_parser = words::pair)]
    pub container_label: Vec<(String, String)>,
    /// Mount: type=bind|volume|tmpfs,source=…,target=…[,readonly]…; repeatable.
    #[arg(long, value_name = "MOUNT", value_parser = values::mount)]
    pub mount: Vec<Value>,
    /// Port: [ADDRESS:]8080:80[/udp], or target=80[,published=8080][,protocol=tcp][,mode=host][,host-ip=ADDRESS]…; repeatable.
    #[arg(long, short, value_name = "PORT", value_parser = values::port)]
    pub publish: Vec<Value>,
    /// Network: NAME, or name=NAME,alias=NAME…; repeatable.
    #[arg(long, value_name = "NETWORK", value_parser = values::network)]
    pub network: Vec<Value>,
    /// Further group of the user; repeatable.
    #[arg(long, value_name = "GROUP")]
    pub group: Vec<String>,
    /// Values.
    #[command(flatten)]
    pub shared: SharedArgs,
    /// Waiting.
    #[command(flatten)]
    pub converge: ConvergeArgs,
    /// Image and arguments: whatever follows the image belongs to the container.
    #[arg(required = true, num_args = 1.., trailing_var_arg = true, value_name = "IMAGE [ARG]...")]
    pub command: Vec<String>,
}

impl CreateArgs {
    /// The image.
    #[must_use]
    pub fn image(&self) -> &str {
        self.command.first().map_or("", String::as_str)
    }

    /// The arguments.
    #[must_use]
    pub fn args(&self) -> &[String] {
        self.command.get(1..).unwrap_or_default()
    }
}

/// Flags of `update`.
#[derive(Debug, Clone, Default, Args)]
pub struct UpdateArgs {
    /// Id or name.
    pub service: String,
    /// Another image.
    #[arg(long)]
    pub image: Option<String>,
    /// Other arguments, as a shell would split them.
    #[arg(long, value_name = "ARGS", allow_hyphen_values = true)]
    pub args: Option<String>,
    /// New tasks though nothing changed.
    #[arg(long)]
    pub force: bool,
    /// Go back to the specification before the last change.
    #[arg(long)]
    pub rollback: bool,
    /// Add a constraint; repeatable.
    #[arg(long, value_name = "EXPR")]
    pub constraint_add: Vec<String>,
    /// Remove a constraint; repeatable.
    #[arg(long, value_name = "EXPR")]
    pub constraint_rm: Vec<String>,
    /// Add a preference; repeatable.
    #[arg(long, value_name = "spread=KEY", value_parser = values::preference)]
    pub placement_pref_add: Vec<Value>,
    /// Remove a preference; repeatable.
    #[arg(long, value_name = "spread=KEY", value_parser = values::preference)]
    pub placement_pref_rm: Vec<Value>,
    /// Add or change a variable; repeatable.
    #[arg(long, value_name = "K[=V]")]
    pub env_add: Vec<String>,
    /// Remove a variable; repeatable.
    #[arg(long, value_name = "K")]
    pub env_rm: Vec<String>,
    /// Add or change a label; repeatable.
    #[arg(long, value_name = "K=V", value_parser = words::pair)]
    pub label_add: Vec<(String, String)>,
    /// Remove a label; repeatable.
    #[arg(long, value_name = "K")]
    pub label_rm: Vec<String>,
    /// Add or change a container's label; repeatable.
    #[arg(long, value_name = "K=V", value_parser = words::pair)]
    pub container_label_add: Vec<(String, String)>,
    /// Remove a container's label; repeatable.
    #[arg(long, value_name = "K")]
    pub container_label_rm: Vec<String>,
    /// Add or change a mount; repeatable.
    #[arg(long, value_name = "MOUNT", value_parser = values::mount)]
    pub mount_add: Vec<Value>,
    /// Remove the mount at a target; repeatable.
    #[arg(long, value_name = "TARGET")]
    pub mount_rm: Vec<String>,
    /// Add or change a port; repeatable.
    #[arg(long, value_name = "PORT", value_parser = values::port)]
    pub publish_add: Vec<Value>,
    /// Remove a port by its target, 80 or 80/udp; repeatable.
    #[arg(long, value_name = "TARGET", value_parser = values::target_port)]
    pub publish_rm: Vec<(u16, String)>,
    /// Enter a network, or change its aliases: NAME, or name=NAME,alias=NAME…; repeatable.
    #[arg(long, value_name = "NETWORK", value_parser = values::network)]
    pub network_add: Vec<Value>,
    /// Leave a network; repeatable.
    #[arg(long, value_name = "NAME")]
    pub network_rm: Vec<String>,
    /// Add a group; repeatable.
    #[arg(long, value_name = "GROUP")]
    pub group_add: Vec<String>,
    /// Remove a group; repeatable.
    #[arg(long, value_name = "GROUP")]
    pub group_rm: Vec<String>,
    /// Values.
    #[command(flatten)]
    pub shared: SharedArgs,
    /// Waiting.
    #[command(flatten)]
    pub converge: ConvergeArgs,
}
