//! Services of the program `traffic` (`src/bin/traffic.rs`), which serves and asks.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::cluster::Cluster;
use crate::wait;

/// The program of a benchmark, which is beside the benchmark itself.
///
/// # Errors
/// It is not there.
pub fn program() -> Result<String> {
    let program = std::env::current_exe()?.with_file_name("traffic");
    ensure!(program.exists(), "{} is missing: build shoal-tests", program.display());
    Ok(program.display().to_string())
}

/// Wait until `program`, run on a host, is answered at `HOST:PORT`.
///
/// # Errors
/// It is not in time.
pub fn await_answer(
    cluster: &Cluster<'_>,
    program: &str,
    from: usize,
    at: &str,
    limit: Duration,
) -> Result<()> {
    let url = format!("http://{at}/");
    wait::until(&format!("an answer of {at}"), limit, Duration::from_millis(100), || {
        let said = cluster.lab.host(from).inside().run(&[program, "load", &url, "requests=1"])?;
        wait::seen(said.contains("\"lost\":0"), || said)
    })
    .map(drop)
}

/// Create a service on h1 whose tasks run `program` with this verb, on port 80. It is linked with the machine's own libraries,
/// so each task gets those, too.
///
/// # Errors
/// It is refused.
pub fn create(
    cluster: &Cluster<'_>,
    program: &str,
    verb: &str,
    (name, replicas): (&str, usize),
    flags: &[&str],
) -> Result<()> {
    let replicas = replicas.to_string();
    let mounts = mounts(program);
    let mut args = vec!["service", "create", "--detach", "--no-resolve-image", "--name", name];
    args.extend(["--replicas", &replicas]);
    mounts.iter().for_each(|mount| args.extend(["--mount", mount]));
    args.extend(flags);
    args.extend(["busybox:latest", "/traffic", verb, "80"]);
    cluster.docker(1, &args).map(drop)
}

/// Run a container that is no task, with the same program in it.
///
/// # Errors
/// It is refused.
pub fn run(
    cluster: &Cluster<'_>,
    program: &str,
    (host, name): (usize, &str),
    flags: &[&str],
) -> Result<String> {
    let mounts = mounts(program);
    let mut args = vec!["run", "--detach", "--name", name];
    mounts.iter().for_each(|mount| args.extend(["--mount", mount]));
    args.extend(flags);
    args.extend(["busybox:latest", "/traffic", "serve", "80"]);
    cluster.docker(host, &args)
}

/// What a container needs to run the program.
fn mounts(program: &str) -> Vec<String> {
    let bind = |source: &str, destination: &str| {
        format!("type=bind,source={source},destination={destination},readonly")
    };
    let folders = ["/lib", "/lib64", "/usr/lib"].into_iter().filter(|folder| Path::new(folder).exists());
    let mut mounts = vec![bind(program, "/traffic")];
    mounts.extend(folders.map(|folder| bind(folder, folder)));
    mounts
}
