//! What Shoal does not know or cannot do yet is refused by name, never dropped.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use shoal_tests::clients::{empty_service, services};
use shoal_tests::cluster::{Cluster, Peer};
use shoal_tests::lab::Lab;
use shoal_tests::runner::Scenario;

use super::{both, ours, says};

pub(crate) const SCENARIOS: &[Scenario] = &[
    ours("unknown_and_unsupported_fields_are_refused_by_name", refused),
    both("calls_of_a_manager_are_refused_elsewhere", wrong_place),
];

fn refused(lab: &mut Lab, peer: Peer) -> Result<()> {
    let cluster = Cluster::form(lab, peer, 1, 0)?;
    let cases: [(&str, Value, &str); 5] = [
        ("/Replica", json!(3), "Replica"),
        ("/TaskTemplate/ContainerSpec/Imagee", json!("x"), "Imagee"),
        ("/Mode/Replicated/Replicsa", json!(1), "Replicsa"),
        ("/TaskTemplate/Placement", json!({"Constraint": []}), "Constraint"),
        (
            "/EndpointSpec",
            json!({"Ports": [{"TargetPort": 80, "Protocol": "sctp", "PublishMode": "ingress"}]}),
            "EndpointSpec.Ports.0.Protocol",
        ),
    ];
    for (pointer, value, word) in cases {
        let mut spec = empty_service("odd");
        let (parent, field) = pointer.rsplit_once('/').unwrap_or(("", pointer));
        if let Some(object) = spec.pointer_mut(parent).and_then(Value::as_object_mut) {
            object.insert(field.to_owned(), value);
        }
        let answer = cluster.api(1).call("POST", "/services/create", Some(&spec))?;
        ensure!(answer.status == 400, "{pointer} answered {}: {}", answer.status, answer.text());
        says(&answer.text(), word)?;
    }
    let create = ["service", "create", "--detach", "--name", "odd"];
    let label = ["--label", "shoal.drain=soon", "busybox:latest"];
    says(&cluster.docker_fails(1, &[&create[..], &label].concat())?, "Spec.Labels.shoal.drain")?;
    let network =
        cluster.docker_fails(1, &["network", "create", "--driver", "overlay", "--ingress", "net"])?;
    says(&network, "Ingress")?;
    cluster.docker_fails(1, &["secret", "create", "s", "/etc/hostname"])?;
    let constraint = cluster
        .docker_fails(1, &[&create[..], &["--constraint", "node.colour==red", "busybox:latest"]].concat())?;
    says(&constraint, "node.colour")?;
    ensure!(services(&cluster.api(1))?.is_empty(), "something was created: {:?}", services(&cluster.api(1))?);
    Ok(())
}

fn wrong_place(lab: &mut Lab, peer: Peer) -> Result<()> {
    let mut cluster = Cluster::form(lab, peer, 1, 1)?;
    says(
        &cluster.docker_fails(2, &["node", "ls"])?,
        "Worker nodes can't be used to view or modify cluster state",
    )?;
    says(
        &cluster.docker_fails(2, &["service", "create", "busybox:latest"])?,
        "This node is not a swarm manager",
    )?;
    says(&cluster.docker_fails(2, &["swarm", "init"])?, "already part of a swarm")?;
    cluster.start(3)?;
    says(&cluster.docker_fails(3, &["node", "ls"])?, "not a swarm manager")?;
    says(&cluster.docker_fails(3, &["swarm", "leave"])?, "not part of a swarm")?;
    says(&cluster.docker_fails(1, &["swarm", "leave"])?, "--force")?;
    says(&cluster.docker_fails(1, &["node", "rm", "h2"])?, "not down")
}
