//! Why a node may not take a task: filter by filter, in words with numbers.

use serde::{Deserialize, Serialize};

use super::attributes::{platform_fits, platform_of};
use super::demand::Demand;
use super::filter::Filter;
use super::node_info::NodeTable;
use crate::model::{Availability, Node, NodeId, NodeState};

/// Why one filter refuses one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Which filter.
    pub filter: Filter,
    /// Why, in words.
    pub why: String,
}

/// What the scheduler thinks of one node for one task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeVerdict {
    /// The node.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Every reason against it; it fits where there is none.
    pub refusals: Vec<Refusal>,
    /// Live tasks of the service on it.
    pub service_tasks: u32,
    /// Live tasks on it.
    pub tasks: u32,
}

impl NodeVerdict {
    /// Whether a task could be placed there.
    #[must_use]
    pub fn fits(&self) -> bool {
        self.refusals.is_empty()
    }
}

impl NodeTable {
    /// Each node's verdict on a demand, by node id.
    #[must_use]
    pub fn verdicts(&self, demand: &Demand) -> Vec<NodeVerdict> {
        self.iter()
            .map(|(slot, node)| NodeVerdict {
                node: node.id,
                name: node.name().to_owned(),
                refusals: self.refusals(slot, node, demand),
                service_tasks: self.tasks_of(demand.service, slot),
                tasks: self.tasks_on(slot),
            })
            .collect()
    }

    /// Every reason against a node, in the order of the filters.
    pub(super) fn refusals(&self, slot: u32, node: &Node, demand: &Demand) -> Vec<Refusal> {
        let mut refusals = Vec::new();
        for filter in Filter::ALL {
            let mut refuse = |why| refusals.push(Refusal { filter, why });
            match filter {
                Filter::Ready => not_ready(node).into_iter().for_each(refuse),
                Filter::Resources => self.lacking(slot as usize, demand).into_iter().for_each(refuse),
                Filter::Constraints => demand
                    .constraints
                    .iter()
                    .filter(|constraint| !constraint.matches(node))
                    .for_each(|constraint| refuse(format!("does not satisfy {constraint}"))),
                Filter::Platform => {
                    if !platform_fits(&demand.platforms, node) {
                        refuse(wrong_platform(demand, node));
                    }
                }
                Filter::HostPort => demand
                    .ports
                    .iter()
                    .filter(|port| self.port_takers(port).any(|taken| taken == slot))
                    .for_each(|port| {
                        let protocol = format!("{:?}", port.protocol).to_lowercase();
                        refuse(format!("port {}/{protocol} is taken", port.number));
                    }),
                Filter::MaxReplicas => {
                    let (tasks, most) = (self.tasks_of(demand.service, slot), demand.max_replicas);
                    if most > 0 && u64::from(tasks) >= most {
                        refuse(format!("runs {tasks} of at most {most} tasks of this service"));
                    }
                }
            }
        }
        refusals
    }

    fn lacking(&self, at: usize, demand: &Demand) -> Vec<String> {
        let mut lacking = Vec::new();
        let free = self.cpus.free(at);
        if free < demand.nano_cpus {
            lacking.push(format!("needs {} CPUs, {} free", cpus(demand.nano_cpus), cpus(free)));
        }
        let free = self.memory.free(at);
        if free < demand.memory_bytes {
            lacking.push(format!("needs {} of memory, {} free", bytes(demand.memory_bytes), bytes(free)));
        }
        for (kind, count) in &demand.generic {
            let free = self.generic.get(kind).map_or(0, |column| column.free(at));
            if free < *count {
                lacking.push(format!("needs {count} {kind}, {free} free"));
            }
        }
        lacking
    }
}

fn not_ready(node: &Node) -> Option<String> {
    let state = match node.status.state {
        NodeState::Unknown => Some("has not been heard of yet"),
        NodeState::Down => Some("is down"),
        NodeState::Disconnected => Some("is cut off from the leader"),
        NodeState::Ready => None,
    };
    let availability = match node.spec.availability {
        Availability::Active => None,
        Availability::Pause => Some("is paused"),
        Availability::Drain => Some("is drained"),
    };
    match (state, availability) {
        (Some(state), Some(availability)) => Some(format!("{state} and {availability}")),
        (one, other) => one.or(other).map(str::to_owned),
    }
}

fn wrong_platform(demand: &Demand, node: &Node) -> String {
    let text = |os: &str, arch: &str| {
        let any = |part: &str| if part.is_empty() { "any".to_owned() } else { part.to_owned() };
        format!("{}/{}", any(os), any(arch))
    };
    let wanted: Vec<String> = demand.platforms.iter().map(|p| text(&p.os, &p.architecture)).collect();
    let (os, arch) = platform_of(node);
    let has = if os.is_empty() && arch.is_empty() { "unknown".to_owned() } else { text(os, arch) };
    format!("the image runs on {}, the node is {has}", wanted.join(" or "))
}

fn cpus(nano: u64) -> String {
    let whole = nano / 1_000_000_000;
    let rest = format!("{:09}", nano % 1_000_000_000);
    let rest = rest.trim_end_matches('0');
    if rest.is_empty() { whole.to_string() } else { format!("{whole}.{rest}") }
}

fn bytes(count: u64) -> String {
    const UNITS: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    for (unit, shift) in UNITS {
        let size = 1u64 << shift;
        if count >= size {
            // Rounded down to a tenth, so that what is free never looks like what is needed.
            let tenths = (u128::from(count) * 10 / u128::from(size)) as u64;
            let (whole, tenth) = (tenths / 10, tenths % 10);
            return if tenth == 0 { format!("{whole} {unit}") } else { format!("{whole}.{tenth} {unit}") };
        }
    }
    format!("{count} B")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_read_as_people_write_them() {
        assert_eq!(cpus(2_000_000_000), "2");
        assert_eq!(cpus(500_000_000), "0.5");
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(512 << 20), "512 MiB");
        assert_eq!(bytes(3 << 29), "1.5 GiB");
    }
}
