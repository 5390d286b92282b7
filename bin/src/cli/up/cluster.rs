//! Forming the cluster out of started daemons, through their API alone.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::daemon::{is_running, log_tail};
use super::layout::{Layout, NODES, Record};
use crate::cli::client::Client;
use crate::cli::error::{CliError, Outcome};
use crate::cli::output::{items, text};

const START_TIMEOUT: Duration = Duration::from_secs(30);
const FORM_TIMEOUT: Duration = Duration::from_secs(60);
const POLL_MIN: Duration = Duration::from_millis(20);
const POLL_MAX: Duration = Duration::from_millis(500);

/// A pause that grows.
struct Pause(Duration);

impl Pause {
    fn new() -> Self {
        Self(POLL_MIN)
    }

    async fn wait(&mut self) {
        sleep(self.0).await;
        self.0 = (self.0 * 3 / 2).min(POLL_MAX);
    }
}

/// Address of a node: 127.0.0.1 and up.
pub(crate) fn addr(index: usize, port: u16) -> String {
    format!("{}:{port}", ip(index))
}

/// The address that a node has to itself on this machine.
pub(crate) fn ip(index: usize) -> String {
    format!("127.0.0.{}", index + 1)
}

/// Wait until the daemon's API answers.
pub(crate) async fn wait_for_api(layout: &Layout, record: &Record, index: usize) -> Outcome {
    let client = layout.client(index);
    let (started, mut pause) = (Instant::now(), Pause::new());
    loop {
        let Err(why) = client.get("/info").await else { return Ok(()) };
        let ended = record.nodes[index].process.is_none_or(|process| !is_running(process));
        if ended || started.elapsed() > START_TIMEOUT {
            let (name, log) = (Layout::name(index), layout.log(index));
            let what = if ended { "ended".to_owned() } else { format!("does not answer ({why})") };
            return Err(CliError::Failed(format!(
                "{name} {what}; its log {} ends with\n{}",
                log.display(),
                log_tail(&log)
            )));
        }
        pause.wait().await;
    }
}

async fn state(client: &Client) -> Outcome<(String, String)> {
    let info = client.get("/info").await?;
    Ok((text(&info, "/Swarm/LocalNodeState").to_owned(), text(&info, "/Swarm/NodeID").to_owned()))
}

/// Make all daemons managers of one cluster; those that are members already stay as they are.
pub(crate) async fn form(layout: &Layout, record: &mut Record) -> Outcome {
    let first = layout.client(0);
    if state(&first).await?.0 == "inactive" {
        let addr = addr(0, record.port);
        first.post("/swarm/init", &json!({"AdvertiseAddr": addr, "Spec": {}})).await?;
    }
    record.nodes[0].node_id = Some(wait_active(layout, &first, 0).await?);
    layout.save(record)?;
    for index in 1..usize::from(NODES) {
        let client = layout.client(index);
        if state(&client).await?.0 == "inactive" {
            join(&first, &client, index, record.port).await?;
        }
        record.nodes[index].node_id = Some(wait_active(layout, &client, index).await?);
        layout.save(record)?;
    }
    wait_ready(layout, &first).await
}

async fn join(first: &Client, client: &Client, index: usize, port: u16) -> Outcome {
    let cluster = first.get("/swarm").await?;
    let own = addr(index, port);
    let body = json!({
        "AdvertiseAddr": own,
        "RemoteAddrs": [addr(0, port)],
        "JoinToken": text(&cluster, "/JoinTokens/Manager"),
    });
    client.post("/swarm/join", &body).await?;
    Ok(())
}

/// Wait until the node is a member, and tell its id.
async fn wait_active(layout: &Layout, client: &Client, index: usize) -> Outcome<String> {
    let (started, mut pause) = (Instant::now(), Pause::new());
    loop {
        let (state, id) = state(client).await?;
        if state == "active" && !id.is_empty() {
            return Ok(id);
        }
        if started.elapsed() > FORM_TIMEOUT || state == "error" {
            let (name, log) = (Layout::name(index), layout.log(index));
            return Err(CliError::Failed(format!(
                "{name} is no member of the cluster ({state}); see its log {}",
                log.display()
            )));
        }
        pause.wait().await;
    }
}

/// Wait until every node is ready and every manager reachable.
async fn wait_ready(layout: &Layout, first: &Client) -> Outcome {
    let (started, mut pause) = (Instant::now(), Pause::new());
    loop {
        let nodes = first.get("/nodes").await;
        if nodes.as_ref().is_ok_and(|nodes| ready(nodes) == usize::from(NODES)) {
            return Ok(());
        }
        if started.elapsed() > FORM_TIMEOUT {
            let why = match nodes {
                Ok(nodes) => format!("{} of {NODES} nodes are ready", ready(&nodes)),
                Err(error) => error.to_string(),
            };
            return Err(CliError::Failed(format!(
                "the cluster did not form: {why}; the logs are {}/node*/node.log",
                layout.root().display()
            )));
        }
        pause.wait().await;
    }
}

fn ready(nodes: &Value) -> usize {
    let is_ready = |node: &&Value| {
        text(node, "/Status/State") == "ready" && text(node, "/ManagerStatus/Reachability") == "reachable"
    };
    items(nodes).iter().filter(is_ready).count()
}
