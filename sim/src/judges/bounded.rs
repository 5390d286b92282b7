//! What a node has open and keeps follows from the size of its cluster, and not from how long it runs: looked at as an
//! operator would, on the page of metrics.

use std::collections::BTreeMap;
use std::time::Duration;

use shoal_actors::node::Node;
use shoal_core::pace::Pace;
use shoal_core::store::State;
use shoal_wire::Protocol;
use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::fabric::Fabric;

/// It is looked so often, at the usual pace.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Lines between two nodes: each dials the other for each protocol.
const LINES: u64 = 2 * Protocol::ALL.len() as u64;
/// Hosts that come from outside, at most.
const VISITORS: u64 = 2;
/// Seats there are at most.
const SEATS: u64 = 7;
/// Entries of the log that come until a snapshot is there and what is behind it is gone.
const ENTRIES: u64 = 1_000;
/// Tasks of the runtime that are a node's own, whatever it has to do.
const ACTORS: u64 = 64;
/// Tasks of services that come and go between two looks.
const PASSING: u64 = 64;
/// What the process may have in memory, and what for each node in it.
const MEMORY: (u64, u64) = (512 << 20, 32 << 20);

/// From what the bounds follow.
#[derive(Debug, Clone, Copy, Default)]
struct Size {
    hosts: u64,
    tasks: u64,
    /// Entries between two snapshots, and those kept behind one.
    snapshots: (u64, u64),
    /// Nothing breaks, and all is well.
    well: bool,
}

impl Size {
    /// Lines of one node. While things break, one that is over and the one in its place are there both for a while.
    const fn lines(&self) -> u64 {
        LINES * (self.hosts + VISITORS) * if self.well { 1 } else { 2 }
    }

    const fn passing(&self) -> u64 {
        if self.well { 0 } else { PASSING }
    }

    /// Most of each figure on a node's page.
    fn of_a_node(&self) -> [(&'static str, u64); 8] {
        let nodes = self.hosts + VISITORS;
        [
            ("shoal_transport_connections", self.lines()),
            ("shoal_dispatcher_sessions", nodes),
            ("shoal_gossip_members_alive", nodes),
            ("shoal_tasks_local", self.tasks + self.passing()),
            ("shoal_tasks_reports_pending", self.tasks + self.passing()),
            ("shoal_raft_log_entries", self.snapshots.0 + self.snapshots.1 + ENTRIES),
            ("shoal_raft_voters", SEATS),
            ("shoal_process_resident_memory_bytes", MEMORY.0 + MEMORY.1 * self.hosts),
        ]
    }

    /// Most of what all of them share.
    fn of_all(&self) -> [(&'static str, u64); 2] {
        let nodes = self.hosts + VISITORS;
        [
            ("lines of the links", nodes * self.lines() / 2),
            ("tasks of the runtime", nodes * (ACTORS + self.lines()) + 2 * self.tasks),
        ]
    }
}

/// Figures by name.
fn page(text: &str) -> BTreeMap<&str, u64> {
    let figure = |line: &'_ str| -> Option<(usize, u64)> {
        let (name, value) = line.split_once(' ')?;
        Some((name.len(), value.parse().ok()?))
    };
    text.lines().filter_map(|line| figure(line).map(|(end, value)| (&line[..end], value))).collect()
}

fn beyond(
    size: &Size,
    whose: &str,
    most: &[(&'static str, u64)],
    figure: impl Fn(&str) -> u64,
) -> Vec<String> {
    let over = most.iter().filter(|(name, most)| figure(name) > *most);
    over.map(|(name, most)| format!("{whose}: {name}: {}, and {most} at most of {size:?}", figure(name)))
        .collect()
}

/// Figures on the page of every node, whatever it is: without them nothing would be seen to grow.
const ALWAYS: [&str; 3] =
    ["shoal_transport_connections", "shoal_tasks_local", "shoal_process_resident_memory_bytes"];

fn untold(whose: &str, page: &BTreeMap<&str, u64>) -> Vec<String> {
    let missing = ALWAYS.iter().filter(|name| !page.contains_key(*name));
    missing.map(|name| format!("{whose} does not tell {name}")).collect()
}

/// The bounds of one run.
pub struct Bounded {
    fabric: Fabric,
    size: Size,
    every: Duration,
    next: Option<Instant>,
}

impl Bounded {
    /// Of so many hosts, what joins them, and how fast all goes there.
    #[must_use]
    pub fn new(hosts: usize, fabric: Fabric, pace: Pace) -> Self {
        let size = Size { hosts: hosts as u64, ..Size::default() };
        Self { fabric, size, every: pace.of(LOOK_EVERY), next: None }
    }

    /// Look at all nodes that are up, if it is time.
    pub fn look(&mut self, nodes: &BTreeMap<usize, Node>, states: &BTreeMap<usize, State>) -> Vec<String> {
        if self.next.is_some_and(|next| Instant::now() < next) {
            return Vec::new();
        }
        self.next = Some(Instant::now() + self.every);
        self.look_now(nodes, states)
    }

    /// Look once all is well: nothing excuses anything any more.
    pub fn look_at_last(
        &mut self,
        nodes: &BTreeMap<usize, Node>,
        states: &BTreeMap<usize, State>,
    ) -> Vec<String> {
        self.size = Size { well: true, hosts: self.size.hosts, ..Size::default() };
        self.look_now(nodes, states)
    }

    fn learn(&mut self, states: &BTreeMap<usize, State>) {
        for state in states.values() {
            // A node that was away still has what the others have forgotten.
            self.size.tasks = self.size.tasks.max(state.tasks().len() as u64);
            if let Some(cluster) = state.cluster() {
                let raft = &cluster.spec.raft;
                self.size.snapshots = (raft.snapshot_interval, raft.log_entries_for_slow_followers);
            }
        }
    }

    fn look_now(&mut self, nodes: &BTreeMap<usize, Node>, states: &BTreeMap<usize, State>) -> Vec<String> {
        self.learn(states);
        let mut found = Vec::new();
        for (host, node) in nodes {
            let text = node.metrics().encode();
            let page = page(&text);
            let figure = |name: &str| page.get(name).copied().unwrap_or(0);
            found.extend(untold(&format!("h{host}"), &page));
            found.extend(beyond(&self.size, &format!("h{host}"), &self.size.of_a_node(), figure));
        }
        let (lines, tasks) = (self.fabric.lines(), Handle::current().metrics().num_alive_tasks());
        let figures = self.size.of_all().into_iter().zip([lines, tasks]);
        let shared: BTreeMap<&str, u64> = figures.map(|((name, _), value)| (name, value as u64)).collect();
        found.extend(beyond(&self.size, "all", &self.size.of_all(), |name| {
            shared.get(name).copied().unwrap_or(0)
        }));
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Size = Size { hosts: 3, tasks: 10, snapshots: (100, 10), well: true };

    #[test]
    fn a_figure_beyond_its_bound_is_found_by_name() {
        let judge = |text: &str| {
            let page = page(text);
            beyond(&SIZE, "h1", &SIZE.of_a_node(), |name| page.get(name).copied().unwrap_or(0))
        };
        let good =
            "# HELP x y\nshoal_transport_connections 70\nshoal_tasks_local 10\nshoal_raft_log_entries 1110\n";
        assert!(judge(good).is_empty());
        let leak = judge("shoal_transport_connections 71\nshoal_tasks_local 11\n# EOF\n");
        assert_eq!(leak.len(), 2);
        assert!(leak[0].starts_with("h1: shoal_transport_connections: 71, and 70 at most"), "{leak:?}");
    }

    #[test]
    fn a_figure_that_is_not_told_is_missed() {
        let page = page("shoal_transport_connections 1\nshoal_process_resident_memory_bytes 1\n");
        assert_eq!(untold("h1", &page), ["h1 does not tell shoal_tasks_local"]);
    }

    #[test]
    fn bounds_follow_from_the_size_and_are_narrower_once_all_is_well() {
        let larger = Size { hosts: 6, tasks: 20, ..SIZE };
        let ill = Size { well: false, ..SIZE };
        for (at, (name, most)) in SIZE.of_a_node().into_iter().enumerate() {
            assert!(larger.of_a_node()[at].1 >= most && ill.of_a_node()[at].1 >= most, "{name}");
        }
        assert!(larger.of_all() > SIZE.of_all() && ill.of_all() > SIZE.of_all());
    }

    #[test]
    fn every_figure_is_one_that_operators_know() {
        let known = include_str!("../../../docs/metrics.md");
        for (name, _) in SIZE.of_a_node() {
            assert!(known.contains(&format!("`{name}` | gauge")), "{name}");
        }
    }
}
