//! Figures that are read when they are asked for: raft, store, tasks, gossip, transport, process.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use shoal_core::model::{NodeState, TaskState};
use shoal_core::store::State;
use shoal_net::mesh::{PortStats, TIMES_US, Times};
use shoal_net::overlay::PeerStats;

use super::{Inner, Node};

/// Reads a node's figures.
pub(super) struct NodeCollector(pub(super) std::sync::Weak<Inner>);

impl fmt::Debug for NodeCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeCollector")
    }
}

struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let metric = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
        let encoder = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        metric.encode(encoder)
    }

    /// One metric, labelled with the service and the port.
    fn by_port(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        ports: &[PortStats],
        encode: impl Fn(&PortStats, MetricEncoder<'_>) -> fmt::Result,
    ) -> fmt::Result {
        if ports.is_empty() {
            return Ok(());
        }
        let mut encoder = self.0.encode_descriptor(name, help, None, kind)?;
        for port in ports {
            let protocol = format!("{:?}", port.protocol).to_ascii_lowercase();
            let labels = [
                ("service", port.service.clone()),
                ("port", port.published.to_string()),
                ("protocol", protocol),
            ];
            encode(port, encoder.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let metric = ConstCounter::new(value);
        let encoder = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        metric.encode(encoder)
    }
}

impl Collector for NodeCollector {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(inner) = self.0.upgrade() else { return Ok(()) };
        let node = Node(inner);
        let mut page = Page(encoder);
        transport(&mut page, &node)?;
        mesh(&mut page, &node)?;
        overlay(&mut page, &node)?;
        names(&mut page, &node)?;
        tasks(&mut page, &node)?;
        gossip(&mut page, &node)?;
        raft(&mut page, &node)?;
        process(&mut page)
    }
}

fn transport(page: &mut Page<'_>, node: &Node) -> fmt::Result {
    let stats = node.endpoint().stats();
    page.gauge("shoal_transport_connections", "Open QUIC connections with other nodes", stats.connections)?;
    page.counter("shoal_transport_dialled", "Connections opened by this node", stats.dialled_total)?;
    page.counter(
        "shoal_transport_dial_failures",
        "Connections that could not be opened",
        stats.dial_failures_total,
    )?;
    page.counter("shoal_transport_accepted", "Connections accepted", stats.accepted_total)?;
    page.counter(
        "shoal_transport_handshake_failures",
        "Handshakes of others that failed",
        stats.handshake_failures_total,
    )?;
    page.counter(
        "shoal_transport_refused_callers",
        "Callers refused by their certificate",
        stats.refused_callers_total,
    )?;
    page.counter(
        "shoal_transport_refused_messages",
        "Messages that their sender's role may not send",
        stats.refused_messages_total,
    )?;
    page.counter("shoal_transport_calls", "Calls made to other nodes", stats.calls_total)?;
    page.counter("shoal_transport_call_failures", "Calls without an answer", stats.call_failures_total)?;
    let round_trips = node.endpoint().round_trips();
    if !round_trips.is_empty() {
        let help = "Time that a packet takes to another node and back, as QUIC measures it";
        let name = "shoal_transport_round_trip_microseconds";
        let mut encoder = page.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (peer, time) in round_trips {
            let time = i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
            ConstGauge::new(time).encode(encoder.encode_family(&[("peer", peer.to_string())])?)?;
        }
    }
    page.counter("shoal_gossip_messages_sent", "Gossip messages sent", stats.gossip_sent_total)?;
    page.counter("shoal_gossip_messages_received", "Gossip messages received", stats.gossip_received_total)?;
    page.counter(
        "shoal_gossip_messages_dropped",
        "Gossip messages dropped because a queue was full",
        stats.gossip_dropped_total,
    )
}

type OfPort = fn(&PortStats) -> u64;

/// By service and port.
const MESH_COUNTERS: [(&str, &str, OfPort); 8] = [
    ("shoal_mesh_connections", "Connections of clients to a published port of this node", |p| p.accepted),
    ("shoal_mesh_refused", "Of those, refused because no task could take them", |p| p.refused),
    ("shoal_mesh_retries", "Tries to connect to a task that failed and were made elsewhere", |p| p.retries),
    (
        "shoal_mesh_moved_connections",
        "Times that a connection went on with another task, between two exchanges",
        |p| p.moved,
    ),
    (
        "shoal_mesh_dropped_datagrams",
        "Datagrams of clients that were dropped because their task took them too slowly",
        |p| p.dropped,
    ),
    ("shoal_mesh_connect_microseconds", "Time until a task was connected, in all", |p| p.connect.sum_us),
    ("shoal_mesh_received_bytes", "Bytes from clients", |p| p.bytes_in),
    ("shoal_mesh_sent_bytes", "Bytes to clients", |p| p.bytes_out),
];
type TimesOfPort = fn(&PortStats) -> &Times;

const MESH_TIMES: [(&str, &str, TimesOfPort); 2] = [
    ("shoal_mesh_connect_seconds", "Time until a task was connected", |p| &p.connect),
    (
        "shoal_mesh_first_byte_seconds",
        "Time from the first byte of a request to the first of its answer, where HTTP/1 is followed",
        |p| &p.first_byte,
    ),
];
const MESH_GAUGES: [(&str, &str, OfPort); 3] = [
    ("shoal_mesh_open_connections", "Connections of clients that are open", |p| p.open),
    ("shoal_mesh_backends", "Tasks that take the port's traffic", |p| p.backends as u64),
    ("shoal_mesh_port_unavailable", "Whether the port cannot be listened on here", |p| {
        u64::from(!p.error.is_empty())
    }),
];

fn mesh(page: &mut Page<'_>, node: &Node) -> fmt::Result {
    let Some(stats) = node.mesh_stats() else { return Ok(()) };
    page.counter("shoal_mesh_served", "Connections that other nodes made to tasks here", stats.served)?;
    page.counter(
        "shoal_mesh_served_refused",
        "Of those, refused: no such task here, or it is about to stop",
        stats.served_refused,
    )?;
    page.counter(
        "shoal_mesh_cut_connections",
        "Connections broken off because their task had to stop",
        stats.cut,
    )?;
    page.counter(
        "shoal_mesh_kept_addresses",
        "Connections and flows that were made to tasks here under their client's own address",
        stats.kept,
    )?;
    for (name, help, of) in MESH_COUNTERS {
        page.by_port(name, help, MetricType::Counter, &stats.ports, |port, encoder| {
            ConstCounter::new(of(port)).encode(encoder)
        })?;
    }
    for (name, help, of) in MESH_TIMES {
        page.by_port(name, help, MetricType::Histogram, &stats.ports, |port, encoder| {
            histogram(of(port), encoder)
        })?;
    }
    for (name, help, of) in MESH_GAUGES {
        page.by_port(name, help, MetricType::Gauge, &stats.ports, |port, encoder| {
            ConstGauge::new(i64::try_from(of(port)).unwrap_or(i64::MAX)).encode(encoder)
        })?;
    }
    Ok(())
}

fn histogram(times: &Times, mut encoder: MetricEncoder<'_>) -> fmt::Result {
    let ends = TIMES_US.iter().map(|us| *us as f64 / 1e6).chain([f64::MAX]);
    let buckets: Vec<(f64, u64)> = ends.zip(times.counts).collect();
    encoder.encode_histogram::<NoLabelSet>(times.sum_us as f64 / 1e6, times.count(), &buckets, None)
}

type OfPeer = fn(&PeerStats) -> u64;

/// By node.
const OVERLAY_COUNTERS: [(&str, &str, OfPeer); 5] = [
    ("shoal_overlay_sent_packets", "Packets of networks sent to a node; large ones count once", |p| {
        p.packets_out
    }),
    ("shoal_overlay_sent_bytes", "Their bytes", |p| p.bytes_out),
    ("shoal_overlay_received_packets", "Packets of networks that came from a node and were passed on", |p| {
        p.packets_in
    }),
    ("shoal_overlay_received_bytes", "Their bytes", |p| p.bytes_in),
    ("shoal_overlay_lost_packets", "Packets that found the way full or the node silent", |p| p.lost),
];

fn overlay(page: &mut Page<'_>, node: &Node) -> fmt::Result {
    let Some(stats) = node.overlay_stats() else { return Ok(()) };
    for (name, help, of) in OVERLAY_COUNTERS.iter().filter(|_| !stats.peers.is_empty()) {
        let mut encoder = page.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for peer in &stats.peers {
            let labels = [("peer", peer.node.to_string())];
            ConstCounter::new(of(peer)).encode(encoder.encode_family(&labels)?)?;
        }
    }
    let help = "Packets of networks that were not passed on: nobody has the address, it is on another node, the sender's is \
                not its own, or it is of another network";
    let mut encoder = page.0.encode_descriptor("shoal_overlay_dropped", help, None, MetricType::Counter)?;
    for (reason, count) in &stats.dropped {
        ConstCounter::new(*count).encode(encoder.encode_family(&[("reason", *reason)])?)?;
    }
    let help = "Packets that the rules of this host's kernel refused: they went from one network to another, had a sender's address \
                that is not of its network, or came from outside without being asked for";
    let mut encoder =
        page.0.encode_descriptor("shoal_overlay_refused_packets", help, None, MetricType::Counter)?;
    for (reason, count) in &stats.refused {
        ConstCounter::new(*count).encode(encoder.encode_family(&[("reason", *reason)])?)?;
    }
    page.counter("shoal_overlay_malformed", "What came as a packet and was none", stats.malformed)?;
    page.gauge(
        "shoal_overlay_unready",
        "Whether this host's rules and routes for networks are not as they should be",
        u64::from(!stats.error.is_empty()),
    )
}

fn names(page: &mut Page<'_>, node: &Node) -> fmt::Result {
    let Some(stats) = node.name_stats() else { return Ok(()) };
    page.counter("shoal_names_queries", "Questions for names that were read", stats.queries)?;
    page.counter(
        "shoal_names_answered",
        "Of those, answered from what is known of the cluster",
        stats.answered,
    )?;
    page.counter("shoal_names_forwarded", "Of those, handed on to the host's name servers", stats.forwarded)?;
    page.counter(
        "shoal_names_refused",
        "Of those, refused: whoever asked is not in the network, or asked for what is not done here",
        stats.refused,
    )?;
    page.counter(
        "shoal_names_failures",
        "Of those, failed: no name server of the host answered, or too many were asked already",
        stats.failures,
    )?;
    page.counter(
        "shoal_names_malformed",
        "Messages that were no questions, and were dropped",
        stats.malformed,
    )?;
    page.counter(
        "shoal_names_refused_connections",
        "TCP connections of askers that were closed at once because there were too many",
        stats.connections_refused,
    )?;
    page.counter(
        "shoal_names_upstream_answers",
        "Answers by the host's name servers",
        stats.upstream_answers,
    )?;
    page.counter("shoal_names_upstream_microseconds", "Time until they came, in all", stats.upstream_us)?;
    let silent = stats.addresses.iter().filter(|address| !address.error.is_empty()).count();
    page.gauge("shoal_names_unserved", "Addresses at which names cannot be asked for", silent as u64)
}

fn tasks(page: &mut Page<'_>, node: &Node) -> fmt::Result {
    let stats = node.task_runner().map(|r| r.stats()).unwrap_or_default();
    page.gauge("shoal_tasks_local", "Tasks that this node has", stats.tasks)?;
    page.gauge("shoal_tasks_local_running", "Tasks that run on this node", stats.running)?;
    page.gauge(
        "shoal_tasks_reports_pending",
        "Task statuses not yet acknowledged by a manager",
        stats.reports_pending,
    )?;
    page.counter("shoal_tasks_prepared", "Containers made", stats.prepared_total)?;
    page.counter("shoal_tasks_started", "Containers started", stats.started_total)?;
    page.counter("shoal_tasks_stopped", "Containers stopped on request", stats.stopped_total)?;
    page.counter("shoal_tasks_removed", "Containers removed", stats.removed_total)?;
    page.counter("shoal_tasks_completed", "Tasks that ended with exit code 0", stats.completed_total)?;
    page.counter("shoal_tasks_failed", "Tasks that failed after their start", stats.failed_total)?;
    page.counter("shoal_tasks_rejected", "Tasks that failed before their start", stats.rejected_total)?;
    page.counter(
        "shoal_tasks_adopted",
        "Running containers taken over after a restart of the node",
        stats.adopted_total,
    )?;
    page.counter(
        "shoal_tasks_orphans_removed",
        "Containers removed because no task owned them",
        stats.orphans_removed_total,
    )?;
    page.counter(
        "shoal_tasks_runtime_unavailable",
        "Steps put off because the container runtime did not answer",
        stats.runtime_unavailable_total,
    )?;
    page.counter(
        "shoal_tasks_store_failures",
        "Failed writes of the node's own task records",
        stats.store_failures_total,
    )
}

fn gossip(page: &mut Page<'_>, node: &Node) -> fmt::Result {
    let view = node.gossip();
    let alive = view.iter().filter(|m| m.alive).count();
    page.gauge("shoal_gossip_members", "Nodes that gossip knows", view.len() as u64)?;
    page.gauge("shoal_gossip_members_alive", "Nodes that gossip hears", alive as u64)
}

fn raft(page: &mut Page<'_>, node: &Node) -> fmt::Result {
    let Some(raft) = node.raft() else {
        return page.gauge("shoal_raft_is_manager", "Whether this node has a part in raft", 0);
    };
    let stats = raft.metrics();
    page.gauge("shoal_raft_is_manager", "Whether this node has a part in raft", 1)?;
    page.gauge("shoal_raft_term", "Term", stats.term)?;
    page.gauge("shoal_raft_is_leader", "Whether this node leads", u64::from(stats.is_leader))?;
    page.gauge("shoal_raft_last_log_index", "Index of the last entry in the log", stats.last_log_index)?;
    page.gauge(
        "shoal_raft_applied_index",
        "Index of the last entry applied to the state",
        stats.applied_index,
    )?;
    page.gauge("shoal_raft_snapshot_index", "Index of the last entry in the snapshot", stats.snapshot_index)?;
    page.gauge("shoal_raft_log_entries", "Entries in the log on disk", stats.log_entries)?;
    page.gauge("shoal_raft_log_bytes", "Size of the log on disk", stats.log_bytes)?;
    page.gauge("shoal_raft_voters", "Managers that vote", stats.voters)?;
    page.gauge(
        "shoal_raft_disk_full",
        "Whether writes wait for space on the disk",
        u64::from(stats.disk_full.is_some()),
    )?;
    page.counter("shoal_raft_commits", "Proposals committed through this node", stats.commit.count)?;
    page.counter(
        "shoal_raft_commit_microseconds",
        "Time that they took in all",
        stats.commit.sum.as_micros() as u64,
    )?;
    page.counter("shoal_raft_fsyncs", "Syncs of the log", stats.fsync.count)?;
    page.counter(
        "shoal_raft_fsync_microseconds",
        "Time that they took in all",
        stats.fsync.sum.as_micros() as u64,
    )?;
    page.counter("shoal_raft_written_bytes", "Bytes written to the log", stats.bytes_written)?;
    page.counter("shoal_raft_proposals", "Changes proposed through this node", stats.proposals)?;
    page.counter("shoal_raft_proposals_failed", "Proposals that failed", stats.proposals_failed)?;
    page.counter("shoal_raft_elections", "Elections begun by this node", stats.elections)?;
    page.counter("shoal_raft_snapshots_built", "Snapshots built", stats.snapshots_built)?;
    page.counter(
        "shoal_raft_snapshots_installed",
        "Snapshots taken over from a leader",
        stats.snapshots_installed,
    )?;
    page.counter("shoal_raft_call_failures", "Calls to other managers without an answer", stats.rpcs_failed)?;
    store(page, &raft.state())
}

fn store(page: &mut Page<'_>, state: &State) -> fmt::Result {
    let nodes = |wanted| state.nodes().filter(|n| n.status.state == wanted).count() as u64;
    page.gauge("shoal_store_nodes", "Nodes in the cluster's state", state.nodes().len() as u64)?;
    page.gauge("shoal_store_nodes_ready", "Nodes that are ready", nodes(NodeState::Ready))?;
    page.gauge("shoal_store_nodes_down", "Nodes that are down", nodes(NodeState::Down))?;
    page.gauge("shoal_store_services", "Services", state.services().len() as u64)?;
    page.gauge("shoal_store_tasks", "Tasks, ended ones in the history too", state.tasks().len() as u64)?;
    let of = |wanted: TaskState| state.tasks().filter(|t| t.status.state == wanted).count() as u64;
    page.gauge(
        "shoal_store_tasks_pending",
        "Tasks that wait for a node",
        of(TaskState::New) + of(TaskState::Pending),
    )?;
    page.gauge("shoal_store_tasks_running", "Tasks that run", of(TaskState::Running))
}

/// From the kernel's own page; nothing where there is none.
fn process(page: &mut Page<'_>) -> fmt::Result {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    if let Some(kib) = field("VmRSS:") {
        page.gauge("shoal_process_resident_memory_bytes", "Resident memory of this process", kib * 1024)?;
    }
    if let Some(threads) = field("Threads:") {
        page.gauge("shoal_process_threads", "Threads of this process", threads)?;
    }
    let files = std::fs::read_dir("/proc/self/fd").map_or(0, |dir| dir.count() as u64);
    page.gauge("shoal_process_open_files", "Open files of this process", files)
}
