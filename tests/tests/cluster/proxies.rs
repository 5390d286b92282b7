//! Nodes that are lost or cut off, and the published ports of all: nothing waits for them, nothing is sent to them, and they serve
//! what they can reach.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use shoal_tests::cluster::{Cluster, Peer};
use shoal_tests::lab::Lab;
use shoal_tests::runner::Scenario;
use shoal_tests::wait;

use super::mesh::{self, Asking, at, load, lost};
use super::networks::servers;
use super::{START_MAX, ours};

pub(crate) const SCENARIOS: &[Scenario] = &[
    ours("unreachable_proxy_holds_no_release", held),
    ours("lost_nodes_tasks_leave_every_proxy_and_it_serves_its_own", lost_backends),
];

/// A change that waited for connections through a node that is not there would take `shoal.drain` for each task: 60 s.
const CHANGE_MAX: Duration = Duration::from_secs(45);

/// Make a host's node unreachable or let it be heard again: its process is frozen, or its cable is pulled.
type Silence = fn(&Cluster<'_>, usize, bool) -> Result<()>;
/// What shall end all the same.
type Change<'a> = &'a dyn Fn() -> Result<()>;

fn frozen(cluster: &Cluster<'_>, host: usize, silent: bool) -> Result<()> {
    cluster.lab.host(host).freeze_node(silent)
}

fn cut(cluster: &Cluster<'_>, host: usize, silent: bool) -> Result<()> {
    if silent { cluster.lab.cut(host) } else { cluster.lab.heal(host) }
}

/// Connections to tasks of all other hosts are open through h5, which falls silent; then tasks shall end.
fn held(lab: &mut Lab, peer: Peer) -> Result<()> {
    let cluster = Cluster::form(lab, peer, 3, 2)?;
    let flags = ["--publish", "8080:80", "--constraint", "node.hostname!=h5"];
    let pace = ["--update-delay", "0s", "--update-monitor", "500ms"];
    mesh::create(&cluster, "web", 4, &[&flags[..], &pace].concat())?;
    cluster.await_running("web", 4, &[], START_MAX)?;
    let update = |mark: &str| {
        let args = ["service", "update", "--no-resolve-image", "--env-add", mark, "web"];
        cluster.docker(1, &args).map(drop)
    };
    let steps: [(&str, Silence, Change<'_>); 4] = [
        ("an update, h5 frozen", frozen, &|| update("A=1")),
        ("an update, h5 cut off", cut, &|| update("A=2")),
        ("fewer tasks, h5 frozen", frozen, &|| {
            cluster.docker(1, &["service", "scale", "--detach", "web=3"])?;
            cluster.await_running("web", 3, &[], CHANGE_MAX).map(drop)
        }),
        ("a node drained, h5 cut off", cut, &|| {
            let host = *cluster.running("web")?.keys().next().context("no task of web runs")?;
            cluster.docker(1, &["node", "update", "--availability", "drain", &format!("h{host}")])?;
            cluster.await_none_on("web", host, CHANGE_MAX)?;
            cluster.await_running("web", 3, &[host], CHANGE_MAX).map(drop)
        }),
    ];
    for (what, silence, change) in steps {
        mesh::await_answer(&cluster, 1, 5, 8080)?;
        mesh::await_answer(&cluster, 1, 4, 8080)?;
        // These are kept, those wait for an answer when the node falls silent: of both the tasks see no end.
        let kept = Asking::start(&cluster, 1, &at(5, 8080), &["clients=8", "keep", "pause=50"])?;
        let slow = format!("{}slow/10000", at(5, 8080));
        let slow = Asking::start(&cluster, 1, &slow, &["clients=8"])?;
        let other = Asking::start(&cluster, 1, &at(4, 8080), &["clients=4", "keep", "pause=20"])?;
        thread::sleep(Duration::from_secs(1));
        silence(&cluster, 5, true)?;
        let begun = Instant::now();
        let changed = change();
        let took = begun.elapsed();
        silence(&cluster, 5, false)?;
        changed.with_context(|| what.to_owned())?;
        println!("{what}: {took:?}");
        ensure!(took < CHANGE_MAX, "{what} took {took:?}");
        let figures = other.end()?;
        ensure!(lost(&figures) == 0, "{what} lost requests through h4: {figures}");
        cluster.await_ready(1, 5)?;
        println!("{what}, through h5: {}", kept.end()?);
        // These are not waited for: what broke them off was lost with the cable, and a client that only listens hears no more.
        drop(slow);
    }
    Ok(())
}

/// To how many tasks a host's proxy sends.
fn backends(cluster: &Cluster<'_>, host: usize) -> Result<u64> {
    let found = mesh::port(cluster, host, "web")?;
    found["Backends"].as_u64().with_context(|| format!("no port of web on h{host}: {found}"))
}

/// Wait until these hosts' proxies send to so many tasks; how long the last of them took.
fn await_backends(cluster: &Cluster<'_>, hosts: &[usize], count: u64, limit: Duration) -> Result<Duration> {
    let one = |host: usize| {
        let what = format!("{count} tasks behind the port on h{host}");
        let ((), took) = wait::until(&what, limit, Duration::from_millis(5), || {
            let seen = backends(cluster, host)?;
            wait::seen(seen == count, || seen.to_string())
        })?;
        Ok(took)
    };
    thread::scope(|scope| {
        let looks: Vec<_> = hosts.iter().map(|&host| scope.spawn(move || one(host))).collect();
        let took = looks.into_iter().map(|look| look.join().map_err(|_| anyhow!("a look panicked"))?);
        took.collect::<Result<Vec<_>>>().map(|all| all.into_iter().max().unwrap_or_default())
    })
}

/// A task on each host, and a host's cable is pulled, again and again.
fn lost_backends(lab: &mut Lab, peer: Peer) -> Result<()> {
    let cluster = Cluster::form(lab, peer, 3, 2)?;
    // Its task is not replaced elsewhere: each proxy has one fewer until the host is back.
    mesh::create(&cluster, "web", 5, &["--publish", "8080:80", "--replicas-max-per-node", "1"])?;
    let mut fastest = Duration::MAX;
    for _ in 0..3 {
        cluster.await_running("web", 5, &[], START_MAX)?;
        await_backends(&cluster, &[1, 2, 3, 4, 5], 5, START_MAX)?;
        mesh::await_answer(&cluster, 5, 5, 8080)?;
        cluster.lab.cut(5)?;
        // Two seconds are the aim; here the machine may be busy.
        let took = await_backends(&cluster, &[1, 2, 3, 4], 4, Duration::from_secs(8))?;
        println!("the lost host's task left the last proxy after {took:?}");
        fastest = fastest.min(took);
        // It knows all five, and reaches one.
        let own = load(&cluster, 5, "http://127.0.0.1:8080/", &["requests=40", "clients=4", "each"])?;
        println!("cut off, h5 knows of {} tasks: {own}", backends(&cluster, 5)?);
        ensure!(lost(&own) == 0 && servers(&own) == 1, "cut off, h5 does not serve its own: {own}");
        let others = load(&cluster, 4, &at(4, 8080), &["requests=40", "clients=4", "each"])?;
        ensure!(lost(&others) == 0 && servers(&others) == 4, "h4 does not serve the others: {others}");
        cluster.lab.heal(5)?;
        cluster.await_ready(1, 5)?;
    }
    ensure!(fastest < Duration::from_secs(3), "of three times the fastest took {fastest:?}");
    Ok(())
}
