//! Containers of Shoal on a Docker engine.
//!
//! Several nodes may share an engine: a node sees and touches only the containers that carry its id as a label. The other
//! labels are those of Docker's own swarm mode, so that tools which read them keep working.

mod call;
mod config;
mod controller;
mod describe;
mod labels;
mod networks;
mod plain;
mod pull;
mod state;

pub use controller::DockerController;
pub use plain::{BRIDGE_LABEL, aliases, enter, enter_new, hostname, is_named, is_task, wanted};
