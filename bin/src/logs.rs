//! Structured logs on stderr.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;

/// Begin logging. A second call changes nothing. `directives` were validated with the configuration.
pub fn init(format: LogFormat, directives: &str) {
    let filter = EnvFilter::builder().parse_lossy(directives);
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let done = match format {
        LogFormat::Json => builder.json().flatten_event(true).with_ansi(false).try_init(),
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
    };
    if done.is_err() {
        tracing::debug!("logging was set up already");
    }
}
