//! Tasks with a health check: traffic comes to them by every way while they are healthy, and never else.

use std::collections::BTreeSet;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use shoal_tests::cluster::{Cluster, Peer};
use shoal_tests::lab::Lab;
use shoal_tests::runner::Scenario;
use shoal_tests::wait;

use super::mesh::{self, lost};
use super::{START_MAX, networks, ours, says};

pub(crate) const SCENARIOS: &[Scenario] = &[
    ours("task_that_becomes_healthy_late_gets_its_traffic_late", late),
    ours("task_that_turns_unhealthy_is_replaced_and_no_request_lost", turns),
];

const POLL: Duration = Duration::from_millis(100);

/// Who answers, and by which way.
struct Ways<'a> {
    cluster: &'a Cluster<'a>,
    /// A container on h1 that is in the network.
    asks: String,
    virtual_address: String,
}

/// Hosts' names.
type Names = BTreeSet<String>;

fn names(hosts: &[usize]) -> Names {
    hosts.iter().map(|host| format!("h{host}")).collect()
}

/// Tasks on h2 and h3 that say their host's name, and are well as long as they answer and this holds.
fn form<'a>(lab: &'a mut Lab, peer: Peer, well: &str, retries: &str) -> Result<Cluster<'a>> {
    let cluster = networks::form(lab, peer, 1, 2)?;
    cluster.docker(1, &["network", "create", "--driver", "overlay", "back"])?;
    networks::create(&cluster, "asks", 1, &["--network", "back", "--constraint", "node.hostname==h1"])?;
    let placed = ["--constraint", "node.role==worker", "--replicas-max-per-node", "1"];
    let reached = ["--network", "back", "--publish", "8080:80", "--hostname", "{{.Node.Hostname}}"];
    let command = format!("{well} && /traffic ask http://127.0.0.1:80/");
    let check = ["--health-cmd", &command, "--health-interval", "300ms", "--health-retries", retries];
    // Until another takes its place there is time to see that one is gone.
    let restart = ["--restart-delay", "10s"];
    mesh::create(&cluster, "web", 2, &[&placed[..], &reached, &check, &restart].concat())?;
    cluster.await_running("web", 2, &[], START_MAX)?;
    Ok(cluster)
}

impl<'a> Ways<'a> {
    fn new(cluster: &'a Cluster<'a>) -> Result<Self> {
        let asks = networks::container(cluster, 1, "asks")?;
        Ok(Self { cluster, asks, virtual_address: cluster.virtual_address("web")? })
    }

    /// Who answers by each way: published ports of all hosts, the virtual address, the service's name, its tasks' name.
    fn answering(&self) -> Result<Vec<(String, Names)>> {
        let mut all = Vec::new();
        for host in 1..=3 {
            let url = mesh::at(host, 8080);
            let figures = mesh::load(self.cluster, 4, &url, &["requests=12", "clients=2", "each"])?;
            all.push((url, answered(&figures)));
        }
        for name in [self.virtual_address.as_str(), "web"] {
            let url = format!("http://{name}:80/");
            let flags = ["requests=12", "clients=2", "each"];
            all.push((url.clone(), answered(&networks::load(self.cluster, (1, &self.asks), &url, &flags)?)));
        }
        let mut by_name = Names::new();
        for address in networks::lookup(self.cluster, (1, &self.asks), "tasks.web")? {
            let url = format!("http://{address}:80/");
            let figures = networks::load(self.cluster, (1, &self.asks), &url, &["requests=1", "each"])?;
            by_name.extend(answered(&figures));
        }
        all.push(("tasks.web".to_owned(), by_name));
        Ok(all)
    }

    /// Wait until exactly these hosts' tasks answer, by every way.
    fn await_exactly(&self, hosts: &[usize]) -> Result<()> {
        wait::until(&format!("answers of {hosts:?} alone"), START_MAX, POLL, || {
            let all = self.answering()?;
            wait::seen(all.iter().all(|(_, found)| *found == names(hosts)), || format!("{all:?}"))
        })
        .map(drop)
    }

    /// For a while exactly these hosts' tasks answer, by every way.
    fn stays(&self, hosts: &[usize]) -> Result<()> {
        for _ in 0..4 {
            let all = self.answering()?;
            ensure!(all.iter().all(|(_, found)| *found == names(hosts)), "not {hosts:?} alone: {all:?}");
            std::thread::sleep(POLL * 5);
        }
        Ok(())
    }

    /// Ask for slow answers all the time, through a port of each host and by name.
    fn ask_slowly(&self) -> Result<Vec<Child>> {
        let flags = ["seconds=10", "clients=6"];
        let mut all = Vec::new();
        for host in 1..=3 {
            let url = format!("{}slow/400", mesh::at(host, 8080));
            all.push(mesh::spawn(self.cluster, 4, &url, &flags)?);
        }
        let args = [&["/traffic", "load", "http://web:80/slow/400"], &flags[..]].concat();
        let mut inside = networks::inside(self.cluster, 1, &self.asks, &args);
        all.push(inside.stdout(Stdio::piped()).spawn()?);
        Ok(all)
    }
}

/// Whose answers came: each begins with the host's name.
fn answered(figures: &Value) -> Names {
    let servers = figures["servers"].as_object().into_iter().flat_map(|servers| servers.keys());
    servers.filter_map(|said| said.split(' ').next().map(str::to_owned)).collect()
}

/// Put a file into the task on a host.
fn touch(cluster: &Cluster<'_>, host: usize, file: &str) -> Result<()> {
    let container = networks::container(cluster, host, "web")?;
    let said = cluster.lab.docker(host, &["exec", &container, "touch", file])?;
    ensure!(said.ok(), "h{host}: {}", said.text());
    Ok(())
}

fn late(lab: &mut Lab, peer: Peer) -> Result<()> {
    let cluster = form(lab, peer, "test -e /tmp/well", "1000")?;
    let ways = Ways::new(&cluster)?;
    ways.stays(&[])?;
    let states: Vec<Value> =
        cluster.tasks(1, "web")?.iter().map(|task| task["Status"]["State"].clone()).collect();
    ensure!(states == ["starting", "starting"], "nobody is well, and yet: {states:?}");
    says(&cluster.docker(1, &["service", "ls"])?, "0/2")?;
    touch(&cluster, 2, "/tmp/well")?;
    ways.await_exactly(&[2])?;
    ways.stays(&[2])?;
    touch(&cluster, 3, "/tmp/well")?;
    ways.await_exactly(&[2, 3])
}

fn turns(lab: &mut Lab, peer: Peer) -> Result<()> {
    let cluster = form(lab, peer, "test ! -e /tmp/ill", "3")?;
    let ways = Ways::new(&cluster)?;
    ways.await_exactly(&[2, 3])?;
    let before = networks::container(&cluster, 2, "web")?;
    let asking = ways.ask_slowly()?;
    std::thread::sleep(Duration::from_secs(2));
    touch(&cluster, 2, "/tmp/ill")?;
    ways.await_exactly(&[3])?;
    for child in asking {
        let figures = mesh::came_of(child)?;
        println!("while one turns unhealthy: {figures}");
        ensure!(lost(&figures) == 0 && figures["answered"].as_u64() > Some(20), "lost requests: {figures}");
    }
    let tasks = cluster.tasks(1, "web")?;
    let failed = tasks.iter().find(|task| task["Status"]["State"] == "failed").context("no failed task")?;
    says(&failed["Status"]["Err"].to_string(), "unhealthy container")?;
    ways.await_exactly(&[2, 3])?;
    ensure!(networks::container(&cluster, 2, "web")? != before, "it is the same container");
    Ok(())
}
