//! How long connections go on once their task shall stop: to their own end, or to the service's deadline and not beyond.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use shoal_tests::cluster::{Cluster, Peer};
use shoal_tests::lab::Lab;
use shoal_tests::runner::Scenario;
use shoal_tests::wait;

use super::mesh::{self, LOAD_MAX, await_answer, lost};
use super::streams::{connect, echoes};
use super::{START_MAX, STOP_MAX, networks, ours};

pub(crate) const SCENARIOS: &[Scenario] = &[
    ours("upgraded_connection_goes_on_to_its_deadline", upgraded),
    ours("removed_service_answers_what_is_under_way", removed),
    ours("removed_service_answers_what_is_under_way_by_name", removed_by_name),
    ours("short_drain_breaks_off_in_time", broken_off),
];

const POLL: Duration = Duration::from_millis(100);
/// The client's host, which is not in the cluster.
const CLIENT: usize = 3;
const PORT: u16 = 8080;
/// What a deadline may be late by on a busy machine.
const LATE_MAX: Duration = Duration::from_secs(15);

/// A task on h1 and one on h2, which have so long to end.
fn form<'a>(lab: &'a mut Lab, peer: Peer, drain: &str) -> Result<Cluster<'a>> {
    let cluster = Cluster::form(lab, peer, 1, 1)?;
    let label = format!("shoal.drain={drain}");
    let flags = ["--publish", "8080:80", "--replicas-max-per-node", "1", "--label", &label];
    let update = ["--update-delay", "0s", "--update-monitor", "500ms"];
    mesh::create(&cluster, "web", 2, &[&flags[..], &update].concat())?;
    cluster.await_running("web", 2, &[], START_MAX)?;
    for host in [1, 2] {
        await_answer(&cluster, CLIENT, host, PORT)?;
        wait::until("both tasks", START_MAX, POLL, || {
            let figures =
                mesh::load(&cluster, CLIENT, &mesh::at(host, PORT), &["requests=8", "clients=8", "each"])?;
            let both = figures["servers"].as_object().is_some_and(|servers| servers.len() == 2);
            wait::seen(both, || figures.to_string())
        })?;
    }
    Ok(cluster)
}

/// A connection that began as HTTP and goes on without it.
fn upgrade(cluster: &Cluster<'_>, host: usize) -> Result<TcpStream> {
    let mut stream = connect(cluster, host, PORT)?;
    stream
        .write_all(b"GET /upgrade HTTP/1.1\r\nHost: web\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).context("within the head")?;
        head.extend(byte);
    }
    ensure!(head.starts_with(b"HTTP/1.1 101 "), "answered {}", String::from_utf8_lossy(&head));
    Ok(stream)
}

/// How a conversation ended, and when.
type End = (Instant, ErrorKind);

/// Talk without a pause until it ends.
fn talk(stream: TcpStream) -> JoinHandle<End> {
    std::thread::spawn(move || {
        for number in 0.. {
            if let Err(error) = echoes(&stream, &number.to_string()) {
                return (Instant::now(), error.kind());
            }
            std::thread::sleep(POLL / 2);
        }
        (Instant::now(), ErrorKind::TimedOut)
    })
}

/// So many conversations with both tasks, by way of both nodes.
fn talks(cluster: &Cluster<'_>) -> Result<Vec<JoinHandle<End>>> {
    let hosts = [1, 1, 1, 1, 2, 2, 2, 2];
    let streams = hosts.iter().map(|host| upgrade(cluster, *host)).collect::<Result<Vec<_>>>()?;
    let talks = streams.into_iter().map(talk).collect();
    std::thread::sleep(POLL * 5);
    Ok(talks)
}

/// When they ended, counted from `began`, the earliest first. All were broken off.
fn ends(talks: Vec<JoinHandle<End>>, began: Instant) -> Result<Vec<Duration>> {
    let mut all = Vec::new();
    for talk in talks {
        let (at, kind) = talk.join().ok().context("a conversation panicked")?;
        ensure!(kind == ErrorKind::ConnectionReset, "one was not broken off, but {kind}");
        all.push(at.saturating_duration_since(began));
    }
    all.sort();
    println!("broken off after {all:?}");
    Ok(all)
}

/// Connections that the nodes broke off.
fn cut(cluster: &Cluster<'_>) -> Result<u64> {
    let mut all = 0;
    for host in [1, 2] {
        let found = cluster.api(host).get("/shoal/v1/ports")?;
        all += found["CutConnections"].as_u64().with_context(|| format!("no figure: {found}"))?;
    }
    Ok(all)
}

fn upgraded(lab: &mut Lab, peer: Peer) -> Result<()> {
    const DRAIN: Duration = Duration::from_secs(8);
    let cluster = form(lab, peer, "8s")?;
    let talks = talks(&cluster)?;
    let count = talks.len() as u64;
    let kept = mesh::spawn(&cluster, CLIENT, &mesh::at(1, PORT), &["seconds=12", "clients=4", "keep"])?;
    let began = Instant::now();
    cluster.docker(1, &["service", "update", "--no-resolve-image", "--env-add", "A=1", "web"])?;
    let ends = ends(talks, began)?;
    // One task after the other: the second one's connections have all the time of the first one's, too.
    let (first, last) = (ends.first().context("none")?, ends.last().context("none")?);
    for (what, end, least) in [("first", first, DRAIN), ("second", last, DRAIN * 2)] {
        ensure!(*end >= least, "the {what} task's were broken off after {end:?}");
        ensure!(*end < least + LATE_MAX, "the {what} task's were broken off after {end:?} only");
    }
    ensure!(cut(&cluster)? == count, "{} of {count} are counted", cut(&cluster)?);
    let figures = mesh::came_of(kept)?;
    ensure!(lost(&figures) == 0, "others lost requests meanwhile: {figures}");
    Ok(())
}

fn removed(lab: &mut Lab, peer: Peer) -> Result<()> {
    const CLIENTS: u64 = 8;
    let cluster = form(lab, peer, "60s")?;
    let ask = |host| {
        let flags = ["requests=8", "clients=8"];
        mesh::spawn(&cluster, CLIENT, &format!("{}slow/4000", mesh::at(host, PORT)), &flags)
    };
    let asking = [ask(1)?, ask(2)?];
    for host in [1, 2] {
        wait::until(&format!("requests under way on h{host}"), LOAD_MAX, POLL, || {
            let found = cluster.api(host).get("/shoal/v1/ports")?;
            let port = &found["Ports"][0];
            let under_way = port["OpenConnections"] == CLIENTS && port["BytesIn"].as_u64() > Some(1);
            wait::seen(under_way, || found.to_string())
        })?;
    }
    std::thread::sleep(POLL * 5);
    cluster.docker(1, &["service", "rm", "web"])?;
    for child in asking {
        let figures = mesh::came_of(child)?;
        println!("while their service is removed: {figures}");
        ensure!(figures["answered"] == CLIENTS && lost(&figures) == 0, "lost requests: {figures}");
    }
    cluster.await_running("web", 0, &[], STOP_MAX)?;
    for host in [1, 2] {
        let none = mesh::load(&cluster, CLIENT, &mesh::at(host, PORT), &["requests=2"])?;
        ensure!(lost(&none) == 2, "h{host} answers for a service that is gone: {none}");
    }
    ensure!(cut(&cluster)? == 0, "connections were broken off");
    Ok(())
}

fn removed_by_name(lab: &mut Lab, peer: Peer) -> Result<()> {
    let cluster = networks::form(lab, peer, 1, 2)?;
    cluster.docker(1, &["network", "create", "--driver", "overlay", "back"])?;
    networks::create(&cluster, "asks", 1, &["--network", "back", "--constraint", "node.role==manager"])?;
    networks::create(&cluster, "web", 2, &["--network", "back", "--constraint", "node.role==worker"])?;
    let asks = networks::container(&cluster, 1, "asks")?;
    networks::await_answer(&cluster, (1, &asks), "http://web:80/")?;
    let args = ["/traffic", "load", "http://web:80/slow/4000", "requests=8", "clients=8"];
    let asking = networks::inside(&cluster, 1, &asks, &args).stdout(Stdio::piped()).spawn()?;
    std::thread::sleep(POLL * 15);
    cluster.docker(1, &["service", "rm", "web"])?;
    let figures = mesh::came_of(asking)?;
    println!("while their service is removed: {figures}");
    ensure!(figures["answered"] == 8 && lost(&figures) == 0, "lost requests by name: {figures}");
    cluster.await_running("web", 0, &[], STOP_MAX).map(drop)
}

fn broken_off(lab: &mut Lab, peer: Peer) -> Result<()> {
    const DRAIN: Duration = Duration::from_secs(2);
    let cluster = form(lab, peer, "2s")?;
    for end in [&["service", "scale", "--detach", "web=0"][..], &["service", "rm", "web"]] {
        let talks = talks(&cluster)?;
        let slow = mesh::spawn(
            &cluster,
            CLIENT,
            &format!("{}slow/40000", mesh::at(1, PORT)),
            &["requests=4", "clients=4"],
        )?;
        std::thread::sleep(POLL * 5);
        let began = Instant::now();
        cluster.docker(1, end)?;
        let ends = ends(talks, began)?;
        let (earliest, latest) = (ends.first().context("none")?, ends.last().context("none")?);
        ensure!(*earliest >= DRAIN, "broken off after {earliest:?}");
        ensure!(*latest < DRAIN + LATE_MAX, "broken off after {latest:?} only");
        let figures = mesh::came_of(slow)?;
        println!("slow requests, broken off: {figures}");
        ensure!(lost(&figures) == 4 && figures["slowest_ms"].as_u64() < Some(20_000), "went on: {figures}");
        cluster.await_running("web", 0, &[], STOP_MAX)?;
        if end.contains(&"scale") {
            cluster.docker(1, &["service", "scale", "--detach", "web=2"])?;
            cluster.await_running("web", 2, &[], START_MAX)?;
            await_answer(&cluster, CLIENT, 1, PORT)?;
            await_answer(&cluster, CLIENT, 2, PORT)?;
        }
    }
    Ok(())
}
