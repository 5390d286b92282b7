//! Without a majority of managers, and after it.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use shoal_tests::clients::{empty_service, services};
use shoal_tests::cluster::{Cluster, Peer, Role};
use shoal_tests::lab::{Lab, address};
use shoal_tests::measure;
use shoal_tests::prometheus::Page;
use shoal_tests::runner::Scenario;
use shoal_tests::wait;

use super::faults::containers;
use super::{START_MAX, ours, says};

pub(crate) const SCENARIOS: &[Scenario] = &[
    ours("without_quorum_reads_are_stale_and_writes_fail_soon", lost_and_found),
    ours("lost_majority_is_overcome_by_force", forced),
    ours("full_disk_of_a_follower_loses_nothing", follower_full),
    ours("full_disk_of_the_leader_loses_nothing", leader_full),
];

/// A write without quorum fails within 5 s, and the command line takes its moment.
const REFUSAL_MAX: Duration = Duration::from_millis(5500);

fn lost_and_found(lab: &mut Lab, peer: Peer) -> Result<()> {
    let mut cluster = Cluster::form(lab, peer, 3, 2)?;
    cluster.create(1, "web", 5, &[])?;
    cluster.await_running("web", 5, &[], START_MAX)?;
    let before = containers(&cluster)?;
    cluster.kill(1)?;
    cluster.kill(2)?;
    let begun = Instant::now();
    let answer = cluster.api(3).call("POST", "/services/create", Some(&empty_service("late")))?;
    ensure!(begun.elapsed() < REFUSAL_MAX, "the refusal took {:?}", begun.elapsed());
    ensure!(answer.status >= 500, "answered {}: {}", answer.status, answer.text());
    says(&answer.text(), "leader")?;
    let begun = Instant::now();
    let read = cluster.api(3).call("GET", "/services", None)?;
    ensure!(read.status == 200, "a read answered {}: {}", read.status, read.text());
    ensure!(begun.elapsed() < REFUSAL_MAX, "the read took {:?}", begun.elapsed());
    says(&read.text(), "\"web\"")?;
    let warned = read.header("warning").is_some_and(|warning| warning.contains("stale"));
    ensure!(warned, "the read does not say that it may be stale: {:?}", read.head);
    ensure!(containers(&cluster)? == before, "running tasks did not stay");
    cluster.restart(1)?;
    let took = measure::next_write(&cluster, &[1, 3], "again", START_MAX)?;
    println!("write accepted {took:?} after quorum was back");
    cluster.restart(2)?;
    cluster.await_ready(1, 5)?;
    ensure!(
        containers(&cluster)? == before,
        "tasks were replaced: {:?}, before {before:?}",
        containers(&cluster)?
    );
    let fresh = cluster.api(3).call("GET", "/services", None)?;
    ensure!(fresh.header("warning").is_none(), "still stale: {:?}", fresh.head);
    Ok(())
}

fn forced(lab: &mut Lab, peer: Peer) -> Result<()> {
    let mut cluster = Cluster::form(lab, peer, 3, 2)?;
    cluster.create(1, "web", 4, &["--constraint", "node.role==worker"])?;
    cluster.await_running("web", 4, &[], START_MAX)?;
    let before = containers(&cluster)?;
    cluster.kill(1)?;
    cluster.kill(2)?;
    cluster.docker(3, &["swarm", "init", "--force-new-cluster", "--advertise-addr", &address(3)])?;
    let took = measure::next_write(&cluster, &[3], "forced", START_MAX)?;
    println!("write accepted {took:?} after --force-new-cluster");
    ensure!(services(&cluster.api(3))?.contains("web"), "web was forgotten");
    for worker in [4, 5] {
        cluster.await_state(3, worker, "ready", START_MAX)?;
    }
    cluster.await_running("web", 4, &[], START_MAX)?;
    ensure!(
        containers(&cluster)? == before,
        "tasks were replaced: {:?}, before {before:?}",
        containers(&cluster)?
    );
    // It grows again.
    cluster.lab.host_mut(1).start_node(&[])?;
    cluster.docker(1, &["swarm", "leave", "--force"])?;
    cluster.join(1, Role::Manager, 3)?;
    cluster.await_state(3, 1, "ready", START_MAX)?;
    ensure!(services(&cluster.api(1))?.contains("web"), "h1 does not know web");
    Ok(())
}

fn follower_full(lab: &mut Lab, peer: Peer) -> Result<()> {
    disk_full(lab, peer, 2)
}

fn leader_full(lab: &mut Lab, peer: Peer) -> Result<()> {
    // Who begins the cluster leads it.
    disk_full(lab, peer, 1)
}

fn disk_full(lab: &mut Lab, peer: Peer, victim: usize) -> Result<()> {
    const ROOM: u64 = 48 * 1024 * 1024;
    const WRITES: usize = 300;
    lab.host(victim).limit_node_data(ROOM)?;
    let mut cluster = Cluster::form(lab, peer, 3, 1)?;
    cluster.create(1, "web", 4, &[])?;
    cluster.await_running("web", 4, &[], START_MAX)?;
    let before = containers(&cluster)?;
    fill(&cluster, victim)?;
    // The last gaps are filled by the node's own writes.
    let others: Vec<_> = (1..=3).filter(|&manager| manager != victim).collect();
    let mut acknowledged = write_many(&cluster, &others, WRITES);
    let took = measure::next_write(&cluster, &others, "while-full", START_MAX)?;
    println!("{} of {WRITES} writes were accepted, and one more after {took:?}", acknowledged.len());
    let told = Page::parse(&cluster.lab.host(victim).metrics().map(|page| page.text()).unwrap_or_default());
    println!(
        "h{victim} was full, h{} leads, disk_full {:?}",
        cluster.leader(others[0])?,
        told.sum("shoal_raft_disk_full")
    );
    // Whoever has the full disk may say no, but not yes and forget.
    acknowledged.extend(write_many(&cluster, &[victim], 1));
    for &manager in &others {
        holds(&cluster, manager, &acknowledged)?;
    }
    let free = cluster
        .lab
        .host(victim)
        .inside()
        .script(&format!("df --output=avail -B1 {}", data(&cluster, victim)))?;
    cluster.lab.host(victim).inside().script(&format!("rm -f {}/filler", data(&cluster, victim)))?;
    match cluster.kill(victim) {
        Ok(()) => println!("the node with the full disk lived on, free: {}", free.trim().replace('\n', " ")),
        Err(ended) => println!("{ended}, free: {}", free.trim().replace('\n', " ")),
    }
    cluster.restart(victim)?;
    for manager in 1..=3 {
        holds(&cluster, manager, &acknowledged)?;
    }
    cluster.await_ready(others[0], 4)?;
    ensure!(
        containers(&cluster)? == before,
        "tasks were replaced: {:?}, before {before:?}",
        containers(&cluster)?
    );
    Ok(())
}

fn data(cluster: &Cluster<'_>, host: usize) -> String {
    cluster.lab.host(host).node_data().display().to_string()
}

/// Take all the room that the node's data folder has left.
fn fill(cluster: &Cluster<'_>, host: usize) -> Result<()> {
    let folder = data(cluster, host);
    let script = format!("dd if=/dev/zero of={folder}/filler bs=4k 2>&1 || true");
    says(&cluster.lab.host(host).inside().script(&script)?, "No space left on device")
}

/// Ask for many small changes in turn; names of those that were acknowledged.
fn write_many(cluster: &Cluster<'_>, managers: &[usize], count: usize) -> Vec<String> {
    let name = |number: usize| format!("full-{}-{number}", managers[0]);
    (0..count)
        .filter(|number| {
            let api = cluster.api_within(managers[number % managers.len()], Duration::from_secs(6));
            let mut service = empty_service(&name(*number));
            // Large enough that no room set aside earlier holds them all.
            service["Labels"] = serde_json::json!({"ballast": "x".repeat(64 * 1024)});
            api.post("/services/create", &service).is_ok()
        })
        .map(name)
        .collect()
}

/// Wait until a manager lists all of these.
fn holds(cluster: &Cluster<'_>, manager: usize, names: &[String]) -> Result<()> {
    wait::until("all that was acknowledged", START_MAX, Duration::from_millis(200), || {
        let there = services(&cluster.api(manager))?;
        let missing: Vec<_> = names.iter().filter(|name| !there.contains(*name)).collect();
        wait::seen(missing.is_empty(), || format!("h{manager} lacks {missing:?}"))
    })
    .map(drop)
}
