//! Figures of Shoal beside Docker Swarm's, from the same lab in the same run.
//!
//! `bench_cluster [--runs N] [--only FIGURE]… [--peer shoal|swarm]` as root. Both run with fsync on, on the same engines, asked
//! through the same calls. Build `node` as it is shipped: `cargo build --release -p shoal -p shoal-tests`.

use std::process::ExitCode;

use anyhow::{Result, bail, ensure};
use shoal_tests::bench::{FIGURES, Settings, Table};
use shoal_tests::lab::Lab;
use shoal_tests::requirements;

const HOSTS: usize = 5;
const USAGE: &str =
    "bench_cluster [--runs N] [--only create|worker-cut|leader-cut|join|memory]... [--peer shoal|swarm]";

fn main() -> ExitCode {
    match bench() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench_cluster: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn bench() -> Result<()> {
    let Some((settings, only)) = parse(std::env::args().skip(1))? else {
        println!("{USAGE}");
        return Ok(());
    };
    if let Some(missing) = requirements::missing() {
        bail!("this needs {missing}");
    }
    let settings = settings.validate()?;
    let mut lab = Lab::up(HOSTS)?;
    let mut table = Table::default();
    let mut failed = Vec::new();
    for figure in
        FIGURES.iter().filter(|figure| only.is_empty() || only.iter().any(|name| name == figure.name))
    {
        // One figure that cannot be taken shall not cost the others.
        match (figure.take)(&mut lab, settings) {
            Ok(rows) => table.rows.extend(rows),
            Err(error) => {
                eprintln!("{}: {error:#}", figure.name);
                failed.push(figure.name);
                lab.reset()?;
            }
        }
    }
    println!("{}", table.markdown());
    ensure!(failed.is_empty(), "could not be taken: {}", failed.join(", "));
    Ok(())
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Option<(Settings, Vec<String>)>> {
    let mut settings = Settings { runs: 5, shoal: true, swarm: true };
    let mut only = Vec::new();
    while let Some(arg) = args.next() {
        match (arg.as_str(), args.next()) {
            ("--help" | "-h", _) => return Ok(None),
            ("--runs", Some(runs)) => settings.runs = runs.parse()?,
            ("--only", Some(name)) => {
                ensure!(FIGURES.iter().any(|figure| figure.name == name), "no figure {name}: {USAGE}");
                only.push(name);
            }
            ("--peer", Some(peer)) => match peer.as_str() {
                "shoal" => settings.swarm = false,
                "swarm" => settings.shoal = false,
                other => bail!("no peer {other}: {USAGE}"),
            },
            _ => bail!("{arg} is not understood: {USAGE}"),
        }
    }
    Ok(Some((settings, only)))
}
