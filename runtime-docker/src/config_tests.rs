//! The whole specification in, the engine's words out.

use std::collections::BTreeMap;
use std::sync::Arc;

use bollard::models::ContainerCreateBody;
use shoal_core::model::{
    LogDriver, Meta, ResourceRequirements, Resources, ServiceId, Slot, TaskId, TaskSpec, TaskState,
    TaskStatus, Ulimit,
};

use super::container as container_of;
use super::*;

fn task(spec: TaskSpec) -> Task {
    Task {
        meta: Meta::default(),
        id: TaskId::from_u128(7),
        service_id: ServiceId::from_u128(3),
        service_name: "web".into(),
        slot: Slot::Replica(2),
        node_id: None,
        spec: Arc::new(spec),
        spec_version: 1,
        ports: Vec::new(),
        networks: Vec::new(),
        desired: TaskState::Running,
        start_after: None,
        status: TaskStatus::default(),
    }
}

fn of(container: ContainerSpec) -> Result<ContainerCreateBody, ControllerError> {
    container_of(&task(TaskSpec { container, ..TaskSpec::default() }), NodeId::from_u128(5), "host", &own)
}

fn own() -> std::io::Result<Vec<std::net::IpAddr>> {
    Ok(vec![[127, 0, 0, 1].into(), [10, 0, 0, 7].into()])
}

fn words(values: &[&str]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

#[test]
fn every_field_of_the_container_reaches_the_engine() {
    let body = of(ContainerSpec {
        image: "busybox:1".into(),
        labels: [("a".into(), "b".into()), (labels::TASK_ID.into(), "forged".into())].into(),
        command: words(&["/bin/web"]),
        args: words(&["-x"]),
        hostname: "{{.Service.Name}}-{{.Task.Slot}}".into(),
        env: words(&["NODE={{.Node.Hostname}}"]),
        dir: "/srv".into(),
        user: "1000:1000".into(),
        groups: words(&["video"]),
        tty: true,
        open_stdin: true,
        read_only: true,
        stop_signal: "SIGUSR1".into(),
        stop_grace_period: Some(Duration::from_millis(1500)),
        hosts: words(&["10.0.0.1 one two"]),
        dns_nameservers: words(&["9.9.9.9"]),
        dns_search: words(&["lan"]),
        dns_options: words(&["ndots:1"]),
        healthcheck: Some(model::HealthConfig {
            test: words(&["CMD", "true"]),
            interval: Duration::from_secs(1),
            retries: 3,
            ..model::HealthConfig::default()
        }),
        sysctls: [("net.core.somaxconn".into(), "9".into())].into(),
        cap_add: words(&["NET_ADMIN"]),
        cap_drop: words(&["ALL"]),
        ulimits: vec![Ulimit { name: "nofile".into(), soft: 1, hard: 2 }],
        ..ContainerSpec::default()
    })
    .unwrap();
    let labels = body.labels.unwrap();
    assert_eq!(labels["a"], "b");
    assert_eq!(labels[labels::TASK_ID], TaskId::from_u128(7).to_string());
    assert_eq!(labels[labels::TASK_NAME], format!("web.2.{}", TaskId::from_u128(7)));
    assert_eq!(labels[labels::NODE_ID], NodeId::from_u128(5).to_string());
    assert_eq!((body.hostname.as_deref(), body.working_dir.as_deref()), (Some("web-2"), Some("/srv")));
    assert_eq!((body.entrypoint, body.cmd), (Some(words(&["/bin/web"])), Some(words(&["-x"]))));
    assert_eq!((body.env, body.user.as_deref()), (Some(words(&["NODE=host"])), Some("1000:1000")));
    assert_eq!((body.stop_signal.as_deref(), body.stop_timeout), (Some("SIGUSR1"), Some(2)));
    assert_eq!((body.tty, body.open_stdin), (Some(true), Some(true)));
    let check = body.healthcheck.unwrap();
    assert_eq!((check.interval, check.timeout, check.retries), (Some(1_000_000_000), None, Some(3)));
    let host = body.host_config.unwrap();
    assert_eq!(host.extra_hosts, Some(words(&["one:10.0.0.1", "two:10.0.0.1"])));
    assert_eq!((host.init, host.readonly_rootfs), (Some(true), Some(true)));
    assert_eq!((host.dns, host.dns_search), (Some(words(&["9.9.9.9"])), Some(words(&["lan"]))));
    assert_eq!((host.cap_add, host.cap_drop), (Some(words(&["NET_ADMIN"])), Some(words(&["ALL"]))));
    assert_eq!((host.group_add, host.dns_options), (Some(words(&["video"])), Some(words(&["ndots:1"]))));
    assert_eq!(host.sysctls.unwrap()["net.core.somaxconn"], "9");
    assert_eq!(host.ulimits.unwrap()[0].hard, Some(2));
}

#[test]
fn the_user_decides_about_init() {
    for (said, done) in [(None, true), (Some(false), false), (Some(true), true)] {
        let body = of(ContainerSpec { init: said, ..ContainerSpec::default() }).unwrap();
        assert_eq!(body.host_config.unwrap().init, Some(done));
    }
}

#[test]
fn resources_log_driver_and_host_ports_are_mapped() {
    let spec = TaskSpec {
        resources: ResourceRequirements {
            limits: Resources { nano_cpus: 5, memory_bytes: 6, pids: 7, generic: BTreeMap::new() },
            reservations: Resources { memory_bytes: 4, ..Resources::default() },
        },
        log_driver: Some(LogDriver {
            name: "json-file".into(),
            options: [("max-size".into(), "1m".into())].into(),
        }),
        ..TaskSpec::default()
    };
    let port = |mode, target_port, published_port| PortConfig {
        mode,
        target_port,
        published_port,
        ..PortConfig::default()
    };
    let at = |text: &str| vec![shoal_core::mesh::place(text).unwrap()];
    let ports = vec![
        port(PortMode::Host, 80, 8080),
        port(PortMode::Host, 81, 0),
        port(PortMode::Ingress, 82, 82),
        PortConfig { at: at("10.0.0.0/8"), ..port(PortMode::Host, 83, 8083) },
        PortConfig { at: at("192.0.2.9"), ..port(PortMode::Host, 84, 8084) },
        PortConfig { at: at("::1"), ..port(PortMode::Host, 85, 8085) },
    ];
    let task = Task { ports, ..task(spec) };
    let body = container(&task, NodeId::default(), "host", &own).unwrap();
    assert_eq!(body.exposed_ports, Some(words(&["80/tcp", "81/tcp", "83/tcp", "84/tcp", "85/tcp"])));
    let host = body.host_config.unwrap();
    assert_eq!((host.nano_cpus, host.memory, host.pids_limit), (Some(5), Some(6), Some(7)));
    assert_eq!(host.memory_reservation, Some(4));
    assert_eq!(host.log_config.unwrap().typ.as_deref(), Some("json-file"));
    let bindings = host.port_bindings.unwrap();
    let published = |key: &str| bindings[key].as_ref().unwrap()[0].host_port.clone().unwrap();
    assert_eq!((published("80/tcp"), published("81/tcp")), ("8080".into(), String::new()));
    let ips = |key: &str| {
        let bound = bindings.get(key).and_then(Clone::clone).unwrap_or_default();
        bound.into_iter().map(|binding| binding.host_ip.unwrap_or_default()).collect::<Vec<_>>()
    };
    assert_eq!((ips("80/tcp"), ips("83/tcp")), (words(&[""]), words(&["10.0.0.7"])));
    assert_eq!((ips("84/tcp"), ips("85/tcp")), (words(&[]), words(&["::1"])));
}

#[test]
fn mounts_are_mapped_and_an_unknown_propagation_is_refused() {
    let mount = |kind| model::Mount {
        kind,
        source: "/{{.Task.Slot}}".into(),
        target: "/t".into(),
        read_only: true,
        propagation: None,
        no_copy: true,
        volume_labels: BTreeMap::new(),
        volume_driver: Some(("local".into(), [("type".into(), "tmpfs".into())].into())),
        tmpfs_size_bytes: 64,
        tmpfs_mode: 0o700,
    };
    let mounts = vec![
        model::Mount { propagation: Some("rshared".into()), ..mount(MountKind::Bind) },
        mount(MountKind::Volume),
        model::Mount { source: String::new(), ..mount(MountKind::Tmpfs) },
    ];
    let made = of(ContainerSpec { mounts, ..ContainerSpec::default() }).unwrap();
    let made = made.host_config.unwrap().mounts.unwrap();
    assert_eq!(made[0].source.as_deref(), Some("/2"));
    let bind = made[0].bind_options.as_ref().unwrap();
    assert_eq!(bind.propagation, Some(MountBindOptionsPropagationEnum::RSHARED));
    let volume = made[1].volume_options.as_ref().unwrap();
    assert_eq!(volume.driver_config.as_ref().unwrap().name.as_deref(), Some("local"));
    assert_eq!(made[2].tmpfs_options.as_ref().unwrap().mode, Some(0o700));
    assert_eq!((made[2].source.as_ref(), made[2].typ), (None, Some(MountType::TMPFS)));
    let odd = model::Mount { propagation: Some("sideways".into()), ..mount(MountKind::Bind) };
    let error = of(ContainerSpec { mounts: vec![odd], ..ContainerSpec::default() }).unwrap_err();
    assert_eq!(error, ControllerError::Task("mount: unknown bind propagation \"sideways\"".into()));
}

#[test]
fn unknown_templates_and_wrong_hosts_are_refused() {
    let env = ContainerSpec { env: words(&["A={{.Task.Mood}}"]), ..ContainerSpec::default() };
    assert!(matches!(of(env), Err(ControllerError::Task(text)) if text.contains(".Task.Mood")));
    let hosts = ContainerSpec { hosts: words(&["name 10.0.0.1"]), ..ContainerSpec::default() };
    assert!(matches!(of(hosts), Err(ControllerError::Task(_))));
}
