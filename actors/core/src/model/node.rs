//! A node: one host that runs the daemon.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Meta, NodeId, Resources, Timestamp};

/// What a node may do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Role {
    /// Runs tasks.
    #[default]
    Worker,
    /// Runs tasks, votes in raft, answers the cluster's API.
    Manager,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Worker => "worker",
            Self::Manager => "manager",
        })
    }
}

/// What the user lets a node take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Availability {
    /// Takes new tasks.
    #[default]
    Active,
    /// Keeps its tasks, takes no new ones.
    Pause,
    /// Gives its tasks away.
    Drain,
}

/// Whether a node is there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeState {
    /// Not heard of yet since it joined or since the leader changed.
    #[default]
    Unknown,
    /// Nobody hears it.
    Down,
    /// Its session is alive.
    Ready,
    /// The leader does not hear it, others do: its tasks stay.
    Disconnected,
}

/// What the user says of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSpec {
    /// A name given by the user; the host name serves where there is none.
    pub name: Option<String>,
    /// Labels given by the user.
    pub labels: BTreeMap<String, String>,
    /// The role it shall have.
    pub role: Role,
    /// What it may take.
    pub availability: Availability,
}

/// Operating system and processor.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// `linux` …
    pub os: String,
    /// `x86_64`, `aarch64` …
    pub architecture: String,
}

/// What runs the containers of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineInfo {
    /// The engine's version; `process` for the embedded runtime.
    pub version: String,
    /// Labels of the engine, for `engine.labels.*`.
    pub labels: BTreeMap<String, String>,
    /// Plugins as kind and name.
    pub plugins: Vec<(String, String)>,
}

/// What a node says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeDescription {
    /// Name of the host.
    pub hostname: String,
    /// Its system.
    pub platform: Platform,
    /// What it has in all.
    pub resources: Resources,
    /// Its engine.
    pub engine: EngineInfo,
    /// Address (`ip:port`) at which the other nodes reach it.
    pub addr: String,
}

impl NodeDescription {
    /// What is known of the node once it has told this. A node whose engine does not answer knows its name and address, but
    /// neither what it has nor what it can do: that stays as it was.
    #[must_use]
    pub fn after(self, known: Option<&Self>) -> Self {
        match known.filter(|known| self.engine.version.is_empty() && !known.engine.version.is_empty()) {
            Some(known) => Self {
                platform: known.platform.clone(),
                resources: known.resources.clone(),
                engine: known.engine.clone(),
                ..self
            },
            None => self,
        }
    }
}

/// What the managers know of a node's life.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Whether it is there.
    pub state: NodeState,
    /// Why, in words.
    pub message: String,
    /// Since when.
    pub since: Timestamp,
}

/// What makes a node a manager: its seat in raft.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManagerStatus {
    /// Address (`ip:port`) of its endpoint.
    pub addr: String,
}

/// A member of the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Versions and times.
    pub meta: Meta,
    /// Its name in certificates and raft.
    pub id: NodeId,
    /// The user's word.
    pub spec: NodeSpec,
    /// The node's own word; none before its first session.
    pub description: Option<NodeDescription>,
    /// Whether it is there.
    pub status: NodeStatus,
    /// The role its certificate carries; follows `spec.role`.
    pub role: Role,
    /// Set while it has a seat in raft.
    pub manager: Option<ManagerStatus>,
}

impl Node {
    /// The user's name for it, or the host's, or nothing.
    #[must_use]
    pub fn name(&self) -> &str {
        self.spec.name.as_deref().unwrap_or_else(|| self.hostname())
    }

    /// The host's name, empty before the first session.
    #[must_use]
    pub fn hostname(&self) -> &str {
        self.description.as_ref().map_or("", |d| d.hostname.as_str())
    }

    /// Whether new tasks may be placed on it.
    #[must_use]
    pub fn is_schedulable(&self) -> bool {
        self.status.state == NodeState::Ready && self.spec.availability == Availability::Active
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_without_its_engine_takes_nothing_back() {
        let resources = Resources { nano_cpus: 4, ..Resources::default() };
        let engine = EngineInfo { version: "1".into(), ..EngineInfo::default() };
        let known = NodeDescription { resources, engine, addr: "a".into(), ..NodeDescription::default() };
        let told = NodeDescription { addr: "b".into(), ..NodeDescription::default() };
        assert_eq!(told.clone().after(None), told);
        let now = told.after(Some(&known));
        assert_eq!((now.addr.as_str(), &now.resources, &now.engine), ("b", &known.resources, &known.engine));
        let less = NodeDescription { resources: Resources::default(), ..known.clone() };
        assert_eq!(less.clone().after(Some(&known)), less);
    }
}
