//! Daemons stopped, killed and started again.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use shoal_tests::clients::Clients;
use shoal_tests::cluster::{Cluster, Peer};
use shoal_tests::lab::Lab;
use shoal_tests::observer::Observer;
use shoal_tests::runner::Scenario;

use super::faults::containers;
use super::{START_MAX, STOP_MAX, ours};

pub(crate) const SCENARIOS: &[Scenario] = &[
    ours("restarted_node_adopts_its_containers", adopted),
    ours("restart_of_the_whole_cluster_keeps_its_containers", whole),
    ours("kill_of_every_process_in_turn_loses_no_change", killed_in_turn),
    ours("drain_under_change_loses_nothing", drained),
];

fn adopted(lab: &mut Lab, peer: Peer) -> Result<()> {
    let mut cluster = Cluster::form(lab, peer, 1, 2)?;
    cluster.create(1, "web", 6, &[])?;
    cluster.await_running("web", 6, &[], START_MAX)?;
    let before = containers(&cluster)?;
    println!("a clean stop took {:?}", cluster.lab.host_mut(2).stop_node()?);
    ensure!(containers(&cluster)? == before, "stopping the node touched its containers");
    cluster.restart(2)?;
    cluster.await_ready(1, 3)?;
    // One dies while nobody looks: it is replaced, the others are not.
    cluster.kill(3)?;
    let victim = before[&3].first().cloned().unwrap_or_default();
    cluster.lab.docker(3, &["kill", &victim])?;
    cluster.restart(3)?;
    cluster.await_ready(1, 3)?;
    cluster.await_running("web", 6, &[], START_MAX)?;
    thread::sleep(Duration::from_secs(2));
    let after = containers(&cluster)?;
    let (kept, all): (usize, usize) =
        before.values().zip(after.values()).fold((0, 0), |(kept, all), (old, new)| {
            (kept + old.iter().filter(|id| new.contains(id)).count(), all + new.len())
        });
    ensure!((kept, all) == (5, 6), "{kept} of 5 were kept, {all} of 6 run: {after:?}, before {before:?}");
    Ok(())
}

fn whole(lab: &mut Lab, peer: Peer) -> Result<()> {
    let mut cluster = Cluster::form(lab, peer, 3, 2)?;
    cluster.create(1, "web", 15, &[])?;
    cluster.await_running("web", 15, &[], START_MAX)?;
    let before = containers(&cluster)?;
    for host in 1..=5 {
        if host % 2 == 0 { cluster.kill(host)? } else { cluster.lab.host_mut(host).stop_node().map(drop)? }
    }
    ensure!(containers(&cluster)? == before, "stopping the nodes touched their containers");
    for host in 1..=5 {
        cluster.restart(host)?;
    }
    println!("all ready {:?} after the last start", cluster.await_ready(2, 5)?);
    thread::sleep(Duration::from_secs(5));
    ensure!(
        containers(&cluster)? == before,
        "tasks were replaced: {:?}, before {before:?}",
        containers(&cluster)?
    );
    cluster.docker(3, &["service", "scale", "--detach", "web=16"])?;
    cluster.await_running("web", 16, &[], START_MAX).map(drop)
}

fn killed_in_turn(lab: &mut Lab, peer: Peer) -> Result<()> {
    let mut cluster = Cluster::form(lab, peer, 3, 2)?;
    let observer = Observer::start(cluster.lab);
    observer.expect("web", 10);
    cluster.create(1, "web", 10, &[])?;
    cluster.await_running("web", 10, &[], START_MAX)?;
    let apis: Vec<_> = (1..=3).map(|manager| cluster.api_within(manager, Duration::from_secs(6))).collect();
    let clients = Clients::start(&apis);
    for round in 0..2 {
        for host in 1..=5 {
            thread::sleep(Duration::from_millis(300));
            cluster.kill(host)?;
            // Once it is back before it is missed, once after.
            thread::sleep(Duration::from_millis(if round == 0 { 200 } else { 3500 }));
            cluster.restart(host)?;
            // The next kill shall not take a second manager away.
            cluster.await_ready(if host == 1 { 2 } else { 1 }, 5)?;
        }
    }
    let begun = Instant::now();
    cluster.await_running("web", 10, &[], START_MAX)?;
    println!("ten run again after {:?}; {:?}", begun.elapsed(), clients.finish(&apis)?);
    println!("above the count at worst: {:?}", observer.finish(STOP_MAX)?);
    Ok(())
}

fn drained(lab: &mut Lab, peer: Peer) -> Result<()> {
    let cluster = Cluster::form(lab, peer, 3, 2)?;
    let observer = Observer::start(cluster.lab);
    observer.expect("web", 10);
    cluster.create(1, "web", 10, &[])?;
    cluster.await_running("web", 10, &[], START_MAX)?;
    let apis: Vec<_> = (1..=3).map(|manager| cluster.api_within(manager, Duration::from_secs(6))).collect();
    let clients = Clients::start(&apis);
    for host in [4, 5, 2] {
        let name = format!("h{host}");
        cluster.docker(1, &["node", "update", "--availability", "drain", &name])?;
        cluster.docker(3, &["service", "scale", "--detach", "web=8"])?;
        cluster.await_running("web", 8, &[host], START_MAX)?;
        cluster.await_none_on("web", host, STOP_MAX)?;
        cluster.docker(1, &["service", "scale", "--detach", "web=10"])?;
        cluster.docker(3, &["node", "update", "--availability", "active", &name])?;
        cluster.await_running("web", 10, &[], START_MAX)?;
    }
    println!("under change: {:?}", clients.finish(&apis)?);
    println!("above the count at worst: {:?}", observer.finish(STOP_MAX)?);
    Ok(())
}
