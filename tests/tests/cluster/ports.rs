//! Published ports where something is in their way, and by their other addresses.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use shoal_tests::cluster::{Cluster, Peer, bare};
use shoal_tests::lab::{Lab, address_v6};
use shoal_tests::runner::Scenario;
use shoal_tests::wait;

use super::mesh::{self, TRAFFIC, await_answer, load, lost, port};
use super::{START_MAX, STOP_MAX, networks, ours, says};

pub(crate) const SCENARIOS: &[Scenario] = &[
    ours("task_that_refuses_connections_costs_no_request", refuses),
    ours("task_that_listens_late_costs_no_request", listens_late),
    ours("port_that_a_host_has_already_is_told_there_and_served_elsewhere", taken),
    ours("published_ports_and_virtual_addresses_answer_over_ipv6", over_ipv6),
];

const POLL: Duration = Duration::from_millis(100);
/// A host that is not in the cluster.
const CLIENT: usize = 4;

/// A service's port as `shoal port ls` shows it.
fn shown(cluster: &Cluster<'_>, host: usize, service: &str) -> Result<String> {
    let said = cluster.shoal(host, &["port", "ls", service])?;
    said.lines().nth(1).map(str::to_owned).with_context(|| format!("no port: {said}"))
}

/// Of two tasks one runs and listens nowhere: whichever node is asked, all are answered by the other one.
fn refuses(lab: &mut Lab, peer: Peer) -> Result<()> {
    let cluster = Cluster::form(lab, peer, 1, 2)?;
    let on_third = "sh -c 'if [ \"$(hostname)\" = h3 ]; then exec sleep 1d; fi; exec \"$@\"' --";
    let placed = ["--constraint", "node.role==worker", "--replicas-max-per-node", "1"];
    let flags = ["--publish", "8080:80", "--hostname", "{{.Node.Hostname}}", "--entrypoint", on_third];
    mesh::create(&cluster, "web", 2, &[&placed[..], &flags].concat())?;
    cluster.await_running("web", 2, &[], START_MAX)?;
    for host in 1..=3 {
        await_answer(&cluster, CLIENT, host, 8080)?;
        wait::until("two tasks behind the port", START_MAX, POLL, || {
            let port = port(&cluster, host, "web")?;
            wait::seen(port["Backends"] == 2, || port.to_string())
        })?;
        let before = port(&cluster, host, "web")?["Retries"].as_u64().context("no figure")?;
        // The one that refused is tried again after two seconds.
        let figures = load(&cluster, CLIENT, &mesh::at(host, 8080), &["seconds=7", "clients=4", "each"])?;
        ensure!(lost(&figures) == 0, "h{host}: {figures}");
        let servers = figures["servers"].as_object().context("no servers")?;
        ensure!(servers.keys().all(|name| name.starts_with("h2 ")), "h{host}: {figures}");
        let port = port(&cluster, host, "web")?;
        let retries = port["Retries"].as_u64().context("no figure")?;
        println!("h{host}: {} answers, {} tries in vain", figures["answered"], retries - before);
        ensure!(retries >= before + 2, "h{host}: {retries} tries in vain, and {before} before");
        ensure!(port["RefusedConnections"] == 0, "h{host} refused clients: {port}");
        let line = shown(&cluster, host, "web")?;
        let columns: Vec<&str> = line.split_whitespace().collect();
        let column = columns.get(8).and_then(|column| column.parse::<u64>().ok());
        ensure!(column >= Some(retries), "RETRIES is not {retries}: {line}");
    }
    Ok(())
}

/// Tasks that listen only a while after they run, one of which takes over from the other: whoever asks waits for it.
fn listens_late(lab: &mut Lab, peer: Peer) -> Result<()> {
    let cluster = Cluster::form(lab, peer, 1, 2)?;
    let late = "sh -c 'sleep 1; exec \"$@\"' --";
    let flags = ["--publish", "8080:80", "--replicas-max-per-node", "1", "--entrypoint", late];
    let update = ["--update-delay", "0s", "--update-monitor", "500ms"];
    mesh::create(&cluster, "web", 2, &[&flags[..], &update].concat())?;
    cluster.await_running("web", 2, &[], START_MAX)?;
    for host in 1..=3 {
        await_answer(&cluster, CLIENT, host, 8080)?;
    }
    let ask =
        |host, kind| mesh::spawn(&cluster, CLIENT, &mesh::at(host, 8080), &["seconds=12", "clients=4", kind]);
    let asking = [ask(1, "keep")?, ask(1, "each")?, ask(2, "keep")?, ask(3, "each")?];
    std::thread::sleep(POLL * 5);
    cluster.docker(1, &["service", "update", "--no-resolve-image", "--env-add", "A=1", "web"])?;
    for child in asking {
        let figures = mesh::came_of(child)?;
        println!("{} answered, the slowest after {} ms", figures["answered"], figures["slowest_ms"]);
        ensure!(lost(&figures) == 0, "lost requests: {figures}");
        // They did have to wait, or this shows nothing.
        ensure!(figures["slowest_ms"].as_u64() > Some(300), "nobody waited: {figures}");
    }
    for host in 1..=3 {
        let port = port(&cluster, host, "web")?;
        ensure!(port["RefusedConnections"] == 0, "h{host} refused clients: {port}");
    }
    Ok(())
}

fn taken(lab: &mut Lab, peer: Peer) -> Result<()> {
    let cluster = Cluster::form(lab, peer, 1, 2)?;
    let host = cluster.lab.host(2);
    let (log, pid) = (host.dir().join("program.log"), host.dir().join("program.pid"));
    let mut program = host.inside().spawn(&[TRAFFIC, "serve", "8080"].map(str::to_owned), &log, &pid)?;
    let result = beside(&cluster);
    host.inside().signal("KILL", &pid)?;
    program.wait()?;
    result?;
    wait::until("the port on h2", START_MAX, POLL, || {
        let line = shown(&cluster, 2, "web")?;
        wait::seen(line.ends_with("listening"), || line)
    })?;
    await_answer(&cluster, CLIENT, 2, 8080)
}

/// While another program has the port on h2.
fn beside(cluster: &Cluster<'_>) -> Result<()> {
    let own = mesh::at(2, 8080);
    wait::until("the program on h2", STOP_MAX, POLL, || {
        let figures = load(cluster, CLIENT, &own, &["requests=1", "each"])?;
        wait::seen(lost(&figures) == 0, || figures.to_string())
    })?;
    mesh::create(cluster, "web", 2, &["--publish", "8080:80", "--hostname", "task"])?;
    cluster.await_running("web", 2, &[], START_MAX)?;
    for host in [1, 3] {
        await_answer(cluster, CLIENT, host, 8080)?;
        let line = shown(cluster, host, "web")?;
        ensure!(line.ends_with("listening"), "on h{host}: {line}");
        let figures = load(cluster, CLIENT, &mesh::at(host, 8080), &["requests=20", "each"])?;
        ensure!(lost(&figures) == 0, "h{host}: {figures}");
        says(&figures["servers"].to_string(), "task ")?;
    }
    let line = shown(cluster, 2, "web")?;
    says(&line, "port 8080 of this host: Address already in use")?;
    let figures = load(cluster, CLIENT, &own, &["requests=1", "each"])?;
    ensure!(!figures["servers"].to_string().contains("task "), "two have one port: {figures}");
    Ok(())
}

fn over_ipv6(lab: &mut Lab, peer: Peer) -> Result<()> {
    let cluster = networks::form(lab, peer, 1, 2)?;
    cluster.docker(1, &["network", "create", "--driver", "overlay", "--ipv6", "dual"])?;
    let flags = ["--network", "dual", "--publish", "8080:80", "--hostname", "{{.Node.Hostname}}"];
    networks::create(&cluster, "web", 2, &[&flags[..], &["--constraint", "node.role==worker"]].concat())?;
    networks::create(&cluster, "asks", 1, &["--network", "dual", "--constraint", "node.role==manager"])?;
    for host in 1..=3 {
        let url = format!("http://[{}]:8080/", address_v6(host));
        wait::until(&format!("an answer of {url}"), START_MAX, POLL, || {
            let figures = load(&cluster, CLIENT, &url, &["requests=1"])?;
            wait::seen(lost(&figures) == 0, || figures.to_string())
        })?;
        let figures = load(&cluster, CLIENT, &url, &["requests=40", "clients=4", "each"])?;
        ensure!(lost(&figures) == 0, "{url}: {figures}");
        // Nearest first where all are as busy, so a node that has none asks both.
        let servers = figures["servers"].to_string();
        ensure!(host != 1 || servers.contains("h2 ") && servers.contains("h3 "), "{url}: {figures}");
    }
    let service = cluster.api(1).get("/services/web")?;
    let virtuals = service["Endpoint"]["VirtualIPs"].as_array().context("no virtual addresses")?;
    let addresses = virtuals.iter().map(|one| bare(&one["Addr"])).collect::<Result<Vec<_>>>()?;
    let asks = networks::container(&cluster, 1, "asks")?;
    let by_name = networks::lookup(&cluster, (1, &asks), "web")?;
    println!("virtual addresses {addresses:?}, by name {by_name:?}");
    let sixth = by_name.iter().find(|address| address.contains(':')).context("no address of IPv6 by name")?;
    let url = format!("http://[{sixth}]:80/");
    networks::await_answer(&cluster, (1, &asks), &url)?;
    let figures = networks::load(&cluster, (1, &asks), &url, &["requests=60", "clients=2", "each"])?;
    let servers = figures["servers"].to_string();
    ensure!(
        lost(&figures) == 0 && servers.contains("h2 ") && servers.contains("h3 "),
        "{url} leads not to both: {figures}"
    );
    let task = networks::lookup(&cluster, (1, &asks), "tasks.web")?;
    ensure!(!task.contains(sixth), "{sixth} is a task's, not a virtual address: {task:?}");
    Ok(())
}
