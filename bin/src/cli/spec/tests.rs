//! Golden requests: the JSON that flags become.

use clap::Parser as _;
use serde_json::{Value, json};

use super::super::args::{Cli, CreateArgs, NetworkVerb, NodeVerb, ServiceVerb, SwarmVerb, UpdateArgs, Verb};
use super::json::put;
use super::{create, environment, update};

fn verb(line: &str) -> Verb {
    let words = super::super::words::shell_words(line).expect("words");
    Cli::try_parse_from(words).unwrap_or_else(|e| panic!("{e}")).verb
}

fn create_flags(line: &str) -> CreateArgs {
    match verb(line) {
        Verb::Service(ServiceVerb::Create(flags)) => *flags,
        other => panic!("{other:?}"),
    }
}

fn update_flags(line: &str) -> UpdateArgs {
    match verb(line) {
        Verb::Service(ServiceVerb::Update(flags)) => *flags,
        other => panic!("{other:?}"),
    }
}

fn created(line: &str) -> Value {
    let flags = create_flags(line);
    let env = environment(&flags.env_file, &flags.env, &|name| (name == "HERE").then(|| "here".into()));
    create(&flags, env.expect("environment")).expect("valid")
}

#[test]
fn least_create_says_image_and_mode_alone() {
    let golden = json!({"Mode": {"Replicated": {}}, "TaskTemplate": {"ContainerSpec": {"Image": "bb"}}});
    assert_eq!(created("shoal service create bb"), golden);
}

#[test]
fn everything_after_the_image_belongs_to_the_container() {
    let spec = created("shoal service create --name web bb --name x -q sh -c 'exit 1'");
    assert_eq!(spec["Name"], "web");
    let args = json!(["--name", "x", "-q", "sh", "-c", "exit 1"]);
    assert_eq!(spec["TaskTemplate"]["ContainerSpec"]["Args"], args);
}

#[test]
fn an_unknown_flag_before_the_image_is_refused_by_name() {
    let error = Cli::try_parse_from(["shoal", "service", "create", "--colour", "bb"]).expect_err("unknown");
    assert!(error.to_string().contains("--colour"), "{error}");
}

#[test]
fn full_create_matches_the_golden_request() {
    let line = "shoal service create --name web --replicas 3 --constraint node.role==worker --constraint node.labels.z!=b \
        --placement-pref spread=node.labels.z -e A=1 -e HERE -e GONE --env B=x=y -l l1=v --container-label c1=v \
        --mount type=bind,source=/srv,target=/data,readonly,bind-propagation=rslave \
        --mount type=volume,src=v,dst=/v,volume-nocopy,volume-driver=local,volume-opt=o=1,volume-label=k=v \
        --mount type=tmpfs,destination=/t,tmpfs-size=64m,tmpfs-mode=1770 \
        --publish mode=host,target=80,published=8080 -p mode=host,target=53,protocol=udp \
        --limit-cpu 0.5 --limit-memory 64m --limit-pids 100 --reserve-cpu 0.25 --reserve-memory 32m \
        --replicas-max-per-node 2 --restart-condition on-failure --restart-delay 1s --restart-max-attempts 4 \
        --restart-window 1m --stop-signal SIGINT --stop-grace-period 3s --user 1000:1000 --group adm --workdir /w \
        --hostname h --init --tty --read-only --health-cmd 'true || false' --health-interval 5s --health-timeout 1s \
        --health-retries 3 --health-start-period 2s --entrypoint 'sh -c' --update-parallelism 2 --update-delay 1s \
        --update-order start-first --update-failure-action continue --network front --network name=back,alias=www,alias=w \
        --endpoint-mode vip bb:1 sleep 1";
    assert_eq!(created(line), full());
}

fn full() -> Value {
    json!({
        "Name": "web",
        "Labels": {"l1": "v"},
        "Mode": {"Replicated": {"Replicas": 3}},
        "TaskTemplate": {
            "ContainerSpec": {
                "Image": "bb:1",
                "Labels": {"c1": "v"},
                "Command": ["sh", "-c"],
                "Args": ["sleep", "1"],
                "Hostname": "h",
                "Env": ["A=1", "HERE=here", "B=x=y"],
                "Dir": "/w",
                "User": "1000:1000",
                "Groups": ["adm"],
                "Init": true,
                "TTY": true,
                "ReadOnly": true,
                "StopSignal": "SIGINT",
                "StopGracePeriod": 3_000_000_000_i64,
                "Healthcheck": {
                    "Test": ["CMD-SHELL", "true || false"],
                    "Interval": 5_000_000_000_i64,
                    "Timeout": 1_000_000_000,
                    "Retries": 3,
                    "StartPeriod": 2_000_000_000,
                },
                "Mounts": [
                    {"Type": "bind", "Source": "/srv", "Target": "/data", "ReadOnly": true, "BindOptions": {"Propagation": "rslave"}},
                    {"Type": "volume", "Source": "v", "Target": "/v", "VolumeOptions": {
                        "NoCopy": true, "Labels": {"k": "v"}, "DriverConfig": {"Name": "local", "Options": {"o": "1"}}}},
                    {"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 67_108_864, "Mode": 0o1770}},
                ],
            },
            "Resources": {
                "Limits": {"NanoCPUs": 500_000_000, "MemoryBytes": 67_108_864, "Pids": 100},
                "Reservations": {"NanoCPUs": 250_000_000, "MemoryBytes": 33_554_432},
            },
            "RestartPolicy": {"Condition": "on-failure", "Delay": 1_000_000_000, "MaxAttempts": 4, "Window": 60_000_000_000_i64},
            "Placement": {
                "Constraints": ["node.role==worker", "node.labels.z!=b"],
                "Preferences": [{"Spread": {"SpreadDescriptor": "node.labels.z"}}],
                "MaxReplicas": 2,
            },
            "Networks": [{"Target": "front"}, {"Target": "back", "Aliases": ["www", "w"]}],
        },
        "UpdateConfig": {"Parallelism": 2, "Delay": 1_000_000_000, "Order": "start-first", "FailureAction": "continue"},
        "EndpointSpec": {"Mode": "vip", "Ports": [
            {"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8080, "PublishMode": "host"},
            {"Protocol": "udp", "TargetPort": 53, "PublishMode": "host"},
        ]},
    })
}

#[test]
fn update_changes_only_what_it_names() {
    let mut spec = full();
    let flags = update_flags(
        "shoal service update --image bb:2 --args 'sleep 2' --force --env-add A=2 --env-add C=3 --env-rm B --label-rm l1 \
         --label-add l2=w --constraint-rm node.role==worker --constraint-add node.role==manager --mount-rm /v \
         --mount-add type=bind,source=/other,target=/data --publish-rm 53/udp --publish-add mode=host,target=80,published=9090 \
         --group-add wheel --placement-pref-rm spread=node.labels.z --replicas 5 --limit-memory 128m --no-healthcheck \
         --network-rm front --network-add name=back,alias=db --network-add third --endpoint-mode dnsrr web",
    );
    update(&mut spec, &flags, &flags.env_add).expect("valid");

    let mut golden = full();

    put(&mut golden, "Labels", json!({"l2": "w"}));
    put(&mut golden, "Mode/Replicated/Replicas", 5);
    put(&mut golden, "TaskTemplate/ForceUpdate", 1);
    let container = &mut golden["TaskTemplate"]["ContainerSpec"];
    put(container, "Image", "bb:2");
    put(container, "Args", json!(["sleep", "2"]));
    put(container, "Env", json!(["A=2", "HERE=here", "C=3"]));
    put(container, "Groups", json!(["adm", "wheel"]));
    put(container, "Healthcheck", json!({"Test": ["NONE"]}));
    let tmpfs = container["Mounts"][2].clone();
    put(container, "Mounts", json!([{"Type": "bind", "Source": "/other", "Target": "/data"}, tmpfs]));
    put(&mut golden, "TaskTemplate/Resources/Limits/MemoryBytes", 134_217_728);
    put(&mut golden, "TaskTemplate/Placement/Constraints", json!(["node.labels.z!=b", "node.role==manager"]));
    let networks = json!([{"Target": "back", "Aliases": ["db"]}, {"Target": "third"}]);
    put(&mut golden, "TaskTemplate/Networks", networks);
    put(&mut golden, "EndpointSpec/Mode", "dnsrr");
    golden["TaskTemplate"]["Placement"].as_object_mut().expect("object").remove("Preferences");
    put(
        &mut golden,
        "EndpointSpec/Ports",
        json!([{"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 9090, "PublishMode": "host"}]),
    );
    assert_eq!(spec, golden);
}

#[test]
fn update_without_a_change_leaves_the_specification_as_it_was() {
    let mut spec = full();
    let flags = update_flags(
        "shoal service update --replicas 3 --env-rm NONE --constraint-add node.role==worker web",
    );
    update(&mut spec, &flags, &[]).expect("valid");
    assert_eq!(spec, full());
}

#[test]
fn docker_writes_null_for_empty_lists_and_they_can_be_added_to() {
    let mut spec = json!({"EndpointSpec": null, "Mode": {"Replicated": {"Replicas": 1}}, "Labels": null,
        "TaskTemplate": {"ContainerSpec": {"Image": "bb", "Env": null}}});
    let flags = update_flags(
        "shoal service update --publish-add mode=host,target=1 --label-add a=b --env-add A=1 web",
    );
    update(&mut spec, &flags, &flags.env_add).expect("valid");
    assert_eq!(spec["EndpointSpec"]["Ports"][0]["TargetPort"], 1);
    assert_eq!(spec["Labels"], json!({"a": "b"}));
    assert_eq!(spec["TaskTemplate"]["ContainerSpec"]["Env"], json!(["A=1"]));
}

#[test]
fn replicas_of_a_global_service_are_wrong_usage() {
    let flags = create_flags("shoal service create --mode global --replicas 2 bb");
    assert_eq!(create(&flags, vec![]).expect_err("refused").code(), 2);
}

#[test]
fn short_ports_are_read_as_docker_reads_them() {
    let port = super::values::port;
    let golden =
        json!({"Protocol": "udp", "TargetPort": 80, "PublishedPort": 8080, "PublishMode": "ingress"});
    assert_eq!(port("8080:80/udp"), Ok(golden));
    for text in [
        "80-90",
        "1.2.3:80:80",
        "eth0:80:80",
        "[::1:80:80",
        "10.0.0.0/x:80:80",
        "host-ip=::1,target=80",
        "host-ip=here,published=80,target=80",
        "0",
        "mode=mesh,target=80",
        "published=80",
        "colour=red,target=1",
        "80/icmp",
    ] {
        assert!(port(text).is_err(), "{text}");
    }
}

#[test]
fn addresses_of_ports_become_labels_that_follow_their_ports() {
    let spec = created(
        "shoal service create --label a=b --publish 127.0.0.1:8080:80 --publish [::1]:53:53/udp --publish 9:9 \
         --publish published=81,target=81,host-ip=10.0.0.0/8,host-ip=192.0.2.7 --publish 10.0.0.0/8:82:82/tcp bb",
    );
    let golden = json!({"a": "b", "shoal.publish.8080/tcp": "127.0.0.1", "shoal.publish.53/udp": "::1",
        "shoal.publish.81/tcp": "10.0.0.0/8,192.0.2.7", "shoal.publish.82/tcp": "10.0.0.0/8"});
    assert_eq!(spec["Labels"], golden);
    let ports = super::places::ports(&spec);
    let bare = json!({"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8080, "PublishMode": "ingress"});
    assert_eq!((ports.len(), &ports[0]), (5, &bare));
    assert_eq!(super::places::of(&spec, &ports[0]), "127.0.0.1");
    assert_eq!(super::places::of(&spec, &ports[2]), "");

    let mut changed = spec.clone();
    let flags = update_flags(
        "shoal service update --publish-rm 53/udp --publish-add 8080:80 --publish-add 192.0.2.7:83:82 \
         --publish-add ::1:9:9 web",
    );
    update(&mut changed, &flags, &[]).expect("valid");
    let golden = json!({"a": "b", "shoal.publish.81/tcp": "10.0.0.0/8,192.0.2.7", "shoal.publish.83/tcp": "192.0.2.7",
        "shoal.publish.9/tcp": "::1"});
    assert_eq!(changed["Labels"], golden);

    // A label of all protocols goes with the last port of its number.
    let mut both =
        created("shoal service create --label shoal.publish.53=::1 --publish 53:53 --publish 53:53/udp bb");
    update(&mut both, &update_flags("shoal service update --publish-rm 53 web"), &[]).expect("valid");
    assert_eq!(both["Labels"], json!({"shoal.publish.53": "::1"}));
    update(&mut both, &update_flags("shoal service update --publish-rm 53/udp web"), &[]).expect("valid");
    assert_eq!(both["Labels"], json!({}));
}

#[test]
fn malformed_networks_are_refused_with_what_is_wanted() {
    for text in
        ["", "alias=db", "name=,alias=db", "name=back,alias=", "name=back,driver-opt=a=b", "name=back,db"]
    {
        let error = super::values::network(text).expect_err(text);
        assert!(error.contains("name=NAME"), "{text}: {error}");
    }
}

fn network_create(line: &str) -> super::super::error::Outcome<Value> {
    match verb(line) {
        Verb::Network(NetworkVerb::Create(flags)) => super::super::network::create_body(&flags),
        other => panic!("{other:?}"),
    }
}

#[test]
fn network_requests_match_the_golden_ones() {
    let least = json!({"Name": "back", "Driver": "overlay", "Scope": "swarm"});
    assert_eq!(network_create("shoal network create back").expect("valid"), least);
    assert_eq!(network_create("shoal network create -d overlay back").expect("valid"), least);
    let line = "shoal network create --attachable --internal --ipv6 --subnet 10.7.0.0/24 --gateway 10.7.0.9 \
        --ip-range 10.7.0.128/25 \
        --subnet fd00::/64 --label a=b --opt encrypted back";
    let golden = json!({
        "Name": "back", "Driver": "overlay", "Scope": "swarm", "Attachable": true, "Internal": true, "EnableIPv6": true,
        "IPAM": {"Config": [{"Subnet": "10.7.0.0/24", "Gateway": "10.7.0.9", "IPRange": "10.7.0.128/25"}, {"Subnet": "fd00::/64"}]},
        "Labels": {"a": "b"}, "Options": {"encrypted": ""},
    });
    assert_eq!(network_create(line).expect("valid"), golden);
    let alone = network_create("shoal network create --gateway 10.7.0.9 back");
    assert_eq!(alone.expect_err("refused").code(), 2);
    let bridge = Cli::try_parse_from(["shoal", "network", "create", "-d", "bridge", "back"]);
    assert!(bridge.expect_err("refused").to_string().contains("overlay"));
}

#[test]
fn malformed_mounts_are_refused_by_the_name_of_the_field() {
    for (text, named) in [
        ("type=bind,target=/x", "source"),
        ("type=volume", "target"),
        ("type=npipe,target=/x", "npipe"),
        ("target=/x,colour=red", "colour"),
        ("type=tmpfs,target=/x,volume-nocopy", "volume"),
        ("target=/x,readonly=maybe", "readonly"),
    ] {
        let error = super::values::mount(text).expect_err(text);
        assert!(error.contains(named), "{text}: {error}");
    }
}

#[test]
fn variables_of_files_give_way_to_those_of_flags() {
    let file = tempfile::NamedTempFile::new().expect("file");
    std::fs::write(file.path(), "# comment\nA=1\n\nB=2\nHERE\nGONE\n").expect("write");
    let files = [file.path().display().to_string()];
    let env = environment(&files, &["A=9".into()], &|name| (name == "HERE").then(|| "x".into()));
    assert_eq!(env.expect("valid"), ["A=9", "B=2", "HERE=x"]);
    let error = environment(&["/nowhere/env".into()], &[], &|_| None).expect_err("missing");
    assert!(error.to_string().contains("/nowhere/env"));
}

#[test]
fn swarm_requests_match_the_golden_ones() {
    let Verb::Swarm(SwarmVerb::Init(flags)) =
        verb("shoal swarm init --advertise-addr 10.0.0.1 --cert-expiry 48h --task-history-limit 2")
    else {
        panic!("init")
    };
    let golden = json!({
        "ListenAddr": "0.0.0.0:2377", "AdvertiseAddr": "10.0.0.1", "ForceNewCluster": false, "Availability": "active",
        "Spec": {"CAConfig": {"NodeCertExpiry": 172_800_000_000_000_i64}, "Orchestration": {"TaskHistoryRetentionLimit": 2}},
    });
    assert_eq!(super::super::swarm::init_body(&flags), golden);
    let Verb::Swarm(SwarmVerb::Init(flags)) = verb(
        "shoal swarm init --default-addr-pool 10.1.0.0/16 --default-addr-pool 10.2.0.0/16 --default-addr-pool-mask-length 26",
    ) else {
        panic!("init")
    };
    let body = super::super::swarm::init_body(&flags);
    assert_eq!(
        (&body["DefaultAddrPool"], &body["SubnetSize"]),
        (&json!(["10.1.0.0/16", "10.2.0.0/16"]), &json!(26))
    );
    let Verb::Swarm(SwarmVerb::Join(flags)) =
        verb("shoal swarm join --token T --availability drain 10.0.0.1:2377 10.0.0.2:2377")
    else {
        panic!("join")
    };
    let golden = json!({
        "ListenAddr": "0.0.0.0:2377", "AdvertiseAddr": "", "RemoteAddrs": ["10.0.0.1:2377", "10.0.0.2:2377"],
        "JoinToken": "T", "Availability": "drain",
    });
    assert_eq!(super::super::swarm::join_body(&flags), golden);
}

#[test]
fn node_update_keeps_what_it_does_not_name() {
    let Verb::Node(NodeVerb::Update(flags)) =
        verb("shoal node update --availability drain --label-add a=1 --label-rm b n1")
    else {
        panic!("update")
    };
    let mut spec = json!({"Role": "worker", "Availability": "active", "Labels": {"b": "2", "c": "3"}});
    super::super::node::lay_over(&mut spec, &flags);
    assert_eq!(spec, json!({"Role": "worker", "Availability": "drain", "Labels": {"a": "1", "c": "3"}}));
}

#[test]
fn the_command_line_is_consistent() {
    use clap::CommandFactory as _;
    Cli::command().debug_assert();
    crate::config::command().debug_assert();
}
