//! Networks that span hosts: containers reach each other by address, by virtual address and by name, and nobody else.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use shoal_tests::cluster::{Cluster, Peer};
use shoal_tests::lab::{Lab, docker};
use shoal_tests::prometheus::Page;
use shoal_tests::runner::Scenario;
use shoal_tests::{sh, wait};

use super::mesh::{self, LOAD_MAX, lost};
use super::{START_MAX, STOP_MAX, ours, says};

pub(crate) const SCENARIOS: &[Scenario] = &[
    ours("network_reaches_across_hosts", across),
    ours("small_wire_takes_what_is_large", small_wire),
    ours("networks_are_islands", islands),
    ours("network_is_refused_in_words", refusals),
    ours("unused_networks_are_pruned_and_bridges_spared", pruned),
    ours("names_follow_tasks", names),
    ours("releases_lose_no_request_by_name", releases),
    ours("network_is_added_and_removed_on_a_running_service", added),
    ours("networks_outlive_their_daemon_and_a_flush", outlive),
    ours("full_network_says_why_tasks_wait", full),
    ours("network_has_both_families", families),
    ours("plain_containers_are_in_a_network_with_tasks", attached),
    ours("plain_containers_that_are_gone_give_their_addresses_back", given_back),
    ours("ranges_come_from_the_clusters_pools", pools),
];

const POLL: Duration = Duration::from_millis(100);
/// News of a task has reached every node, and its rules are in the kernel, well within this.
const NEWS_MAX: Duration = Duration::from_secs(5);

/// A cluster whose hosts let nothing pass that they were not told to.
pub(super) fn form(lab: &mut Lab, peer: Peer, managers: usize, workers: usize) -> Result<Cluster<'_>> {
    let cluster = Cluster::form(lab, peer, managers, workers)?;
    for host in 1..=managers + workers {
        let mut command = cluster.lab.host(host).inside().command(["iptables", "-P", "FORWARD", "DROP"]);
        sh::must(&mut command, NEWS_MAX)?;
    }
    Ok(cluster)
}

/// Create a service whose tasks answer HTTP on port 80, and wait until they run.
pub(super) fn create(cluster: &Cluster<'_>, name: &str, replicas: usize, flags: &[&str]) -> Result<()> {
    mesh::create(cluster, name, replicas, flags)?;
    cluster.await_running(name, replicas, &[], START_MAX).map(drop)
}

/// The containers of a service on a host.
fn containers(cluster: &Cluster<'_>, host: usize, service: &str) -> Result<Vec<String>> {
    let filter = format!("label=com.docker.swarm.service.name={service}");
    let said = cluster.lab.docker(host, &["ps", "--quiet", "--filter", &filter])?;
    Ok(said.text().split_whitespace().map(ToOwned::to_owned).collect())
}

/// A container of the service on the host.
pub(super) fn container(cluster: &Cluster<'_>, host: usize, service: &str) -> Result<String> {
    containers(cluster, host, service)?.pop().with_context(|| format!("h{host} has no task of {service}"))
}

pub(super) fn inside(
    cluster: &Cluster<'_>,
    host: usize,
    container: &str,
    args: &[&str],
) -> std::process::Command {
    let mut command = docker(&cluster.lab.host(host).engine_socket());
    command.args(["exec", container]).args(args);
    command
}

/// Ask from within a container; what came of it.
pub(super) fn load(
    cluster: &Cluster<'_>,
    (host, container): (usize, &str),
    url: &str,
    flags: &[&str],
) -> Result<Value> {
    let args = [&["/traffic", "load", url], flags].concat();
    let said = sh::run(&mut inside(cluster, host, container, &args), LOAD_MAX)?;
    serde_json::from_str(said.text().trim()).with_context(|| format!("no figures: {}", said.text()))
}

pub(super) fn servers(figures: &Value) -> usize {
    figures["servers"].as_object().map_or(0, serde_json::Map::len)
}

/// Wait until a request from within a container is answered.
pub(super) fn await_answer(cluster: &Cluster<'_>, from: (usize, &str), url: &str) -> Result<()> {
    wait::until(&format!("an answer of {url}"), NEWS_MAX, POLL, || {
        let figures = load(cluster, from, url, &["requests=1"]);
        wait::seen(figures.as_ref().is_ok_and(|figures| lost(figures) == 0), || format!("{figures:?}"))
    })
    .map(drop)
}

fn unreachable(cluster: &Cluster<'_>, (host, container): (usize, &str), address: &str) -> Result<()> {
    let script = format!("echo | timeout 2 nc {address} 80");
    let said = sh::run(&mut inside(cluster, host, container, &["sh", "-c", &script]), LOAD_MAX)?;
    ensure!(!said.ok(), "h{host} reached {address}");
    Ok(())
}

/// The addresses of a service's running tasks in a network, with their hosts.
fn addresses(cluster: &Cluster<'_>, service: &str) -> Result<Vec<String>> {
    addresses_at(cluster, 1, service)
}

/// The same in the eyes of this manager.
fn addresses_at(cluster: &Cluster<'_>, manager: usize, service: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for task in cluster.tasks(manager, service)? {
        if task["Status"]["State"] == "running" && task["DesiredState"] == "running" {
            let places = task["NetworksAttachments"].as_array().cloned().unwrap_or_default();
            let addresses = places.iter().filter_map(|place| place["Addresses"][0].as_str());
            found.extend(addresses.filter_map(|address| Some(address.split('/').next()?.to_owned())));
        }
    }
    Ok(found)
}

/// What nothing is in goes with a prune, and what a node made for its tasks stays, whoever asks for its end by which name.
fn pruned(lab: &mut Lab, peer: Peer) -> Result<()> {
    let cluster = form(lab, peer, 1, 1)?;
    for name in ["back", "idle"] {
        cluster.docker(1, &["network", "create", "--driver", "overlay", "--label", "of=test", name])?;
    }
    cluster.docker(1, &["network", "create", "plain"])?;
    create(&cluster, "web", 2, &["--network", "back", "--replicas-max-per-node", "1"])?;
    let said = cluster.docker_fails(1, &["network", "create", "--driver", "overlay", "plain"])?;
    says(&said, "this node's engine has network plain")?;
    for host in [1, 2] {
        let said = cluster.docker_fails(host, &["network", "create", "back"])?;
        says(&said, "of the cluster spans nodes, and one of this node cannot have its name")?;
    }
    let bridge = cluster.lab.docker(2, &["network", "inspect", "--format", "{{.Id}}", "back"])?.text();
    let web = container(&cluster, 2, "web")?;
    for args in [
        &["rm", "back"][..],
        &["rm", bridge.trim()],
        &["disconnect", "--force", "back", &web],
        &["disconnect", bridge.trim(), &web],
    ] {
        let said = cluster.docker_fails(2, &[&["network"], args].concat())?;
        says(&said, "is the bridge of network back")?;
    }
    cluster.docker(2, &["network", "create", "local"])?;
    let on_worker = cluster.docker(2, &["network", "prune", "--force"])?;
    ensure!(on_worker.contains("local") && !on_worker.contains("back"), "on a worker: {on_worker}");
    let other = cluster.docker(1, &["network", "prune", "--force", "--filter", "label!=of"])?;
    ensure!(other.contains("plain") && !other.contains("idle"), "by label: {other}");
    let young = cluster.shoal(1, &["network", "prune", "--filter", "until=1h"])?;
    ensure!(young.trim().is_empty(), "younger than an hour: {young}");
    ensure!(cluster.shoal(1, &["network", "prune"])?.trim() == "idle", "idle alone has nobody");
    let figures = load(&cluster, (2, &web), "http://web:80/", &["requests=20", "each"])?;
    ensure!(lost(&figures) == 0 && servers(&figures) == 2, "after the prunes: {figures}");
    for (what, words) in [("service", "Networks      back 10."), ("network", "Services      web (10.")] {
        let name = if what == "service" { "web" } else { "back" };
        says(&cluster.shoal(1, &[what, "inspect", "--pretty", name])?, words)?;
    }
    cluster.docker(1, &["service", "rm", "web"])?;
    wait::until("the network's end", STOP_MAX, POLL, || {
        let said = cluster.docker(1, &["network", "prune", "--force"])?;
        wait::seen(said.contains("back"), || said)
    })
    .map(drop)
}

/// A host's wire takes smaller packets than the others' do: what is larger passes in parts, or is made to fit.
fn small_wire(lab: &mut Lab, peer: Peer) -> Result<()> {
    let cluster = form(lab, peer, 1, 2)?;
    let narrow = ["ip", "link", "set", "dev", "eth0", "mtu", "1280"];
    sh::must(&mut cluster.lab.host(2).inside().command(narrow), NEWS_MAX)?;
    cluster.docker(1, &["network", "create", "--driver", "overlay", "back"])?;
    create(
        &cluster,
        "web",
        3,
        &["--network", "back", "--publish", "8080:80", "--replicas-max-per-node", "1"],
    )?;
    let (all, address) = (addresses(&cluster, "web")?, cluster.virtual_address("web")?);
    let narrowed =
        || sh::must(&mut cluster.lab.host(2).inside().command(["ip", "link", "show", "eth0"]), NEWS_MAX);
    for host in 1..=3 {
        let container = container(&cluster, host, "web")?;
        for to in all.iter().chain([&address]) {
            let url = format!("http://{to}:80/big/3000000");
            let figures = load(&cluster, (host, &container), &url, &["requests=6", "clients=2", "each"])?;
            ensure!(lost(&figures) == 0, "h{host} to {to}: {figures}");
        }
        let url = format!("http://{}:8080/big/3000000", shoal_tests::lab::address(host));
        let figures = load(&cluster, (host, &container), &url, &["requests=6", "clients=2", "each"])?;
        ensure!(lost(&figures) == 0, "h{host} through its port: {figures}");
    }
    says(&narrowed()?, "mtu 1280")
}

fn across(lab: &mut Lab, peer: Peer) -> Result<()> {
    let cluster = form(lab, peer, 1, 2)?;
    cluster.docker(1, &["network", "create", "--driver", "overlay", "back"])?;
    create(&cluster, "web", 6, &["--network", "back"])?;
    let all = addresses(&cluster, "web")?;
    ensure!(all.len() == 6, "addresses: {all:?}");
    let address = cluster.virtual_address("web")?;
    for filter in ["1", "0"] {
        // Whether bridges pass what they carry through the rules of IP differs from host to host.
        for host in 1..=3 {
            let setting = format!("net.bridge.bridge-nf-call-iptables={filter}");
            let mut set = cluster.lab.host(host).inside().command(["sysctl", "-qw", &setting]);
            sh::must(&mut set, NEWS_MAX)?;
        }
        std::thread::sleep(Duration::from_secs(6));
        for host in 1..=3 {
            let container = container(&cluster, host, "web")?;
            let from = (host, container.as_str());
            for task in &all {
                let figures = load(&cluster, from, &format!("http://{task}:80/big/100000"), &["requests=3"])?;
                ensure!(lost(&figures) == 0, "h{host} to {task}, bridge-nf {filter}: {figures}");
            }
            for name in [address.as_str(), "web"] {
                let figures = load(
                    &cluster,
                    from,
                    &format!("http://{name}:80/"),
                    &["requests=120", "clients=2", "each"],
                )?;
                ensure!(
                    lost(&figures) == 0 && servers(&figures) == 6,
                    "h{host} to {name}, bridge-nf {filter}: {figures}"
                );
            }
        }
    }
    // From task to task the client's address is kept.
    let from = container(&cluster, 1, "web")?;
    let other = containers(&cluster, 2, "web")?;
    let inspected: Value = serde_json::from_str(&cluster.lab.docker(2, &["inspect", &other[0]])?.text())?;
    let target =
        inspected[0]["NetworkSettings"]["Networks"]["back"]["IPAddress"].as_str().unwrap_or_default();
    let figures = load(&cluster, (1, &from), &format!("http://{target}:80/"), &["requests=1", "each"])?;
    let inspected: Value = serde_json::from_str(&cluster.lab.docker(1, &["inspect", &from])?.text())?;
    let own = inspected[0]["NetworkSettings"]["Networks"]["back"]["IPAddress"].as_str().unwrap_or_default();
    says(&figures["servers"].to_string(), own)?;
    // Once nobody stands behind the address, it refuses at once.
    create(&cluster, "asks", 3, &["--network", "back"])?;
    cluster.docker(1, &["service", "scale", "--detach", "web=0"])?;
    cluster.await_running("web", 0, &[], STOP_MAX)?;
    let asks = container(&cluster, 2, "asks")?;
    wait::until("a refusal", NEWS_MAX, POLL, || {
        let figures = load(&cluster, (2, &asks), &format!("http://{address}:80/"), &["requests=2"])?;
        let refused = lost(&figures) == 2 && figures["slowest_ms"].as_u64() < Some(500);
        wait::seen(refused, || figures.to_string())
    })?;
    Ok(())
}

fn islands(lab: &mut Lab, peer: Peer) -> Result<()> {
    let cluster = form(lab, peer, 1, 1)?;
    cluster.docker(1, &["network", "create", "--driver", "overlay", "one"])?;
    cluster.docker(1, &["network", "create", "--driver", "overlay", "--internal", "two"])?;
    create(&cluster, "a", 2, &["--network", "one"])?;
    create(&cluster, "b", 2, &["--network", "two"])?;
    create(&cluster, "both", 2, &["--network", "one", "--network", "two"])?;
    let a = container(&cluster, 1, "a")?;
    for address in addresses(&cluster, "b")?.into_iter().chain([cluster.virtual_address("b")?]) {
        unreachable(&cluster, (1, &a), &address)?;
    }
    let crossed = refused(&cluster, "crossing")?;
    ensure!(crossed > 0.0, "what went from one network to another is not counted");
    let figures = load(&cluster, (1, &a), "http://b:80/", &["requests=1"]);
    ensure!(figures.map_or(true, |figures| lost(&figures) == 1), "a name of another network is known");
    let both = container(&cluster, 1, "both")?;
    for name in ["a", "b", "a.one", "b.two"] {
        await_answer(&cluster, (1, &both), &format!("http://{name}:80/"))?;
    }
    // An internal network leads nowhere else.
    let b = container(&cluster, 1, "b")?;
    let outside = shoal_tests::lab::address(2);
    let ping = |container: &str| -> Result<bool> {
        Ok(sh::run(&mut inside(&cluster, 1, container, &["ping", "-c1", "-W1", &outside]), LOAD_MAX)?.ok())
    };
    ensure!(ping(&a)?, "a task of an open network does not get out");
    ensure!(!ping(&b)?, "a task of an internal network gets out");
    // Whoever borrows another's address is not heard, be it one of the network or of none: that this host's kernel does not even pass
    // on, and counts.
    let said = cluster.lab.docker(1, &["inspect", &a])?;
    let inspected: Value = serde_json::from_str(&said.text())?;
    let (pid, own) = (
        &inspected[0]["State"]["Pid"],
        inspected[0]["NetworkSettings"]["Networks"]["one"]["IPAddress"].as_str(),
    );
    let victim = addresses(&cluster, "a")?.into_iter().find(|address| Some(address.as_str()) != own);
    let victim = victim.context("a has one task alone")?;
    let before = refused(&cluster, "foreign")?;
    for borrowed in ["10.128.9.9", "198.51.100.9"] {
        let script =
            format!("ip addr add {borrowed}/32 dev eth0 && ! busybox ping -c2 -W1 -I {borrowed} {victim}");
        let words = ["nsenter", "--target", &pid.to_string(), "--net", "sh", "-c", &script];
        let said = sh::run(&mut cluster.lab.host(1).inside().command(words), LOAD_MAX)?;
        ensure!(said.ok() && said.text().contains("100% packet loss"), "as {borrowed}: {}", said.text());
    }
    let after = refused(&cluster, "foreign")?;
    ensure!(after > before, "foreign senders: {before} packets before, {after} after");
    Ok(())
}

/// How many packets the first host's kernel refused for this reason.
fn refused(cluster: &Cluster<'_>, reason: &str) -> Result<f64> {
    let page = Page::parse(&cluster.lab.host(1).metrics()?.text());
    let label = format!("{{reason=\"{reason}\"}}");
    let sample = page
        .samples
        .iter()
        .find(|(name, labels, _)| name == "shoal_overlay_refused_packets_total" && *labels == label);
    sample.map(|(.., value)| *value).with_context(|| format!("nothing is told of {reason}"))
}

fn refusals(lab: &mut Lab, peer: Peer) -> Result<()> {
    let cluster = form(lab, peer, 1, 0)?;
    let network = |args: &[&str]| {
        cluster.try_docker(1, &[&["network", "create", "--driver", "overlay"], args].concat())
    };
    let refused = |args: &[&str], words: &str| -> Result<()> {
        let said = network(args)?;
        ensure!(!said.ok(), "{args:?} was taken");
        says(&said.text(), words)
    };
    ensure!(network(&["--subnet", "10.9.0.0/16", "one"])?.ok(), "one was refused");
    refused(&["--subnet", "10.9.8.0/24", "two"], "overlaps with network 'one'")?;
    refused(&["one"], "network with name one already exists")?;
    refused(&["--subnet", "10.77.0.0/24", "hosts"], "overlaps with node")?;
    refused(&["--subnet", "10.8.0.0/31", "tiny"], "IPAM.Config")?;
    create(&cluster, "web", 1, &["--network", "one"])?;
    let kept = cluster.docker_fails(1, &["network", "rm", "one"])?;
    says(&kept, "in use by service 'web'")?;
    let unknown = cluster.docker_fails(
        1,
        &["service", "create", "--detach", "--network", "nowhere", "busybox:latest", "sleep", "1d"],
    )?;
    says(&unknown, "network nowhere not found")?;
    says(&cluster.docker(1, &["network", "ls"])?, "overlay")?;
    cluster.docker(1, &["service", "rm", "web"])?;
    wait::until("the network's end", START_MAX, POLL, || {
        let said = cluster.try_docker(1, &["network", "rm", "one"])?;
        wait::seen(said.ok(), || said.text())
    })?;
    // Nothing of it is left on the host.
    wait::until("a clean host", STOP_MAX, POLL, || {
        let said =
            cluster.lab.docker(1, &["network", "ls", "--filter", "label=shoal.network.id", "--quiet"])?;
        let rules = sh::run(&mut cluster.lab.host(1).inside().command(["nft", "list", "tables"]), NEWS_MAX)?;
        let clean = said.text().trim().is_empty()
            && !rules.text().lines().any(|table| table.trim() == "table inet shoal");
        wait::seen(clean, || format!("{} {}", said.text(), rules.text()))
    })?;
    Ok(())
}

pub(super) fn lookup(
    cluster: &Cluster<'_>,
    (host, container): (usize, &str),
    name: &str,
) -> Result<Vec<String>> {
    let said = sh::run(&mut inside(cluster, host, container, &["/traffic", "lookup", name]), LOAD_MAX)?;
    let mut found: Vec<String> = said.text().split_whitespace().map(ToOwned::to_owned).collect();
    found.sort();
    Ok(found)
}

/// Wait until `tasks.web` is what runs of it, in the eyes of this manager, for a container on each of these hosts.
fn agree(cluster: &Cluster<'_>, (at, hosts): (usize, &[usize]), what: &str, limit: Duration) -> Result<()> {
    wait::until(what, limit, POLL, || {
        let mut expected = addresses_at(cluster, at, "web")?;
        expected.sort();
        let mut wrong = Vec::new();
        for &host in hosts {
            let found = lookup(cluster, (host, &container(cluster, host, "asks")?), "tasks.web")?;
            if found != expected {
                wrong.push(format!("h{host} says {found:?}, {expected:?} run"));
            }
        }
        wait::seen(wrong.is_empty(), || wrong.join("; "))
    })
    .map(drop)
}

/// Names are right after everything that can happen to a service, on every host, at once.
fn names(lab: &mut Lab, peer: Peer) -> Result<()> {
    let mut cluster = form(lab, peer, 3, 1)?;
    cluster.docker(1, &["network", "create", "--driver", "overlay", "back"])?;
    create(&cluster, "asks", 4, &["--network", "back"])?;
    create(&cluster, "web", 3, &["--network", "name=back,alias=www"])?;
    let all = [1, 2, 3, 4];
    agree(&cluster, (1, &all), "names of a new service", NEWS_MAX)?;
    let asks = container(&cluster, 4, "asks")?;
    let address = cluster.virtual_address("web")?;
    for name in ["web", "www", "web.back", "WEB"] {
        ensure!(lookup(&cluster, (4, &asks), name)? == [address.clone()], "{name} is not {address}");
    }
    ensure!(lookup(&cluster, (4, &asks), "web.1")?.len() == 1, "a task has no name");
    let told = cluster.shoal(1, &["network", "names", "web"])?;
    says(&told, &format!("back {address}"))?;
    ensure!(
        told.lines().filter(|line| line.contains("healthy") && line.contains("yes")).count() == 3,
        "{told}"
    );
    cluster.docker(1, &["service", "scale", "--detach", "web=5"])?;
    cluster.await_running("web", 5, &[], START_MAX)?;
    agree(&cluster, (1, &all), "names after more tasks", NEWS_MAX)?;
    cluster.docker(1, &["service", "update", "--no-resolve-image", "--env-add", "A=1", "web"])?;
    agree(&cluster, (1, &all), "names after an update", NEWS_MAX)?;
    names_after_leaders(&mut cluster, &all)?;
    cluster.docker(1, &["service", "rm", "web"])?;
    wait::until("no name", START_MAX, POLL, || {
        let found = lookup(&cluster, (4, &asks), "web")?;
        wait::seen(found.is_empty(), || format!("{found:?}"))
    })?;
    Ok(())
}

/// The same when a leader is lost, when it is back, and when one is back before anybody missed it.
fn names_after_leaders(cluster: &mut Cluster<'_>, all: &[usize]) -> Result<()> {
    let lost = cluster.leader(1)?;
    let at = lost % 3 + 1;
    let others: Vec<_> = all.iter().copied().filter(|host| *host != lost).collect();
    cluster.kill(lost)?;
    cluster.docker(at, &["service", "scale", "--detach", "web=2"])?;
    cluster.await_running("web", 2, &[lost], START_MAX)?;
    ensure!(cluster.leader(at)? != lost, "h{lost} still leads in the eyes of h{at}");
    agree(cluster, (at, &others), "names after a lost leader", START_MAX)?;

    cluster.restart(lost)?;
    cluster.await_ready(at, all.len())?;
    // Its tasks run elsewhere by now; new ones come to it.
    cluster.docker(lost, &["service", "scale", "--detach", "asks=8", "web=5"])?;
    cluster.await_running("asks", 8, &[], START_MAX)?;
    cluster.await_running("web", 5, &[], START_MAX)?;
    agree(cluster, (lost, all), "names after the leader's return", START_MAX)?;

    let brief = cluster.leader(at)?;
    cluster.kill(brief)?;
    cluster.restart(brief)?;
    cluster.await_ready(at, all.len())?;
    cluster.docker(brief, &["service", "scale", "--detach", "web=3"])?;
    cluster.await_running("web", 3, &[], START_MAX)?;
    agree(cluster, (brief, all), "names after a brief absence of the leader", START_MAX)
}

fn releases(lab: &mut Lab, peer: Peer) -> Result<()> {
    let cluster = form(lab, peer, 1, 2)?;
    cluster.docker(1, &["network", "create", "--driver", "overlay", "back"])?;
    create(&cluster, "asks", 3, &["--network", "back"])?;
    // A container runs before its program listens, and nobody waits for that by name.
    let check = ["--health-cmd", "/traffic ask http://127.0.0.1:80/", "--health-interval", "300ms"];
    let update = ["--network", "back", "--update-delay", "0s", "--update-monitor", "500ms"];
    create(&cluster, "web", 3, &[&update[..], &check].concat())?;
    let asks = container(&cluster, 3, "asks")?;
    await_answer(&cluster, (3, &asks), "http://web:80/")?;
    let steps: [(&str, &[&str]); 3] = [
        ("a rolling update", &["service", "update", "--no-resolve-image", "--env-add", "A=1", "web"]),
        ("fewer tasks", &["service", "scale", "web=1"]),
        (
            "start first",
            &[
                "service",
                "update",
                "--no-resolve-image",
                "--update-order",
                "start-first",
                "--env-add",
                "A=2",
                "web",
            ],
        ),
    ];
    for (what, args) in steps {
        let flags = ["/traffic", "load", "http://web:80/slow/500", "seconds=12", "clients=6"];
        let asking = inside(&cluster, 3, &asks, &flags).stdout(Stdio::piped()).spawn()?;
        std::thread::sleep(Duration::from_secs(1));
        cluster.docker(1, args).with_context(|| what.to_owned())?;
        let figures = mesh::came_of(asking)?;
        println!("{what}, by name: {figures}");
        ensure!(lost(&figures) == 0, "{what} lost requests by name: {figures}");
    }
    Ok(())
}

fn added(lab: &mut Lab, peer: Peer) -> Result<()> {
    let cluster = form(lab, peer, 1, 1)?;
    for network in ["one", "two"] {
        cluster.docker(1, &["network", "create", "--driver", "overlay", network])?;
    }
    create(&cluster, "asks", 2, &["--network", "two"])?;
    create(&cluster, "web", 2, &["--network", "one"])?;
    let update = |flags: &[&str]| {
        cluster.docker(1, &[&["service", "update", "--no-resolve-image"], flags, &["web"]].concat())
    };
    update(&["--network-add", "two"])?;
    let asks = container(&cluster, 2, "asks")?;
    await_answer(&cluster, (2, &asks), "http://web:80/")?;
    update(&["--network-rm", "one"])?;
    await_answer(&cluster, (2, &asks), "http://web:80/")?;
    ensure!(addresses(&cluster, "web")?.len() == 2, "the old network is still there");
    cluster.docker(1, &["network", "rm", "one"])?;
    Ok(())
}

fn outlive(lab: &mut Lab, peer: Peer) -> Result<()> {
    let mut cluster = form(lab, peer, 1, 1)?;
    cluster.docker(1, &["network", "create", "--driver", "overlay", "back"])?;
    create(&cluster, "web", 4, &["--network", "back"])?;
    let from = container(&cluster, 2, "web")?;
    let address = cluster.virtual_address("web")?;
    let url = format!("http://{address}:80/");
    await_answer(&cluster, (2, &from), &url)?;
    for command in [
        &["nft", "delete", "table", "inet", "shoal"][..],
        &["ip", "route", "flush", "table", "5300"],
        &["iptables", "-F", "DOCKER-USER"],
    ] {
        sh::must(&mut cluster.lab.host(2).inside().command(command), NEWS_MAX)?;
    }
    wait::until("rules put back", Duration::from_secs(15), POLL, || {
        let figures = load(&cluster, (2, &from), &url, &["requests=16", "each"])?;
        wait::seen(lost(&figures) == 0 && servers(&figures) > 1, || figures.to_string())
    })?;
    // While the daemon is away, what stays on this host goes on.
    let own = addresses(&cluster, "web")?;
    cluster.kill(2)?;
    let mut reached = 0;
    for task in &own {
        let script = format!("(printf 'GET / HTTP/1.0\\r\\n\\r\\n'; sleep 0.2) | timeout 2 nc {task} 80");
        let said = sh::run(&mut inside(&cluster, 2, &from, &["sh", "-c", &script]), LOAD_MAX)?;
        reached += usize::from(said.text().contains("200 OK"));
    }
    ensure!(reached >= 2, "{reached} of this host's own tasks answer without the daemon");
    cluster.restart(2)?;
    cluster.await_ready(1, 2)?;
    // Its tasks run elsewhere by now; new ones come to it.
    cluster.docker(1, &["service", "scale", "web=8"])?;
    let from = container(&cluster, 2, "web")?;
    wait::until("tasks of both hosts", Duration::from_secs(15), POLL, || {
        let figures = load(&cluster, (2, &from), &url, &["requests=100", "each"])?;
        wait::seen(lost(&figures) == 0 && servers(&figures) == 8, || figures.to_string())
    })?;
    Ok(())
}

fn full(lab: &mut Lab, peer: Peer) -> Result<()> {
    let cluster = form(lab, peer, 1, 0)?;
    cluster.docker(1, &["network", "create", "--driver", "overlay", "--subnet", "10.9.9.0/29", "small"])?;
    mesh::create(&cluster, "web", 6, &["--network", "small"])?;
    // A gateway, a virtual address and four tasks.
    cluster.await_running("web", 4, &[], START_MAX)?;
    let message = wait::until("the reason", STOP_MAX, POLL, || {
        let tasks = cluster.tasks(1, "web")?;
        let waiting = tasks.iter().find(|task| task["Status"]["State"] == "pending");
        let said = waiting.and_then(|task| task["Status"]["Err"].as_str()).unwrap_or_default().to_owned();
        wait::seen(said.contains("no free address in network 'small'"), || said.clone())
    });
    message?;
    cluster.docker(1, &["service", "scale", "--detach", "web=4"])?;
    cluster.docker(1, &["service", "update", "--no-resolve-image", "--env-add", "A=1", "web"])?;
    Ok(())
}

fn families(lab: &mut Lab, peer: Peer) -> Result<()> {
    let cluster = form(lab, peer, 1, 1)?;
    cluster.docker(1, &["network", "create", "--driver", "overlay", "--ipv6", "dual"])?;
    create(&cluster, "web", 4, &["--network", "dual"])?;
    let mut all = Vec::new();
    for task in cluster.tasks(1, "web")? {
        let places = &task["NetworksAttachments"][0]["Addresses"];
        let second = places[1].as_str().and_then(|address| address.split('/').next());
        all.push(second.with_context(|| format!("no second address: {places}"))?.to_owned());
    }
    let from = container(&cluster, 2, "web")?;
    for address in all {
        await_answer(&cluster, (2, &from), &format!("http://[{address}]:80/"))?;
    }
    Ok(())
}

/// Containers that users make, on a manager and on a worker: they reach tasks and each other, and are reached.
fn attached(lab: &mut Lab, peer: Peer) -> Result<()> {
    let mut cluster = form(lab, peer, 1, 2)?;
    cluster.docker(1, &["network", "create", "--driver", "overlay", "--attachable", "--ipv6", "back"])?;
    cluster.docker(1, &["network", "create", "--driver", "overlay", "shut"])?;
    create(&cluster, "web", 3, &["--network", "back"])?;
    mesh::run(&cluster, 1, "one", &["--network", "back"])?;
    mesh::run(&cluster, 3, "two", &["--network", "back", "--network-alias", "deux"])?;
    for name in ["web", "two", "deux", "two.back"] {
        await_answer(&cluster, (1, "one"), &format!("http://{name}:80/"))?;
    }
    for name in ["web", "one", "web.1"] {
        await_answer(&cluster, (3, "two"), &format!("http://{name}:80/"))?;
    }
    let task = container(&cluster, 2, "web")?;
    for name in ["one", "two"] {
        await_answer(&cluster, (2, &task), &format!("http://{name}:80/"))?;
        let found = lookup(&cluster, (2, &task), name)?;
        ensure!(found.len() == 2, "{name} has no address of each family: {found:?}");
        await_answer(&cluster, (2, &task), &format!("http://[{}]:80/", found[1]))?;
    }
    let found = lookup(&cluster, (3, "two"), "tasks.web")?;
    ensure!(found.len() == 6, "tasks.web is {found:?}");
    says(&cluster.docker(1, &["network", "inspect", "back"])?, "\"one\"")?;

    let refused = |host: usize, flags: &[&str], words: &str| -> Result<()> {
        let args = [&["run", "--rm"], flags, &["busybox:latest", "true"]].concat();
        says(&cluster.docker_fails(host, &args)?, words)
    };
    for host in [1, 3] {
        refused(host, &["--network", "shut"], "network 'shut' takes the tasks of services alone")?;
        refused(host, &["--network", "back", "--ip", "10.128.0.9"], "IPAMConfig.IPv4Address")?;
        refused(host, &["--network", "nowhere"], "network nowhere not found")?;
    }
    says(&cluster.docker_fails(1, &["network", "rm", "back"])?, "in use by service 'web'")?;

    // No container hides a service from its host, however it would come by the name, and no service comes under a container's.
    for host in [1, 3] {
        let words = "is a name of service 'web' in network 'back'";
        refused(host, &["--network", "back", "--name", "web"], words)?;
        refused(host, &["--network", "back", "--network-alias", "WEB"], words)?;
        refused(host, &["--network", "back", "--hostname", "web"], words)?;
        let name = if host == 1 { "one" } else { "two" };
        says(&cluster.docker_fails(host, &["rename", name, "web"])?, words)?;
        await_answer(&cluster, (host, name), "http://web:80/")?;
    }
    let service = [
        "service",
        "create",
        "--detach",
        "--name",
        "deux",
        "--network",
        "back",
        "busybox:latest",
        "sleep",
        "1d",
    ];
    says(&cluster.docker_fails(1, &service)?, "container 'two' on node h3 has the name 'deux'")?;

    // One that is there already enters the network, and leaves it.
    mesh::run(&cluster, 2, "late", &["--dns", "10.128.0.1"])?;
    cluster.docker(2, &["network", "connect", "--alias", "tard", "back", "late"])?;
    for name in ["late", "tard"] {
        await_answer(&cluster, (1, "one"), &format!("http://{name}:80/"))?;
    }
    await_answer(&cluster, (2, "late"), "http://two:80/")?;
    cluster.docker(2, &["rename", "late", "later"])?;
    await_answer(&cluster, (1, "one"), "http://later:80/")?;
    cluster.docker(2, &["network", "disconnect", "back", "later"])?;
    wait::until("no name", NEWS_MAX, POLL, || {
        let found = lookup(&cluster, (1, "one"), "later")?;
        wait::seen(found.is_empty(), || format!("{found:?}"))
    })?;

    // A daemon that is started again goes on with what it finds.
    cluster.kill(3)?;
    cluster.restart(3)?;
    cluster.await_ready(1, 3)?;
    await_answer(&cluster, (3, "two"), "http://one:80/")?;
    await_answer(&cluster, (1, "one"), "http://two:80/")?;

    cluster.docker(1, &["service", "rm", "web"])?;
    cluster.docker(3, &["rm", "--force", "two"])?;
    wait::until("a network in use by a container", STOP_MAX, POLL, || {
        let said = cluster.docker_fails(1, &["network", "rm", "back"])?;
        wait::seen(said.contains("in use by container 'one' on node h1"), || said.clone())
    })?;
    cluster.docker(1, &["rm", "--force", "one"])?;
    wait::until("the network's end", STOP_MAX, POLL, || {
        let said = cluster.try_docker(1, &["network", "rm", "back"])?;
        wait::seen(said.ok(), || said.text())
    })?;
    Ok(())
}

/// Addresses come back however a container goes.
fn given_back(lab: &mut Lab, peer: Peer) -> Result<()> {
    let mut cluster = form(lab, peer, 1, 1)?;
    let create =
        ["network", "create", "--driver", "overlay", "--attachable", "--subnet", "10.9.9.0/29", "small"];
    cluster.docker(1, &create)?;
    let run = |cluster: &Cluster<'_>, name: &str, flags: &[&str]| {
        let args = [&["run", "--detach", "--network", "small", "--name", name], flags, &["busybox:latest"]];
        cluster.try_docker(2, &[&args.concat()[..], &["sleep", "1d"]].concat())
    };
    let full = |cluster: &Cluster<'_>| -> Result<()> {
        let said = run(cluster, "none", &[])?;
        ensure!(!said.ok(), "the network has more addresses than it can");
        says(&said.text(), "no address of network 'small' is free")
    };
    let has_room = |cluster: &Cluster<'_>, name: &str, flags: &[&str]| {
        wait::until(&format!("an address for {name}"), START_MAX, POLL, || {
            let said = run(cluster, name, flags)?;
            wait::seen(said.ok(), || said.text())
        })
        .map(drop)
    };
    // All but the gateway's.
    for name in ["box-a", "box-b", "box-c", "box-d", "box-e"] {
        has_room(&cluster, name, &[])?;
    }
    full(&cluster)?;
    // Through our API, and behind its back.
    cluster.docker(2, &["rm", "--force", "box-a"])?;
    has_room(&cluster, "box-f", &["--rm"])?;
    full(&cluster)?;
    cluster.lab.docker(2, &["rm", "--force", "box-b"])?;
    has_room(&cluster, "box-g", &[])?;
    full(&cluster)?;
    // One that the engine removes by itself.
    cluster.docker(2, &["kill", "box-f"])?;
    has_room(&cluster, "box-h", &[])?;
    full(&cluster)?;
    // While the node is down.
    cluster.kill(2)?;
    cluster.lab.docker(2, &["rm", "--force", "box-c"])?;
    cluster.restart(2)?;
    cluster.await_ready(1, 2)?;
    has_room(&cluster, "box-i", &[])?;
    full(&cluster)?;
    // A stopped one keeps its address, and has it again.
    cluster.docker(2, &["kill", "box-d"])?;
    full(&cluster)?;
    cluster.docker(2, &["start", "box-d"])?;
    let said = cluster.docker_fails(1, &["network", "rm", "small"])?;
    says(&said, "network 'small' is in use by container")?;
    // With its node go all that it has.
    cluster.kill(2)?;
    cluster.docker(1, &["node", "rm", "--force", "h2"])?;
    cluster.docker(1, &["network", "rm", "small"]).map(drop)
}

/// Ranges and addresses come from where the one who began the cluster said, be it by Docker's words or by the daemon's flags.
fn pools(lab: &mut Lab, peer: Peer) -> Result<()> {
    let mut cluster = Cluster::new(lab, peer);
    cluster.start(1)?;
    let length = "--default-addr-pool-mask-length";
    for (pools, words) in [
        (&["--default-addr-pool", "10.20.0.0/16", length, "8"][..], "SubnetSize: 8: no range of /8"),
        (&["--default-addr-pool", "127.0.0.0/8"], "DefaultAddrPool: 127.0.0.0/8 is no range for containers"),
    ] {
        says(&cluster.docker_fails(1, &[&["swarm", "init"], pools].concat())?, words)?;
    }
    let two = ["--default-addr-pool", "10.20.0.0/25", "--default-addr-pool", "172.29.0.0/16", length, "26"];
    let advertise = ["--advertise-addr", &shoal_tests::lab::address(1)];
    cluster.docker(1, &[&["swarm", "init"][..], &advertise, &two].concat())?;
    let info = cluster.docker(1, &["info"])?;
    says(&info, "Default Address Pool: 10.20.0.0/25  172.29.0.0/16")?;
    says(&info, "SubnetSize: 26")?;
    for (name, subnet) in [("a", "10.20.0.0/26"), ("b", "10.20.0.64/26"), ("c", "172.29.0.0/26")] {
        cluster.docker(1, &["network", "create", "--driver", "overlay", name])?;
        let format = "{{(index .IPAM.Config 0).Subnet}}";
        let found = cluster.docker(1, &["network", "inspect", "--format", format, name])?;
        ensure!(found.trim() == subnet, "{name} has {found}");
    }
    let part = ["--subnet", "10.9.8.0/24", "--ip-range", "10.9.8.128/29"];
    cluster.docker(1, &[&["network", "create", "--driver", "overlay"][..], &part, &["part"]].concat())?;
    create(&cluster, "web", 2, &["--network", "part"])?;
    let all = [addresses(&cluster, "web")?, vec![cluster.virtual_address("web")?]].concat();
    let number = |address: &String| address.strip_prefix("10.9.8.").and_then(|last| last.parse::<u8>().ok());
    ensure!(
        all.len() == 3 && all.iter().all(|a| number(a).is_some_and(|n| (128..136).contains(&n))),
        "outside of the part: {all:?}"
    );
    let web = container(&cluster, 1, "web")?;
    await_answer(&cluster, (1, &web), "http://web.part:80/")?;

    let flags = ["--init", "--default-addr-pool", "10.30.0.0/16"];
    cluster.lab.host_mut(2).start_node(&flags)?;
    wait::until("a cluster of its own", START_MAX, POLL, || {
        let info = cluster.docker(2, &["info"])?;
        wait::seen(
            info.contains("Default Address Pool: 10.30.0.0/16") && info.contains("SubnetSize: 24"),
            || info,
        )
    })
    .map(drop)
}
