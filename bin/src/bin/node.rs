//! The binary `node`: reads its configuration, sets up logs, and hands over to the daemon.

use std::process::ExitCode;

use shoal::config::{ConfigError, NodeConfig};

/// Exit code for a configuration that is refused.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().collect();
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    match NodeConfig::load(&args, &environment) {
        Ok(config) => run(config),
        Err(error) => refuse(&error),
    }
}

fn run(config: NodeConfig) -> ExitCode {
    shoal::logs::init(config.log_format, &config.log_level);
    shoal::priority::raise();
    match actix_rt::System::new().block_on(shoal::daemon::run(config)) {
        Ok(code) => code,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "the daemon ends");
            ExitCode::FAILURE
        }
    }
}

fn refuse(error: &ConfigError) -> ExitCode {
    if error.is_help() {
        print!("{error}");
        return ExitCode::SUCCESS;
    }
    eprintln!("node: {}", error.to_string().trim_start_matches("error: ").trim_end());
    ExitCode::from(USAGE)
}
