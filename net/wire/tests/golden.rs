//! Golden bytes: what version 1 looks like on the wire and on disk. A change of the model that changes them
//! breaks running clusters: give `v1` a copy of the old shape instead, with conversions.
//!
//! `GOLDEN=write cargo test -p shoal-wire --test golden` writes the file anew, for messages that were added.
#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use shoal_core::attach::Wanted;
use shoal_core::mesh::{Backend, Options, Route, RouteNetwork, Routes};
use shoal_core::model::*;
use shoal_core::store::{ApplyError, Command, Expect, ObjectId, State, Write};
use shoal_wire::codec;
use shoal_wire::v1::*;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/v1.txt");

fn node(id: u128) -> NodeId {
    NodeId::from_u128(id)
}

fn labels() -> BTreeMap<String, String> {
    BTreeMap::from([("zone".into(), "eu".into())])
}

fn resources(n: u64) -> Resources {
    Resources { nano_cpus: n, memory_bytes: n + 1, pids: n + 2, generic: BTreeMap::from([("gpu".into(), n)]) }
}

fn task_spec() -> TaskSpec {
    TaskSpec {
        container: ContainerSpec {
            image: "web:1".into(),
            labels: labels(),
            command: vec!["/web".into()],
            args: vec!["-v".into()],
            hostname: "h".into(),
            env: vec!["A=1".into()],
            dir: "/srv".into(),
            user: "1:2".into(),
            groups: vec!["3".into()],
            init: Some(true),
            tty: true,
            open_stdin: false,
            read_only: true,
            stop_signal: "SIGINT".into(),
            stop_grace_period: Some(Duration::from_millis(1500)),
            mounts: vec![Mount {
                kind: MountKind::Volume,
                source: "data".into(),
                target: "/data".into(),
                read_only: false,
                propagation: Some("rprivate".into()),
                no_copy: true,
                volume_labels: labels(),
                volume_driver: Some(("local".into(), labels())),
                tmpfs_size_bytes: 4096,
                tmpfs_mode: 0o700,
            }],
            hosts: vec!["10.0.0.9 db".into()],
            dns_nameservers: vec!["10.0.0.53".into()],
            dns_search: vec!["local".into()],
            dns_options: vec!["ndots:1".into()],
            healthcheck: Some(HealthConfig {
                test: vec!["CMD".into(), "true".into()],
                interval: Duration::from_secs(5),
                timeout: Duration::from_secs(1),
                start_period: Duration::from_secs(2),
                retries: 3,
            }),
            sysctls: labels(),
            cap_add: vec!["NET_ADMIN".into()],
            cap_drop: vec!["ALL".into()],
            ulimits: vec![Ulimit { name: "nofile".into(), soft: 1, hard: 2 }],
            registry_auth: Some(RegistryAuth(Secret(vec![1, 2, 3]))),
        },
        resources: ResourceRequirements { limits: resources(10), reservations: resources(20) },
        restart: RestartPolicy {
            condition: RestartCondition::OnFailure,
            delay: Duration::from_secs(1),
            max_attempts: 4,
            window: Duration::from_secs(60),
        },
        placement: Placement {
            constraints: vec!["node.labels.zone!=us".parse().unwrap()],
            preferences: vec![Preference { spread: "node.labels.zone".into() }],
            max_replicas: 2,
            platforms: vec![Platform { os: "linux".into(), architecture: "amd64".into() }],
        },
        log_driver: Some(LogDriver { name: "json-file".into(), options: labels() }),
        networks: vec![NetworkAttachment { network: NetworkId::from_u128(9), aliases: vec!["www".into()] }],
        force_update: 7,
    }
}

fn port() -> PortConfig {
    PortConfig {
        name: "http".into(),
        protocol: Protocol::Udp,
        target_port: 80,
        published_port: 8080,
        mode: PortMode::Host,
        at: vec!["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()],
    }
}

fn task() -> Task {
    Task {
        meta: Meta::default(),
        id: TaskId::from_u128(5),
        service_id: ServiceId::from_u128(6),
        service_name: "web".into(),
        slot: Slot::Replica(3),
        node_id: Some(node(2)),
        spec: Arc::new(task_spec()),
        spec_version: 9,
        ports: vec![port()],
        networks: vec![TaskNetwork {
            network: Arc::new(network().info()),
            aliases: vec!["www".into()],
            addresses: vec!["10.128.0.3".parse().unwrap()],
        }],
        desired: TaskState::Running,
        start_after: Some(Timestamp(77)),
        status: TaskStatus {
            state: TaskState::Starting,
            at: Timestamp(78),
            message: "starting".into(),
            error: "none".into(),
            container: Some(ContainerStatus {
                container_id: "c1".into(),
                pid: Some(42),
                exit_code: Some(-1),
                oom_killed: true,
            }),
        },
    }
}

fn service() -> Service {
    Service {
        meta: Meta::default(),
        id: ServiceId::from_u128(6),
        spec: ServiceSpec {
            name: "web".into(),
            labels: labels(),
            mode: ServiceMode::Replicated { replicas: 3 },
            task: Arc::new(task_spec()),
            update: Some(UpdateConfig::default()),
            rollback: None,
            endpoint: EndpointSpec { mode: EndpointMode::Dnsrr, ports: vec![port()] },
        },
        previous_spec: None,
        task_spec_version: 0,
        update: Some(UpdateStatus {
            state: UpdateState::Updating,
            started_at: Timestamp(1),
            completed_at: Some(Timestamp(2)),
            message: "m".into(),
        }),
        networks: vec![ServiceNetwork {
            network: NetworkId::from_u128(9),
            addresses: vec!["10.128.0.2".parse().unwrap()],
        }],
    }
}

fn description() -> NodeDescription {
    NodeDescription {
        hostname: "h2".into(),
        platform: Platform { os: "linux".into(), architecture: "x86_64".into() },
        resources: resources(30),
        engine: EngineInfo {
            version: "20.10".into(),
            labels: labels(),
            plugins: vec![("Volume".into(), "local".into())],
        },
        addr: "10.0.0.2:2377".into(),
    }
}

fn cluster() -> Cluster {
    Cluster {
        meta: Meta::default(),
        id: ClusterId::from_u128(1),
        // A default may change; the bytes of what is written may not.
        spec: ClusterSpec {
            dispatcher: DispatcherSpec { heartbeat_period: Duration::from_millis(300) },
            ..ClusterSpec::default()
        },
        root_ca: RootCa { cert_der: vec![1], key_der: Secret(vec![2]) },
        tokens: JoinTokens { worker: "w".into(), manager: "m".into() },
    }
}

/// A command with every kind of write.
fn command() -> Command {
    let object = Node { id: node(2), description: Some(description()), ..Node::default() };
    Command {
        term: Some(3),
        at: Timestamp(1000),
        expects: vec![Expect::Absent(ObjectId::Cluster), Expect::Absent(ObjectId::Node(node(2)))],
        writes: vec![
            Write::Cluster(Box::new(cluster())),
            Write::NodeCreate(Box::new(object)),
            Write::NodeSpec(node(2), NodeSpec { labels: labels(), ..NodeSpec::default() }),
            Write::NodeDescription(node(2), description()),
            Write::NodeStatus(
                node(2),
                NodeStatus { state: NodeState::Ready, message: "m".into(), since: Timestamp(4) },
            ),
            Write::NodeRole(node(2), Role::Manager),
            Write::NodeManager(node(2), Some(ManagerStatus { addr: "10.0.0.2:2377".into() })),
            Write::ServiceCreate(Box::new(service())),
            Write::ServiceSpec(ServiceId::from_u128(6), service().spec),
            Write::ServiceUpdate(ServiceId::from_u128(6), None),
            Write::TaskCreate(Arc::new(task())),
            Write::TaskAssign {
                id: TaskId::from_u128(5),
                node: node(2),
                ports: vec![port()],
                message: "m".into(),
                at: Timestamp(5),
            },
            Write::TaskDesired(TaskId::from_u128(5), TaskState::Shutdown),
            Write::TaskStatus(TaskId::from_u128(5), task().status),
        ],
    }
}

/// The command above, and one that removes what it made.
fn state() -> State {
    let mut state = State::default();
    state
        .apply(
            1,
            3,
            Command { writes: vec![Write::NetworkCreate(Box::new(network()))], ..Command::default() },
        )
        .unwrap();
    state.apply(1, 3, command()).unwrap();
    let removals = vec![
        Write::NodeCreate(Box::new(Node { id: node(9), ..Node::default() })),
        Write::NodeRemove(node(9)),
    ];
    state.apply(2, 3, Command { writes: removals, ..Command::default() }).unwrap();
    let mut enters = attachments();
    enters.writes.pop();
    state.apply(3, 3, enters).unwrap();
    state
}

fn backend(task: u128) -> Backend {
    Backend {
        task: TaskId::from_u128(task),
        node: node(2),
        addr: "10.0.0.2:2377".into(),
        slot: Slot::Replica(1),
        addresses: vec![(NetworkId::from_u128(9), vec!["10.128.0.3".parse().unwrap()])],
    }
}

fn network() -> Network {
    let pool = |subnet: &str| Pool::new(subnet.parse().unwrap(), None).unwrap();
    Network {
        meta: Meta { spec_version: 3, revision: 4, ..Meta::default() },
        id: NetworkId::from_u128(9),
        spec: NetworkSpec {
            name: "back".into(),
            labels: labels(),
            options: BTreeMap::from([("encrypted".into(), String::new())]),
            internal: true,
            attachable: true,
            ipv6: true,
            pools: vec![
                pool("10.128.0.0/20").within("10.128.8.0/24".parse().unwrap()).unwrap(),
                pool("fd00::/64"),
            ],
        },
        cursors: vec![4, 1],
    }
}

fn route() -> Route {
    Route {
        service: ServiceId::from_u128(6),
        name: "web".into(),
        ports: vec![PortConfig { mode: PortMode::Ingress, ..port() }],
        options: Options { drain: Duration::from_secs(45), proxy_header: true },
        backends: vec![backend(5)],
        networks: vec![RouteNetwork {
            network: Arc::new(network().info()),
            aliases: vec!["www".into()],
            addresses: vec!["10.128.0.2".parse().unwrap()],
        }],
        others: vec![backend(6)],
        attached: false,
    }
}

fn attachment() -> Attachment {
    Attachment {
        meta: Meta { spec_version: 5, revision: 6, ..Meta::default() },
        id: AttachmentId::from_u128(10),
        node: node(2),
        container: "c0ffee".into(),
        name: "box".into(),
        networks: task().networks,
    }
}

fn enter() -> AttachRequest {
    AttachRequest::Enter {
        id: AttachmentId::from_u128(10),
        container: (String::new(), "box".into()),
        networks: vec![Wanted { network: "back".into(), aliases: vec!["www".into()] }],
    }
}

fn connect() -> ConnectRequest {
    ConnectRequest {
        task: TaskId::from_u128(5),
        port: 80,
        protocol: Protocol::Tcp,
        client: "192.0.2.1:50000".parse().unwrap(),
        server: "[2001:db8::1]:80".parse().unwrap(),
    }
}

fn taken() -> ApplyError {
    ApplyError::PortTaken { published: 80, protocol: Protocol::Tcp, owner: "'web' (6)".into() }
}

fn attachments() -> Command {
    let id = AttachmentId::from_u128(10);
    Command {
        writes: vec![
            Write::Attach { id, node: node(2), networks: task_spec().networks },
            Write::AttachmentContainer { id, container: "c0ffee".into(), name: "box".into() },
            Write::Detach { id, network: None },
        ],
        ..Command::default()
    }
}

fn samples() -> Vec<(&'static str, Vec<u8>)> {
    let managers = vec![ManagerAddr { node_id: node(1), addr: "10.0.0.1:2377".into() }];
    let joined = Joined {
        cluster_id: ClusterId::from_u128(1),
        node_id: node(2),
        role: Role::Worker,
        cert_der: vec![1],
        ca_der: vec![2],
        managers: managers.clone(),
    };
    let removes = Command {
        writes: vec![
            Write::TaskRemove(TaskId::from_u128(5)),
            Write::ServiceRemove(ServiceId::from_u128(6)),
            Write::NodeRemove(node(2)),
        ],
        ..Command::default()
    };
    let tied = Command {
        expects: vec![
            Expect::SpecVersion(ObjectId::Service(ServiceId::from_u128(6)), 7),
            Expect::Revision(ObjectId::Task(TaskId::from_u128(5)), 8),
            Expect::Exists(ObjectId::Cluster),
            Expect::Placeable(node(2), 9),
        ],
        ..Command::default()
    };
    let of_role = Command { expects: vec![Expect::Role(node(2), Role::Manager)], ..Command::default() };
    let reports = FromNode::Reports {
        number: 4,
        reports: vec![TaskReport { task_id: TaskId::from_u128(5), status: task().status }],
    };
    let cluster = ToNode::Cluster { managers: managers.clone(), role: Role::Manager, removed: vec![node(9)] };
    let complete = Assignments::Complete { sequence: 1, tasks: vec![Arc::new(task())] };
    let incremental =
        Assignments::Incremental { sequence: 2, changed: vec![], removed: vec![TaskId::from_u128(5)] };
    vec![
        ("hello", bytes(&Hello { node_id: Some(node(2)), minor: 0 })),
        ("join response", bytes(&JoinResponse::Ok(joined))),
        ("join refusal", bytes(&JoinResponse::Err(JoinRefusal::TooMany))),
        ("renew request", bytes(&RenewRequest { csr_der: vec![1, 2] })),
        ("propose request", bytes(&ProposeRequest { id: 11, command: command() })),
        ("propose expectation of a role", bytes(&ProposeRequest { id: 14, command: of_role })),
        (
            "propose networks",
            bytes(&ProposeRequest {
                id: 13,
                command: Command {
                    writes: vec![
                        Write::NetworkCreate(Box::new(network())),
                        Write::NetworkRemove(NetworkId::from_u128(9)),
                    ],
                    ..Command::default()
                },
            }),
        ),
        ("propose removals", bytes(&ProposeRequest { id: 12, command: removes })),
        ("propose expectations", bytes(&ProposeRequest { id: 13, command: tied })),
        ("propose response", bytes(&ProposeResponse::Refused(ApplyError::NameTaken("web".into())))),
        ("seat request", bytes(&SeatRequest { node_id: node(2), addr: "10.0.0.2:2377".into() })),
        ("session request", bytes(&SessionRequest { description: description(), incarnation: 3 })),
        ("session open", bytes(&ToNode::Reply(SessionReply::Open { session: 1, heartbeat_ms: 300 }))),
        ("beat answered", bytes(&ToNode::Beat(8))),
        ("assignments complete", bytes(&ToNode::Assignments(complete))),
        ("assignments incremental", bytes(&ToNode::Assignments(incremental))),
        ("cluster", bytes(&cluster)),
        ("acknowledged", bytes(&ToNode::Acknowledged(4))),
        ("closed", bytes(&ToNode::Closed(managers.first().cloned()))),
        ("beat", bytes(&FromNode::Beat(8))),
        ("reports", bytes(&reports)),
        ("described", bytes(&FromNode::Described(description()))),
        ("leaving", bytes(&FromNode::Leaving)),
        ("state", bytes(&state())),
        ("routes complete", bytes(&Routes::Complete(vec![Arc::new(route())]))),
        (
            "routes changed",
            bytes(&Routes::Changed { changed: vec![], removed: vec![ServiceId::from_u128(6)] }),
        ),
        ("connect request", bytes(&connect())),
        ("port taken", bytes(&ProposeResponse::Refused(taken()))),
        ("attach list", bytes(&AttachRequest::List)),
        ("attach enter", bytes(&enter())),
        (
            "attach made",
            bytes(&AttachRequest::Made {
                id: AttachmentId::from_u128(10),
                container: ("c0ffee".into(), "box".into()),
            }),
        ),
        (
            "attach leave",
            bytes(&AttachRequest::Leave {
                id: AttachmentId::from_u128(10),
                network: Some(NetworkId::from_u128(9)),
            }),
        ),
        ("attach response", bytes(&AttachResponse::Done(vec![Arc::new(attachment())]))),
        ("propose attachments", bytes(&ProposeRequest { id: 15, command: attachments() })),
        ("not attachable", bytes(&ProposeResponse::Refused(ApplyError::NotAttachable("back".into())))),
    ]
}

fn bytes<T: serde::Serialize>(value: &T) -> Vec<u8> {
    codec::encode(value).unwrap()
}

#[test]
fn every_message_and_record_has_the_bytes_that_it_always_had() {
    let mut text = String::new();
    for (name, bytes) in samples() {
        let hex = bytes.iter().fold(String::new(), |mut hex, b| {
            let _ = write!(hex, "{b:02x}");
            hex
        });
        let _ = writeln!(text, "{name}: {hex}");
    }
    if std::env::var("GOLDEN").is_ok_and(|v| v == "write") {
        std::fs::create_dir_all(std::path::Path::new(FILE).parent().unwrap()).unwrap();
        std::fs::write(FILE, &text).unwrap();
    }
    let known = std::fs::read_to_string(FILE).unwrap();
    for (now, known) in text.lines().zip(known.lines()) {
        assert_eq!(now, known, "the shape of version 1 changed");
    }
    assert_eq!(text.lines().count(), known.lines().count());
}

#[test]
fn a_state_reads_back_from_its_golden_bytes() {
    let state = state();
    assert_eq!(codec::decode_record::<State>(&bytes(&state)).unwrap(), state);
}
