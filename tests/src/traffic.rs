//! Services of the program `traffic` (`src/bin/traffic.rs`), which serves and asks.

use std::path::Path;

use anyhow::Result;

use crate::cluster::Cluster;

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
