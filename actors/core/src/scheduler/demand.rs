//! What the tasks of one group ask of a node, taken out of their specification once.

use std::str::FromStr;

use ipnet::IpNet;

use crate::mesh::may_meet;
use crate::model::constraint::{Attribute, Constraint};
use crate::model::{Platform, PortConfig, PortMode, Protocol, Service, ServiceId, TaskSpec};

/// A port of a node's own addresses.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct HostPort {
    pub(super) protocol: Protocol,
    pub(super) number: u16,
    /// The ranges that the addresses lie in; none for all.
    pub(super) at: Vec<IpNet>,
}

impl HostPort {
    /// Whether one node cannot give both.
    pub(super) fn clashes(&self, other: &Self) -> bool {
        (self.protocol, self.number) == (other.protocol, other.number) && may_meet(&self.at, &other.at)
    }

    /// The first in order of those that have this one's number.
    pub(super) fn first_alike(&self) -> Self {
        Self { at: Vec::new(), ..self.clone() }
    }
}

/// What each task of a group (same service, same version) asks of its node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Demand {
    pub(super) service: ServiceId,
    pub(super) version: u64,
    pub(super) nano_cpus: u64,
    pub(super) memory_bytes: u64,
    pub(super) generic: Vec<(String, u64)>,
    pub(super) constraints: Vec<Constraint>,
    pub(super) platforms: Vec<Platform>,
    pub(super) ports: Vec<HostPort>,
    pub(super) max_replicas: u64,
    pub(super) spread: Vec<Attribute>,
}

impl Demand {
    /// The demand of a task of `service` at `version` with this specification and these ports.
    #[must_use]
    pub fn new(service: ServiceId, version: u64, spec: &TaskSpec, ports: &[PortConfig]) -> Self {
        let reserved = &spec.resources.reservations;
        let placement = &spec.placement;
        Self {
            service,
            version,
            nano_cpus: reserved.nano_cpus,
            memory_bytes: reserved.memory_bytes,
            generic: reserved
                .generic
                .iter()
                .filter(|(_, count)| **count > 0)
                .map(|(kind, count)| (kind.clone(), *count))
                .collect(),
            constraints: placement.constraints.clone(),
            platforms: placement.platforms.clone(),
            ports: taken_ports(ports),
            max_replicas: placement.max_replicas,
            // A preference for what no node can have spreads nothing, as with Swarm.
            spread: placement
                .preferences
                .iter()
                .filter_map(|p| Attribute::from_str(&p.spread).ok())
                .collect(),
        }
    }
}

/// The ports that a service's tasks take on their nodes.
pub(super) fn host_ports(service: &Service) -> Vec<PortConfig> {
    service.spec.endpoint.ports_in(PortMode::Host).cloned().collect()
}

/// The numbers taken by ports of mode host; a port that the engine chooses takes none.
pub(super) fn taken_ports(ports: &[PortConfig]) -> Vec<HostPort> {
    let mut taken: Vec<HostPort> = ports
        .iter()
        .filter(|port| port.mode == PortMode::Host && port.published_port != 0)
        .map(|port| HostPort { protocol: port.protocol, number: port.published_port, at: port.at.clone() })
        .collect();
    taken.sort_unstable();
    taken.dedup();
    taken
}
