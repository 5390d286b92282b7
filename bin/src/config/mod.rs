//! The daemon's configuration: flags, environment (`SHOAL_*`) and a TOML file, laid over the defaults in that
//! order of weight and validated once. Nothing after this module asks where a setting came from.

mod data_dir;
mod env;
mod error;
mod file;
mod flags;
mod keys;
mod layers;
mod node_config;
mod redact;
mod values;

pub use data_dir::{DataDir, DataDirError};
pub use error::ConfigError;
pub use flags::command;
pub use node_config::{ApiTls, LogFormat, NodeConfig, Start};
pub use redact::redact;
pub use values::{ApiListen, Engine, JoinTarget};

/// Read the text of a file; for the fuzz target.
#[cfg(fuzzing)]
pub fn fuzz_file(text: &str) {
    let _ = file::parse(std::path::Path::new("shoal.toml"), text);
}

#[cfg(test)]
mod tests;
