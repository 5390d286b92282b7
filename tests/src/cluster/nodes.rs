//! The nodes of a cluster: how they come together, and how they are listed.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::{Cluster, POLL};
use crate::lab::{DOCKER_MAX, NODE_PORT};
use crate::wait;

/// A role in words of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Takes tasks only.
    Worker,
    /// Holds the state, too.
    Manager,
}

impl Role {
    /// As the commands name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Manager => "manager",
        }
    }
}

/// A node as the cluster lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its id.
    pub id: String,
    /// Number of its host.
    pub host: usize,
    /// ready, down, unknown.
    pub state: String,
    /// active, pause, drain.
    pub availability: String,
    /// manager or worker.
    pub role: String,
    /// Whether it leads.
    pub leader: bool,
    /// Of a manager: reachable or not.
    pub reachability: Option<String>,
}

impl Cluster<'_> {
    /// Begin a cluster at a host.
    ///
    /// # Errors
    /// It is refused.
    pub fn init(&self, host: usize) -> Result<()> {
        let here = self.lab.host(host).address_with(NODE_PORT);
        let body = json!({"ListenAddr": format!("0.0.0.0:{NODE_PORT}"), "AdvertiseAddr": here});
        self.api(host).post("/swarm/init", &body).map(drop)
    }

    /// The token for a role.
    ///
    /// # Errors
    /// `at` is no manager.
    pub fn token(&self, at: usize, role: Role) -> Result<String> {
        let swarm = self.api(at).get("/swarm")?;
        let key = if role == Role::Manager { "Manager" } else { "Worker" };
        swarm["JoinTokens"][key].as_str().map(str::to_owned).context("no join token")
    }

    /// Join a host to the cluster of another; how long the call took.
    ///
    /// # Errors
    /// It is refused.
    pub fn join(&self, host: usize, role: Role, via: usize) -> Result<Duration> {
        let body = json!({
            "ListenAddr": format!("0.0.0.0:{NODE_PORT}"),
            "AdvertiseAddr": self.lab.host(host).address_with(NODE_PORT),
            "RemoteAddrs": [self.lab.host(via).address_with(NODE_PORT)],
            "JoinToken": self.token(via, role)?,
        });
        let begun = Instant::now();
        self.api_within(host, DOCKER_MAX).post("/swarm/join", &body)?;
        Ok(begun.elapsed())
    }

    /// All nodes, as a manager lists them.
    ///
    /// # Errors
    /// It does not answer.
    pub fn nodes(&self, at: usize) -> Result<Vec<Node>> {
        let list = self.api(at).get("/nodes")?;
        list.as_array().context("no list of nodes")?.iter().map(node).collect()
    }

    /// One node, as a manager sees it.
    ///
    /// # Errors
    /// It is not listed. Of several with the host's name the one that is not down is meant.
    pub fn node(&self, at: usize, host: usize) -> Result<Node> {
        let mut nodes: Vec<_> = self.nodes(at)?.into_iter().filter(|node| node.host == host).collect();
        nodes.sort_by_key(|node| node.state == "down");
        nodes.into_iter().next().with_context(|| format!("h{host} is not listed"))
    }

    /// Wait until that many nodes are ready, in the eyes of a manager.
    ///
    /// # Errors
    /// They are not in time.
    pub fn await_ready(&self, at: usize, count: usize) -> Result<Duration> {
        let what = format!("{count} ready nodes");
        let ((), took) = wait::until(&what, Duration::from_secs(60), POLL, || {
            let nodes = self.nodes(at)?;
            let ready = nodes.iter().filter(|node| node.state == "ready").count();
            wait::seen(ready == count, || format!("{nodes:?}"))
        })?;
        Ok(took)
    }

    /// Wait until a manager sees a node in a state.
    ///
    /// # Errors
    /// It does not in time.
    pub fn await_state(&self, at: usize, host: usize, state: &str, limit: Duration) -> Result<Duration> {
        let what = format!("h{host} being {state} in the eyes of h{at}");
        let ((), took) = wait::until(&what, limit, Duration::from_millis(20), || {
            let node = self.node(at, host)?;
            wait::seen(node.state == state, || format!("{node:?}"))
        })?;
        Ok(took)
    }

    /// The host that leads, in the eyes of a manager.
    ///
    /// # Errors
    /// None does for a while.
    pub fn leader(&self, at: usize) -> Result<usize> {
        let (host, _) = wait::until("a leader", Duration::from_secs(30), POLL, || {
            let nodes = self.nodes(at)?;
            nodes
                .iter()
                .find(|node| node.leader)
                .map(|node| node.host)
                .with_context(|| format!("none of {nodes:?}"))
        })?;
        Ok(host)
    }
}

fn node(value: &Value) -> Result<Node> {
    let text = |value: &Value| value.as_str().map(str::to_lowercase);
    let name = value["Description"]["Hostname"].as_str().unwrap_or_default();
    let Some(host) = name.strip_prefix('h').and_then(|number| number.parse().ok()) else {
        bail!("a node without a lab's host name: {value}");
    };
    let manager = &value["ManagerStatus"];
    Ok(Node {
        id: value["ID"].as_str().context("a node without an id")?.to_owned(),
        host,
        state: text(&value["Status"]["State"]).context("a node without a state")?,
        availability: text(&value["Spec"]["Availability"]).unwrap_or_default(),
        role: text(&value["Spec"]["Role"]).unwrap_or_default(),
        leader: manager["Leader"].as_bool().unwrap_or(false),
        reachability: text(&manager["Reachability"]),
    })
}
