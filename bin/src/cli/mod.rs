//! The command line `shoal`: a client of a node's HTTP API, and nothing more.

pub mod args;
pub mod client;
mod clock;
mod error;
mod host;
mod network;
mod node;
mod output;
mod port;
mod progress;
mod registry;
mod service;
mod spec;
mod swarm;
mod system;
mod tasks;
mod tls;
mod up;
mod words;

#[cfg(test)]
mod client_tests;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use args::{Cli, Connection, Verb};
pub use client::{Client, ClientError};
pub use error::{CliError, Outcome};
pub use host::Host;

/// Run a command line; `args[0]` is the program.
pub fn run(args: Vec<OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => {
            eprint!("{}", crate::config::redact(&error.to_string()));
            return ExitCode::from(2);
        }
        Err(help) => {
            output::print(&help.to_string());
            return ExitCode::SUCCESS;
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("shoal: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(Box::pin(perform(cli))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("shoal: {}", crate::config::redact(&error.to_string()));
            ExitCode::from(error.code())
        }
    }
}

async fn perform(cli: Cli) -> Outcome {
    let connection = cli.connection;
    match cli.verb {
        Verb::Up(flags) => up::up(&flags).await,
        Verb::Down(flags) => up::down(&flags).await,
        Verb::Swarm(verb) => swarm::run(&connect(&connection)?, verb).await,
        Verb::Node(verb) => node::run(&connect(&connection)?, verb).await,
        Verb::Network(verb) => network::run(&connect(&connection)?, verb).await,
        Verb::Service(verb) => service::run(&connect(&connection)?, verb).await,
        Verb::Port(verb) => port::run(&connect(&connection)?, verb).await,
        Verb::Info { format } => system::info(&connect(&connection)?, format).await,
        Verb::Version { format } => system::version(&connect(&connection)?, format).await,
        Verb::DemoServer(flags) => crate::demo::serve(flags.listen).await.map_err(CliError::failed),
        Verb::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "shoal", &mut script);
            output::print(&String::from_utf8_lossy(&script));
            Ok(())
        }
    }
}

fn connect(connection: &Connection) -> Outcome<Client> {
    let files = tls::TlsFiles {
        ca: connection.tls_ca.clone(),
        cert: connection.tls_cert.clone(),
        key: connection.tls_key.clone(),
    };
    let tls = match connection.host {
        Host::Tls(_) => Some(files.load()?),
        Host::Unix(_) | Host::Plain(_) => None,
    };
    Ok(Client::new(connection.host.clone(), tls))
}
