//! The real `docker` command line against the front door. Without one on this machine these say so and end.

use std::path::Path;
use std::process::Output;

use shoal_core::model::{NodeId, NodeState, Role};

use super::fake::{Fake, OWN};
use super::harness::Server;

/// Whether there is a `docker` to try.
pub(super) fn docker_missing(test: &str) -> bool {
    let missing = std::process::Command::new("docker").arg("--version").output().is_err();
    if missing {
        eprintln!("{test}: skipped, because there is no docker command on this machine");
    }
    missing
}

/// Run docker against a server; the future ends within a minute.
pub(super) async fn run(server: &Server, args: &[&str]) -> Output {
    let mut command = std::process::Command::new("docker");
    command
        .args(args)
        .env("DOCKER_HOST", format!("unix://{}", server.socket().display()))
        .env("DOCKER_CONFIG", server.folder.path())
        .stdin(std::process::Stdio::null());
    let waiting = tokio::task::spawn_blocking(move || command.output().unwrap());
    tokio::time::timeout(std::time::Duration::from_secs(60), waiting).await.expect("docker hangs").unwrap()
}

async fn ok(server: &Server, args: &[&str]) -> String {
    let output = run(server, args).await;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "docker {args:?}: {out}{err}");
    out.trim().to_owned()
}

async fn fails(server: &Server, args: &[&str]) -> String {
    let output = run(server, args).await;
    assert!(!output.status.success(), "docker {args:?} should fail");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn docker_forms_and_leaves_a_cluster() {
    if docker_missing("docker_forms_and_leaves_a_cluster") {
        return;
    }
    let fake = Fake::inactive();
    let server = Server::start(&fake, None).await;
    assert!(fails(&server, &["node", "ls"]).await.contains("docker swarm init"));
    let init = ok(&server, &["swarm", "init", "--advertise-addr", "10.1.1.1"]).await;
    assert!(init.contains("SWMTKN-1-digest-workersecret"), "{init}");
    assert!(fails(&server, &["swarm", "init"]).await.contains("already part of a swarm"));
    assert!(fails(&server, &["swarm", "update", "--autolock=true"]).await.contains("AutoLockManagers"));
    ok(&server, &["swarm", "update", "--task-history-limit", "7", "--cert-expiry", "2h"]).await;
    assert_eq!(fake.now().cluster().unwrap().spec.task_history_limit, 7);
    let old = ok(&server, &["swarm", "join-token", "-q", "worker"]).await;
    let new = ok(&server, &["swarm", "join-token", "-q", "--rotate", "worker"]).await;
    assert!(old != new && new.starts_with("SWMTKN-1-digest-"), "{new}");
    let info = ok(&server, &["info", "--format", "{{.Swarm.LocalNodeState}} {{.Swarm.Managers}}"]).await;
    assert_eq!(info, "active 1");
    let long = ok(&server, &["info"]).await;
    assert!(long.contains("Is Manager: true") && long.contains("Task History Retention Limit: 7"), "{long}");
    assert!(fails(&server, &["swarm", "leave"]).await.contains("--force"));
    ok(&server, &["swarm", "leave", "--force"]).await;
    ok(&server, &["swarm", "join", "--token", "SWMTKN-1-a-b", "10.1.1.2:2377"]).await;
    assert!(fails(&server, &["service", "ls"]).await.contains("Worker nodes"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn docker_shows_and_changes_nodes() {
    if docker_missing("docker_shows_and_changes_nodes") {
        return;
    }
    let fake = Fake::manager();
    fake.add_node(NodeId::from_u128(5), "host2", Role::Worker, NodeState::Ready);
    let server = Server::start(&fake, None).await;
    let list = ok(&server, &["node", "ls"]).await;
    assert!(
        list.contains("host1") && list.contains("Leader") && list.contains(&format!("{OWN} *")),
        "{list}"
    );
    let pretty = ok(&server, &["node", "inspect", "--pretty", "self"]).await;
    assert!(pretty.contains("Reachable") && pretty.contains("Issuer Subject"), "{pretty}");
    ok(&server, &["node", "update", "--label-add", "zone=a", "--availability", "drain", "host2"]).await;
    let labels = ok(&server, &["node", "inspect", "-f", "{{.Spec.Labels}} {{.Spec.Availability}}", "host2"]);
    assert_eq!(labels.await, "map[zone:a] drain");
    ok(&server, &["node", "promote", "host2"]).await;
    assert_eq!(fake.now().node(NodeId::from_u128(5)).unwrap().spec.role, Role::Manager);
    ok(&server, &["node", "demote", "host2"]).await;
    assert!(fails(&server, &["node", "demote", "host1"]).await.contains("last manager"));
    assert!(fails(&server, &["node", "rm", "host2"]).await.contains("not down"));
    ok(&server, &["node", "rm", "--force", "host2"]).await;
    assert_eq!(ok(&server, &["node", "ls", "-q"]).await, OWN.to_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn docker_runs_services_with_progress() {
    if docker_missing("docker_runs_services_with_progress") {
        return;
    }
    let fake = Fake::manager();
    let server = Server::start(&fake, None).await;
    let create = [
        "service",
        "create",
        "--name",
        "web",
        "--replicas",
        "2",
        "--update-monitor",
        "10ms",
        "busybox:latest",
    ];
    let output = ok(&server, &create).await;
    assert!(output.contains("converged"), "{output}");
    assert!(fails(&server, &create).await.contains("already exists"));
    let list =
        ok(&server, &["service", "ls", "--format", "{{.Name}} {{.Mode}} {{.Replicas}} {{.Image}}"]).await;
    assert_eq!(list, "web replicated 2/2 busybox:latest");
    let ps =
        ok(&server, &["service", "ps", "--format", "{{.Name}} {{.Node}} {{.CurrentState}}", "web"]).await;
    assert!(ps.contains("web.1 host1 Running") && ps.lines().count() == 2, "{ps}");
    assert_eq!(ok(&server, &["node", "ps", "-q"]).await.lines().count(), 2);
    let pretty = ok(&server, &["service", "inspect", "--pretty", "web"]).await;
    assert!(pretty.contains("Replicas:\t2") && pretty.contains("busybox:latest"), "{pretty}");
    assert!(ok(&server, &["service", "scale", "web=4"]).await.contains("converged"));
    assert_eq!(fake.now().tasks().len(), 4);
    let update = [
        "service",
        "update",
        "--env-add",
        "A=1",
        "--label-add",
        "x=y",
        "--publish-add",
        "published=8080,target=80,mode=host",
        "web",
    ];
    assert!(ok(&server, &update).await.contains("converged"));
    let state = fake.now();
    let spec = &state.service_named("web").unwrap().spec;
    assert_eq!((spec.task.container.env.as_slice(), spec.endpoint.ports.len()), (&["A=1".to_owned()][..], 1));
    assert!(ok(&server, &["service", "rollback", "web"]).await.contains("converged"));
    assert!(fake.now().service_named("web").unwrap().spec.task.container.env.is_empty());
    assert!(
        ok(&server, &["service", "create", "-d", "--name", "mesh", "-p", "80:80", "busybox"]).await.len()
            >= 25
    );
    let taken = fails(&server, &["service", "create", "-d", "-p", "80:81", "busybox"]).await;
    assert!(taken.contains("port '80' is already in use by service 'mesh'"), "{taken}");
    let bad = fails(&server, &["service", "create", "-d", "--constraint", "node.rolle==x", "busybox"]).await;
    assert!(bad.contains("Constraints.0"), "{bad}");
    assert_eq!(
        ok(&server, &["service", "create", "-d", "--mode", "global", "--name", "all", "busybox"]).await.len(),
        25
    );
    assert_eq!(
        ok(&server, &["service", "ls", "--filter", "mode=global", "--format", "{{.Replicas}}"]).await,
        "1/1"
    );
    ok(&server, &["service", "rm", "web", "all", "mesh"]).await;
    assert_eq!(ok(&server, &["service", "ls", "-q"]).await, "");
    assert!(fails(&server, &["service", "logs", "web"]).await.contains("no such"));
    assert!(fails(&server, &["secret", "create", "s", "/etc/hostname"]).await.contains("not supported yet"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn docker_makes_shows_and_removes_networks() {
    if docker_missing("docker_makes_shows_and_removes_networks") {
        return;
    }
    let server = Server::start(&Fake::manager(), None).await;
    let create =
        ["network", "create", "-d", "overlay", "--attachable", "--subnet", "10.7.0.0/24", "--label", "a=b"];
    let id = ok(&server, &[&create[..], &["back"]].concat()).await;
    assert_eq!(id.len(), 25);
    assert!(
        fails(&server, &[&create[..], &["other"]].concat()).await.contains("overlaps with network 'back'")
    );
    let list = ok(&server, &["network", "ls", "--format", "{{.Name}} {{.Driver}} {{.Scope}}"]).await;
    assert_eq!(list, "back overlay swarm");
    assert_eq!(ok(&server, &["network", "ls", "-q", "--no-trunc", "-f", "label=a=b"]).await, id);
    assert_eq!(ok(&server, &["network", "ls", "-q", "-f", "driver=bridge"]).await, "");
    let format =
        "{{(index .IPAM.Config 0).Subnet}} {{(index .IPAM.Config 0).Gateway}} {{.Attachable}} {{.Labels}}";
    let shown = ok(&server, &["network", "inspect", "-v", "-f", format, "back"]).await;
    assert_eq!(shown, "10.7.0.0/24 10.7.0.1 true map[a:b]");
    // Containers are the engine's, and there is none.
    assert!(fails(&server, &["network", "connect", "back", "x"]).await.contains("plain processes"));
    ok(&server, &["network", "rm", &id[..12]]).await;
    assert_eq!(ok(&server, &["network", "ls", "-q"]).await, "");
}

const STACK: &str = r#"
version: "3.7"
services:
  web:
    image: busybox:latest
    networks: [front, back]
  db:
    image: busybox:latest
    networks:
      back:
        aliases: [store]
networks:
  front:
  back:
    ipam:
      config:
        - subnet: 10.8.0.0/24
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn docker_puts_services_and_stacks_into_networks() {
    if docker_missing("docker_puts_services_and_stacks_into_networks") {
        return;
    }
    let fake = Fake::manager();
    let server = Server::start(&fake, None).await;
    for name in ["front", "back"] {
        ok(&server, &["network", "create", "-d", "overlay", name]).await;
    }
    let create = ["service", "create", "-d", "--name", "web", "--network", "name=back,alias=www", "busybox"];
    ok(&server, &create).await;
    let wishes = || fake.now().service_named("web").unwrap().spec.task.networks.clone();
    assert_eq!((wishes().len(), wishes()[0].aliases.as_slice()), (1, &["www".to_owned()][..]));
    ok(&server, &["service", "update", "-d", "--network-add", "front", "web"]).await;
    assert_eq!(wishes().len(), 2);
    let pretty = ok(&server, &["service", "inspect", "--pretty", "web"]).await;
    assert!(pretty.contains("Networks:") && pretty.contains("front") && pretty.contains("back"), "{pretty}");
    assert!(fails(&server, &["network", "rm", "back"]).await.contains("in use by service 'web'"));
    ok(&server, &["service", "update", "-d", "--network-rm", "back", "web"]).await;
    assert_eq!(wishes().len(), 1);
    ok(&server, &["network", "rm", "back"]).await;
    let dnsrr = ["service", "create", "-d", "--network", "front", "--endpoint-mode", "dnsrr"];
    ok(&server, &[&dnsrr[..], &["--name", "rr", "busybox"]].concat()).await;
    let refused = fails(&server, &[&dnsrr[..], &["-p", "80:80", "busybox"]].concat()).await;
    assert!(refused.contains("can't be used with dnsrr mode"), "{refused}");

    let file = server.folder.path().join("stack.yml");
    std::fs::write(&file, STACK).unwrap();
    ok(&server, &["stack", "deploy", "-d", "-c", &file.to_string_lossy(), "shop"]).await;
    let state = fake.now();
    let pool = state.network_named("shop_back").unwrap().spec.pools[0];
    assert_eq!(pool.subnet.to_string(), "10.8.0.0/24");
    assert_eq!(state.service_named("shop_web").unwrap().networks.len(), 2);
    let aliases = &state.service_named("shop_db").unwrap().spec.task.networks[0].aliases;
    assert!(aliases.contains(&"store".to_owned()) && aliases.contains(&"db".to_owned()), "{aliases:?}");
    assert!(ok(&server, &["stack", "ls"]).await.contains("shop"));
    ok(&server, &["stack", "rm", "-d", "shop"]).await;
    assert!(fake.now().network_named("shop_back").is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_python_sdk_is_served() {
    let script = r#"
import docker, sys
client = docker.DockerClient(base_url=sys.argv[1])
assert client.ping()
assert client.info()['Swarm']['ControlAvailable'] is True
service = client.services.create('busybox', name='py', mode=docker.types.ServiceMode('replicated', 2),
    env=['A=1'], constraints=['node.role==manager'], labels={'a': 'b'})
assert [s.name for s in client.services.list()] == ['py']
assert len(service.tasks()) == 2
assert service.scale(3)
service.reload()
assert service.update(image='busybox:2', force_update=True) is not None
assert len(client.nodes.list(filters={'role': 'manager'})) == 1
assert service.remove()
assert client.swarm.attrs['JoinTokens']['Worker'].startswith('SWMTKN')
assert client.secrets.list() == []
"#;
    let python = Path::new("/usr/bin/python3");
    let probe = std::process::Command::new(python).args(["-c", "import docker"]).output();
    if !probe.is_ok_and(|o| o.status.success()) {
        eprintln!("the_python_sdk_is_served: skipped, because python3 has no package docker here");
        return;
    }
    let server = Server::start(&Fake::manager(), None).await;
    let address = format!("unix://{}", server.socket().display());
    let output = tokio::task::spawn_blocking(move || {
        std::process::Command::new(python).args(["-c", script, &address]).output().unwrap()
    })
    .await
    .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
