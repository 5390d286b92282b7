//! `shoal up`.

use std::net::{TcpListener, UdpSocket};

use super::cluster::{addr, form, ip, wait_for_api};
use super::engine::{Choice, PROCESS};
use super::layout::{Layout, NODES, Record};
use super::{daemon, demo, engine, image};
use crate::cli::args::UpArgs;
use crate::cli::error::{CliError, Outcome};
use crate::cli::output;

/// Start what is missing and show what is there.
pub(crate) async fn up(flags: &UpArgs) -> Outcome {
    let node = daemon::node_binary()?;
    let layout = Layout::open(&Layout::path(flags.dir.dir.as_deref())?)?;
    let mut record = match layout.load()? {
        Some(record) => record,
        None => new_record(flags).await?,
    };
    let alive = record.nodes.iter().filter(|n| n.process.is_some_and(daemon::is_running)).count();
    let found = alive == usize::from(NODES);
    if found {
        output::print(&format!("A cluster runs in {} already.", layout.root().display()));
    } else {
        check_ports(&record)?;
        start_missing(&layout, &mut record, &node, alive)?;
    }
    let done = finish(&layout, &mut record, flags, found).await;
    done.map_err(|error| after_failure(&layout, error))
}

async fn new_record(flags: &UpArgs) -> Outcome<Record> {
    let Choice { engine, no_engine } = engine::choose(flags.engine.as_deref()).await?;
    match no_engine {
        Some(why) => output::print(&format!(
            "No Docker engine answers ({why}): tasks run as plain processes of this machine."
        )),
        None if engine == PROCESS => {
            output::print("Tasks run as plain processes of this machine, without a Docker engine.")
        }
        None => output::print(&format!("Containers run on the Docker engine {engine}.")),
    }
    Ok(Record::new(flags, engine))
}

/// What went wrong, and what is left of the attempt.
fn after_failure(layout: &Layout, error: CliError) -> CliError {
    let root = layout.root().display();
    let words = format!(
        "{error}\nThe nodes' logs are {root}/node*/node.log. `shoal up` tries again, `shoal down` removes what was begun."
    );
    match error {
        CliError::NotConverged(_) => CliError::NotConverged(words),
        CliError::Usage(_) => CliError::Usage(words),
        _ => CliError::Failed(words),
    }
}

/// Ports that somebody else holds are named before anything is started.
fn check_ports(record: &Record) -> Outcome {
    for (index, node) in record.nodes.iter().enumerate() {
        if node.process.is_some_and(daemon::is_running) {
            continue;
        }
        let udp = addr(index, record.port);
        UdpSocket::bind(&udp)
            .map_err(|e| CliError::Failed(format!("UDP {udp} cannot be used: {e}; choose another --port")))?;
        let tcp = metrics_addr(record, index);
        TcpListener::bind(&tcp).map_err(|e| {
            CliError::Failed(format!("TCP {tcp} cannot be used: {e}; choose another --metrics-port"))
        })?;
    }
    Ok(())
}

fn metrics_addr(record: &Record, index: usize) -> String {
    format!("127.0.0.1:{}", usize::from(record.metrics_port) + index)
}

fn start_missing(layout: &Layout, record: &mut Record, node: &std::path::Path, alive: usize) -> Outcome {
    layout.save(record)?;
    output::print(&format!("Starting {} nodes in {}", usize::from(NODES) - alive, layout.root().display()));
    for index in 0..usize::from(NODES) {
        if record.nodes[index].process.is_some_and(daemon::is_running) {
            continue;
        }
        let folder = layout.folder(index);
        std::fs::create_dir_all(&folder)
            .map_err(|e| CliError::Failed(format!("cannot make {}: {e}", folder.display())))?;
        let process = daemon::spawn(node, &node_flags(layout, record, index), &layout.log(index))?;
        record.nodes[index].process = Some(process);
        layout.save(record)?;
    }
    Ok(())
}

fn node_flags(layout: &Layout, record: &Record, index: usize) -> Vec<String> {
    let own = addr(index, record.port);
    [
        ("--data-dir", layout.data(index).display().to_string()),
        ("--listen", own.clone()),
        ("--advertise", own),
        ("--api", format!("unix://{}", layout.socket(index).display())),
        ("--engine", record.engine.clone()),
        ("--metrics", metrics_addr(record, index)),
        // Three nodes share this machine's ports.
        ("--publish-address", ip(index)),
        ("--name", Layout::name(index)),
    ]
    .into_iter()
    .flat_map(|(flag, value)| [flag.to_owned(), value])
    .collect()
}

async fn finish(layout: &Layout, record: &mut Record, flags: &UpArgs, found: bool) -> Outcome {
    for index in 0..usize::from(NODES) {
        wait_for_api(layout, record, index).await?;
    }
    form(layout, record).await?;
    if !found {
        output::print("The cluster is there: 3 managers.");
    }
    if !flags.no_demo {
        deploy(layout, record, flags.replicas).await?;
    }
    let nodes = layout.client(0).get("/nodes").await?;
    output::print(&format!("\n{}", crate::cli::node::table(output::items(&nodes), "")));
    summary(layout, record, flags).await
}

async fn deploy(layout: &Layout, record: &Record, replicas: u64) -> Outcome {
    if let Some(engine) = engine::client(&record.engine) {
        let image = image::pack()?;
        if !engine::has_image(&engine, &image).await {
            output::print(&format!("Making the image {} ({} MiB)", image::IMAGE, image.tar.len() >> 20));
            engine::import(&engine, image).await?;
        }
    }
    let mark = demo::mark(layout.root());
    let spec = demo::spec(&record.engine, replicas, &demo::program()?, &mark);
    demo::deploy(&layout.client(0), &spec).await
}

async fn summary(layout: &Layout, record: &Record, flags: &UpArgs) -> Outcome {
    let services = layout.client(0).get("/services?status=true").await?;
    output::print(&crate::cli::service::table(output::items(&services)));
    let host = format!("unix://{}", layout.socket(0).display());
    let root = layout.root().display();
    // As this program was called: it need not be in the PATH.
    let shoal = std::env::args().next().unwrap_or_else(|| "shoal".into());
    let dir = flags.dir.dir.as_ref().map(|_| format!(" --dir {root}")).unwrap_or_default();
    let mut lines = vec![
        ("API", format!("{host} (node2 and node3 alike)")),
        ("Try", format!("export SHOAL_HOST={host}")),
        ("", format!("{shoal} node ls; {shoal} service ps demo; {shoal} service scale demo=9")),
        (
            "Metrics",
            (0..3)
                .map(|i| format!("http://{}/metrics", metrics_addr(record, i)))
                .collect::<Vec<_>>()
                .join(" "),
        ),
    ];
    match engine::client(&record.engine) {
        Some(_) => {
            lines.insert(3, ("Docker", format!("docker -H {host} service ls")));
            lines.push((
                "Containers",
                format!("docker -H {} ps --filter label=com.docker.swarm.task", record.engine),
            ));
            // Where the same is asked again, another task may answer.
            for index in 0..usize::from(NODES) {
                let (name, at) = (if index == 0 { "Answers" } else { "" }, addr(index, demo::PORT));
                lines.push((name, format!("http://{at} {}", demo::answer(&at).await)));
            }
        }
        None => lines.push(("Processes", "ps -C shoal -o pid,args".to_owned())),
    }
    lines.push(("Logs", format!("{root}/node1/node.log (node2, node3)")));
    lines.push(("Stop", format!("{shoal} down{dir}")));
    let text: String = lines.iter().map(|(name, value)| format!("{name:<11} {value}\n")).collect();
    output::print(&format!("\n{text}"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::NodeConfig;

    #[test]
    fn the_daemon_accepts_the_flags_that_it_is_started_with() {
        let parent = tempfile::tempdir().expect("tempdir");
        let layout = Layout::open(parent.path()).expect("opens");
        let record = Record::new(&flags(4000), "unix:///var/run/docker.sock".into());
        let mut args = vec!["node".into()];
        args.extend(node_flags(&layout, &record, 2).into_iter().map(Into::into));
        let config = NodeConfig::load(&args, &std::collections::BTreeMap::new()).expect("valid");
        assert_eq!(config.listen.to_string(), "127.0.0.3:4000");
        assert_eq!(config.metrics.map(|m| m.port()), Some(9423));
        assert_eq!(config.name.as_deref(), Some("node3"));
    }

    fn flags(port: u16) -> UpArgs {
        use clap::Parser as _;
        let words = ["shoal", "up", "--port", &port.to_string()];
        let cli = crate::cli::args::Cli::try_parse_from(words).expect("parses");
        let crate::cli::args::Verb::Up(flags) = cli.verb else { panic!("up") };
        flags
    }

    #[test]
    fn a_taken_port_is_named_before_anything_starts() {
        // The first port that is looked at, so that no other program of this machine can matter.
        let taken = UdpSocket::bind("127.0.0.1:0").expect("binds");
        let port = taken.local_addr().expect("address").port();
        let error = check_ports(&Record::new(&flags(port), PROCESS.into())).expect_err("taken").to_string();
        assert!(error.contains(&format!("127.0.0.1:{port}")) && error.contains("--port"), "{error}");
    }
}
