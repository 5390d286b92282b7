//! Cables pulled, hosts cut off, engines killed.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use shoal_tests::clients::{empty_service, services};
use shoal_tests::cluster::{Cluster, Peer};
use shoal_tests::lab::Lab;
use shoal_tests::measure;
use shoal_tests::observer::Observer;
use shoal_tests::runner::Scenario;
use shoal_tests::wait;

use super::{START_MAX, STOP_MAX, both, ours};

pub(crate) const SCENARIOS: &[Scenario] = &[
    both("worker_whose_cable_is_pulled_is_replaced_and_returns_clean", worker_cut),
    both("leader_whose_cable_is_pulled_is_followed_by_another", leader_cut),
    ours("node_cut_off_from_the_leader_alone_is_not_declared_dead", only_from_leader),
    both("split_of_two_and_three_heals", split),
    ours("starved_leader_kills_nobody", leader_starved),
    ours("killed_engine_comes_back_with_its_tasks", engine_killed),
    ours("hanging_engine_is_ridden_out", engine_hangs),
];

/// The peer needs about 20 s for what Shoal does in 3.
const FAILOVER_MAX: Duration = Duration::from_secs(60);

/// Put `count` tasks of a service all on one host, free to move to any other afterwards.
fn all_on(cluster: &Cluster<'_>, host: usize, service: &str, count: usize) -> Result<()> {
    cluster.docker(1, &["node", "update", "--label-add", "home=yes", &format!("h{host}")])?;
    cluster.create(1, service, count, &["--constraint", "node.labels.home==yes"])?;
    cluster.await_running(service, count, &[], START_MAX)?;
    for other in (1..=cluster.lab.size()).filter(|&other| other != host) {
        cluster.docker(1, &["node", "update", "--label-add", "home=yes", &format!("h{other}")])?;
    }
    ensure!(cluster.running(service)? == BTreeMap::from([(host, count)]), "{:?}", cluster.running(service)?);
    Ok(())
}

fn worker_cut(lab: &mut Lab, peer: Peer) -> Result<()> {
    let cluster = Cluster::form(lab, peer, 3, 2)?;
    all_on(&cluster, 4, "web", 20)?;
    let observer = Observer::start(cluster.lab);
    observer.expect("web", 20);
    observer.mute(4);
    let (elsewhere, down) = thread::scope(|scope| {
        let watch = scope.spawn(|| cluster.await_state(1, 4, "down", FAILOVER_MAX));
        let elsewhere = measure::worker_cut(&cluster, 4, "web", 20, FAILOVER_MAX);
        (elsewhere, watch.join().unwrap_or_else(|_| Err(anyhow!("the watch panicked"))))
    });
    let (elsewhere, down) = (elsewhere?, down?);
    println!("20 tasks elsewhere: {elsewhere:?}, node down after {down:?}");
    if peer == Peer::Shoal {
        // Two seconds and three are the aim, which the benchmark holds it against; here the machine may be busy.
        ensure!(down < Duration::from_secs(8), "the node was declared down only after {down:?}");
        ensure!(elsewhere.running < Duration::from_secs(20), "20 tasks ran elsewhere late: {elsewhere:?}");
    }
    // The host itself lost nothing: its own copies run on, and go once it is back.
    ensure!(cluster.running("web")?.get(&4) == Some(&20), "h4 stopped tasks while cut off");
    cluster.lab.heal(4)?;
    let healed = Instant::now();
    observer.unmute(4);
    cluster.await_state(1, 4, "ready", FAILOVER_MAX)?;
    cluster.await_running("web", 20, &[], FAILOVER_MAX)?;
    println!("leftovers gone {:?} after the heal", healed.elapsed());
    ensure!(!cluster.running("web")?.contains_key(&4), "leftovers stayed, their replacements went");
    println!("above the count at worst: {:?}", observer.finish(STOP_MAX)?);
    // And it takes tasks again.
    cluster.create(1, "next", 2, &["--constraint", "node.hostname==h4"])?;
    cluster.await_running("next", 2, &[], START_MAX).map(drop)
}

fn leader_cut(lab: &mut Lab, peer: Peer) -> Result<()> {
    let cluster = Cluster::form(lab, peer, 3, 2)?;
    cluster.create(1, "web", 5, &[])?;
    cluster.await_running("web", 5, &[], START_MAX)?;
    let (cut, took) = measure::leader_cut(&cluster, &[1, 2, 3], "after", FAILOVER_MAX)?;
    println!("write accepted {took:?} after the cable of the leader h{cut} was pulled");
    ensure!(peer == Peer::Swarm || took < Duration::from_secs(8), "a write was accepted only after {took:?}");
    let other = cut % 3 + 1;
    ensure!(cluster.leader(other)? != cut, "h{cut} still leads in the eyes of h{other}");
    cluster.await_running("web", 5, &[cut], FAILOVER_MAX)?;
    let known = services(&cluster.api(other))?;
    cluster.lab.heal(cut)?;
    wait::until("the old leader knowing what was written", FAILOVER_MAX, Duration::from_millis(100), || {
        let seen = services(&cluster.api(cut))?;
        wait::seen(seen.is_superset(&known), || format!("{} of {}", seen.len(), known.len()))
    })?;
    cluster.await_ready(other, 5)?;
    cluster.await_running("web", 5, &[], FAILOVER_MAX)?;
    let leaders = cluster.nodes(cut)?.iter().filter(|node| node.leader).count();
    ensure!(leaders == 1, "{leaders} leaders");
    Ok(())
}

fn only_from_leader(lab: &mut Lab, peer: Peer) -> Result<()> {
    let cluster = Cluster::form(lab, peer, 3, 2)?;
    cluster.create(1, "web", 5, &[])?;
    cluster.await_running("web", 5, &[], START_MAX)?;
    let before = containers(&cluster)?;
    let leader = cluster.leader(1)?;
    let other = leader % 3 + 1;
    cluster.lab.block(leader, 5)?;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(15) {
        let node = cluster.node(other, 5)?;
        ensure!(
            node.state != "down",
            "h5 was declared dead after {:?} though others hear it",
            begun.elapsed()
        );
        thread::sleep(Duration::from_millis(100));
    }
    ensure!(
        containers(&cluster)? == before,
        "tasks were moved: {:?}, before {before:?}",
        containers(&cluster)?
    );
    cluster.lab.mend()?;
    cluster.await_ready(other, 5).map(drop)
}

fn leader_starved(lab: &mut Lab, peer: Peer) -> Result<()> {
    let cluster = Cluster::form(lab, peer, 3, 2)?;
    cluster.create(1, "web", 6, &["--constraint", "node.role==worker"])?;
    cluster.await_running("web", 6, &[], START_MAX)?;
    let before = containers(&cluster)?;
    // Short enough to stay leader, long enough to have heard nobody; then long enough to be followed by another.
    for starved in [700, 3500] {
        let leader = cluster.leader(1)?;
        cluster.lab.host(leader).freeze_node(true)?;
        thread::sleep(Duration::from_millis(starved));
        cluster.lab.host(leader).freeze_node(false)?;
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(6) {
            // Right after it woke up a manager may not know whom to ask.
            for node in cluster.nodes(leader % 3 + 1).unwrap_or_default() {
                let dead = node.state == "down" && node.host != leader;
                ensure!(!dead, "h{} was declared dead by a leader starved for {starved} ms", node.host);
            }
            thread::sleep(Duration::from_millis(50));
        }
        ensure!(
            containers(&cluster)? == before,
            "tasks were moved: {:?}, before {before:?}",
            containers(&cluster)?
        );
        cluster.await_ready(leader % 3 + 1, 5)?;
    }
    Ok(())
}

fn engine_hangs(lab: &mut Lab, peer: Peer) -> Result<()> {
    let cluster = Cluster::form(lab, peer, 3, 1)?;
    cluster.create(1, "web", 8, &[])?;
    cluster.await_running("web", 8, &[], START_MAX)?;
    let before = containers(&cluster)?;
    cluster.lab.host(4).hang_engine(true)?;
    thread::sleep(Duration::from_secs(8));
    let node = cluster.node(1, 4);
    let answered = cluster.api_within(4, Duration::from_secs(5)).call("GET", "/_ping", None);
    cluster.lab.host(4).hang_engine(false)?;
    ensure!(node?.state == "ready", "a node whose engine hangs for 8 s was declared dead");
    ensure!(answered.is_ok(), "a node whose engine hangs does not answer: {answered:?}");
    ensure!(
        containers(&cluster)? == before,
        "tasks were moved: {:?}, before {before:?}",
        containers(&cluster)?
    );
    cluster.create(1, "next", 2, &["--constraint", "node.hostname==h4"])?;
    cluster.await_running("next", 2, &[], START_MAX).map(drop)
}

fn split(lab: &mut Lab, peer: Peer) -> Result<()> {
    let cluster = Cluster::form(lab, peer, 3, 2)?;
    cluster.create(1, "web", 10, &[])?;
    cluster.await_running("web", 10, &[], START_MAX)?;
    // The leader and one worker on the small side.
    let leader = cluster.leader(1)?;
    let (small, large) = ([leader, 4], [leader % 3 + 1, (leader + 1) % 3 + 1, 5]);
    let observer = Observer::start(cluster.lab);
    observer.expect("web", 10);
    small.iter().for_each(|&host| observer.mute(host));
    cluster.lab.split(&[&small, &large])?;
    let took = measure::next_write(&cluster, &large[..2], "large", FAILOVER_MAX)?;
    println!("write accepted on the large side after {took:?}");
    cluster.await_running("web", 10, &small, FAILOVER_MAX)?;
    let begun = Instant::now();
    let refused = cluster.api(leader).call("POST", "/services/create", Some(&empty_service("small")));
    ensure!(!matches!(&refused, Ok(answer) if answer.status < 300), "the small side accepted a write");
    if peer == Peer::Shoal {
        ensure!(
            begun.elapsed() < Duration::from_secs(6),
            "the refusal took {:?}: {refused:?}",
            begun.elapsed()
        );
    }
    cluster.lab.mend()?;
    small.iter().for_each(|&host| observer.unmute(host));
    cluster.await_ready(large[0], 5)?;
    cluster.await_running("web", 10, &[], FAILOVER_MAX)?;
    wait::until("both sides knowing the same", FAILOVER_MAX, Duration::from_millis(100), || {
        let (left, right) = (services(&cluster.api(leader))?, services(&cluster.api(large[0]))?);
        wait::seen(left == right && !left.contains("small"), || format!("{left:?}, {right:?}"))
    })?;
    // The peer takes most of a minute for it; that is not what is tested here.
    let allowed = if peer == Peer::Shoal { STOP_MAX } else { FAILOVER_MAX * 2 };
    println!("above the count at worst: {:?}", observer.finish(allowed)?);
    Ok(())
}

fn engine_killed(lab: &mut Lab, peer: Peer) -> Result<()> {
    let cluster = Cluster::form(lab, peer, 3, 2)?;
    cluster.create(1, "web", 10, &[])?;
    cluster.await_running("web", 10, &[], START_MAX)?;
    let observer = Observer::start(cluster.lab);
    observer.expect("web", 10);
    cluster.lab.kill_engine(4)?;
    thread::sleep(Duration::from_secs(5));
    // The node rides it out: it answers, and says what it cannot do.
    ensure!(cluster.lab.host(4).has_node(), "no node on h4");
    let ping = cluster.api(4).call("GET", "/info", None);
    ensure!(ping.is_ok(), "the node without an engine does not answer: {ping:?}");
    cluster.lab.start_engine(4)?;
    cluster.await_ready(1, 5)?;
    cluster.await_running("web", 10, &[], START_MAX)?;
    cluster.create(1, "next", 2, &["--constraint", "node.hostname==h4"])?;
    cluster.await_running("next", 2, &[], START_MAX)?;
    println!("above the count at worst: {:?}", observer.finish(STOP_MAX)?);
    Ok(())
}

/// Ids of all running containers of services, by host.
pub(crate) fn containers(cluster: &Cluster<'_>) -> Result<BTreeMap<usize, Vec<String>>> {
    let mut all = BTreeMap::new();
    for host in cluster.lab.hosts() {
        let mut ids: Vec<_> =
            shoal_tests::engine::running(&host.engine())?.into_iter().map(|container| container.id).collect();
        ids.sort_unstable();
        all.insert(host.number(), ids);
    }
    Ok(all)
}
