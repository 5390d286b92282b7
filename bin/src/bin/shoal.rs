//! The binary `shoal`: the command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    shoal::cli::run(std::env::args_os().collect())
}
