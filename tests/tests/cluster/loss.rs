//! A network that loses packets.

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

pub(crate) const SCENARIOS: &[Scenario] =
    &[ours("loss_of_a_fifth_kills_nobody", fifth), ours("loss_of_a_half_loses_no_promise_and_heals", half)];

fn fifth(lab: &mut Lab, peer: Peer) -> Result<()> {
    let cluster = Cluster::form(lab, peer, 3, 2)?;
    cluster.create(1, "web", 10, &[])?;
    cluster.await_running("web", 10, &[], START_MAX)?;
    let before = containers(&cluster)?;
    cluster.lab.lossy(20)?;
    let apis: Vec<_> = (1..=3).map(|manager| cluster.api_within(manager, Duration::from_secs(10))).collect();
    let clients = Clients::start(&apis);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(45) {
        for node in cluster.nodes(1)? {
            ensure!(node.state != "down", "h{} was declared dead after {:?}", node.host, begun.elapsed());
        }
        thread::sleep(Duration::from_millis(200));
    }
    cluster.lab.mend()?;
    ensure!(
        containers(&cluster)? == before,
        "tasks were moved: {:?}, before {before:?}",
        containers(&cluster)?
    );
    println!("under 20 % loss: {:?}", clients.finish(&apis)?);
    Ok(())
}

fn half(lab: &mut Lab, peer: Peer) -> Result<()> {
    let cluster = Cluster::form(lab, peer, 3, 2)?;
    let observer = Observer::start(cluster.lab);
    observer.expect("web", 10);
    cluster.create(1, "web", 10, &[])?;
    cluster.await_running("web", 10, &[], START_MAX)?;
    let apis: Vec<_> = (1..=3).map(|manager| cluster.api_within(manager, Duration::from_secs(10))).collect();
    let clients = Clients::start(&apis);
    cluster.lab.lossy(50)?;
    thread::sleep(Duration::from_secs(30));
    cluster.lab.mend()?;
    let begun = Instant::now();
    cluster.await_ready(1, 5)?;
    cluster.await_running("web", 10, &[], START_MAX)?;
    println!("whole again {:?} after the loss ended", begun.elapsed());
    println!("under 50 % loss: {:?}", clients.finish(&apis)?);
    // Under such loss an order to stop takes its retries.
    println!("above the count at worst: {:?}", observer.finish(STOP_MAX * 3)?);
    Ok(())
}
