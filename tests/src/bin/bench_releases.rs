//! What clients lose in a rolling update of a slow server, beside what a tutorial of Docker's lost.
//!
//! `bench_releases [--runs N]` as root, with ab (Debian's apache2-utils) installed. Build what is shipped:
//! `cargo build --release -p shoal -p shoal-tests`.
//!
//! The tutorial has a server that takes a second for each answer, three replicas of it, and `ab -r -c 10 -n 500` through a published port while
//! the service is updated, one task after the other. Swarm's own mesh needs IPVS, which hosts of the lab need not have: so its published
//! figure stands beside ours. The server breaks off what it does when it is asked to stop. Four such services are updated at once, each asked by
//! an ab of its own.

use std::process::{Child, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use shoal_tests::cluster::{Cluster, Peer};
use shoal_tests::lab::{Lab, address, docker};
use shoal_tests::{requirements, sh, traffic};

const USAGE: &str = "bench_releases [--runs N]";
/// Services that are updated at once.
const SERVICES: u16 = 4;
const FIRST_PORT: u16 = 8080;
const REPLICAS: usize = 3;
const REQUESTS: u64 = 500;
/// What the tutorial lost with Swarm.
const PUBLISHED: u64 = 8;
/// The update begins when ab has been asking for so long.
const HEAD_START: Duration = Duration::from_secs(3);
const START_MAX: Duration = Duration::from_secs(60);
const UPDATE_MAX: Duration = Duration::from_secs(300);

fn main() -> ExitCode {
    match bench() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench_releases: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn bench() -> Result<()> {
    let mut runs = 20;
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match (arg.as_str(), args.next().as_deref()) {
            ("--runs", Some(count)) => runs = count.parse::<usize>()?.clamp(1, 1000),
            _ => bail!(USAGE),
        }
    }
    if let Some(missing) = requirements::missing() {
        bail!("this needs {missing}");
    }
    ensure!(requirements::find("ab").is_some(), "this needs ab (Debian's apache2-utils)");
    let mut lab = Lab::up(3)?;
    let lost = measure(&Cluster::form(&mut lab, Peer::Shoal, 1, 2)?, runs)?;
    let whole = lost.iter().filter(|lost| **lost == 0).count();
    let (all, most) = (lost.iter().sum::<u64>(), lost.iter().max().copied().unwrap_or_default());
    println!(
        "| Cluster | Runs without a loss | Requests lost in all | Most of {REQUESTS} in a run |\n|---|---|---|---|"
    );
    println!("| Shoal | {whole} of {} | {all} | {most} |", lost.len());
    println!("| Swarm, as published | 0 of 1 | {PUBLISHED} | {PUBLISHED} |");
    Ok(())
}

/// What each run lost, of 500 requests.
fn measure(cluster: &Cluster<'_>, runs: usize) -> Result<Vec<u64>> {
    let program = traffic::program()?;
    for port in ports() {
        let publish = format!("{port}:80");
        // Whoever is process 1 hears no signal that it does not ask for, but this one.
        let flags = ["--publish", &publish, "--stop-signal", "SIGKILL", "--update-monitor", "1s"];
        // A task on ab's own host sees another address than the others, and ab takes answers of another length for broken ones.
        let flags = [&flags[..], &["--constraint", "node.hostname!=h3"]].concat();
        traffic::create(cluster, &program, "serve", (&name(port), REPLICAS), &flags)?;
    }
    for port in ports() {
        cluster.await_running(&name(port), REPLICAS, &[], START_MAX)?;
        traffic::await_answer(cluster, &program, 3, &format!("{}:{port}", address(1)), START_MAX)?;
    }
    let mut lost = Vec::new();
    while lost.len() < runs {
        let asking = ports().map(|port| ask(cluster, port)).collect::<Result<Vec<_>>>()?;
        std::thread::sleep(HEAD_START);
        let number = format!("RUN={}", lost.len());
        let updates = ports().map(|port| {
            let mut update = docker(&cluster.socket(1));
            update.args([
                "service",
                "update",
                "--no-resolve-image",
                "--quiet",
                "--env-add",
                &number,
                &name(port),
            ]);
            Ok(update.stdout(Stdio::null()).spawn()?)
        });
        for mut update in updates.collect::<Result<Vec<Child>>>()? {
            let ended = sh::wait(&mut update, UPDATE_MAX).context("an update did not end in time")?;
            ensure!(ended.success(), "an update ended with {ended}");
        }
        for child in asking {
            let said = String::from_utf8(child.wait_with_output()?.stdout)?;
            let missed = missed(&said).with_context(|| said.clone())?;
            if missed > 0 {
                eprintln!("{said}");
            }
            lost.push(missed);
        }
        eprintln!("{} runs are done, lost: {lost:?}", lost.len());
    }
    Ok(lost)
}

fn ports() -> impl Iterator<Item = u16> {
    FIRST_PORT..FIRST_PORT + SERVICES
}

fn name(port: u16) -> String {
    format!("web{port}")
}

/// From the third host, through the first one's port.
fn ask(cluster: &Cluster<'_>, port: u16) -> Result<Child> {
    let (count, url) = (REQUESTS.to_string(), format!("http://{}:{port}/slow/1000", address(1)));
    let mut ab = cluster.lab.host(3).inside().command(["ab", "-q", "-r", "-c", "10", "-n", &count, &url]);
    Ok(ab.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?)
}

/// What ab says that it did not get whole, or got with another code than 2xx; none if it says nothing of it.
fn missed(said: &str) -> Option<u64> {
    let figure = |name: &str| {
        let line = said.lines().find_map(|line| line.trim().strip_prefix(name))?;
        line.trim().parse::<u64>().ok()
    };
    let (complete, failed) = (figure("Complete requests:")?, figure("Failed requests:")?);
    Some(REQUESTS.saturating_sub(complete) + failed + figure("Non-2xx responses:").unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_ab_did_not_get_whole_is_missed() {
        let said = "Complete requests:      500\nFailed requests:        11\n   (Connect: 0, Receive: 2, Length: 8, Exceptions: 1)\n";
        assert_eq!(missed(said), Some(11));
        assert_eq!(missed("Complete requests:      497\nFailed requests:        0\n"), Some(3));
        let said = "Complete requests:      500\nFailed requests:        0\nNon-2xx responses:      4\n";
        assert_eq!(missed(said), Some(4));
        assert_eq!(missed("apr_socket_recv: Connection refused"), None);
    }
}
