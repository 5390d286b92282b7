//! Forming a cluster and changing who is in it, with `docker` and with `shoal`.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;
use shoal_tests::cluster::{Cluster, Peer, Role};
use shoal_tests::lab::{Lab, address, address_v6};
use shoal_tests::measure;
use shoal_tests::runner::Scenario;
use shoal_tests::wait;

use super::{START_MAX, both, ours, says};

pub(crate) const SCENARIOS: &[Scenario] = &[
    both("cluster_forms_and_changes_through_docker", through_docker),
    ours("cluster_forms_and_changes_through_shoal", through_shoal),
    both("rotated_token_lets_nobody_in", rotated_token),
    ours("nodes_join_by_their_own_flags", by_flags),
    ours("cluster_forms_over_ipv6", over_v6),
    both("demotion_of_the_last_manager_is_refused", last_manager),
    ours("demotion_that_would_lose_quorum_is_refused", quorum_kept),
    ours("any_manager_takes_any_call", any_manager),
];

const CHANGE_MAX: Duration = Duration::from_secs(30);

/// Which command line a scenario goes through.
type Run = fn(&Cluster<'_>, usize, &[&str]) -> Result<String>;

fn through_docker(lab: &mut Lab, peer: Peer) -> Result<()> {
    forms_and_changes(lab, peer, |cluster, host, args| cluster.docker(host, args))
}

fn through_shoal(lab: &mut Lab, peer: Peer) -> Result<()> {
    forms_and_changes(lab, peer, |cluster, host, args| cluster.shoal(host, args))
}

fn forms_and_changes(lab: &mut Lab, peer: Peer, run: Run) -> Result<()> {
    let mut cluster = Cluster::new(lab, peer);
    for host in 1..=5 {
        cluster.start(host)?;
    }
    let via = format!("{}:2377", address(1));
    run(&cluster, 1, &["swarm", "init", "--advertise-addr", &address(1)])?;
    for host in 2..=5 {
        let role = if host <= 3 { "manager" } else { "worker" };
        let token = run(&cluster, 1, &["swarm", "join-token", "--quiet", role])?;
        says(&token, "SWMTKN-1-")?;
        run(&cluster, host, &["swarm", "join", "--token", &token, "--advertise-addr", &address(host), &via])?;
    }
    cluster.await_ready(1, 5)?;
    let listed = run(&cluster, 2, &["node", "ls"])?;
    for word in ["h1", "h2", "h3", "h4", "h5", "Leader", "Reachable", "Ready", "Active"] {
        says(&listed, word)?;
    }
    changes_of_a_node(&cluster, run)?;
    changes_of_a_role(&cluster, run)?;
    leaving(&cluster, run, &via)
}

fn changes_of_a_node(cluster: &Cluster<'_>, run: Run) -> Result<()> {
    run(cluster, 1, &["node", "update", "--label-add", "disk=ssd", "--availability", "pause", "h4"])?;
    let inspected: Value = serde_json::from_str(&run(cluster, 3, &["node", "inspect", "h4"])?)?;
    let spec = &inspected[0]["Spec"];
    ensure!(
        spec["Labels"]["disk"] == "ssd" && spec["Availability"] == "pause",
        "h4 is not as told: {inspected}"
    );
    let own: Value = serde_json::from_str(&run(cluster, 1, &["node", "inspect", "self"])?)?;
    ensure!(own[0]["Description"]["Hostname"] == "h1", "self is not h1: {own}");
    run(cluster, 1, &["node", "update", "--label-rm", "disk", "--availability", "active", "h4"])?;
    ensure!(cluster.node(1, 4)?.availability == "active", "h4 is not active again");
    run(cluster, 1, &["node", "ps", "h4"]).map(drop)
}

fn changes_of_a_role(cluster: &Cluster<'_>, run: Run) -> Result<()> {
    run(cluster, 1, &["node", "promote", "h4"])?;
    wait::until("h4 being a reachable manager", CHANGE_MAX, Duration::from_millis(100), || {
        let node = cluster.node(1, 4)?;
        wait::seen(node.reachability.as_deref() == Some("reachable"), || format!("{node:?}"))?;
        // It takes calls now, as every manager does.
        cluster.nodes(4).map(drop)
    })?;
    run(cluster, 4, &["node", "demote", "h4"])?;
    wait::until("h4 being a worker", CHANGE_MAX, Duration::from_millis(100), || {
        let node = cluster.node(1, 4)?;
        wait::seen(node.role == "worker" && node.reachability.is_none(), || format!("{node:?}"))?;
        wait::seen(cluster.nodes(4).is_err(), || "h4 still answers as a manager".to_owned())
    })?;
    Ok(())
}

fn leaving(cluster: &Cluster<'_>, run: Run, via: &str) -> Result<()> {
    run(cluster, 5, &["swarm", "leave"])?;
    cluster.await_state(1, 5, "down", CHANGE_MAX)?;
    run(cluster, 1, &["node", "rm", "h5"])?;
    ensure!(cluster.node(1, 5).is_err(), "h5 is still listed");
    let token = run(cluster, 1, &["swarm", "join-token", "--quiet", "worker"])?;
    run(cluster, 5, &["swarm", "join", "--token", &token, "--advertise-addr", &address(5), via])?;
    cluster.await_ready(1, 5).map(drop)
}

fn rotated_token(lab: &mut Lab, peer: Peer) -> Result<()> {
    let mut cluster = Cluster::form(lab, peer, 1, 0)?;
    cluster.start(2)?;
    let via = format!("{}:2377", address(1));
    let old = cluster.token(1, Role::Worker)?;
    let new = cluster.docker(1, &["swarm", "join-token", "--quiet", "--rotate", "worker"])?;
    ensure!(old != new && !new.is_empty(), "the token did not change");
    let here = address(2);
    let join = |token: &str| {
        cluster.try_docker(2, &["swarm", "join", "--token", token, "--advertise-addr", &here, &via])
    };
    let refused = join(&old)?;
    ensure!(!refused.ok(), "the old token let a node in: {}", refused.text());
    says(&refused.text(), "token")?;
    let guessed = join(&format!("{}{}", &new[..new.len() - 2], "00"))?;
    ensure!(!guessed.ok(), "a guessed token let a node in");
    ensure!(cluster.nodes(1)?.len() == 1, "who was refused is listed: {:?}", cluster.nodes(1)?);
    let joined = join(&new)?;
    ensure!(joined.ok(), "the new token was refused: {}", joined.text());
    cluster.await_ready(1, 2).map(drop)
}

fn by_flags(lab: &mut Lab, peer: Peer) -> Result<()> {
    lab.host_mut(1).start_node(&["--init", "--label", "zone=a"])?;
    let cluster = Cluster::new(lab, peer);
    cluster.await_ready(1, 1)?;
    let (manager, worker) = (cluster.token(1, Role::Manager)?, cluster.token(1, Role::Worker)?);
    for (host, token) in [(2, &manager), (3, &manager), (4, &worker), (5, &worker)] {
        cluster.lab.host_mut(host).start_node(&["--join", &format!("{token}@{}:2377", address(1))])?;
    }
    cluster.await_ready(1, 5)?;
    let nodes = cluster.nodes(2)?;
    ensure!(nodes.iter().filter(|node| node.role == "manager").count() == 3, "not three managers: {nodes:?}");
    // The same flags once more find what is there.
    cluster.lab.host_mut(4).stop_node()?;
    cluster.lab.host_mut(4).start_node(&["--join", &format!("{worker}@{}:2377", address(1))])?;
    cluster.await_ready(1, 5)?;
    ensure!(cluster.nodes(1)?.len() == 5, "h4 joined twice: {:?}", cluster.nodes(1)?);
    let inspected: Value = serde_json::from_str(&cluster.docker(2, &["node", "inspect", "h1"])?)?;
    let labels = [&inspected[0]["Spec"]["Labels"], &inspected[0]["Description"]["Engine"]["Labels"]];
    ensure!(labels.iter().any(|labels| labels["zone"] == "a"), "h1 has no label zone: {inspected}");
    Ok(())
}

fn over_v6(lab: &mut Lab, peer: Peer) -> Result<()> {
    for host in 1..=4 {
        lab.host_mut(host).readdress(&address_v6(host))?;
    }
    let mut cluster = Cluster::form(lab, peer, 3, 1)?;
    cluster.create(1, "web", 4, &[])?;
    cluster.await_running("web", 4, &[], START_MAX)?;
    let node = cluster.api(1).get(&format!("/nodes/{}", cluster.node(1, 4)?.id))?;
    ensure!(node["Status"]["Addr"] == address_v6(4).as_str(), "h4 is at {}", node["Status"]);
    // All of it: sessions, gossip and raft go on over it.
    cluster.kill(1)?;
    let took = measure::next_write(&cluster, &[2, 3], "after", START_MAX)?;
    println!("write accepted {took:?} after the leader was killed");
    cluster.await_running("web", 4, &[1], START_MAX + START_MAX).map(drop)
}

fn last_manager(lab: &mut Lab, peer: Peer) -> Result<()> {
    let cluster = Cluster::form(lab, peer, 1, 1)?;
    says(&cluster.docker_fails(1, &["node", "demote", "h1"])?, "last manager")?;
    ensure!(cluster.node(1, 1)?.leader, "h1 does not lead any more");
    Ok(())
}

fn quorum_kept(lab: &mut Lab, peer: Peer) -> Result<()> {
    let mut cluster = Cluster::form(lab, peer, 3, 0)?;
    cluster.kill(3)?;
    wait::until("h3 being unreachable", CHANGE_MAX, Duration::from_millis(100), || {
        let node = cluster.node(1, 3)?;
        wait::seen(node.reachability.as_deref() == Some("unreachable"), || format!("{node:?}"))
    })?;
    // Two of three are left: without one of them the dead one would be half of what remains.
    says(&cluster.docker_fails(1, &["node", "demote", "h2"])?, "quorum")?;
    ensure!(cluster.node(1, 2)?.role == "manager", "h2 was demoted all the same");
    cluster.docker(1, &["node", "demote", "h3"])?;
    cluster.docker(1, &["service", "ls"]).map(drop)
}

fn any_manager(lab: &mut Lab, peer: Peer) -> Result<()> {
    let cluster = Cluster::form(lab, peer, 3, 0)?;
    for manager in 1..=3 {
        let name = format!("by-{manager}");
        cluster.create(manager, &name, 1, &[])?;
        // What one manager acknowledged, every other shows at once.
        for other in 1..=3 {
            says(&cluster.docker(other, &["service", "ls", "--format", "{{.Name}}"])?, &name)?;
        }
        cluster.docker(manager % 3 + 1, &["service", "rm", &name])?;
        for other in 1..=3 {
            let listed = cluster.docker(other, &["service", "ls", "--format", "{{.Name}}"])?;
            ensure!(!listed.contains(&name), "h{other} still lists {name}");
        }
    }
    Ok(())
}
