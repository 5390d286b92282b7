//! `sim`: simulated clusters, from seeds and from files.

mod bench;
#[cfg(feature = "put-back")]
mod bugs;
mod cli;
mod differ;
mod jobs;
mod many;
mod one;
mod outcome;
mod shrink;

use std::process::ExitCode;

use clap::Parser as _;

use cli::{Cli, Verb};

/// One thread that makes and drops millions of small things: a tenth faster than the system's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<ExitCode> {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(said) => {
            said.print()?;
            return Ok(if said.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS });
        }
    };
    match cli.verb {
        Verb::Run(words) => many::run(&words),
        Verb::Check(words) => many::check(&words),
        Verb::Replay(words) => one::replay(&words),
        Verb::Plan(words) => one::plan(&words),
        Verb::Shrink(words) => shrink::run(&words),
        Verb::Show(words) => one::show(&words),
        Verb::Differ(words) => differ::run(&words),
        Verb::Bench(words) => bench::run(&words),
        #[cfg(feature = "put-back")]
        Verb::Bugs(words) => bugs::run(&words),
    }
}
