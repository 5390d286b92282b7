//! The filters: which nodes may take a task, and how many each filter refuses.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::bits::Bits;
use super::demand::Demand;
use super::node_info::NodeTable;
use crate::put_back::{Bug, is_put_back};

/// A filter, in the order in which they are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Filter {
    /// The node is there and takes new tasks.
    Ready,
    /// It has what the task reserves.
    Resources,
    /// It satisfies the constraints.
    Constraints,
    /// The image runs on it.
    Platform,
    /// The ports that the task takes on its node are free.
    HostPort,
    /// It has fewer tasks of the service than the maximum.
    MaxReplicas,
}

impl Filter {
    /// Every filter, in order.
    pub const ALL: [Self; 6] =
        [Self::Ready, Self::Resources, Self::Constraints, Self::Platform, Self::HostPort, Self::MaxReplicas];

    /// The words for so many nodes refused; Swarm's, so that people and tools know them.
    #[must_use]
    pub fn refusal(self, nodes: u32) -> String {
        let plural = if nodes == 1 { "" } else { "s" };
        match self {
            Self::Ready => format!("{nodes} node{plural} not available for new tasks"),
            Self::Resources => format!("insufficient resources on {nodes} node{plural}"),
            Self::Constraints => format!("scheduling constraints not satisfied on {nodes} node{plural}"),
            Self::Platform => format!("unsupported platform on {nodes} node{plural}"),
            Self::HostPort => format!("host-mode port already in use on {nodes} node{plural}"),
            Self::MaxReplicas => format!("max replicas per node limit exceeded on {nodes} node{plural}"),
        }
    }
}

/// How many nodes each filter refused; a node counts at the first filter that refuses it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Refusals {
    counts: [u32; Filter::ALL.len()],
}

impl Refusals {
    /// One node, refused by this filter.
    #[must_use]
    pub fn one(filter: Filter) -> Self {
        let mut refusals = Self::default();
        refusals.counts[filter as usize] = 1;
        refusals
    }

    /// How many nodes this filter refused.
    #[must_use]
    pub fn count(&self, filter: Filter) -> u32 {
        self.counts[filter as usize]
    }
}

impl fmt::Display for Refusals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut refused: Vec<Filter> =
            Filter::ALL.into_iter().filter(|filter| self.count(*filter) > 0).collect();
        refused.sort_by_key(|filter| std::cmp::Reverse(self.count(*filter)));
        f.write_str("no suitable node")?;
        for (at, filter) in refused.iter().enumerate() {
            f.write_str(if at == 0 { " (" } else { "; " })?;
            f.write_str(&filter.refusal(self.count(*filter)))?;
        }
        f.write_str(if refused.is_empty() { "" } else { ")" })
    }
}

impl NodeTable {
    /// The nodes that pass every filter, and how many failed which.
    pub(super) fn pipeline(&mut self, demand: &Demand) -> (Bits, Refusals) {
        let mut left = self.known.clone();
        let mut refusals = Refusals::default();
        let mut before = left.count();
        for filter in Filter::ALL {
            if self.sift(filter, demand, &mut left) {
                let after = left.count();
                refusals.counts[filter as usize] = before - after;
                before = after;
            }
        }
        (left, refusals)
    }

    /// The nodes that pass every filter but that of resources.
    pub(super) fn candidates(&mut self, demand: &Demand) -> Bits {
        let mut left = self.known.clone();
        for filter in Filter::ALL.into_iter().filter(|filter| *filter != Filter::Resources) {
            self.sift(filter, demand, &mut left);
        }
        left
    }

    /// Take out what the filter refuses. Returns whether it had anything to check.
    fn sift(&mut self, filter: Filter, demand: &Demand, left: &mut Bits) -> bool {
        match filter {
            Filter::Ready => left.intersect(&self.ready),
            Filter::Resources => {
                let (cpus, memory) = (demand.nano_cpus, demand.memory_bytes);
                if cpus > 0 || memory > 0 {
                    left.retain(|at| self.cpus.free(at) >= cpus && self.memory.free(at) >= memory);
                }
                for (kind, count) in &demand.generic {
                    let column = self.generic.get(kind);
                    left.retain(|at| column.map_or(0, |column| column.free(at)) >= *count);
                }
            }
            Filter::Constraints if is_put_back(Bug::ConstraintsIgnored) => return false,
            Filter::Constraints => {
                for constraint in &demand.constraints {
                    left.intersect(self.masks.constraint(&self.nodes, constraint));
                }
            }
            Filter::Platform if demand.platforms.is_empty() => return false,
            Filter::Platform => left.intersect(self.masks.platforms(&self.nodes, &demand.platforms)),
            Filter::HostPort if is_put_back(Bug::HostPortsIgnored) => return false,
            Filter::HostPort => {
                for port in &demand.ports {
                    for slot in self.port_takers(port) {
                        left.set(slot, false);
                    }
                }
            }
            Filter::MaxReplicas if demand.max_replicas == 0 || is_put_back(Bug::MaxReplicasIgnored) => {
                return false;
            }
            Filter::MaxReplicas => {
                let nodes = self.services.get(&demand.service);
                for (slot, count) in nodes.into_iter().flatten() {
                    if u64::from(*count) >= demand.max_replicas {
                        left.set(*slot, false);
                    }
                }
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_names_the_filters_and_the_number_of_nodes() {
        let mut refusals = Refusals::default();
        assert_eq!(refusals.to_string(), "no suitable node");
        refusals.counts = [0, 2, 3, 0, 1, 0];
        assert_eq!(
            refusals.to_string(),
            "no suitable node (scheduling constraints not satisfied on 3 nodes; \
             insufficient resources on 2 nodes; host-mode port already in use on 1 node)"
        );
    }
}
