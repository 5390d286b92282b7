//! Figures of published ports beside HAProxy's and nginx's, on the same hosts and to the same task in the same run.
//!
//! `bench_mesh [--rounds N] [--seconds N] [--only WORDS] [--soak UPDATES] [--idle CONNECTIONS]` as root, with wrk, haproxy, nginx (with its stream module) and openssl installed. Build
//! what is shipped: `cargo build --release -p shoal -p shoal-tests`.
//!
//! A client on h3 asks for a task on h2: through a proxy on h2 itself (*local*), and through one on h1 (*remote*). There the peer
//! is HAProxy on h1, mutual TLS, HAProxy on h2: what a mesh of it would be. *Bare splice* does nothing but let the kernel move
//! bytes, with two threads to each connection: for throughput it is what a local proxy can reach at most. All hosts share this
//! machine's processors, so compare columns, not machines.
//!
//! `--only` measures the figures alone whose name, or whose way and name, has these words: `--only "local new"`.
//!
//! `--soak` asks for two thousand answers a second instead, half of them over kept connections, and for some that take half a
//! minute, while so many rolling updates, a drain and a scale-down pass; it counts what was lost.
//!
//! `--idle` opens so many connections to a task on another node, lets them rest, tells what memory each of them takes on both nodes, and
//! asks on all of them again. Neither needs the peers' programs.

mod idle;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use shoal_tests::cluster::{Cluster, Peer};
use shoal_tests::lab::{Lab, address};
use shoal_tests::stats::median;
use shoal_tests::{requirements, sh, traffic};

const USAGE: &str =
    "bench_mesh [--rounds N] [--seconds N] [--only WORDS] [--soak UPDATES] [--idle CONNECTIONS]";
const PUBLISHED: u16 = 8080;
const HAPROXY: u16 = 9080;
const NGINX: u16 = 9081;
const BARE: u16 = 9082;
const MTLS: u16 = 9443;
/// Two nodes pass on no more than about so many connections between them.
const IDLE_MAX: usize = 16_000;
const START_MAX: Duration = Duration::from_secs(30);

/// What is asked, and how wrk asks it.
const FIGURES: [(&str, &str, &[&str]); 3] = [
    ("requests/s, 32 kept connections", "", &["-c", "32"]),
    ("new connections/s, 32 at once", "", &["-c", "32", "-H", "Connection: close"]),
    ("Gbit/s, 8 connections", "big/8388608", &[]),
];

fn main() -> ExitCode {
    match bench() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench_mesh: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn bench() -> Result<()> {
    let (mut rounds, mut seconds, mut updates, mut connections, mut only) = (3, 5, 0, 0, String::new());
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match (arg.as_str(), args.next()) {
            ("--rounds", Some(count)) => rounds = count.parse::<usize>()?.clamp(1, 100),
            ("--seconds", Some(count)) => seconds = count.parse::<u64>()?.clamp(1, 600),
            ("--only", Some(words)) => only = words,
            ("--soak", Some(count)) => updates = count.parse::<u32>()?.clamp(1, 1000),
            ("--idle", Some(count)) => connections = count.parse::<usize>()?.clamp(1, IDLE_MAX),
            _ => bail!(USAGE),
        }
    }
    if let Some(missing) = requirements::missing() {
        bail!("this needs {missing}");
    }
    if updates > 0 {
        return soak(updates);
    }
    if connections > 0 {
        return idle::run(connections);
    }
    for program in ["wrk", "haproxy", "nginx", "openssl"] {
        ensure!(requirements::find(program).is_some(), "this needs {program}");
    }
    let mut lab = Lab::up(3)?;
    let cluster = Cluster::form(&mut lab, Peer::Shoal, 1, 2)?;
    let task = start_task(&cluster)?;
    let peers = Peers::start(&cluster, &task)?;
    let local = [
        ("direct", format!("{task}:80")),
        ("Shoal", format!("{}:{PUBLISHED}", address(2))),
        ("HAProxy", format!("{}:{HAPROXY}", address(2))),
        ("nginx", format!("{}:{NGINX}", address(2))),
        ("bare splice", format!("{}:{BARE}", address(2))),
    ];
    let remote = [
        ("Shoal", format!("{}:{PUBLISHED}", address(1))),
        ("HAProxy with mTLS", format!("{}:{HAPROXY}", address(1))),
    ];
    // Straight to the task there is no way but from its own host.
    let mut table = Table::default();
    for round in 1..=rounds {
        for (place, from, ways) in [("local", 2, &local[..]), ("remote", 3, &remote[..])] {
            for (figure, path, flags) in FIGURES {
                if !format!("{place} {figure}").contains(&only) {
                    continue;
                }
                for (who, at) in ways {
                    let url = format!("http://{at}/{path}");
                    let value = match flags {
                        [] => bulk(&cluster, from, &url, seconds)?,
                        flags => ask(&cluster, from, &url, flags, seconds)?,
                    };
                    table.note(place, figure, who, value);
                }
            }
        }
        eprintln!("round {round} of {rounds} is done");
    }
    drop(peers);
    println!("{}", table.markdown());
    Ok(())
}

/// Create the service that is asked.
fn create(cluster: &Cluster<'_>, replicas: usize, flags: &[&str]) -> Result<()> {
    let publish = format!("{PUBLISHED}:80");
    let flags = [&["--publish", &publish], flags].concat();
    traffic::create(cluster, &traffic::program()?, "serve", ("web", replicas), &flags)?;
    cluster.await_running("web", replicas, &[], START_MAX).map(drop)
}

/// Two thousand requests a second through releases; what was lost.
fn soak(updates: u32) -> Result<()> {
    let mut lab = Lab::up(3)?;
    let cluster = Cluster::form(&mut lab, Peer::Shoal, 1, 2)?;
    create(
        &cluster,
        4,
        &["--update-parallelism", "2", "--update-order", "start-first", "--update-monitor", "1s"],
    )?;
    await_answer(&cluster, 1, &format!("{}:{PUBLISHED}", address(1)))?;
    let url = format!("http://{}:{PUBLISHED}/", address(1));
    // Each asks until it is told to stop: by the end of its input.
    let kinds: [(&str, String, &[&str]); 3] = [
        ("kept", url.clone(), &["clients=10", "keep", "pause=5"]),
        ("new", url.clone(), &["clients=10", "pause=5"]),
        ("half a minute", format!("{url}slow/30000"), &["clients=4"]),
    ];
    let program = traffic::program()?;
    let mut asking = Vec::new();
    for (name, url, flags) in &kinds {
        let mut command = cluster.lab.host(1).inside().command([program.as_str(), "load", url, "until=eof"]);
        let child = command.args(*flags).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        asking.push((*name, child));
    }
    let patience = Duration::from_secs(600);
    let docker = |args: &[&str]| -> Result<()> {
        let socket = cluster.socket(1);
        sh::must(shoal_tests::lab::docker(&socket).args(args), patience).map(drop)
    };
    for number in 1..=updates {
        docker(&[
            "service",
            "update",
            "--no-resolve-image",
            "--quiet",
            "--env-add",
            &format!("A={number}"),
            "web",
        ])?;
        eprintln!("update {number} of {updates} is done");
    }
    docker(&["node", "update", "--availability", "drain", "h3"])?;
    cluster.await_running("web", 4, &[3], patience)?;
    docker(&["service", "scale", "web=2"])?;
    std::thread::sleep(Duration::from_secs(5));
    let mut lost = 0;
    for (name, mut child) in asking {
        drop(child.stdin.take());
        let said = child.wait_with_output()?.stdout;
        let figures: serde_json::Value = serde_json::from_slice(&said)?;
        println!("{name}: {figures}");
        lost += figures["lost"].as_u64().context("no figure")?;
    }
    ensure!(lost == 0, "{lost} requests were lost");
    Ok(())
}

/// A task on h2 that answers HTTP; its address there.
fn start_task(cluster: &Cluster<'_>) -> Result<String> {
    create(cluster, 1, &["--constraint", "node.hostname==h2"])?;
    let engine = cluster.lab.host(2).engine();
    let containers = engine.get("/containers/json")?;
    let found =
        containers[0]["NetworkSettings"]["Networks"]["bridge"]["IPAddress"].as_str().map(str::to_owned);
    let found = found.filter(|ip| !ip.is_empty()).context("the task has no address")?;
    for host in [1, 2] {
        await_answer(cluster, host, &format!("{}:{PUBLISHED}", address(host)))?;
    }
    Ok(found)
}

fn await_answer(cluster: &Cluster<'_>, host: usize, at: &str) -> Result<()> {
    traffic::await_answer(cluster, &traffic::program()?, host, at, START_MAX)
}

/// The peers' proxies. Dropped, they end.
struct Peers(Vec<Child>);

impl Peers {
    fn start(cluster: &Cluster<'_>, task: &str) -> Result<Self> {
        let dir = cluster.lab.dir().join("peers");
        std::fs::create_dir_all(&dir)?;
        certificates(&dir)?;
        let common = "global\n  nbthread 2\n  maxconn 4000\ndefaults\n  mode tcp\n  option splice-auto\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n";
        let pem = dir.join("node.pem").display().to_string();
        let ca = dir.join("ca.pem").display().to_string();
        let on_task = format!(
            "{common}listen plain\n  bind :{HAPROXY}\n  server task {task}:80\nlisten secure\n  bind :{MTLS} ssl crt {pem} ca-file {ca} verify required\n  server task {task}:80\n"
        );
        let away = format!(
            "{common}listen plain\n  bind :{HAPROXY}\n  server far {}:{MTLS} ssl crt {pem} ca-file {ca} verify required\n",
            address(2)
        );
        let nginx = format!(
            "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\nworker_processes 2;\ndaemon off;\npid {0}/nginx.pid;\nerror_log {0}/nginx.log;\nevents {{ worker_connections 4000; }}\nstream {{ server {{ listen {NGINX}; proxy_pass {task}:80; }} }}\n",
            dir.display()
        );
        let mut peers = Self(Vec::new());
        for (host, name, text) in [(2, "haproxy-h2.cfg", on_task), (1, "haproxy-h1.cfg", away)] {
            peers.run(cluster, host, &["haproxy", "-f", &write(&dir, name, &text)?])?;
        }
        peers.run(cluster, 2, &["nginx", "-c", &write(&dir, "nginx.conf", &nginx)?])?;
        peers.run(cluster, 2, &[&traffic::program()?, "relay", &BARE.to_string(), &format!("{task}:80")])?;
        for (host, port) in [(2, HAPROXY), (1, HAPROXY), (2, NGINX), (2, BARE)] {
            await_answer(cluster, host, &format!("{}:{port}", address(host)))?;
        }
        Ok(peers)
    }

    fn run(&mut self, cluster: &Cluster<'_>, host: usize, program: &[&str]) -> Result<()> {
        let mut command = cluster.lab.host(host).inside().command(program);
        self.0.push(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
        Ok(())
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn write(dir: &Path, name: &str, text: &str) -> Result<String> {
    let file = dir.join(name);
    std::fs::write(&file, text)?;
    Ok(file.display().to_string())
}

/// An authority, and a certificate of it for both ends.
fn certificates(dir: &Path) -> Result<()> {
    let script = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=bench-ca && \
                  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout node.key -out node.csr -subj /CN=bench-node && \
                  openssl x509 -req -in node.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -out node.crt && cat node.crt node.key > node.pem";
    sh::must(Command::new("sh").args(["-c", script]).current_dir(dir), Duration::from_secs(30)).map(drop)
}

/// In Gbit/s. Not wrk's: it reads so little at once that it is what is measured.
fn bulk(cluster: &Cluster<'_>, from: usize, url: &str, seconds: u64) -> Result<f64> {
    let (program, duration) = (traffic::program()?, format!("seconds={seconds}"));
    let mut command =
        cluster.lab.host(from).inside().command([&program, "load", url, "clients=8", "keep", &duration]);
    let said = sh::must(&mut command, Duration::from_secs(seconds + 30))?;
    let figures: serde_json::Value = serde_json::from_str(&said)?;
    ensure!(figures["lost"] == 0, "{said}");
    let size: f64 = url.rsplit('/').next().unwrap_or_default().parse()?;
    Ok(figures["per_second"].as_f64().context("no figure")? * size * 8.0 / 1e9)
}

/// In requests a second.
fn ask(cluster: &Cluster<'_>, from: usize, url: &str, flags: &[&str], seconds: u64) -> Result<f64> {
    let duration = format!("{seconds}s");
    let mut command = cluster.lab.host(from).inside().command(["wrk", "-t", "1", "-d", &duration]);
    command.args(flags).arg(url);
    let said = sh::must(&mut command, Duration::from_secs(seconds + 30))?;
    // Of itself wrk tells no JSON.
    let line = said.lines().find_map(|line| line.trim().strip_prefix("Requests/sec:"));
    Ok(line.with_context(|| said.clone())?.trim().parse()?)
}

/// All who were asked, each with the values of all rounds.
type Row = Vec<(String, Vec<f64>)>;

/// By way and figure.
#[derive(Default)]
struct Table(BTreeMap<(String, String), Row>);

impl Table {
    fn note(&mut self, place: &str, figure: &str, who: &str, value: f64) {
        let row = self.0.entry((place.to_owned(), figure.to_owned())).or_default();
        match row.iter_mut().find(|(other, _)| other == who) {
            Some((_, values)) => values.push(value),
            None => row.push((who.to_owned(), vec![value])),
        }
    }

    fn markdown(&self) -> String {
        let mut text =
            "| Way | Figure | Who: median of the rounds | Shoal to HAProxy |\n|---|---|---|---|\n".to_owned();
        for ((place, figure), row) in &self.0 {
            let medians: Vec<(&str, f64)> =
                row.iter().map(|(who, values)| (who.as_str(), median(values).unwrap_or_default())).collect();
            let of =
                |who: &str| medians.iter().find(|(name, _)| name.starts_with(who)).map(|(_, value)| *value);
            let ratio = of("Shoal")
                .zip(of("HAProxy"))
                .map_or_else(|| "–".to_owned(), |(a, b)| format!("{:.2}", a / b));
            let cells: Vec<String> =
                medians.iter().map(|(who, value)| format!("{who} {}", shown(*value))).collect();
            text += &format!("| {place} | {figure} | {} | {ratio} |\n", cells.join(", "));
        }
        text
    }
}

fn shown(value: f64) -> String {
    if value < 100.0 { format!("{value:.2}") } else { format!("{value:.0}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_tells_the_ratio_of_the_medians() {
        let mut table = Table::default();
        for value in [10.0, 30.0, 20.0] {
            table.note("local", "requests/s", "Shoal", value * 10.0);
            table.note("local", "requests/s", "HAProxy", value * 5.0);
        }
        assert!(table.markdown().contains("Shoal 200, HAProxy 100 | 2.00 |"), "{}", table.markdown());
    }
}
