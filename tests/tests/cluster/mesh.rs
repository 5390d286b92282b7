//! Published ports: any node answers, and no release loses a request.

use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use shoal_tests::cluster::{Cluster, Peer};
use shoal_tests::lab::{Lab, address};
use shoal_tests::runner::Scenario;
use shoal_tests::{sh, traffic, wait};

use super::{START_MAX, STOP_MAX, ours, says};

pub(crate) const SCENARIOS: &[Scenario] = &[
    ours("published_port_answers_on_every_node", everywhere),
    ours("published_port_belongs_to_one_service", one_owner),
    ours("published_port_answers_at_its_addresses_alone", at_addresses),
    ours("releases_lose_no_request", releases),
    ours("datagrams_pass_published_ports", datagrams),
    ours("datagrams_leave_a_task_that_leaves", datagrams_leave),
    ours("task_is_told_its_client", told),
    ours("datagrams_keep_their_clients_address", told_by_datagrams),
    ours("datagrams_find_another_way_back", another_way_back),
    ours("lost_node_takes_no_more_traffic", lost_node),
];

/// The program that serves and asks.
pub(super) const TRAFFIC: &str = env!("CARGO_BIN_EXE_traffic");
/// How long a run of requests may take.
pub(super) const LOAD_MAX: Duration = Duration::from_secs(180);

/// Create a service whose tasks answer HTTP on port 80.
pub(super) fn create(cluster: &Cluster<'_>, name: &str, replicas: usize, flags: &[&str]) -> Result<()> {
    create_of(cluster, name, replicas, flags, "serve")
}

pub(super) fn create_of(
    cluster: &Cluster<'_>,
    name: &str,
    replicas: usize,
    flags: &[&str],
    verb: &str,
) -> Result<()> {
    let flags = [&["--stop-grace-period", "1s"], flags].concat();
    traffic::create(cluster, TRAFFIC, verb, (name, replicas), &flags)
}

/// Run a container that is no task, which answers HTTP on port 80.
pub(super) fn run(cluster: &Cluster<'_>, host: usize, name: &str, flags: &[&str]) -> Result<String> {
    traffic::run(cluster, TRAFFIC, (host, name), flags)
}

fn load_command(cluster: &Cluster<'_>, from: usize, url: &str, flags: &[&str]) -> std::process::Command {
    let mut program = vec![TRAFFIC, "load", url];
    program.extend(flags);
    cluster.lab.host(from).inside().command(program)
}

/// Ask from a host; what came of it.
pub(super) fn load(cluster: &Cluster<'_>, from: usize, url: &str, flags: &[&str]) -> Result<Value> {
    let said = sh::must(&mut load_command(cluster, from, url, flags), LOAD_MAX)?;
    serde_json::from_str(&said).with_context(|| format!("no figures: {said}"))
}

pub(super) fn spawn(cluster: &Cluster<'_>, from: usize, url: &str, flags: &[&str]) -> Result<Child> {
    let mut command = load_command(cluster, from, url, flags);
    command.stdout(Stdio::piped()).spawn().context("asking")
}

/// Requests without a pause, until it is asked what came of them.
pub(super) struct Asking(Child);

impl Asking {
    /// Ask from a host.
    pub(super) fn start(cluster: &Cluster<'_>, from: usize, url: &str, flags: &[&str]) -> Result<Self> {
        Self::of(load_command(cluster, from, url, &[&["until=eof"], flags].concat()))
    }

    /// By this command, which goes on until its input ends.
    pub(super) fn of(mut command: std::process::Command) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map(Self).context("asking")
    }

    /// End it; what came of it.
    pub(super) fn end(mut self) -> Result<Value> {
        drop(self.0.stdin.take());
        came_of(self.0)
    }
}

/// What came of requests that end by themselves.
pub(super) fn came_of(asking: Child) -> Result<Value> {
    let said = asking.wait_with_output()?.stdout;
    serde_json::from_slice(&said).with_context(|| format!("no figures: {}", String::from_utf8_lossy(&said)))
}

pub(super) fn lost(figures: &Value) -> u64 {
    figures["lost"].as_u64().unwrap_or(u64::MAX)
}

/// A host's own way to its published port.
pub(super) fn at(host: usize, port: u16) -> String {
    format!("http://{}:{port}/", address(host))
}

/// The port of a service, as a node tells it.
pub(super) fn port(cluster: &Cluster<'_>, host: usize, service: &str) -> Result<Value> {
    let found = cluster.api(host).get(&format!("/shoal/v1/ports?service={service}"))?;
    Ok(found["Ports"][0].clone())
}

/// Wait until a port answers on a host.
pub(super) fn await_answer(cluster: &Cluster<'_>, from: usize, host: usize, port: u16) -> Result<()> {
    let url = at(host, port);
    wait::until(&format!("an answer of {url}"), START_MAX, Duration::from_millis(50), || {
        let figures = load(cluster, from, &url, &["requests=1"])?;
        wait::seen(lost(&figures) == 0, || figures.to_string())
    })
    .map(drop)
}

fn everywhere(lab: &mut Lab, peer: Peer) -> Result<()> {
    let cluster = Cluster::form(lab, peer, 3, 2)?;
    create(&cluster, "web", 2, &["--publish", "8080:80", "--constraint", "node.role==manager"])?;
    cluster.await_running("web", 2, &[], START_MAX)?;
    for host in 1..=5 {
        await_answer(&cluster, 4, host, 8080)?;
        let figures = load(&cluster, 5, &at(host, 8080), &["requests=40", "clients=4", "each"])?;
        ensure!(lost(&figures) == 0, "h{host}: {figures}");
    }
    // From a node without a task both are asked.
    let figures = load(&cluster, 4, &at(4, 8080), &["requests=40", "clients=4", "each"])?;
    ensure!(
        figures["servers"].as_object().is_some_and(|servers| servers.len() == 2),
        "one of two: {figures}"
    );
    let v6 = load(&cluster, 4, "http://[::1]:8080/", &["requests=4"])?;
    ensure!(lost(&v6) == 0, "over IPv6: {v6}");
    says(&cluster.docker(1, &["service", "ls"])?, "*:8080->80/tcp")?;
    let ports = cluster.shoal(4, &["port", "ls"])?;
    says(&ports, "8080/tcp")?;
    says(&ports, "listening")?;
    cluster.docker(1, &["service", "scale", "--detach", "web=0"])?;
    cluster.await_running("web", 0, &[], STOP_MAX)?;
    let none = load(&cluster, 4, &at(4, 8080), &["requests=3"])?;
    ensure!(lost(&none) == 3 && none["slowest_ms"].as_u64() < Some(500), "not refused fast: {none}");
    cluster.docker(1, &["service", "rm", "web"])?;
    Ok(())
}

fn one_owner(lab: &mut Lab, peer: Peer) -> Result<()> {
    let cluster = Cluster::form(lab, peer, 1, 0)?;
    let create = |name: &str, publish: &str| {
        let args =
            ["service", "create", "--detach", "--no-resolve-image", "--name", name, "--publish", publish];
        cluster.try_docker(1, &[&args[..], &["busybox:latest", "sleep", "1d"]].concat())
    };
    ensure!(create("web", "8080:80")?.ok(), "web was refused");
    for publish in ["8080:81", "published=8080,target=82,mode=host"] {
        let refused = create("other", publish)?;
        ensure!(!refused.ok(), "{publish} was taken");
        says(&refused.text(), "port '8080' is already in use by service 'web'")?;
    }
    ensure!(create("dynamic", "80")?.ok(), "dynamic was refused");
    let inspected: Value = serde_json::from_str(&cluster.docker(1, &["service", "inspect", "dynamic"])?)?;
    let port = &inspected[0]["Endpoint"]["Ports"][0]["PublishedPort"];
    ensure!(port == 30_000, "the first dynamic port is {port}");
    ensure!(create("udp", "8080:80/udp")?.ok(), "the same port of UDP was refused");
    ensure!(!create("odd", "published=53,target=53,protocol=sctp")?.ok(), "SCTP was taken");
    cluster.docker(1, &["service", "rm", "web"])?;
    ensure!(create("other", "8080:81")?.ok(), "8080 is free and was refused");
    Ok(())
}

/// Ask once; the service's own host names that answered, nothing if nobody did.
fn answers(cluster: &Cluster<'_>, from: usize, to: &str) -> Result<String> {
    let figures = load(cluster, from, &format!("http://{to}/"), &["requests=1", "each"])?;
    Ok(figures["servers"].to_string())
}

fn await_answer_of(cluster: &Cluster<'_>, from: usize, to: &str, name: &str) -> Result<()> {
    wait::until(&format!("{name} at {to}"), START_MAX, Duration::from_millis(100), || {
        let found = answers(cluster, from, to)?;
        wait::seen(if name.is_empty() { found == "{}" } else { found.contains(name) }, || found)
    })
    .map(drop)
}

/// Two services share a port number at addresses of their own; a node that has none of them does not listen.
fn at_addresses(lab: &mut Lab, peer: Peer) -> Result<()> {
    let cluster = Cluster::form(lab, peer, 1, 1)?;
    let (first, second) = (address(1), address(2));
    let label = |at: &str| format!("shoal.publish.8080={at}");
    let make = |name: &str, at: &str| {
        create(&cluster, name, 1, &["--hostname", name, "--publish", "8080:80", "--label", &label(at)])
    };
    make("inner", "127.0.0.1,::1")?;
    make("outer", "10.77.0.0/24,192.0.2.77")?;
    for (at, words) in [
        (label("127.0.0.0/8"), "already in use by service 'inner'"),
        (label("::"), "already in use by service 'inner'"),
        (label(&second), "already in use by service 'outer'"),
        ("a=b".to_owned(), "already in use by service"),
        ("shoal.publish.81=::1".to_owned(), "Spec.Labels.shoal.publish.81: port 81 is not published"),
    ] {
        let args = ["service", "create", "--detach", "--publish", "8080:80", "--label", &at, "busybox"];
        says(&cluster.docker_fails(1, &args)?, words)?;
    }
    for host in [1, 2] {
        await_answer_of(&cluster, host, "127.0.0.1:8080", "inner")?;
        await_answer_of(&cluster, host, "[::1]:8080", "inner")?;
        await_answer_of(&cluster, 3 - host, &format!("{}:8080", address(host)), "outer")?;
    }
    // An address that comes and goes is followed.
    let wire =
        |verb: &str| cluster.lab.host(2).inside().run(&["ip", "address", verb, "192.0.2.77/32", "dev", "lo"]);
    ensure!(answers(&cluster, 2, "192.0.2.77:8080")? == "{}", "an address that nobody has answers");
    wire("add")?;
    await_answer_of(&cluster, 2, "192.0.2.77:8080", "outer")?;
    wire("del")?;

    // Of UDP and of mode host the same is true, and the own command line says it in one word.
    create_of(
        &cluster,
        "echo",
        1,
        &["--publish", "5353:80/udp", "--label", "shoal.publish.5353/udp=127.0.0.1"],
        "echo",
    )?;
    let shout = |host: usize, addr: &str| shout(&cluster, host, addr, "1");
    for host in [1, 2] {
        wait::until("an echo", START_MAX, Duration::from_millis(100), || {
            let figures = shout(host, "127.0.0.1:5353")?;
            wait::seen(lost(&figures) == 0, || figures.to_string())
        })?;
    }
    ensure!(lost(&shout(2, &format!("{first}:5353"))?) == 1, "UDP answers at another address");
    let on_second = [
        "--hostname",
        "host",
        "--constraint",
        "node.hostname==h2",
        "--label",
        "shoal.publish.9000=10.77.0.0/16",
    ];
    let port = ["--publish", "published=9000,target=80,mode=host"];
    create(&cluster, "host", 1, &[&on_second[..], &port[..]].concat())?;
    await_answer_of(&cluster, 1, &format!("{second}:9000"), "host")?;
    await_answer_of(&cluster, 2, "127.0.0.1:9000", "")?;

    let update = ["service", "update", "--publish-add"];
    let shoal = |port: &str, name: &str| cluster.try_shoal(1, &[&update[..], &[port, name]].concat());
    let refused = shoal("8080:80", "inner")?;
    says(&refused.text(), "already in use by service 'outer'")?;
    ensure!(shoal(&format!("{second}:8088:80"), "inner")?.ok(), "a port of one node was refused");
    await_answer_of(&cluster, 1, &format!("{second}:8088"), "inner")?;
    await_answer_of(&cluster, 2, "127.0.0.1:8080", "")?;
    says(&cluster.shoal(1, &["service", "inspect", "--pretty", "inner"])?, &format!("at {second}"))?;
    for (host, here) in [(1, "no such address"), (2, "listening")] {
        let ports = cluster.shoal(host, &["port", "ls"])?;
        let line = ports.lines().find(|line| line.starts_with("8088/tcp")).unwrap_or_default();
        ensure!(line.contains(&second) && line.ends_with(here), "on h{host}: {ports}");
    }
    Ok(())
}

/// Requests that take a second, ten at once, while everything that a release can be is done.
fn releases(lab: &mut Lab, peer: Peer) -> Result<()> {
    let cluster = Cluster::form(lab, peer, 3, 2)?;
    create(
        &cluster,
        "web",
        3,
        &["--publish", "8080:80", "--update-delay", "0s", "--update-monitor", "500ms"],
    )?;
    cluster.await_running("web", 3, &[], START_MAX)?;
    await_answer(&cluster, 4, 4, 8080)?;
    let steps: [(&str, &[&str]); 6] = [
        (
            "a rolling update, stop first",
            &["service", "update", "--no-resolve-image", "--env-add", "A=1", "web"],
        ),
        (
            "a rolling update, start first",
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
        ("a rollback", &["service", "rollback", "web"]),
        ("more tasks", &["service", "scale", "web=6"]),
        ("fewer tasks", &["service", "scale", "web=2"]),
        ("a node drained", &["node", "update", "--availability", "drain", "h1"]),
    ];
    for (what, args) in steps {
        let url = at(4, 8080);
        let slow = spawn(&cluster, 4, &format!("{url}slow/1000"), &["requests=150", "clients=10"])?;
        // Connections that are kept for many requests go on, too; one of them waits most of the time.
        let kept = spawn(&cluster, 5, &url, &["seconds=14", "clients=8", "keep"])?;
        let waits = spawn(&cluster, 5, &url, &["seconds=14", "clients=2", "keep", "pause=3000"])?;
        // Large bodies pass another way, from tasks of this host and of others.
        let bulk = spawn(
            &cluster,
            5,
            &format!("{url}big/20000000"),
            &["seconds=14", "clients=2", "keep", "pause=100"],
        )?;
        std::thread::sleep(Duration::from_millis(1_500));
        cluster.docker(2, args).with_context(|| what.to_owned())?;
        for (how, asking) in [("slow", slow), ("kept", kept), ("waiting", waits), ("bulk", bulk)] {
            let figures = came_of(asking)?;
            println!("{what}, {how}: {figures}");
            ensure!(lost(&figures) == 0, "{what} lost requests ({how}): {figures}");
        }
    }
    Ok(())
}

/// Datagrams pass, too, large ones and over IPv6, and are answered from the address that was asked.
fn datagrams(lab: &mut Lab, peer: Peer) -> Result<()> {
    let cluster = Cluster::form(lab, peer, 1, 2)?;
    create_of(
        &cluster,
        "echo",
        2,
        &["--publish", "5353:80/udp", "--constraint", "node.role==worker"],
        "echo",
    )?;
    cluster.await_running("echo", 2, &[], START_MAX)?;
    let shout = |from: usize, addr: &str| shout(&cluster, from, addr, "20");
    let await_echo = |addr: &str| {
        wait::until("an echo", START_MAX, Duration::from_millis(100), || {
            let figures = shout(1, addr)?;
            wait::seen(lost(&figures) == 0, || figures.to_string())
        })
    };
    await_echo("127.0.0.1:5353")?;
    for (from, addr) in [
        (1, "[::1]:5353".to_owned()),
        (2, format!("{}:5353", address(1))),
        (1, format!("{}:5353", address(3))),
    ] {
        let figures = shout(from, &addr)?;
        ensure!(lost(&figures) == 0, "{addr}: {figures}");
    }
    let figures = shout(1, &format!("{}:5353", address(1)))?;
    ensure!(
        figures["servers"].as_object().is_some_and(|servers| servers.len() == 2),
        "one of two: {figures}"
    );

    // Behind the port is nobody: who asks is told so at once, and answered again once somebody is there.
    cluster.docker(1, &["service", "scale", "--detach", "echo=0"])?;
    for (from, addr) in [
        (1, "127.0.0.1:5353".to_owned()),
        (3, format!("{}:5353", address(2))),
        (2, "[::1]:5353".to_owned()),
        (1, format!("{}:5353", address(3))),
    ] {
        wait::until("a refusal", STOP_MAX, Duration::from_millis(100), || {
            let figures = shout(from, &addr)?;
            wait::seen(figures["refused"] == 20, || format!("h{from} to {addr}: {figures}"))
        })?;
    }
    cluster.docker(1, &["service", "scale", "--detach", "echo=1"])?;
    cluster.await_running("echo", 1, &[], START_MAX)?;
    await_echo(&format!("{}:5353", address(3)))?;
    Ok(())
}

/// A client that never falls silent goes on with the tasks that are left, through a published port as well as through a virtual address.
fn datagrams_leave(lab: &mut Lab, peer: Peer) -> Result<()> {
    let cluster = Cluster::form(lab, peer, 1, 1)?;
    cluster.docker(1, &["network", "create", "--driver", "overlay", "back"])?;
    let one_each = ["--network", "back", "--replicas-max-per-node", "1", "--label", "shoal.drain=5s"];
    create(&cluster, "web", 2, &one_each)?;
    create_of(&cluster, "echo", 2, &[&one_each[..], &["--publish", "5353:80/udp"]].concat(), "echo")?;
    cluster.await_running("web", 2, &[], START_MAX)?;
    cluster.await_running("echo", 2, &[], START_MAX)?;
    let virtual_address = format!("{}:80", cluster.virtual_address("echo")?);
    let web =
        cluster.lab.docker(1, &["ps", "--quiet", "--filter", "label=com.docker.swarm.service.name=web"])?;
    let web = web.text().trim().to_owned();
    let inside = |addr: &str, seconds: &str| {
        let mut command = shoal_tests::lab::docker(&cluster.lab.host(1).engine_socket());
        command.args(["exec", &web, "/traffic", "stream", addr, seconds]);
        command
    };
    let outside =
        |addr: &str, seconds: &str| cluster.lab.host(1).inside().command([TRAFFIC, "stream", addr, seconds]);
    let published = format!("{}:5353", address(2));
    let figures = |said: &[u8]| serde_json::from_slice::<Value>(said).context("no figures");
    wait::until("echoes", START_MAX, Duration::from_millis(100), || {
        let both =
            [inside(&virtual_address, "1").output()?.stdout, outside(&published, "1").output()?.stdout];
        let both = [figures(&both[0])?, figures(&both[1])?];
        wait::seen(both.iter().all(|of| of["answered"].as_u64() > Some(10)), || format!("{both:?}"))
    })?;
    // Several of each: whichever task leaves, some of them were with it.
    let spawn = |mut command: std::process::Command| command.stdout(Stdio::piped()).spawn();
    let mut all = Vec::new();
    for number in 0..12 {
        all.push(("by the virtual address", spawn(inside(&virtual_address, "14"))?));
        all.push(("through the port", spawn(outside(&published, "14"))?));
        std::thread::sleep(Duration::from_millis(20 * number));
    }
    std::thread::sleep(Duration::from_secs(2));
    // The one that is not on its clients' host, whose engine would clean up behind one of its own.
    cluster.docker(1, &["node", "update", "--availability", "drain", "h2"])?;
    cluster.await_running("echo", 1, &[], STOP_MAX)?;
    let mut moved = std::collections::BTreeMap::new();
    let mut lasts = std::collections::BTreeSet::new();
    for (way, child) in all {
        let figures = came_of(child)?;
        println!("{way}: {figures}");
        lasts.insert(figures["last"].as_str().unwrap_or_default().to_owned());
        ensure!(figures["longest_ms"].as_u64() < Some(2_000), "{way} there was silence: {figures}");
        let servers = figures["servers"].as_object().map_or(0, serde_json::Map::len);
        *moved.entry(way).or_insert(0) += usize::from(servers == 2);
    }
    ensure!(lasts.len() == 1, "the last answers came from several tasks: {lasts:?}");
    ensure!(moved.len() == 2 && moved.values().all(|count| *count > 0), "none had to move: {moved:?}");
    Ok(())
}

/// A task learns who its client is.
fn told(lab: &mut Lab, peer: Peer) -> Result<()> {
    let cluster = Cluster::form(lab, peer, 1, 2)?;
    let flags =
        ["--publish", "8080:80", "--label", "shoal.proxy-protocol=v2", "--constraint", "node.hostname==h1"];
    create(&cluster, "web", 1, &flags)?;
    cluster.await_running("web", 1, &[], START_MAX)?;
    for host in [1, 2] {
        await_answer(&cluster, 2, host, 8080)?;
        let figures = load(&cluster, 2, &at(host, 8080), &["requests=1", "each"])?;
        says(&figures["servers"].to_string(), &format!(" {}:", address(2)))?;
    }
    // Without a header it sees the client's address all the same, whichever node was asked.
    create(&cluster, "plain", 1, &["--publish", "8081:80", "--constraint", "node.hostname==h1"])?;
    cluster.await_running("plain", 1, &[], START_MAX)?;
    for (from, host) in [(3, 1), (3, 2), (2, 1)] {
        await_answer(&cluster, from, host, 8081)?;
        let figures = load(&cluster, from, &at(host, 8081), &["requests=20", "clients=4", "each"])?;
        ensure!(lost(&figures) == 0, "h{from} lost requests at h{host}: {figures}");
        says(&figures["servers"].to_string(), &address(from))?;
    }
    Ok(())
}

/// Ask from a host by datagrams, each a flow of its own.
fn shout(cluster: &Cluster<'_>, from: usize, addr: &str, count: &str) -> Result<Value> {
    let mut command = cluster.lab.host(from).inside().command([TRAFFIC, "shout", addr, count]);
    Ok(serde_json::from_str(&sh::must(&mut command, LOAD_MAX)?)?)
}

/// Echoes on h1 alone, each with a port, which answer.
fn echoes(cluster: &Cluster<'_>, services: &[(&str, &str, &[&str])]) -> Result<()> {
    for (name, publish, more) in services {
        let flags = [&["--publish", *publish, "--constraint", "node.hostname==h1"], *more].concat();
        create_of(cluster, name, 1, &flags, if *name == "sink" { "sink" } else { "echo" })?;
    }
    services.iter().try_for_each(|(name, ..)| cluster.await_running(name, 1, &[], START_MAX).map(drop))
}

/// The bridge of h1: what a task there sees in place of its clients.
const BRIDGE: &str = "172.20.1.1";

fn is_seen(figures: &Value, client: &str) -> bool {
    figures["seen"].as_object().is_some_and(|seen| seen.keys().eq([client]))
}

/// Datagrams reach a task under their client's address, large ones too, whichever node was asked.
fn told_by_datagrams(lab: &mut Lab, peer: Peer) -> Result<()> {
    let cluster = Cluster::form(lab, peer, 1, 2)?;
    for name in ["second", "first"] {
        cluster.docker(1, &["network", "create", "--driver", "overlay", name])?;
    }
    // A task in several networks is asked in the one that its way out is in.
    let both = ["--network", "second", "--network", "first"];
    echoes(
        &cluster,
        &[("echo", "5353:80/udp", &[]), ("other", "5354:80/udp", &[]), ("both", "5355:80/udp", &both)],
    )?;
    // No client asks for a task at two nodes here: by chance it would do so from one port, which is seen once alone.
    for (from, host, port, client) in [
        (3, 1, 5353, address(3)),
        (3, 2, 5354, address(3)),
        (2, 1, 5353, address(2)),
        (2, 1, 5355, address(2)),
        (3, 2, 5355, address(3)),
        (1, 1, 5353, BRIDGE.to_owned()),
    ] {
        let at = format!("{}:{port}", address(host));
        wait::until("an echo", START_MAX, Duration::from_millis(100), || {
            let figures = shout(&cluster, from, &at, "1")?;
            wait::seen(lost(&figures) == 0, || figures.to_string())
        })?;
        let figures = shout(&cluster, from, &at, "20")?;
        println!("from h{from} at h{host}: {figures}");
        ensure!(lost(&figures) == 0, "h{from} lost datagrams at h{host}: {figures}");
        ensure!(is_seen(&figures, &client), "{client} was not seen at h{host}: {figures}");
    }
    // One socket of a client may ask at several nodes, and from the port that is published: one flow to each task shows it.
    let all: Vec<_> = [5353, 5354]
        .iter()
        .flat_map(|port| [1, 2, 3].map(|host| format!("{}:{port}", address(host))))
        .collect();
    let command: Vec<_> =
        [TRAFFIC, "mingle", "5353"].into_iter().chain(all.iter().map(String::as_str)).collect();
    let figures: Value = serde_json::from_str(&cluster.lab.host(4).inside().run(&command)?)?;
    println!("from one socket: {figures}");
    for (number, at) in all.iter().enumerate() {
        let client = if number % 3 == 0 { address(4) } else { BRIDGE.to_owned() };
        ensure!(figures[at] == client, "{at} did not see {client}: {figures}");
    }
    Ok(())
}

/// Where answers to its client's address are lost a flow goes on under the host's, and what leads them back is repaired. A
/// task that answers nobody sees its clients.
fn another_way_back(lab: &mut Lab, peer: Peer) -> Result<()> {
    let cluster = Cluster::form(lab, peer, 1, 2)?;
    echoes(
        &cluster,
        &[
            ("far", "5353:80/udp", &[]),
            ("near", "5354:80/udp", &[]),
            ("known", "5355:80/udp", &[]),
            ("sink", "5356:80/udp", &[]),
        ],
    )?;
    let (client, host) = (address(3), cluster.lab.host(1).inside());
    let spawn = |at: usize, port: u16, seconds: &str| {
        let at = format!("{}:{port}", address(at));
        let mut command = cluster.lab.host(3).inside().command([TRAFFIC, "stream", &at, seconds]);
        command.stdout(Stdio::piped()).spawn()
    };
    let figures = |what: &str, child: std::io::Result<Child>| -> Result<Value> {
        let figures = came_of(child?)?;
        println!("{what}: {figures}");
        Ok(figures)
    };
    let rules = || -> Result<String> {
        let found = host.run(&["nft", "list", "table", "inet", "shoal_clients"])?;
        Ok(found + &host.run(&["ip", "rule", "show", "pref", "5301"])?)
    };
    let went_on = |what: &str, figures: &Value| -> Result<()> {
        let longest = figures["longest_ms"].as_u64();
        ensure!(longest > Some(1_500) && longest < Some(4_000), "{what} did not go on in time: {figures}");
        Ok(())
    };
    let known = || -> Result<()> {
        let figures = shout(&cluster, 3, &format!("{}:5355", address(1)), "1")?;
        ensure!(is_seen(&figures, &client), "the rules do not work: {figures}");
        Ok(())
    };
    wait::until("an answer", START_MAX, Duration::from_millis(100), known)?;
    let before = rules()?;
    for (what, at, port, broken) in
        [("far", 2, 5353, "nft delete table inet shoal_clients"), ("near", 1, 5354, "ip rule del pref 5301")]
    {
        host.script(broken)?;
        let first = figures(what, spawn(at, port, "5"))?;
        ensure!(is_seen(&first, BRIDGE), "{what} saw somebody else: {first}");
        went_on(what, &first)?;
        let next = figures(what, spawn(at, port, "1"))?;
        ensure!(is_seen(&next, BRIDGE), "{what} is known, and saw somebody else: {next}");
        ensure!(next["longest_ms"].as_u64() < Some(1_000), "{what} is known, and there was silence: {next}");
        let after = rules()?;
        ensure!(after == before, "the rules are not what they were: {before}\n{after}");
    }
    // Where others were answered it is the rules alone, and the flow keeps its address.
    known()?;
    host.run(&["nft", "delete", "table", "inet", "shoal_clients"])?;
    let sink = spawn(2, 5356, "6");
    let known = figures("known", spawn(1, 5355, "5"))?;
    went_on("known", &known)?;
    ensure!(is_seen(&known, &client), "known saw somebody else: {known}");
    let sink = figures("sink", sink)?;
    ensure!(sink["answered"] == 0, "the sink answered: {sink}");
    let id =
        cluster.lab.docker(1, &["ps", "--quiet", "--filter", "label=com.docker.swarm.service.name=sink"])?;
    let heard = cluster.lab.docker(1, &["logs", id.text().trim()])?.text();
    ensure!(heard.lines().eq([&client, BRIDGE, &client]), "the sink heard {heard}");
    Ok(())
}

/// A node is lost: its own connections are, and nothing else.
fn lost_node(lab: &mut Lab, peer: Peer) -> Result<()> {
    let cluster = Cluster::form(lab, peer, 3, 2)?;
    create(&cluster, "web", 5, &["--publish", "8080:80"])?;
    cluster.await_running("web", 5, &[], START_MAX)?;
    await_answer(&cluster, 4, 4, 8080)?;
    cluster.lab.cut(5)?;
    // One that is on its way to the lost node is tried elsewhere.
    let figures = load(&cluster, 4, &at(4, 8080), &["seconds=6", "clients=4"])?;
    println!("while a node is lost: {figures}");
    ensure!(lost(&figures) == 0, "lost requests: {figures}");
    cluster.lab.heal(5)?;
    Ok(())
}
