//! What a task's container is like, and what passes through to the engine.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use shoal_tests::cluster::{Cluster, Peer};
use shoal_tests::engine::{self, Container};
use shoal_tests::lab::Lab;
use shoal_tests::runner::Scenario;
use shoal_tests::{http, wait};

use super::{START_MAX, STOP_MAX, both, ours, says};

pub(crate) const SCENARIOS: &[Scenario] = &[
    both("container_is_made_as_the_service_asks", as_asked),
    both("task_that_cannot_be_made_is_rejected_with_the_engines_words", rejected),
    ours("engine_is_reached_through_the_nodes_socket", passed_through),
];

fn as_asked(lab: &mut Lab, peer: Peer) -> Result<()> {
    let cluster = Cluster::form(lab, peer, 1, 1)?;
    let flags = "--detach --no-resolve-image --name full --env COLOR=blue --user 1000:1000 --workdir /tmp --hostname inner \
                 --mount type=tmpfs,destination=/scratch --mount type=bind,source=/usr/share,destination=/bound,readonly \
                 --mount type=volume,source=kept,destination=/kept --label tier=front --container-label made=here \
                 --limit-memory 64m --limit-cpu 0.5 --stop-signal SIGINT --stop-grace-period 3s --init \
                 --constraint node.hostname==h2";
    let mut args = vec!["service", "create"];
    args.extend(flags.split_whitespace());
    args.extend(["busybox:latest", "sh", "-c", "echo started; sleep 1d"]);
    cluster.docker(1, &args)?;
    cluster.await_running("full", 1, &[1], START_MAX)?;
    let container = only(&cluster, 2, "full")?;
    let seen = cluster.lab.host(2).engine().get(&format!("/containers/{}/json", container.id))?;
    let (config, host) = (&seen["Config"], &seen["HostConfig"]);
    let checks = [
        ("env", config["Env"].to_string().contains("COLOR=blue")),
        ("user", config["User"] == "1000:1000"),
        ("dir", config["WorkingDir"] == "/tmp"),
        ("hostname", config["Hostname"] == "inner"),
        ("label", config["Labels"]["made"] == "here"),
        ("memory", host["Memory"] == 64 * 1024 * 1024),
        ("cpu", host["NanoCpus"] == 500_000_000),
        ("signal", config["StopSignal"] == "SIGINT"),
        ("init", host["Init"] == true),
        ("service label", config["Labels"]["com.docker.swarm.service.name"] == "full"),
        ("node label", config["Labels"]["com.docker.swarm.node.id"] == cluster.node(1, 2)?.id.as_str()),
    ];
    for (what, holds) in checks {
        ensure!(holds, "{what} is not as asked: {seen}");
    }
    let inside = cluster
        .lab
        .docker(2, &["exec", &container.id, "sh", "-c", "id -u; pwd; hostname; ls -d /bound/*; mount"])?;
    for word in ["1000\n/tmp\ninner\n", "/bound/", "on /scratch type tmpfs", "on /kept "] {
        says(&inside.text(), word)?;
    }
    let log = cluster.lab.docker(2, &["logs", &container.id])?;
    says(&log.text(), "started")
}

fn rejected(lab: &mut Lab, peer: Peer) -> Result<()> {
    let cluster = Cluster::form(lab, peer, 1, 0)?;
    let create = |name: &str, more: &[&str]| {
        let args = [
            "service",
            "create",
            "--detach",
            "--no-resolve-image",
            "--restart-condition",
            "none",
            "--name",
            name,
        ];
        cluster.docker(1, &[&args[..], more].concat())
    };
    create(
        "unbound",
        &["--mount", "type=bind,source=/no/such/folder,destination=/x", "busybox:latest", "sleep", "1d"],
    )?;
    create("unknown", &["no-such-image:1", "sleep", "1d"])?;
    create("unstartable", &["busybox:latest", "/no/such/program"])?;
    let cases = [
        ("unbound", "rejected", "/no/such/folder"),
        ("unknown", "rejected", "no-such-image"),
        ("unstartable", "failed", "/no/such/program"),
    ];
    for (name, state, words) in cases {
        wait::until(
            &format!("the task of {name} being {state}"),
            START_MAX,
            Duration::from_millis(100),
            || {
                let tasks = cluster.tasks(1, name)?;
                let status = tasks.first().map(|task| task["Status"].clone()).unwrap_or(Value::Null);
                wait::seen(status["State"] == state && status["Err"].to_string().contains(words), || {
                    status.to_string()
                })
            },
        )?;
    }
    Ok(())
}

fn passed_through(lab: &mut Lab, peer: Peer) -> Result<()> {
    let cluster = Cluster::form(lab, peer, 1, 0)?;
    let said = cluster.docker(1, &["run", "--rm", "busybox:latest", "echo", "hello from here"])?;
    ensure!(said == "hello from here", "said {said:?}");
    let id = cluster.docker(1, &["run", "--detach", "--name", "plain", "busybox:latest", "sleep", "1d"])?;
    says(&cluster.docker(1, &["ps", "--no-trunc"])?, &id)?;
    // A hijacked stream, both ways.
    ensure!(cluster.docker(1, &["exec", "plain", "sh", "-c", "echo $((6*7)); exit 0"])? == "42", "no 42");
    let code = cluster.try_docker(1, &["exec", "plain", "sh", "-c", "exit 9"])?.code;
    ensure!(code == Some(9), "the exit code came as {code:?}");
    for args in [&["images"][..], &["version"], &["info"], &["volume", "ls"], &["network", "ls"]] {
        cluster.docker(1, args)?;
    }
    says(&cluster.docker(1, &["info"])?, "Swarm: active")?;
    let ping = cluster.api(1).call("GET", "/_ping", None)?;
    ensure!(ping.header("swarm") == Some("active/manager"), "ping's head is {:?}", ping.head);
    let filter = http::encode(r#"{"name":["plain"]}"#);
    let direct = cluster.lab.host(1).engine().get(&format!("/containers/json?filters={filter}"))?;
    let through = cluster.api(1).get(&format!("/containers/json?filters={filter}"))?;
    ensure!(direct[0]["Id"] == through[0]["Id"], "the engine says {direct}, the node {through}");
    cluster.docker(1, &["rm", "--force", "plain"])?;
    // A container that is no task is left alone by the node, and a task's is not.
    cluster.docker(1, &["run", "--detach", "--name", "mine", "busybox:latest", "sleep", "1d"])?;
    cluster.create(1, "web", 1, &[])?;
    cluster.await_running("web", 1, &[], START_MAX)?;
    cluster.docker(1, &["service", "rm", "web"])?;
    cluster.await_running("web", 0, &[], STOP_MAX)?;
    says(&cluster.docker(1, &["ps"])?, "mine")
}

/// The one running container of a service on a host.
fn only(cluster: &Cluster<'_>, host: usize, service: &str) -> Result<Container> {
    let containers = engine::running(&cluster.lab.host(host).engine())?;
    containers.into_iter().find(|container| container.service == service).context("no container")
}
