//! Where tasks go, and why they wait.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use shoal_tests::cluster::{Cluster, Peer};
use shoal_tests::lab::{Lab, address};
use shoal_tests::runner::Scenario;
use shoal_tests::wait;

use super::{START_MAX, STOP_MAX, both, says};

pub(crate) const SCENARIOS: &[Scenario] = &[
    both("global_service_runs_once_on_every_node", global),
    both("constraints_name_the_only_hosts", constraints),
    both("spread_preference_evens_out_over_a_label", spread),
    both("reservation_that_fits_nowhere_waits_with_its_reason", reservations),
    both("no_more_than_the_maximum_runs_on_a_node", max_per_node),
    both("host_port_is_taken_once_on_each_host", host_ports),
    both("drained_node_gives_its_tasks_away_and_paused_one_takes_none", availability),
];

fn global(lab: &mut Lab, peer: Peer) -> Result<()> {
    let mut cluster = Cluster::form(lab, peer, 3, 1)?;
    let args = ["service", "create", "--detach", "--no-resolve-image", "--mode", "global", "--name", "agent"];
    cluster
        .docker(1, &[&args[..], &["--stop-grace-period", "1s", "busybox:latest", "sleep", "1d"]].concat())?;
    cluster.await_running("agent", 4, &[], START_MAX)?;
    says(&cluster.docker(1, &["service", "ls"])?, "4/4")?;
    // A node that comes gets its own, one that is drained loses it, and gets it back.
    cluster.start(5)?;
    cluster.join(5, shoal_tests::cluster::Role::Worker, 1)?;
    cluster.await_running("agent", 5, &[], START_MAX)?;
    cluster.docker(1, &["node", "update", "--availability", "drain", "h4"])?;
    cluster.await_running("agent", 4, &[], STOP_MAX)?;
    ensure!(!cluster.running("agent")?.contains_key(&4), "h4 still runs it");
    cluster.docker(1, &["node", "update", "--availability", "active", "h4"])?;
    cluster.await_running("agent", 5, &[], START_MAX)?;
    let running = cluster.running("agent")?;
    ensure!(running.values().all(|&count| count == 1), "not once on every node: {running:?}");
    Ok(())
}

fn constraints(lab: &mut Lab, peer: Peer) -> Result<()> {
    let cluster = Cluster::form(lab, peer, 3, 2)?;
    cluster.docker(1, &["node", "update", "--label-add", "disk=ssd", "h2"])?;
    cluster.docker(1, &["node", "update", "--label-add", "disk=ssd", "h5"])?;
    let id = cluster.node(1, 3)?.id;
    let by_id = format!("node.id=={id}");
    let by_ip = format!("node.ip=={}", address(4));
    let cases: [(&str, &[&str], &[usize]); 7] = [
        ("label", &["node.labels.disk==ssd"], &[2, 5]),
        ("notlabel", &["node.labels.disk!=ssd"], &[1, 3, 4]),
        ("role", &["node.role==worker"], &[4, 5]),
        ("name", &["node.hostname==h3"], &[3]),
        ("id", &[&by_id], &[3]),
        ("ip", &[&by_ip], &[4]),
        ("and", &["node.role!=manager", "node.labels.disk == ssd", "node.platform.os==linux"], &[5]),
    ];
    for (name, constraints, hosts) in cases {
        let flags: Vec<_> = constraints.iter().flat_map(|&constraint| ["--constraint", constraint]).collect();
        cluster.create(1, name, 3, &flags)?;
        cluster.await_running(name, 3, &[], START_MAX)?;
        let running = cluster.running(name)?;
        ensure!(
            running.keys().all(|host| hosts.contains(host)),
            "{name} runs on {running:?}, not on {hosts:?} alone"
        );
    }
    cluster.create(1, "nowhere", 1, &["--constraint", "node.labels.disk==tape"])?;
    waits(&cluster, "nowhere", "scheduling constraints not satisfied on 5 nodes")?;
    // What waits goes on by itself once a node fits.
    cluster.docker(1, &["node", "update", "--label-add", "disk=tape", "h4"])?;
    cluster.await_running("nowhere", 1, &[1, 2, 3, 5], START_MAX).map(drop)
}

fn spread(lab: &mut Lab, peer: Peer) -> Result<()> {
    let cluster = Cluster::form(lab, peer, 3, 2)?;
    for (host, zone) in [(1, "a"), (2, "b"), (3, "b"), (4, "b"), (5, "b")] {
        cluster
            .docker(1, &["node", "update", "--label-add", &format!("zone={zone}"), &format!("h{host}")])?;
    }
    cluster.create(1, "web", 8, &["--placement-pref", "spread=node.labels.zone"])?;
    cluster.await_running("web", 8, &[], START_MAX)?;
    let running = cluster.running("web")?;
    let expected = BTreeMap::from([(1, 4), (2, 1), (3, 1), (4, 1), (5, 1)]);
    ensure!(running == expected, "spread as {running:?}, not as {expected:?}");
    Ok(())
}

fn reservations(lab: &mut Lab, peer: Peer) -> Result<()> {
    let cluster = Cluster::form(lab, peer, 3, 0)?;
    cluster.create(1, "huge", 1, &["--reserve-memory", "900g"])?;
    waits(&cluster, "huge", "insufficient resources on 3 nodes")?;
    // Each host has the machine's two or more processors: one such task takes them all.
    let processors = std::thread::available_parallelism()?.get().to_string();
    cluster.create(1, "whole", 4, &["--reserve-cpu", &processors])?;
    cluster.await_running("whole", 3, &[], START_MAX)?;
    waits(&cluster, "whole", "insufficient resources on 3 nodes")?;
    let running = cluster.running("whole")?;
    ensure!(running.values().all(|&count| count == 1), "two on one host: {running:?}");
    cluster.docker(1, &["service", "scale", "--detach", "whole=3"])?;
    Ok(())
}

fn max_per_node(lab: &mut Lab, peer: Peer) -> Result<()> {
    let cluster = Cluster::form(lab, peer, 3, 0)?;
    cluster.create(1, "web", 7, &["--replicas-max-per-node", "2"])?;
    cluster.await_running("web", 6, &[], START_MAX)?;
    waits(&cluster, "web", "max replicas per node limit exceed")?;
    let running = cluster.running("web")?;
    ensure!(running.values().all(|&count| count == 2), "not two on each: {running:?}");
    Ok(())
}

fn host_ports(lab: &mut Lab, peer: Peer) -> Result<()> {
    let cluster = Cluster::form(lab, peer, 3, 0)?;
    let args = ["service", "create", "--detach", "--no-resolve-image", "--name", "web", "--replicas", "4"];
    let port = ["--publish", "published=8080,target=80,mode=host", "--stop-grace-period", "1s"];
    let command = ["busybox:latest", "httpd", "-f", "-p", "80", "-h", "/www"];
    cluster.docker(1, &[&args[..], &port, &command].concat())?;
    cluster.await_running("web", 3, &[], START_MAX)?;
    waits(&cluster, "web", "host-mode port already in use on 3 nodes")?;
    for host in 1..=3 {
        let (page, _) = wait::until("the page", Duration::from_secs(10), Duration::from_millis(100), || {
            cluster.lab.host(host % 3 + 1).http(&format!("{}:8080", address(host)), "/index.html")
        })?;
        says(&page.text(), "hello")?;
    }
    cluster.docker(1, &["service", "rm", "web"])?;
    cluster.await_running("web", 0, &[], STOP_MAX).map(drop)
}

fn availability(lab: &mut Lab, peer: Peer) -> Result<()> {
    let cluster = Cluster::form(lab, peer, 1, 2)?;
    cluster.create(1, "web", 6, &[])?;
    cluster.await_running("web", 6, &[], START_MAX)?;
    cluster.docker(1, &["node", "update", "--availability", "pause", "h2"])?;
    cluster.docker(1, &["node", "update", "--availability", "drain", "h3"])?;
    cluster.await_running("web", 6, &[3], START_MAX)?;
    let running = cluster.running("web")?;
    ensure!(running == BTreeMap::from([(1, 4), (2, 2)]), "paused h2 keeps two and takes none: {running:?}");
    says(&cluster.docker(1, &["node", "ls"])?, "Drain")?;
    // Back again they stay where they are; only what is new goes there.
    cluster.docker(1, &["node", "update", "--availability", "active", "h3"])?;
    cluster.docker(1, &["node", "update", "--availability", "active", "h2"])?;
    std::thread::sleep(Duration::from_secs(2));
    ensure!(cluster.running("web")? == running, "tasks moved: {:?}", cluster.running("web")?);
    cluster.docker(1, &["service", "scale", "--detach", "web=9"])?;
    cluster.await_running("web", 9, &[], START_MAX)?;
    let running = cluster.running("web")?;
    ensure!(running.get(&3).is_some_and(|&count| count >= 2), "h3 took nothing new: {running:?}");
    Ok(())
}

/// Wait until a task of the service waits, and says why in these words.
pub(crate) fn waits(cluster: &Cluster<'_>, service: &str, why: &str) -> Result<()> {
    wait::until(
        &format!("a task of {service} that waits for {why:?}"),
        START_MAX,
        Duration::from_millis(100),
        || {
            let tasks = cluster.tasks(1, service)?;
            let waiting: Vec<_> = tasks.iter().filter(|task| task["Status"]["State"] == "pending").collect();
            let told = |task: &&serde_json::Value| task["Status"].to_string().contains(why);
            wait::seen(waiting.iter().any(told), || format!("{waiting:?}"))
        },
    )?;
    Ok(())
}
