//! Figures of the way between containers on two hosts: through an overlay network, by a task's own address and by its
//! service's virtual one, beside the bare wire between the hosts.
//!
//! `bench_overlay [--rounds N] [--seconds N]` as root, with iperf3, wrk and busybox installed. Build what is shipped:
//! `cargo build --release -p shoal -p shoal-tests`.
//!
//! Both hosts and all that measures share this machine's processors, so compare lines, not machines. The processor's time is that of
//! the whole machine, whoever spent it.

use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use shoal_tests::cluster::{Cluster, Peer, bare};
use shoal_tests::lab::{Host, Lab, address, docker};
use shoal_tests::stats::median;
use shoal_tests::{requirements, sh, traffic, wait};

const USAGE: &str = "bench_overlay [--rounds N] [--seconds N]";
const START_MAX: Duration = Duration::from_secs(30);
/// What a clock tick of `/proc/stat` is.
const TICKS_A_SECOND: f64 = 100.0;

fn main() -> ExitCode {
    match bench() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench_overlay: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn bench() -> Result<()> {
    let (mut rounds, mut seconds) = (3, 5);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match (arg.as_str(), args.next()) {
            ("--rounds", Some(count)) => rounds = count.parse::<usize>()?.clamp(1, 100),
            ("--seconds", Some(count)) => seconds = count.parse::<u64>()?.clamp(1, 600),
            _ => bail!(USAGE),
        }
    }
    if let Some(missing) = requirements::missing() {
        bail!("this needs {missing}");
    }
    for program in ["iperf3", "wrk", "busybox", "nsenter"] {
        ensure!(requirements::find(program).is_some(), "this needs {program}");
    }
    let mut lab = Lab::up(2)?;
    let cluster = Cluster::form(&mut lab, Peer::Shoal, 1, 1)?;
    cluster.docker(1, &["network", "create", "--driver", "overlay", "back"])?;
    let program = traffic::program()?;
    for (name, host) in [("ask", 1), ("answer", 2)] {
        let constraint = format!("node.hostname==h{host}");
        let flags = ["--network", "back", "--constraint", &constraint];
        traffic::create(&cluster, &program, "serve", (name, 1), &flags)?;
        cluster.await_running(name, 1, &[], START_MAX)?;
    }
    let (client, server) = (Place::of(&cluster, 1, "ask")?, Place::of(&cluster, 2, "answer")?);
    let task = task_address(&cluster, "answer")?;
    let service = cluster.virtual_address("answer")?;
    let hosts = [1, 2].map(|number| Place { host: cluster.lab.host(number), process: None });
    let _servers = [hosts[1].serve()?, server.serve()?];
    let ways = [
        ("the bare wire", &hosts[0], address(2)),
        ("task's address", &client, task),
        ("virtual address", &client, service),
    ];
    for (name, from, to) in &ways[1..] {
        wait::until(&format!("an answer of the {name}"), START_MAX, Duration::from_millis(200), || {
            let said = from.run(&["busybox", "nc", "-w", "1", to, "5201"], 5);
            wait::seen(said.is_ok(), || format!("{said:?}"))
        })?;
    }
    let mut figures: Vec<Figures> = ways.iter().map(|_| Figures::default()).collect();
    for round in 1..=rounds {
        for ((_, from, to), figures) in ways.iter().zip(&mut figures) {
            figures.measure(from, to, seconds)?;
        }
        eprintln!("round {round} of {rounds} is done");
    }
    println!(
        "| Way | Gbit/s, 1 flow | Gbit/s, 4 flows | CPU-s per Gbit, 4 flows | RTT ms, least | requests/s, 32 kept connections |"
    );
    println!("|---|---|---|---|---|---|");
    for ((name, ..), figures) in ways.iter().zip(&figures) {
        println!("| {name} | {} |", figures.cells().join(" | "));
    }
    Ok(())
}

/// Where something runs: on a host, or in the network of one of its processes.
struct Place<'a> {
    host: &'a Host,
    process: Option<String>,
}

impl<'a> Place<'a> {
    /// The service's only container.
    fn of(cluster: &'a Cluster<'_>, number: usize, service: &str) -> Result<Self> {
        let host = cluster.lab.host(number);
        let mut list = docker(&host.engine_socket());
        list.args(["ps", "-q", "--filter", &format!("label=com.docker.swarm.service.name={service}")]);
        let id = sh::must(&mut list, START_MAX)?;
        let mut inspect = docker(&host.engine_socket());
        inspect.args(["inspect", "--format", "{{.State.Pid}}", id.trim()]);
        Ok(Self { host, process: Some(sh::must(&mut inspect, START_MAX)?.trim().to_owned()) })
    }

    fn command(&self, program: &[&str]) -> Command {
        let into = self.process.as_ref().map(|process| ["nsenter", "-t", process, "-n"]);
        self.host.inside().command(into.iter().flatten().chain(program))
    }

    fn run(&self, program: &[&str], seconds: u64) -> Result<String> {
        sh::must(&mut self.command(program), Duration::from_secs(seconds + 30))
    }

    fn serve(&self) -> Result<Server> {
        let mut command = self.command(&["iperf3", "-s"]);
        Ok(Server(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?))
    }
}

/// A process that ends when this is dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn task_address(cluster: &Cluster<'_>, service: &str) -> Result<String> {
    let tasks = cluster.tasks(1, service)?;
    let running = tasks.iter().find(|task| task["Status"]["State"] == "running").context("no task")?;
    Ok(bare(&running["NetworksAttachments"][0]["Addresses"][0])?.to_owned())
}

/// All rounds of a way.
#[derive(Default)]
struct Figures {
    single: Vec<f64>,
    many: Vec<f64>,
    cost: Vec<f64>,
    trip: Vec<f64>,
    requests: Vec<f64>,
}

impl Figures {
    fn measure(&mut self, from: &Place<'_>, to: &str, seconds: u64) -> Result<()> {
        self.single.push(rate(from, to, 1, seconds)?);
        let before = busy()?;
        let rate = rate(from, to, 4, seconds)?;
        self.cost.push((busy()? - before) / (rate * seconds as f64));
        self.many.push(rate);
        let said = from.run(&["busybox", "ping", "-q", "-c", "40", "-i", "0.05", to], seconds)?;
        let least = said.split("= ").nth(1).and_then(|times| times.split('/').next());
        self.trip.push(least.with_context(|| said.clone())?.parse()?);
        // On the bare wire nobody answers.
        let url = format!("http://{to}:80/");
        let asked = from.run(&["wrk", "-t", "1", "-c", "32", "-d", &format!("{seconds}s"), &url], seconds);
        let line = |said: &str| {
            said.lines().find_map(|line| line.strip_prefix("Requests/sec:")?.trim().parse::<f64>().ok())
        };
        self.requests.extend(asked.ok().and_then(|said| line(&said)));
        Ok(())
    }

    fn cells(&self) -> [String; 5] {
        [&self.single, &self.many, &self.cost, &self.trip, &self.requests].map(|values| {
            match median(values) {
                None => "–".to_owned(),
                Some(value) if value < 1000.0 => format!("{value:.2}"),
                Some(value) => format!("{value:.0}"),
            }
        })
    }
}

/// In Gbit/s.
fn rate(from: &Place<'_>, to: &str, flows: usize, seconds: u64) -> Result<f64> {
    let (flows, duration) = (flows.to_string(), seconds.to_string());
    let said = from.run(&["iperf3", "-J", "-c", to, "-P", &flows, "-t", &duration], seconds)?;
    let said: Value = serde_json::from_str(&said)?;
    let bits = said["end"]["sum_received"]["bits_per_second"].as_f64();
    Ok(bits.with_context(|| format!("no figure: {}", said["error"]))? / 1e9)
}

/// The time in seconds that this machine's processors have been busy.
fn busy() -> Result<f64> {
    let text = std::fs::read_to_string("/proc/stat")?;
    let line = text.lines().next().context("no figures")?;
    let ticks: Vec<f64> = line.split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
    // All but what was idle or waited for disks; guests are in the first already.
    let counted = [0, 1, 2, 5, 6, 7].into_iter().filter_map(|at| ticks.get(at));
    Ok(counted.sum::<f64>() / TICKS_A_SECOND)
}
