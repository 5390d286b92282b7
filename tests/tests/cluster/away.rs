//! What goes on while `node` itself is stopped, and what a restart of it costs.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use shoal_tests::cluster::{Cluster, Peer};
use shoal_tests::lab::{Lab, docker};
use shoal_tests::runner::Scenario;
use shoal_tests::{sh, wait};

use super::faults;
use super::mesh::{self, Asking, at, lost};
use super::networks::{container, form, load, lookup};
use super::{START_MAX, ours};

pub(crate) const SCENARIOS: &[Scenario] = &[
    ours("stopped_node_answers_what_was_begun", stopped),
    ours("connections_between_hosts_outlive_a_restart_of_node", outlived),
];

const POLL: Duration = Duration::from_millis(100);
/// Restarts that may come too late for what is to be seen: on a busy machine a node may be missed.
const ATTEMPTS: usize = 6;

/// Whether a request that was lost had not begun: nobody listened.
fn is_refusal(reason: &str) -> bool {
    reason.contains("Connection refused")
}

/// Clients ask through one node, which is stopped and started again: who got in gets an answer.
fn stopped(lab: &mut Lab, peer: Peer) -> Result<()> {
    let mut cluster = Cluster::form(lab, peer, 3, 1)?;
    mesh::create(&cluster, "web", 4, &["--publish", "8080:80"])?;
    cluster.await_running("web", 4, &[], START_MAX)?;
    let leader = cluster.leader(1)?;
    for (round, host) in [4, leader, 4, leader % 3 + 1].into_iter().enumerate() {
        let from = (host + 1) % 3 + 1;
        mesh::await_answer(&cluster, from, host, 8080)?;
        let asking: Vec<_> = [("slow/800", "pause=10"), ("", "pause=2"), ("big/3000000", "pause=50")]
            .into_iter()
            .map(|(path, pause)| {
                let url = format!("{}{path}", at(host, 8080));
                Asking::start(&cluster, from, &url, &["clients=6", pause])
            })
            .collect::<Result<_>>()?;
        thread::sleep(Duration::from_secs(2));
        let took = cluster.lab.host_mut(host).stop_node()?;
        cluster.restart(host)?;
        mesh::await_answer(&cluster, from, host, 8080)?;
        println!("round {round}: the stop of h{host} under load took {took:?}");
        for one in asking {
            let figures = one.end()?;
            println!("through h{host}: {figures}");
            let reasons = figures["reasons"].as_object().context("no reasons")?;
            ensure!(reasons.keys().all(|reason| is_refusal(reason)), "begun and lost: {figures}");
            ensure!(figures["answered"].as_u64() > Some(10), "hardly anything was asked: {figures}");
        }
        cluster.await_ready(host % 3 + 1, 4)?;
    }
    println!("a stop with nothing open took {:?}", cluster.lab.host_mut(4).stop_node()?);
    Ok(())
}

/// `traffic load` in a container, with its input.
fn command(cluster: &Cluster<'_>, host: usize, id: &str, args: &[&str]) -> std::process::Command {
    let mut command = docker(&cluster.lab.host(host).engine_socket());
    command.args(["exec", "--interactive", id, "/traffic", "load"]).args(args);
    command
}

/// A container of h2 asks a task of h3, while the node of one of the two is restarted.
fn outlived(lab: &mut Lab, peer: Peer) -> Result<()> {
    let mut cluster = form(lab, peer, 1, 2)?;
    cluster.docker(1, &["network", "create", "--driver", "overlay", "back"])?;
    for (name, host, publish) in
        [("asks", "h2", "8081:80"), ("near", "h2", "8082:80"), ("far", "h3", "8080:80")]
    {
        let place = format!("node.hostname=={host}");
        mesh::create(
            &cluster,
            name,
            1,
            &["--network", "back", "--constraint", &place, "--publish", publish],
        )?;
        cluster.await_running(name, 1, &[], START_MAX)?;
    }
    for host in [2, 3] {
        seen_through_a_restart(&mut cluster, host)
            .with_context(|| format!("the node of h{host} restarted"))?;
    }
    kept_by_the_kernel(&mut cluster)
}

/// One restart that nobody missed: open connections between containers go on, and all else is there again.
fn seen_through_a_restart(cluster: &mut Cluster<'_>, host: usize) -> Result<()> {
    let address = cluster.virtual_address("far")?;
    for _ in 0..ATTEMPTS {
        let asks = container(cluster, 2, "asks")?;
        let from = (2, asks.as_str());
        wait::until("an answer of far", START_MAX, POLL, || {
            let figures = load(cluster, from, "http://far:80/", &["requests=1"])?;
            wait::seen(lost(&figures) == 0, || figures.to_string())
        })?;
        let before = faults::containers(cluster)?;
        let url = format!("http://{address}:80/");
        let slow = format!("{url}slow/4000");
        let open = [
            ("kept", command(cluster, 2, &asks, &[&url, "until=eof", "clients=4", "keep", "pause=50"])),
            ("slow", command(cluster, 2, &asks, &[&slow, "until=eof", "requests=4", "clients=4"])),
        ];
        let open: Vec<_> =
            open.into_iter().map(|(how, command)| Ok((how, Asking::of(command)?))).collect::<Result<_>>()?;
        thread::sleep(Duration::from_millis(700));
        let took = cluster.lab.host_mut(host).stop_node()?;
        let late = command(cluster, 2, &asks, &[&url, "until=eof", "requests=4", "clients=4"]);
        let late = Asking::of(late)?;
        cluster.restart(host)?;
        cluster.await_ready(1, 3)?;
        thread::sleep(Duration::from_secs(4));
        if faults::containers(cluster)? != before {
            println!("h{host} was missed, and its tasks were replaced");
            cluster.await_running("far", 1, &[], START_MAX)?;
            cluster.await_running("asks", 1, &[], START_MAX)?;
            continue;
        }
        println!("the stop of h{host} took {took:?}");
        for (how, asking) in open {
            let figures = asking.end()?;
            println!("{how}: {figures}");
            ensure!(lost(&figures) == 0, "{how} was lost: {figures}");
        }
        let late = late.end()?;
        println!("begun meanwhile: {late}");
        // The kernel looks for the other host for three seconds, which a busy machine may take to start a node.
        let explained = late["reasons"]
            .as_object()
            .is_some_and(|reasons| reasons.keys().all(|reason| reason.starts_with("No route to host")));
        ensure!(explained, "begun meanwhile was lost: {late}");
        wait::until("the name", START_MAX, POLL, || {
            let found = lookup(cluster, from, "far")?;
            wait::seen(found == [address.clone()], || format!("{found:?}"))
        })?;
        return mesh::await_answer(cluster, 1, host, 8080);
    }
    bail!("the node was missed {ATTEMPTS} times")
}

/// While a node is away the kernel alone leads containers of its host to each other.
fn kept_by_the_kernel(cluster: &mut Cluster<'_>) -> Result<()> {
    let asks = container(cluster, 2, "asks")?;
    let near = format!("http://{}:80/", cluster.virtual_address("near")?);
    cluster.kill(2)?;
    let figures = load(cluster, (2, &asks), &near, &["requests=40", "clients=4"])?;
    println!("by the virtual address of a task of the same host: {figures}");
    ensure!(lost(&figures) == 0, "a virtual address does not outlive its node: {figures}");
    println!("names: {:?}", lookup(cluster, (2, &asks), "near"));
    let script =
        format!("echo | timeout 10 nc {} 80 2>&1; echo ended with $?", cluster.virtual_address("far")?);
    let mut command = docker(&cluster.lab.host(2).engine_socket());
    let said = sh::run(command.args(["exec", &asks, "sh", "-c", &script]), mesh::LOAD_MAX)?;
    println!("by the virtual address of a task of another host, after {:?}: {}", said.took, said.text());
    let here = mesh::load(cluster, 1, &at(2, 8080), &["requests=3"])?;
    ensure!(lost(&here) == 3, "a port without its node answers: {here}");
    mesh::await_answer(cluster, 1, 3, 8080)?;
    cluster.restart(2)?;
    cluster.await_ready(1, 3)?;
    cluster.await_running("near", 1, &[], START_MAX)?;
    mesh::await_answer(cluster, 1, 2, 8080)?;
    mesh::await_answer(cluster, 1, 3, 8082)
}
