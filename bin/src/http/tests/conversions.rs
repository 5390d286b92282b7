//! Properties of the conversions: what the model says survives its way through JSON, and nothing panics.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use shoal_core::model::*;
use shoal_core::store::{Command, State, Write};

use super::super::convert::network::{network_json, network_spec};
use super::super::convert::{service_json, service_spec, swarm_spec};
use super::super::decode::decode;
use super::super::types;

fn map() -> impl Strategy<Value = BTreeMap<String, String>> {
    btree_map("[a-z]{1,6}", "[ -~]{0,6}", 0..3)
}

fn words() -> impl Strategy<Value = Vec<String>> {
    vec("[!-~]{1,8}", 0..3)
}

fn time() -> impl Strategy<Value = Duration> {
    (1u64..1_000_000).prop_map(Duration::from_millis)
}

fn mount() -> impl Strategy<Value = Mount> {
    let tmpfs = (0u64..1 << 40, 0u32..0o7777).prop_map(|(tmpfs_size_bytes, tmpfs_mode)| Mount {
        kind: MountKind::Tmpfs,
        source: String::new(),
        target: "/t".into(),
        read_only: false,
        propagation: None,
        no_copy: false,
        volume_labels: BTreeMap::new(),
        volume_driver: None,
        tmpfs_size_bytes,
        tmpfs_mode,
    });
    let bind =
        (any::<bool>(), option::of(Just("rslave".to_owned()))).prop_map(|(read_only, propagation)| Mount {
            kind: MountKind::Bind,
            source: "/src".into(),
            target: "/b".into(),
            read_only,
            propagation,
            no_copy: false,
            volume_labels: BTreeMap::new(),
            volume_driver: None,
            tmpfs_size_bytes: 0,
            tmpfs_mode: 0,
        });
    let volume = ("[a-z]{0,5}", any::<bool>(), map(), option::of(("[a-z]{1,5}", map()))).prop_map(
        |(source, no_copy, volume_labels, volume_driver)| Mount {
            kind: MountKind::Volume,
            source,
            target: "/v".into(),
            read_only: false,
            propagation: None,
            no_copy,
            volume_labels,
            volume_driver,
            tmpfs_size_bytes: 0,
            tmpfs_mode: 0,
        },
    );
    prop_oneof![tmpfs, bind, volume]
}

prop_compose! {
    fn container()(
        labels in map(), command in words(), args in words(), dir in "[/a-z]{0,8}",
        env in vec("[A-Z]{1,4}=[ -~]{0,6}", 0..3), init in option::of(any::<bool>()),
        flags in any::<(bool, bool, bool)>(), grace in option::of(time()), mount in option::of(mount()),
        health in option::of((time(), time(), 1u64..9)), sysctls in map(), caps in words(),
        ulimit in option::of((0i64..100, 100i64..200)), search in words(), groups in words(),
    ) -> ContainerSpec {
        ContainerSpec {
            image: "registry.example:5000/a/b:c".into(),
            labels, command, args, dir, env, init, sysctls, groups,
            tty: flags.0, open_stdin: flags.1, read_only: flags.2,
            hostname: "h".into(), user: "1:2".into(), stop_signal: "SIGINT".into(),
            stop_grace_period: grace,
            mounts: mount.into_iter().collect(),
            hosts: vec!["10.0.0.1 a".into()],
            dns_nameservers: vec!["10.0.0.2".into()],
            dns_search: search,
            dns_options: vec![],
            healthcheck: health.map(|(interval, timeout, retries)| HealthConfig {
                test: vec!["CMD-SHELL".into(), "true".into()],
                interval, timeout, retries, start_period: Duration::ZERO,
            }),
            cap_add: caps, cap_drop: vec!["ALL".into()],
            ulimits: ulimit.map(|(soft, hard)| Ulimit { name: "nofile".into(), soft, hard }).into_iter().collect(),
            registry_auth: None,
        }
    }
}

prop_compose! {
    fn update(is_rollback: bool)(
        parallelism in 0u64..10, delay in time(), action in 0usize..3, monitor in time(),
        max_failure_millionths in 0u32..=1_000_000, start_first: bool,
    ) -> UpdateConfig {
        let actions = [FailureAction::Pause, FailureAction::Continue, FailureAction::Rollback];
        UpdateConfig {
            parallelism, delay, monitor, max_failure_millionths,
            failure_action: actions[if is_rollback { action % 2 } else { action }],
            order: if start_first { UpdateOrder::StartFirst } else { UpdateOrder::StopFirst },
        }
    }
}

prop_compose! {
    fn task()(
        container in container(), cpus in 1_000_000u64..9_000_000_000, memory in 4u64 << 20..1 << 40,
        pids in 0u64..100, generic in btree_map("[a-z]{1,4}", 0u64..9, 0..3),
        condition in 0usize..3, delay in time(), attempts in 0u64..9, window in time(),
        zone in "[a-z]{1,5}", equal: bool, networks in btree_map(1u128..=3, vec("[a-z0-9_-]{1,9}", 0..3), 0..3), driver in option::of(map()), force in 0u64..9,
    ) -> TaskSpec {
        let conditions = [RestartCondition::Any, RestartCondition::OnFailure, RestartCondition::None];
        TaskSpec {
            container,
            resources: ResourceRequirements {
                limits: Resources { nano_cpus: cpus, memory_bytes: memory, pids, ..Resources::default() },
                reservations: Resources { nano_cpus: cpus, memory_bytes: memory, pids: 0, generic },
            },
            restart: RestartPolicy { condition: conditions[condition], delay, max_attempts: attempts, window },
            placement: Placement {
                constraints: vec![format!("node.labels.zone{}{zone}", if equal { "==" } else { "!=" }).parse().unwrap()],
                preferences: vec![Preference { spread: format!("node.labels.{zone}") }],
                max_replicas: 0,
                platforms: vec![Platform { os: "linux".into(), architecture: "amd64".into() }],
            },
            log_driver: driver.map(|options| LogDriver { name: "json-file".into(), options }),
            networks: networks.into_iter().map(|(network, aliases)| NetworkAttachment {
                network: NetworkId::from_u128(network),
                aliases,
            }).collect(),
            force_update: force,
        }
    }
}

prop_compose! {
    fn spec()(
        name in "[a-z][a-z0-9]{0,20}", labels in map(), replicas in option::of(0u64..1000), task in task(),
        update in option::of(update(false)), rollback in option::of(update(true)),
        ports in btree_map(1u16.., 1u16.., 0..3), udp: bool, dnsrr: bool,
    ) -> ServiceSpec {
        ServiceSpec {
            name, labels, update, rollback,
            mode: replicas.map_or(ServiceMode::Global, |replicas| ServiceMode::Replicated { replicas }),
            task: Arc::new(task),
            endpoint: EndpointSpec {
                mode: if dnsrr { EndpointMode::Dnsrr } else { EndpointMode::Vip },
                ports: ports.into_iter().map(|(published_port, target_port)| PortConfig {
                    name: String::new(),
                    protocol: if udp { Protocol::Udp } else { Protocol::Tcp },
                    target_port, published_port, mode: PortMode::Host, at: Vec::new(),
                }).collect(),
            },
        }
    }
}

/// A state with three networks, the second with IPv6.
fn state() -> State {
    let create = |id: u128| {
        let spec = NetworkSpec { name: format!("net{id}"), ipv6: id == 2, ..NetworkSpec::default() };
        let network = Network { id: NetworkId::from_u128(id), spec, ..Network::default() };
        Write::NetworkCreate(Box::new(network))
    };
    let mut state = State::default();
    let command = Command { writes: (1..=3).map(create).collect(), ..Command::default() };
    state.apply(1, 1, command).unwrap();
    state
}

fn service(spec: ServiceSpec) -> Service {
    let meta = Meta { spec_version: 5, revision: 9, ..Meta::default() };
    Service {
        meta,
        id: ServiceId::from_u128(7),
        spec,
        previous_spec: None,
        task_spec_version: 5,
        update: None,
        networks: Vec::new(),
    }
}

proptest! {
    #[test]
    fn a_specification_survives_its_way_through_json(spec in spec()) {
        let state = state();
        let json = service_json(&service(spec.clone()), &state, None).spec.unwrap();
        let json = serde_json::to_vec(&json).unwrap();
        let read: types::ServiceSpec = decode(&json, "Spec").unwrap();
        prop_assert_eq!(service_spec(read, &state).unwrap(), spec);
    }

    #[test]
    fn a_network_survives_its_way_through_json(
        name in "[0-9][a-zA-Z0-9_.-]{0,20}", labels in map(), options in map(), flags in any::<(bool, bool, bool)>(),
        second in any::<u8>(), length in 16u8..29,
    ) {
        let (internal, attachable, ipv6) = flags;
        let part = format!("10.{second}.0.0/{}", length + 1);
        let mut pools = vec![Pool::new(format!("10.{second}.0.0/{length}").parse().unwrap(), None).unwrap().within(part.parse().unwrap()).unwrap()];
        if ipv6 {
            pools.push(Pool::new("fd00::/64".parse().unwrap(), Some("fd00::9".parse().unwrap())).unwrap());
        }
        let spec = NetworkSpec { name, labels, options, internal, attachable, ipv6, pools };
        let network = Network { spec, ..Network::default() };
        let mut json = serde_json::to_value(network_json(&network)).unwrap();
        for field in ["Id", "Created", "Containers", "Services"] {
            json.as_object_mut().unwrap().remove(field);
        }
        let read: types::NetworkCreate = decode(json.to_string().as_bytes(), "").unwrap();
        prop_assert_eq!(network_spec(read).unwrap(), network.spec);
    }

    #[test]
    fn a_service_reads_back_as_written(spec in spec()) {
        let mut state = state();
        let service = service(spec);
        let writes = vec![Write::ServiceCreate(Box::new(service.clone()))];
        state.apply(2, 1, Command { writes, ..Command::default() }).unwrap();
        let written = service_json(state.service(service.id).unwrap(), &state, None);
        let shown = written.endpoint.as_ref().unwrap().virtual_ips.as_ref().map_or(0, Vec::len);
        let is_vip = service.spec.endpoint.mode == EndpointMode::Vip;
        let families = |wish: &NetworkAttachment| if wish.network == NetworkId::from_u128(2) { 2 } else { 1 };
        let wanted: usize = service.spec.task.networks.iter().map(families).sum();
        prop_assert_eq!(shown, if is_vip { wanted } else { 0 });
        let bytes = serde_json::to_vec(&written).unwrap();
        prop_assert_eq!(serde_json::from_slice::<types::Service>(&bytes).unwrap(), written);
    }

    #[test]
    fn arbitrary_bytes_never_panic_the_decoders(bytes: Vec<u8>) {
        let _ = decode::<types::ServiceSpec>(&bytes, "Spec").map(|json| service_spec(json, &State::default()));
        let _ = decode::<types::NetworkCreate>(&bytes, "").map(network_spec);
        let _ = decode::<types::InitRequest>(&bytes, "");
        let _ = decode::<types::JoinRequest>(&bytes, "");
        let _ = decode::<types::NodeSpec>(&bytes, "Spec");
    }

    /// A real request with one value replaced by another kind of value: refused or taken, never a panic.
    #[test]
    fn mangled_requests_never_panic(at in 0usize..400, with in 0usize..12) {
        let mut json: serde_json::Value =
            serde_json::from_str(include_str!("golden/docker_create_full.json")).unwrap();
        let values = ["null", "true", "-1", "0", "1e300", "18446744073709551615", r#""""#, r#""x""#, "[]", "{}",
            "[[]]", r#"{"A":[{}]}"#];
        let mut left = at;
        mangle(&mut json, &mut left, &serde_json::from_str(values[with]).unwrap());
        if let Ok(read) = decode::<types::ServiceSpec>(json.to_string().as_bytes(), "Spec") {
            let _ = service_spec(read, &State::default());
        }
    }

    #[test]
    fn settings_of_any_numbers_never_panic(a: i64, b: i64, c: i64, d: i64) {
        let json = format!(r#"{{"Orchestration":{{"TaskHistoryRetentionLimit":{a}}},"Raft":{{"SnapshotInterval":{b},
            "KeepOldSnapshots":{c}}},"Dispatcher":{{"HeartbeatPeriod":{d}}},"CAConfig":{{"NodeCertExpiry":{a}}}}}"#);
        let read: types::SwarmSpec = decode(json.as_bytes(), "Spec").unwrap();
        let _ = swarm_spec(read, &ClusterSpec::default());
    }
}

/// Replace the value that comes after `left` others.
fn mangle(json: &mut serde_json::Value, left: &mut usize, with: &serde_json::Value) {
    if *left == 0 {
        *json = with.clone();
        *left = usize::MAX;
        return;
    }
    if *left == usize::MAX {
        return;
    }
    *left -= 1;
    match json {
        serde_json::Value::Array(items) => items.iter_mut().for_each(|item| mangle(item, left, with)),
        serde_json::Value::Object(fields) => fields.values_mut().for_each(|item| mangle(item, left, with)),
        _ => {}
    }
}
