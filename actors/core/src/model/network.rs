//! A network that spans nodes, and a task's place in it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{Meta, NetworkId};

/// How the names of networks' bridges begin; an interface's name has 15 characters at most.
pub const BRIDGE_PREFIX: &str = "shl-";

/// A range of addresses of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// All of it.
    pub subnet: IpNet,
    /// The address that every node has in it: its containers' gateway and name server.
    pub gateway: IpAddr,
    /// The part of it that addresses are handed out from; all of it if none.
    pub range: Option<IpNet>,
}

/// What is asked of a network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkSpec {
    /// Name, unique among networks.
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Options of the driver, as the user gave them.
    pub options: BTreeMap<String, String>,
    /// Whether its tasks reach nothing outside of it.
    pub internal: bool,
    /// Whether containers that are no tasks may be attached.
    pub attachable: bool,
    /// Whether it has IPv6 addresses too.
    pub ipv6: bool,
    /// Its ranges, one of a family at most. What is missing is chosen once and for all when it is created.
    pub pools: Vec<Pool>,
}

/// A network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Versions and times.
    pub meta: Meta,
    /// Its id.
    pub id: NetworkId,
    /// What is asked of it, with the ranges that it was given.
    pub spec: NetworkSpec,
    /// Where in each range the next free address is looked for: one that was given back rests as long as can be.
    pub cursors: Vec<u128>,
}

/// What a node has to know of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkInfo {
    /// The network.
    pub id: NetworkId,
    /// Its name.
    pub name: Arc<str>,
    /// Whether its tasks reach nothing outside of it.
    pub internal: bool,
    /// Whether containers that are no tasks may be attached.
    pub attachable: bool,
    /// Its ranges.
    pub pools: Vec<Pool>,
}

impl Network {
    /// What nodes are told of it.
    #[must_use]
    pub fn info(&self) -> NetworkInfo {
        NetworkInfo {
            id: self.id,
            name: self.spec.name.as_str().into(),
            internal: self.spec.internal,
            attachable: self.spec.attachable,
            pools: self.spec.pools.clone(),
        }
    }
}

impl NetworkInfo {
    /// The name of its bridge on every node that has one.
    #[must_use]
    pub fn bridge(&self) -> String {
        let id = self.id.to_string();
        format!("{BRIDGE_PREFIX}{}", &id[id.len().saturating_sub(11)..])
    }

    /// Whether it has addresses of IPv6.
    #[must_use]
    pub fn has_ipv6(&self) -> bool {
        self.pools.iter().any(|pool| pool.subnet.addr().is_ipv6())
    }

    /// Whether the address lies in it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.pools.iter().any(|pool| pool.subnet.contains(&address))
    }
}

/// A wish to be in a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkAttachment {
    /// The network.
    pub network: NetworkId,
    /// Further names there, beside the service's.
    pub aliases: Vec<String>,
}

/// A task's place in a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskNetwork {
    /// The network.
    pub network: Arc<NetworkInfo>,
    /// Further names there, beside the service's.
    pub aliases: Vec<String>,
    /// Its addresses, one of each family.
    pub addresses: Vec<IpAddr>,
}

/// A service's place in a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceNetwork {
    /// The network.
    pub network: NetworkId,
    /// Its virtual addresses, one of each family; none where it is found by its tasks' addresses.
    pub addresses: Vec<IpAddr>,
}
