//! Requests as real clients send them, and what must become of them.

use std::time::Duration;

use shoal_core::model::*;
use shoal_core::store::State;

use super::super::convert::service_spec;
use super::super::decode::decode;
use super::super::types;

fn read(json: &str) -> Result<ServiceSpec, String> {
    let decoded: types::ServiceSpec = decode(json.as_bytes(), "Spec").map_err(|e| e.message)?;
    service_spec(decoded, &State::default()).map_err(|e| e.message)
}

fn refused(json: &str) -> String {
    read(json).expect_err(json)
}

/// Put `body` where a container's specification stands.
fn container(body: &str) -> String {
    format!(r#"{{"TaskTemplate":{{"ContainerSpec":{{"Image":"nginx",{body}}}}}}}"#)
}

fn task(body: &str) -> String {
    format!(r#"{{"TaskTemplate":{{"ContainerSpec":{{"Image":"nginx"}},{body}}}}}"#)
}

fn service(body: &str) -> String {
    format!(r#"{{"TaskTemplate":{{"ContainerSpec":{{"Image":"nginx"}}}},{body}}}"#)
}

#[test]
fn the_docker_clients_plain_create_is_read() {
    let spec = read(include_str!("golden/docker_create_plain.json")).unwrap();
    assert_eq!(spec.name, "web");
    assert_eq!(spec.mode, ServiceMode::Replicated { replicas: 1 });
    assert_eq!(spec.task.container.image, "busybox:latest");
    assert_eq!(spec.task.restart, RestartPolicy::default());
    assert_eq!(spec.update, None);
}

#[test]
fn the_docker_clients_create_with_everything_is_read() {
    let spec = read(include_str!("golden/docker_create_full.json")).unwrap();
    let container = &spec.task.container;
    assert_eq!(spec.mode, ServiceMode::Replicated { replicas: 3 });
    assert_eq!(container.command, ["/bin/sh"]);
    assert_eq!(container.args, ["-c", "sleep 1000"]);
    assert_eq!(container.env, ["A=1", "B=two words"]);
    assert_eq!(container.stop_grace_period, Some(Duration::from_secs(3)));
    assert_eq!(container.init, Some(true));
    assert_eq!(container.mounts.len(), 3);
    assert_eq!(container.healthcheck.as_ref().unwrap().retries, 2);
    assert_eq!(spec.task.resources.limits.memory_bytes, 64 << 20);
    assert_eq!(spec.task.resources.reservations.nano_cpus, 100_000_000);
    assert_eq!(spec.task.placement.max_replicas, 2);
    assert_eq!(spec.task.placement.constraints[0].to_string(), "node.labels.zone==a");
    assert_eq!(spec.task.placement.preferences[0].spread, "node.labels.rack");
    assert_eq!(spec.task.restart.condition, RestartCondition::OnFailure);
    assert_eq!(spec.task.log_driver.as_ref().unwrap().name, "json-file");
    assert_eq!(spec.update.as_ref().unwrap().order, UpdateOrder::StartFirst);
    assert_eq!(spec.update.as_ref().unwrap().max_failure_millionths, 250_000);
    assert_eq!(spec.rollback.as_ref().unwrap().parallelism, 2);
    let port = &spec.endpoint.ports[0];
    assert_eq!((port.published_port, port.target_port, port.mode), (8080, 80, PortMode::Host));
}

#[test]
fn every_unknown_field_is_refused_by_its_path() {
    for (json, message) in [
        (r#"{"Foo":1,"TaskTemplate":{}}"#.to_owned(), "unknown field Spec.Foo"),
        (task(r#""Foo":null"#), "unknown field Spec.TaskTemplate.Foo"),
        (container(r#""Privileged":true"#), "unknown field Spec.TaskTemplate.ContainerSpec.Privileged"),
        (
            container(r#""Mounts":[{"Type":"bind","Bar":1}]"#),
            "unknown field Spec.TaskTemplate.ContainerSpec.Mounts.0.Bar",
        ),
        (service(r#""Mode":{"Cron":{}}"#), "unknown field Spec.Mode.Cron"),
        (service(r#""Mode":{"Global":{"Max":1}}"#), "unknown field Spec.Mode.Global.Max"),
    ] {
        assert_eq!(refused(&json), message);
    }
}

#[test]
fn what_is_not_supported_is_refused_by_name_with_the_remedy() {
    for (json, field, remedy) in [
        (
            service(r#""EndpointSpec":{"Ports":[{"TargetPort":80,"Protocol":"sctp"}]}"#),
            "Ports.0.Protocol",
            "use mode=host",
        ),
        (
            service(r#""Labels":{"shoal.drain":"soon"}"#),
            "Spec.Labels.shoal.drain",
            "seconds up to 3600 are wanted",
        ),
        (
            service(r#""Labels":{"shoal.progress-deadline":"0"}"#),
            "Spec.Labels.shoal.progress-deadline",
            "seconds are wanted",
        ),
        (
            task(r#""Networks":[{"Target":"n","DriverOpts":{"a":"b"}}]"#),
            "Spec.TaskTemplate.Networks.0.DriverOpts",
            "leave them out",
        ),
        (service(r#""Networks":[{"Aliases":["a"]}]"#), "Spec.Networks.0.Target", "a network's name or id"),
        (task(r#""Networks":[{"Target":"n"}]"#), "network n not found", ""),
        (
            service(r#""EndpointSpec":{"Mode":"dnsrr","Ports":[{"TargetPort":80}]}"#),
            "EndpointSpec: port published with ingress mode",
            "can't be used with dnsrr mode",
        ),
        (container(r#""Secrets":[{"SecretName":"s"}]"#), "ContainerSpec.Secrets", "not supported yet"),
        (container(r#""Configs":[{"ConfigName":"s"}]"#), "ContainerSpec.Configs", "not supported yet"),
        (service(r#""Mode":{"ReplicatedJob":{}}"#), "Spec.Mode.ReplicatedJob", "jobs are not supported yet"),
        (service(r#""Mode":{"GlobalJob":{}}"#), "Spec.Mode.GlobalJob", "jobs are not supported yet"),
        (container(r#""Privileges":{"NoNewPrivileges":true}"#), "Privileges", "not supported yet"),
        (container(r#""OomScoreAdj":5"#), "OomScoreAdj", "not supported"),
        (container(r#""Isolation":"hyperv""#), "Isolation", "Windows"),
        (container(r#""Healthcheck":{"StartInterval":5000000000}"#), "StartInterval", "not supported"),
        (task(r#""Runtime":"plugin""#), "Runtime", "container is wanted"),
        (task(r#""Resources":{"SwapBytes":5}"#), "SwapBytes", "not supported"),
        (
            container(r#""Mounts":[{"Type":"volume","Target":"/a","VolumeOptions":{"Subpath":"x"}}]"#),
            "Subpath",
            "not supported",
        ),
    ] {
        let message = refused(&json);
        assert!(message.contains(field) && message.contains(remedy), "{json}: {message}");
    }
}

#[test]
fn what_says_nothing_is_taken_for_nothing() {
    let json = r#"{"Name":"a","Labels":null,"Networks":[],"UpdateConfig":null,"RollbackConfig":null,
        "Mode":{"Replicated":{"Replicas":null},"Global":null,"ReplicatedJob":null},
        "EndpointSpec":{"Mode":"vip","Ports":null},
        "TaskTemplate":{"Runtime":"container","ForceUpdate":0,"LogDriver":null,"Networks":null,"PluginSpec":null,
          "Resources":{"Limits":{},"Reservations":{"GenericResources":null},"MemorySwappiness":null},
          "RestartPolicy":null,"Placement":{"Constraints":null,"Preferences":[]},
          "ContainerSpec":{"Image":"a","Isolation":"default","Secrets":[],"Configs":null,"DNSConfig":{},
            "Privileges":{"CredentialSpec":null,"SELinuxContext":null,"NoNewPrivileges":false},
            "Healthcheck":null,"Mounts":null,"OomScoreAdj":0,"Init":null}}}"#;
    let spec = read(json).unwrap();
    assert_eq!(spec.mode, ServiceMode::Replicated { replicas: 1 });
    assert_eq!(
        *spec.task,
        TaskSpec {
            container: ContainerSpec { image: "a".into(), ..ContainerSpec::default() },
            ..TaskSpec::default()
        }
    );
}

#[test]
fn wrong_values_are_refused_by_field() {
    for (json, field) in [
        ("{}".to_owned(), "Spec.TaskTemplate"),
        (r#"{"TaskTemplate":{}}"#.to_owned(), "Spec.TaskTemplate.ContainerSpec"),
        (r#"{"TaskTemplate":{"ContainerSpec":{}}}"#.to_owned(), "ContainerSpec.Image"),
        (service(r#""Name":"-a""#), "Spec.Name"),
        (service(r#""Mode":{"Replicated":{"Replicas":-1}}"#), "Spec.Mode.Replicated.Replicas"),
        (service(r#""Mode":{"Replicated":{},"Global":{}}"#), "Spec.Mode"),
        (service(r#""UpdateConfig":{"Parallelism":-1}"#), "Spec.UpdateConfig.Parallelism"),
        (service(r#""UpdateConfig":{"MaxFailureRatio":1.5}"#), "Spec.UpdateConfig.MaxFailureRatio"),
        (service(r#""UpdateConfig":{"Order":"any"}"#), "Spec.UpdateConfig.Order"),
        (service(r#""RollbackConfig":{"FailureAction":"rollback"}"#), "Spec.RollbackConfig.FailureAction"),
        (task(r#""RestartPolicy":{"Condition":"sometimes"}"#), "RestartPolicy.Condition"),
        (task(r#""RestartPolicy":{"Delay":-1}"#), "RestartPolicy.Delay"),
        (task(r#""Placement":{"Constraints":["node.rolle==x"]}"#), "Placement.Constraints.0"),
        (task(r#""Placement":{"Preferences":[{"Spread":{"SpreadDescriptor":"rack"}}]}"#), "SpreadDescriptor"),
        (task(r#""Placement":{"MaxReplicas":-1}"#), "Placement.MaxReplicas"),
        (task(r#""Resources":{"Limits":{"MemoryBytes":1000}}"#), "Limits.MemoryBytes"),
        (task(r#""Resources":{"Limits":{"NanoCPUs":10}}"#), "Limits.NanoCPUs"),
        (
            task(r#""Resources":{"Limits":{"MemoryBytes":5000000},"Reservations":{"MemoryBytes":6000000}}"#),
            "Reservations.MemoryBytes",
        ),
        (task(r#""ForceUpdate":"yes""#), "Spec.TaskTemplate.ForceUpdate"),
        (task(r#""LogDriver":{"Options":{"a":"b"}}"#), "LogDriver.Name"),
        (container(r#""Env":["=x"]"#), "Env.0"),
        (container(r#""Hosts":["nonsense"]"#), "Hosts.0"),
        (container(r#""StopGracePeriod":-5"#), "StopGracePeriod"),
        (container(r#""Healthcheck":{"Interval":5}"#), "Healthcheck.Interval"),
        (container(r#""Mounts":[{"Type":"bind","Target":"/a"}]"#), "Mounts.0.Source"),
        (container(r#""Mounts":[{"Type":"bind","Source":"/a","Target":"b"}]"#), "Mounts.0.Target"),
        (container(r#""Mounts":[{"Type":"tmpfs","Source":"/a","Target":"/b"}]"#), "Mounts.0.Source"),
        (container(r#""Mounts":[{"Type":"npipe","Target":"/b"}]"#), "Mounts.0.Type"),
        (
            container(r#""Mounts":[{"Type":"tmpfs","Target":"/b"},{"Type":"tmpfs","Target":"/b"}]"#),
            "Mounts.1.Target",
        ),
        (
            container(r#""Mounts":[{"Type":"tmpfs","Target":"/b","BindOptions":{"Propagation":"shared"}}]"#),
            "Mounts.0.BindOptions",
        ),
        (
            service(
                r#""EndpointSpec":{"Ports":[{"TargetPort":1,"PublishedPort":9,"PublishMode":"host"},
                {"TargetPort":2,"PublishedPort":9,"PublishMode":"host"}]}"#,
            ),
            "Ports.1.PublishedPort",
        ),
        (service(r#""EndpointSpec":{"Ports":[{"PublishMode":"host"}]}"#), "Ports.0.TargetPort"),
        (
            service(r#""EndpointSpec":{"Ports":[{"TargetPort":70000,"PublishMode":"host"}]}"#),
            "Ports.0.TargetPort",
        ),
    ] {
        let message = refused(&json);
        assert!(message.contains(field), "{json}: {message}");
    }
}
