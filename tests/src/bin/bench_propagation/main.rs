//! How soon every proxy, resolver and virtual address knows of a change, in a large cluster and in a small one.
//!
//! `bench_propagation [--services N] [--changes N]` as root. Build what is shipped: `cargo build --release -p shoal -p shoal-tests`.
//!
//! On h1 a manager runs, on h2 a worker, both the shipped `node` with all that carries traffic. Ten thousand containers would not fit on one machine, so
//! tasks run on *pretend workers* on h3: nodes of this very program, whole but for containers, which start at once and end when told to, and but for
//! traffic. No front door leads to an engine without containers: so this one needs inner types, and is still a program of this package, for the lab.
//!
//! A change is the end of a container. Both hosts are watched from outside until they know: their name server is asked each millisecond for
//! the service's tasks, the kernel tells what becomes of the rules behind the virtual address, and the API tells how many tasks the proxy has
//! for the port, asked every few milliseconds. A figure is the time from the end until the last of the hosts knew. All share this
//! machine's processors and its clock.

mod pretend;
mod watch;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Child, ChildStdin, ChildStdout, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use shoal_tests::cluster::{Cluster, Peer, Role, bare};
use shoal_tests::lab::{Lab, NODE_PORT, address};
use shoal_tests::stats::percentile;
use shoal_tests::{requirements, wait};
use watch::{Change, KINDS, Watch};

const USAGE: &str = "bench_propagation [--services N] [--changes N]";
/// Services of the small cluster, and tasks of each service.
const FEW: usize = 10;
const TASKS: usize = 10;
/// The hosts that are watched, and the one of the pretend workers.
const WATCHED: [usize; 2] = [1, 2];
const PRETENDING: usize = 3;
const WORKERS: usize = 10;
const NETWORK: &str = "back";
const SUBNET: &str = "10.200.0.0/16";
const FIRST_PORT: usize = 10_000;
const START_MAX: Duration = Duration::from_secs(600);
/// What is to be done when all is made, such as writing it down, is done within this.
const SETTLE: Duration = Duration::from_secs(8);
/// Changes come at no steady beat, this far apart at most.
const PAUSE_MAX_MS: u64 = 250;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1).peekable();
    let result = match args.next_if(|arg| arg == pretend::WORD) {
        Some(_) => pretend::run(&args.collect::<Vec<_>>()),
        None => bench(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench_propagation: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn bench(mut args: impl Iterator<Item = String>) -> Result<()> {
    let (mut many, mut changes) = (1000, 200);
    while let Some(arg) = args.next() {
        match (arg.as_str(), args.next()) {
            ("--services", Some(count)) => many = count.parse::<usize>()?.clamp(FEW + 1, 5000),
            ("--changes", Some(count)) => changes = count.parse::<usize>()?.clamp(1, 1000),
            _ => bail!(USAGE),
        }
    }
    if let Some(missing) = requirements::missing() {
        bail!("this needs {missing}");
    }
    allow_files()?;
    let mut lab = Lab::up(3)?;
    for host in WATCHED {
        // Its names are told to programs outside of the cluster, too.
        lab.host_mut(host).start_node(&["--names-address", &address(host)])?;
    }
    let cluster = Cluster::new(&mut lab, Peer::Shoal);
    cluster.init(1)?;
    cluster.join(2, Role::Worker, 1)?;
    cluster.docker(1, &["network", "create", "--driver", "overlay", "--subnet", SUBNET, NETWORK])?;
    let mut pretend = Pretend::start(&cluster)?;
    cluster.await_ready(1, 2 + WORKERS)?;
    for host in WATCHED {
        // Rules are where a container of the network is.
        let (name, constraint) = (format!("on-h{host}"), format!("node.hostname==h{host}"));
        cluster.create(1, &name, 1, &["--network", NETWORK, "--constraint", &constraint])?;
        cluster.await_running(&name, 1, &[], Duration::from_secs(60))?;
    }
    let watches = WATCHED.map(|host| Watch::start(&cluster, host));
    let watches = watches.into_iter().collect::<Result<Vec<_>>>()?;
    println!("| Services x tasks | Changes | Known to the last | p50 ms | p99 ms | most ms |");
    println!("|---|---|---|---|---|---|");
    for services in [0..FEW, FEW..many] {
        let total = services.end;
        let begun = Instant::now();
        create(&cluster, services.clone())?;
        eprintln!("{total} services are there after {:?}", begun.elapsed());
        await_all(&cluster, total)?;
        eprintln!("all their tasks run, and all hosts know, after {:?}", begun.elapsed());
        std::thread::sleep(SETTLE);
        // All but one task of each may end.
        let changes = changes.min(services.len() * (TASKS - 1));
        let mut times = vec![Vec::new(); KINDS.len()];
        for number in 0..changes {
            let service = name(services.start + number % services.len());
            let change = one_of(&cluster, &service, number / services.len())?;
            let took = pretend.change(&change, &watches)?;
            times.iter_mut().zip(took).for_each(|(times, took)| times.push(took));
            std::thread::sleep(Duration::from_millis(number as u64 * 37 % PAUSE_MAX_MS));
        }
        for (kind, times) in KINDS.iter().zip(&times) {
            let cells = [50, 99, 100].map(|percent| milliseconds(percentile(times, percent)));
            println!("| {total} x {TASKS} | {changes} | {kind} | {} |", cells.join(" | "));
        }
    }
    Ok(())
}

/// Each port that is listened on is a file, several times; daemons inherit what this may open.
fn allow_files() -> Result<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a valid place for the limit.
    ensure!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } == 0, "no limit of open files");
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: a limit that was just told, raised to what is allowed.
    ensure!(
        unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } == 0,
        "files may not be opened"
    );
    Ok(())
}

fn milliseconds(time: Option<Duration>) -> String {
    time.map_or_else(|| "–".to_owned(), |time| format!("{:.1}", time.as_secs_f64() * 1000.0))
}

fn name(service: usize) -> String {
    format!("s{service:04}")
}

/// Services with a port and a virtual address each. A task that ends is not replaced: it is one change, not two.
fn create(cluster: &Cluster<'_>, services: std::ops::Range<usize>) -> Result<()> {
    let api = cluster.api(1);
    for service in services {
        api.post("/services/create", &json!({
            "Name": name(service),
            "TaskTemplate": {
                "ContainerSpec": {"Image": "busybox:latest"},
                "Networks": [{"Target": NETWORK}],
                "RestartPolicy": {"Condition": "none"},
                "Placement": {"Constraints": [format!("engine.labels.{}==yes", pretend::WORD)]},
            },
            "Mode": {"Replicated": {"Replicas": TASKS}},
            "EndpointSpec": {"Ports": [
                {"Protocol": "tcp", "TargetPort": 80, "PublishedPort": FIRST_PORT + service, "PublishMode": "ingress"},
            ]},
        }))?;
    }
    Ok(())
}

/// Wait until all tasks run that ever did, and the proxies of all hosts know.
fn await_all(cluster: &Cluster<'_>, total: usize) -> Result<()> {
    for host in WATCHED {
        wait::until(&format!("h{host} knowing all tasks"), START_MAX, Duration::from_millis(250), || {
            let found = cluster.api(host).get("/shoal/v1/ports")?;
            let ports = found["Ports"].as_array().context("no ports")?;
            // Of the first services some ended when the small cluster was measured.
            let full = |port: &&Value| {
                let few = port["Service"].as_str().is_some_and(|service| service < name(FEW).as_str());
                let least = if few && total > FEW { 1 } else { TASKS as u64 };
                port["Backends"].as_u64().is_some_and(|count| count >= least) && port["Error"] == ""
            };
            let ready = ports.iter().filter(full).count();
            wait::seen(ready == total, || format!("{ready} of {total} services are complete"))
        })?;
    }
    Ok(())
}

/// A task that shall end, by its place among those of its service.
fn one_of(cluster: &Cluster<'_>, service: &str, place: usize) -> Result<Change> {
    let mut tasks = cluster.tasks(1, service)?;
    tasks.sort_by_key(|task| task["Slot"].as_u64());
    let backends = tasks.iter().filter(|task| task["Status"]["State"] == "running").count();
    let task = tasks.get(place).context("no such task")?;
    let address = match bare(&task["NetworksAttachments"][0]["Addresses"][0])?.parse()? {
        IpAddr::V4(address) => address,
        IpAddr::V6(address) => bail!("{address} is no address of IPv4"),
    };
    Ok(Change {
        task: task["ID"].as_str().context("a task without an id")?.to_owned(),
        service: service.to_owned(),
        backends,
        address,
        behind: cluster.virtual_address(service)?.parse::<Ipv4Addr>()?,
    })
}

/// The process of the pretend workers. Dropped, it ends.
struct Pretend {
    process: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Pretend {
    fn start(cluster: &Cluster<'_>) -> Result<Self> {
        let program = std::env::current_exe()?.display().to_string();
        let folder = cluster.lab.dir().join(pretend::WORD).display().to_string();
        let manager = cluster.lab.host(1).address_with(NODE_PORT);
        let token = cluster.token(1, Role::Worker)?;
        let at = address(PRETENDING);
        let args = [&program, pretend::WORD, &folder, &at, &WORKERS.to_string(), &manager, &token];
        let mut command = cluster.lab.host(PRETENDING).inside().command(args);
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let orders = process.stdin.take().context("no input")?;
        let answers = BufReader::new(process.stdout.take().context("no output")?);
        let mut started = Self { process, orders, answers };
        ensure!(started.answer()? == "ready", "the pretend workers did not start");
        Ok(started)
    }

    fn answer(&mut self) -> Result<String> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }

    /// End a task's container; how long each kind of knowledge took to reach the last host.
    fn change(&mut self, change: &Change, watches: &[Watch]) -> Result<[Duration; KINDS.len()]> {
        std::thread::scope(|scope| {
            let begun = watches.iter().map(|watch| watch.begin(change)).collect::<Result<Vec<_>>>()?;
            let seen: Vec<_> = begun.into_iter().map(|looks| looks.map(|look| scope.spawn(look))).collect();
            writeln!(self.orders, "{}", change.task)?;
            let ended = Duration::from_nanos(self.answer()?.parse().context("no such container")?);
            let mut took = [Duration::ZERO; KINDS.len()];
            for host in seen {
                for (look, took) in host.into_iter().zip(&mut took) {
                    let at = look.join().map_err(|_| anyhow::anyhow!("a look panicked"))??;
                    *took = (*took).max(at.saturating_sub(ended));
                }
            }
            Ok(took)
        })
    }
}

impl Drop for Pretend {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
