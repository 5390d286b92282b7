//! Small clusters for tests: builders, and random ones.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::collection::vec;
use proptest::option::weighted;
use proptest::prelude::*;
use proptest::sample::select;

use crate::model::{
    Availability, EndpointSpec, Meta, Node, NodeDescription, NodeId, NodeState, Platform, PortConfig,
    PortMode, Preference, Resources, Service, ServiceId, ServiceMode, ServiceSpec, Slot, Task, TaskId,
    TaskSpec, TaskState, TaskStatus, Timestamp,
};
use crate::store::{Applied, Command, State, Write};

pub(super) const NOW: Timestamp = Timestamp(1_000_000);
pub(super) const CPU: u64 = 1_000_000_000;

pub(super) fn apply(state: &mut State, writes: Vec<Write>) -> Applied {
    let index = state.applied() + 1;
    let command = Command { writes, at: NOW, ..Command::default() };
    state.apply(index, 0, command).expect("the command is applied")
}

/// A ready node with 4 processors and 4 GiB.
pub(super) fn node(number: u128) -> Node {
    let mut node = Node { id: NodeId::from_u128(number), ..Node::default() };
    node.status.state = NodeState::Ready;
    node.description = Some(NodeDescription {
        hostname: format!("h{number}"),
        platform: Platform { os: "linux".into(), architecture: "x86_64".into() },
        resources: Resources { nano_cpus: 4 * CPU, memory_bytes: 4 << 30, ..Resources::default() },
        ..NodeDescription::default()
    });
    node
}

pub(super) fn service(number: u128, spec: TaskSpec, host_port: Option<u16>) -> Service {
    let ports = host_port
        .map(|port| PortConfig {
            target_port: 80,
            published_port: port,
            mode: PortMode::Host,
            ..PortConfig::default()
        })
        .into_iter()
        .collect();
    Service::new(
        ServiceId::from_u128(number),
        ServiceSpec {
            name: format!("s{number}"),
            labels: BTreeMap::new(),
            mode: ServiceMode::Replicated { replicas: 1 },
            task: Arc::new(spec),
            update: None,
            rollback: None,
            endpoint: EndpointSpec { ports, ..EndpointSpec::default() },
        },
    )
}

/// A new task of the service.
pub(super) fn task(number: u128, service: &Service) -> Task {
    Task {
        meta: Meta::default(),
        id: TaskId::from_u128(number),
        service_id: service.id,
        service_name: service.spec.name.as_str().into(),
        slot: Slot::Replica(u64::try_from(number).expect("small")),
        node_id: None,
        spec: Arc::clone(&service.spec.task),
        spec_version: 1,
        ports: Vec::new(),
        networks: Vec::new(),
        desired: TaskState::Running,
        start_after: None,
        status: TaskStatus::default(),
    }
}

/// The same task, placed long ago.
pub(super) fn placed(mut task: Task, service: &Service, on: u128, state: TaskState) -> Task {
    task.node_id = Some(NodeId::from_u128(on));
    task.ports = service.spec.endpoint.ports.clone();
    task.status = TaskStatus { state, at: NOW, ..TaskStatus::default() };
    task
}

pub(super) fn any_node(number: u128) -> impl Strategy<Value = Node> {
    let states = select(vec![
        NodeState::Ready,
        NodeState::Ready,
        NodeState::Ready,
        NodeState::Ready,
        NodeState::Down,
        NodeState::Disconnected,
    ]);
    let availability =
        select(vec![Availability::Active, Availability::Active, Availability::Active, Availability::Pause]);
    let labels = (
        weighted(0.8, select(vec!["a", "b", "c"])),
        weighted(0.8, select(vec!["x", "y"])),
        select(vec!["linux", "linux", "windows"]),
    );
    (states, availability, labels, 0..6u64, 0..6u64, 0..3u64, weighted(0.95, Just(()))).prop_map(
        move |(state, availability, (zone, rack, os), cpus, memory, gpus, described)| {
            let mut node = node(number);
            node.status.state = state;
            node.spec.availability = availability;
            let label = |key: &str, value: Option<&str>| value.map(|v| (key.to_owned(), v.to_owned()));
            node.spec.labels = [label("zone", zone), label("rack", rack)].into_iter().flatten().collect();
            if let Some(description) = &mut node.description {
                description.platform.os = os.to_owned();
                description.resources.nano_cpus = cpus * CPU;
                description.resources.memory_bytes = memory << 30;
                description.resources.generic = BTreeMap::from([("gpu".to_owned(), gpus)]);
            }
            if described.is_none() {
                node.description = None;
            }
            node
        },
    )
}

pub(super) fn any_service(number: u128) -> impl Strategy<Value = Service> {
    let constraints = vec(
        select(vec![
            "node.labels.zone==a",
            "node.labels.zone!=b",
            "node.labels.rack==x",
            "node.platform.os==linux",
            "node.hostname!=h2",
            "node.id!=0000000000000000000000003",
        ]),
        0..3,
    );
    let preferences =
        vec(select(vec!["node.labels.zone", "node.labels.rack", "node.hostname", "nonsense"]), 0..3);
    let platforms = vec((select(vec!["", "linux"]), select(vec!["", "amd64", "arm64"])), 0..2);
    let amounts = (0..3u64, 0..3u64, select(vec![0u64, 0, 0, 1]));
    let ports = select(vec![(80, ""), (80, "127.0.0.0/8"), (80, "127.0.0.1"), (80, "10.0.0.1"), (81, "::1")]);
    (constraints, preferences, platforms, amounts, 0..4u64, weighted(0.5, ports)).prop_map(
        move |(constraints, preferences, platforms, (cpus, memory, gpus), most, port)| {
            let mut spec = TaskSpec::default();
            let placement = &mut spec.placement;
            placement.constraints =
                constraints.into_iter().map(|text| text.parse().expect("a constraint")).collect();
            placement.preferences =
                preferences.into_iter().map(|spread| Preference { spread: spread.to_owned() }).collect();
            placement.platforms = platforms
                .into_iter()
                .map(|(os, arch)| Platform { os: os.to_owned(), architecture: arch.to_owned() })
                .collect();
            placement.max_replicas = most;
            let reserved = &mut spec.resources.reservations;
            reserved.nano_cpus = cpus * CPU / 2;
            reserved.memory_bytes = memory << 29;
            if gpus > 0 {
                reserved.generic.insert("gpu".to_owned(), gpus);
            }
            let mut service = service(number, spec, port.map(|(number, _)| number));
            if let Some((port, (_, place))) = service.spec.endpoint.ports.first_mut().zip(port) {
                port.at = crate::mesh::place(place).into_iter().collect();
            }
            service
        },
    )
}

/// A task to be: which service, where if placed, in which state, and whether it shall end.
type Sketch = (usize, Option<u128>, TaskState, bool);

pub(super) fn any_sketch() -> impl Strategy<Value = Sketch> {
    let states = select(vec![
        TaskState::Assigned,
        TaskState::Running,
        TaskState::Running,
        TaskState::Failed,
        TaskState::Rejected,
        TaskState::Shutdown,
    ]);
    (0..3usize, weighted(0.5, 1..8u128), states, proptest::bool::weighted(0.2))
}

pub(super) fn sketched(number: u128, services: &[Service], sketch: Sketch) -> Task {
    let (which, on, state, ending) = sketch;
    let service = &services[which % services.len()];
    let mut task = task(number, service);
    if let Some(on) = on {
        task = placed(task, service, on, state);
    }
    if ending {
        task.desired = TaskState::Shutdown;
    }
    task
}

/// A cluster of up to seven nodes and three services, with tasks placed and waiting.
pub(super) fn any_cluster() -> impl Strategy<Value = State> {
    let nodes = (1..8u128).prop_flat_map(|count| (1..=count).map(any_node).collect::<Vec<_>>());
    let services = (1..4u128).prop_flat_map(|count| (1..=count).map(any_service).collect::<Vec<_>>());
    (nodes, services, vec(any_sketch(), 0..60)).prop_map(|(nodes, services, sketches)| {
        let mut state = State::default();
        let mut writes: Vec<Write> = Vec::new();
        writes.extend(nodes.into_iter().map(|node| Write::NodeCreate(Box::new(node))));
        writes.extend(services.iter().map(|service| Write::ServiceCreate(Box::new(service.clone()))));
        for (number, sketch) in (1..).zip(sketches) {
            writes.push(Write::TaskCreate(Arc::new(sketched(number, &services, sketch))));
        }
        apply(&mut state, writes);
        state
    })
}
