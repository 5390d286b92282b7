//! Nodes that come, go, move and are thrown out.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use shoal_tests::cluster::{Cluster, Peer, Role};
use shoal_tests::lab::Lab;
use shoal_tests::runner::Scenario;
use shoal_tests::{stats, wait};

use super::{START_MAX, STOP_MAX, ours};

pub(crate) const SCENARIOS: &[Scenario] = &[
    ours("fifty_joins_and_leaves_leave_no_trace", fifty),
    ours("removed_node_is_refused_at_once", removed),
    ours("node_with_a_new_address_is_found_again", moved),
    ours("promoted_worker_survives_the_loss_of_the_first_manager", promoted),
];

fn fifty(lab: &mut Lab, peer: Peer) -> Result<()> {
    let mut cluster = Cluster::form(lab, peer, 3, 1)?;
    cluster.start(5)?;
    let mut times = Vec::new();
    for round in 0..50 {
        // Every fifth time as a manager, who has to be demoted before it may leave.
        let role = if round % 5 == 4 { Role::Manager } else { Role::Worker };
        times.push(cluster.join(5, role, round % 3 + 1)?);
        cluster.await_state(1, 5, "ready", START_MAX)?;
        if role == Role::Manager {
            cluster.docker(1, &["node", "demote", "h5"])?;
            wait::until("h5 being a worker", START_MAX, Duration::from_millis(50), || {
                wait::seen(cluster.nodes(5).is_err(), || "it answers as a manager".to_owned())
            })?;
        }
        cluster.docker(5, &["swarm", "leave"])?;
        cluster.await_state(1, 5, "down", START_MAX)?;
        let id = cluster.node(1, 5)?.id;
        cluster.docker(2, &["node", "rm", &id])?;
    }
    println!("join: p50 {:?}, p99 {:?}", stats::percentile(&times, 50), stats::percentile(&times, 99));
    let nodes = cluster.nodes(3)?;
    ensure!(nodes.len() == 4, "left behind: {nodes:?}");
    ensure!(
        nodes.iter().filter(|node| node.reachability.is_some()).count() == 3,
        "not three managers: {nodes:?}"
    );
    cluster.create(1, "web", 4, &[])?;
    cluster.await_running("web", 4, &[5], START_MAX).map(drop)
}

fn removed(lab: &mut Lab, peer: Peer) -> Result<()> {
    let cluster = Cluster::form(lab, peer, 3, 2)?;
    cluster.create(1, "web", 10, &[])?;
    cluster.await_running("web", 10, &[], START_MAX)?;
    cluster.docker(1, &["node", "rm", "--force", "h5"])?;
    let begun = Instant::now();
    let local = || -> Result<String> {
        let info = cluster.api(5).get("/info")?;
        Ok(info["Swarm"]["LocalNodeState"].as_str().unwrap_or_default().to_owned())
    };
    wait::until("h5 knowing that it is out", Duration::from_secs(3), Duration::from_millis(20), || {
        let state = local()?;
        wait::seen(state != "active", || state.clone())
    })?;
    println!("refused after {:?}", begun.elapsed());
    cluster.await_running("web", 10, &[5], START_MAX)?;
    // It cannot come back with what it has.
    let mut cluster = cluster;
    cluster.lab.host_mut(5).stop_node()?;
    cluster.restart(5)?;
    std::thread::sleep(Duration::from_secs(3));
    ensure!(cluster.node(1, 5).is_err(), "h5 is listed again: {:?}", cluster.nodes(1)?);
    // Left and joined anew it can.
    cluster.docker(5, &["swarm", "leave", "--force"])?;
    cluster.join(5, Role::Worker, 1)?;
    cluster.await_ready(1, 5)?;
    cluster.await_running("web", 10, &[], STOP_MAX).map(drop)
}

fn moved(lab: &mut Lab, peer: Peer) -> Result<()> {
    let mut cluster = Cluster::form(lab, peer, 3, 1)?;
    cluster.create(1, "web", 4, &[])?;
    cluster.await_running("web", 4, &[], START_MAX)?;
    let before = super::faults::containers(&cluster)?;
    // A worker, then a manager.
    for (host, to) in [(4, "10.77.0.104"), (3, "10.77.0.103")] {
        cluster.lab.host_mut(host).stop_node()?;
        cluster.lab.host_mut(host).readdress(to)?;
        cluster.restart(host)?;
        cluster.await_state(1, host, "ready", START_MAX)?;
        wait::until("its new address", START_MAX, Duration::from_millis(100), || {
            let node = cluster.api(1).get(&format!("/nodes/{}", cluster.node(1, host)?.id))?;
            wait::seen(node["Status"]["Addr"] == to, || node["Status"].to_string())
        })?;
    }
    wait::until("the manager that moved being reachable", START_MAX, Duration::from_millis(100), || {
        let node = cluster.node(1, 3)?;
        wait::seen(node.reachability.as_deref() == Some("reachable"), || format!("{node:?}"))
    })?;
    ensure!(super::faults::containers(&cluster)? == before, "tasks were replaced");
    // Quorum without the first: what moved really takes part.
    cluster.kill(2)?;
    cluster.docker(3, &["service", "scale", "--detach", "web=6"])?;
    // The engine of the second goes on with what it had, whoever is asked to stand in for it.
    cluster.await_running("web", 6, &[2], START_MAX).map(drop)
}

fn promoted(lab: &mut Lab, peer: Peer) -> Result<()> {
    let mut cluster = Cluster::form(lab, peer, 1, 4)?;
    cluster.create(1, "web", 5, &["--constraint", "node.hostname!=h1"])?;
    cluster.await_running("web", 5, &[], START_MAX)?;
    let before = super::faults::containers(&cluster)?;
    cluster.docker(1, &["node", "promote", "h2", "h3"])?;
    for host in [2, 3] {
        wait::until("the promoted being managers", START_MAX, Duration::from_millis(50), || {
            let node = cluster.node(host, host)?;
            wait::seen(node.reachability.as_deref() == Some("reachable"), || format!("{node:?}"))
        })?;
    }
    cluster.kill(1)?;
    let took = shoal_tests::measure::next_write(&cluster, &[2, 3], "after", START_MAX)?;
    println!("write accepted {took:?} after the first manager was killed");
    ensure!(super::faults::containers(&cluster)? == before, "promotion touched running tasks");
    cluster.docker(2, &["service", "scale", "--detach", "web=8"])?;
    cluster.await_running("web", 8, &[], START_MAX).map(drop)
}
