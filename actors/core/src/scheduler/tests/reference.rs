//! The scheduler's rules written as plainly as they go: every choice looks at every node and every task.
//! Used by the tests and, for the quality of placement, by the benchmark.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use super::model::constraint::{Attribute, normal_arch};
use super::model::{Node, NodeId, PortConfig, PortMode, Service, Slot, Task, TaskSpec, TaskState, Timestamp};

/// All nodes and all tasks that have a node.
pub(crate) struct Reference {
    pub(crate) nodes: Vec<Arc<Node>>,
    by_node: BTreeMap<NodeId, Vec<Task>>,
    now: Timestamp,
}

/// What is to be placed.
pub(crate) struct Wanted<'a> {
    pub(crate) service: &'a Service,
    pub(crate) version: u64,
    pub(crate) spec: &'a TaskSpec,
}

type Order = (bool, usize, usize, NodeId);

impl Reference {
    pub(crate) fn new<'a>(
        nodes: impl Iterator<Item = &'a Arc<Node>>,
        tasks: impl Iterator<Item = &'a Arc<Task>>,
        now: Timestamp,
    ) -> Self {
        let mut reference = Self { nodes: nodes.cloned().collect(), by_node: BTreeMap::new(), now };
        tasks.for_each(|task| reference.add(Task::clone(task)));
        reference
    }

    /// A task has been given a node.
    pub(crate) fn add(&mut self, task: Task) {
        if let Some(node) = task.node_id {
            self.by_node.entry(node).or_default().push(task);
        }
    }

    fn tasks(&self, node: &Node) -> impl Iterator<Item = &Task> {
        self.by_node.get(&node.id).into_iter().flatten()
    }

    fn live(&self, node: &Node) -> impl Iterator<Item = &Task> {
        self.tasks(node).filter(|task| task.occupies_node() && task.desired <= TaskState::Running)
    }

    fn of_service(&self, node: &Node, wanted: &Wanted<'_>) -> usize {
        self.live(node).filter(|task| task.service_id == wanted.service.id).count()
    }

    /// Whether the node may take one more of these tasks.
    pub(crate) fn fits(&self, node: &Node, wanted: &Wanted<'_>) -> bool {
        let placement = &wanted.spec.placement;
        node.is_schedulable()
            && self.has_resources(node, wanted.spec)
            && placement.constraints.iter().all(|constraint| constraint.matches(node))
            && runs_here(wanted.spec, node)
            && self.ports_free(node, wanted.service)
            && (placement.max_replicas == 0
                || (self.of_service(node, wanted) as u64) < placement.max_replicas)
    }

    fn has_resources(&self, node: &Node, spec: &TaskSpec) -> bool {
        let mut left = node.description.as_ref().map(|d| d.resources.clone()).unwrap_or_default();
        for task in self.tasks(node).filter(|task| task.occupies_node()) {
            let taken = &task.spec.resources.reservations;
            left.nano_cpus = left.nano_cpus.saturating_sub(taken.nano_cpus);
            left.memory_bytes = left.memory_bytes.saturating_sub(taken.memory_bytes);
            for (kind, count) in &taken.generic {
                if let Some(left) = left.generic.get_mut(kind) {
                    *left = left.saturating_sub(*count);
                }
            }
        }
        left.covers(&spec.resources.reservations)
    }

    fn ports_free(&self, node: &Node, service: &Service) -> bool {
        let fixed = |port: &&PortConfig| port.mode == PortMode::Host && port.published_port != 0;
        service.spec.endpoint.ports.iter().filter(fixed).all(|wanted| {
            self.tasks(node).filter(|task| task.occupies_node()).flat_map(|task| &task.ports).all(|taken| {
                taken.mode != PortMode::Host
                    || (taken.protocol, taken.published_port) != (wanted.protocol, wanted.published_port)
                    || !crate::mesh::may_meet(&taken.at, &wanted.at)
            })
        })
    }

    fn fails_here(&self, node: &Node, wanted: &Wanted<'_>) -> bool {
        let failed = |task: &&Task| {
            matches!(task.status.state, TaskState::Failed | TaskState::Rejected)
                && matches!(task.slot, Slot::Replica(_))
                && (task.service_id, task.spec_version) == (wanted.service.id, wanted.version)
                && self.now.since(task.status.at).as_secs() < 300
        };
        self.tasks(node).filter(failed).count() >= 5
    }

    fn order(&self, node: &Node, wanted: &Wanted<'_>) -> Order {
        (self.fails_here(node, wanted), self.of_service(node, wanted), self.live(node).count(), node.id)
    }

    /// The node for one more of these tasks.
    pub(crate) fn choose(&self, wanted: &Wanted<'_>) -> Option<NodeId> {
        let levels: Vec<Attribute> =
            wanted.spec.placement.preferences.iter().filter_map(|p| p.spread.parse().ok()).collect();
        let all: Vec<&Node> = self.nodes.iter().map(|node| &**node).collect();
        self.choose_among(&all, &levels, wanted).map(|(_, _, _, id)| id)
    }

    fn choose_among(&self, nodes: &[&Node], levels: &[Attribute], wanted: &Wanted<'_>) -> Option<Order> {
        let Some((level, deeper)) = levels.split_first() else {
            let fitting = nodes.iter().filter(|node| self.fits(node, wanted));
            return fitting.map(|node| self.order(node, wanted)).min();
        };
        let mut branches: BTreeMap<Option<String>, Vec<&Node>> = BTreeMap::new();
        for node in nodes {
            branches.entry(branch_value(level, node)).or_default().push(node);
        }
        branches
            .values()
            .filter_map(|branch| {
                let tasks: usize = branch.iter().map(|node| self.of_service(node, wanted)).sum();
                Some((tasks, self.choose_among(branch, deeper, wanted)?))
            })
            .min()
            .map(|(_, best)| best)
    }
}

fn runs_here(spec: &TaskSpec, node: &Node) -> bool {
    let platform = node.description.as_ref().map(|d| d.platform.clone()).unwrap_or_default();
    let platforms = &spec.placement.platforms;
    platforms.is_empty()
        || platforms.iter().any(|wanted| {
            (wanted.os.is_empty() || wanted.os == platform.os)
                && (wanted.architecture.is_empty()
                    || normal_arch(&wanted.architecture) == normal_arch(&platform.architecture))
        })
}

/// The branch of a node at one level.
pub(crate) fn branch_value(level: &Attribute, node: &Node) -> Option<String> {
    let description = node.description.as_ref();
    match level {
        Attribute::NodeLabel(key) => node.spec.labels.get(key).cloned(),
        Attribute::EngineLabel(key) => description.and_then(|d| d.engine.labels.get(key).cloned()),
        Attribute::NodeId => Some(node.id.to_string()),
        Attribute::Role => Some(node.role.to_string()),
        Attribute::Hostname => description.map(|d| d.hostname.clone()),
        Attribute::PlatformOs => description.map(|d| d.platform.os.clone()),
        Attribute::PlatformArch => description.map(|d| normal_arch(&d.platform.architecture).to_owned()),
        Attribute::Ip => {
            description.and_then(|d| d.addr.parse::<SocketAddr>().ok()).map(|addr| addr.ip().to_string())
        }
    }
}
