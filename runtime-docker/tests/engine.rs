//! The controller on the real engine of this machine.
#![allow(clippy::unwrap_used, reason = "a test, and its helpers, may panic")]

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Cable, controller, docker, image, program, silent, socket, task};
use shoal_core::model::{
    ContainerSpec, HealthConfig, Mount, MountKind, PortConfig, PortMode, ResourceRequirements, Resources,
    Task, TaskSpec,
};
use shoal_core::task::conformance::{Programs, check};
use shoal_core::task::{Controller, ControllerError, ExitStatus, RunState};

fn inspect(task: &Task, format: &str) -> String {
    let output = docker(&["inspect", "-f", format, &task.name()]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_string()
}

fn logs(task: &Task) -> String {
    let output = docker(&["logs", &task.name()]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// Prepare, start, wait for the end.
async fn run(engine: &dyn Controller, task: &Task) -> ExitStatus {
    engine.prepare(task, silent()).await.unwrap();
    engine.start(task).await.unwrap();
    engine.wait(task.id).await.unwrap()
}

#[tokio::test]
async fn the_engine_keeps_the_contract_of_every_runtime() {
    let Some(image) = image("the_engine_keeps_the_contract_of_every_runtime") else { return };
    let programs = Programs {
        pause: Arc::new(|| Box::pin(tokio::time::sleep(Duration::from_millis(300)))),
        sleeps: program(&image, &["sleep", "600"]),
        ends_well: program(&image, &["true"]),
        ends_with_3: program(&image, &["sh", "-c", "exit 3"]),
        is_stubborn: program(&image, &["sh", "-c", "trap '' TERM; while :; do /bin/busybox sleep 1; done"]),
        // An image that no registry has.
        is_impossible: ContainerSpec {
            image: "127.0.0.1:1/shoaltest/none:1".into(),
            ..ContainerSpec::default()
        },
    };
    let controller = controller(&socket());
    check(&controller, &task(ContainerSpec::default()), &programs).await.unwrap();
}

#[tokio::test]
async fn a_missing_image_is_pulled_with_progress_and_its_failure_told_in_the_engine_s_words() {
    let Some(_image) = image("a_missing_image_is_pulled") else { return };
    let engine = controller(&socket());
    let task =
        task(ContainerSpec { image: "127.0.0.1:1/shoaltest/none:1".into(), ..ContainerSpec::default() });
    let lines = Arc::new(Mutex::new(Vec::new()));
    let sink = lines.clone();
    let result = engine.prepare(&task, Arc::new(move |line| sink.lock().unwrap().push(line))).await;
    let Err(ControllerError::Task(text)) = result else { panic!("{result:?}") };
    assert!(text.starts_with("No such image: 127.0.0.1:1/shoaltest/none:1: "), "{text}");
    assert_eq!(lines.lock().unwrap()[0], "pulling 127.0.0.1:1/shoaltest/none:1");
}

#[tokio::test]
async fn what_a_service_says_reaches_the_container() {
    let Some(image) = image("what_a_service_says_reaches_the_container") else { return };
    let engine = controller(&socket());
    let script = "echo $GREETING $(/bin/busybox hostname) $(/bin/busybox pwd) $(/bin/busybox id -u); \
                  /bin/busybox touch /scratch/x && /bin/busybox touch /x || echo readonly";
    let mut wanted = task(ContainerSpec {
        env: vec!["GREETING=hello-{{.Task.Slot}}-{{.Node.Hostname}}".into()],
        hostname: "{{.Service.Name}}".into(),
        dir: "/proc".into(),
        user: "12".into(),
        read_only: true,
        mounts: vec![Mount {
            kind: MountKind::Tmpfs,
            source: String::new(),
            target: "/scratch".into(),
            read_only: false,
            propagation: None,
            no_copy: false,
            volume_labels: std::collections::BTreeMap::new(),
            volume_driver: None,
            tmpfs_size_bytes: 1 << 20,
            tmpfs_mode: 0o777,
        }],
        ..program(&image, &["sh", "-c", script])
    });
    wanted.ports = vec![PortConfig {
        mode: PortMode::Host,
        target_port: 80,
        published_port: 0,
        ..PortConfig::default()
    }];
    assert_eq!(run(&engine, &wanted).await.code, 0);
    assert_eq!(logs(&wanted), "hello-1-thishost shoaltest /proc 12\nreadonly\n");
    let label = |name: &str| inspect(&wanted, &format!("{{{{index .Config.Labels {name:?}}}}}"));
    assert_eq!(label("com.docker.swarm.task.id"), wanted.id.to_string());
    assert_eq!(label("com.docker.swarm.service.name"), "shoaltest");
    assert_eq!(inspect(&wanted, "{{.HostConfig.Init}} {{.Config.StopTimeout}}"), "true 1");
    engine.remove(wanted.id).await.unwrap();
}

#[tokio::test]
async fn a_container_out_of_memory_is_told_as_such() {
    let Some(image) = image("a_container_out_of_memory_is_told_as_such") else { return };
    let engine = controller(&socket());
    let mut hungry = task(program(&image, &["sh", "-c", "x=aaaaaaaa; while :; do x=$x$x; done"]));
    let limits = Resources { memory_bytes: 16 << 20, ..Resources::default() };
    let resources = ResourceRequirements { limits, ..ResourceRequirements::default() };
    hungry.spec = Arc::new(TaskSpec { resources, ..(*hungry.spec).clone() });
    let exit = run(&engine, &hungry).await;
    engine.remove(hungry.id).await.unwrap();
    assert!(exit.oom_killed && exit.code != 0, "{exit:?}");
}

#[tokio::test]
async fn a_program_that_is_not_there_fails_the_start_in_the_engine_s_words() {
    let Some(image) = image("a_program_that_is_not_there_fails_the_start") else { return };
    let engine = controller(&socket());
    // With an init, it is the init that finds out, and it can only say 127.
    let command = vec!["/nowhere".into()];
    let task = task(ContainerSpec { command, init: Some(false), ..program(&image, &[]) });
    engine.prepare(&task, silent()).await.unwrap();
    let result = engine.start(&task).await;
    engine.remove(task.id).await.unwrap();
    assert!(matches!(&result, Err(ControllerError::Task(text)) if text.contains("/nowhere")), "{result:?}");
}

#[tokio::test]
async fn health_decides_when_a_container_counts_as_running_and_when_it_failed() {
    let Some(image) = image("health_decides") else { return };
    let engine = controller(&socket());
    let health = |file: &str| HealthConfig {
        test: ["CMD", "/bin/busybox", "test", "-e", file].iter().map(ToString::to_string).collect(),
        interval: Duration::from_millis(200),
        retries: 3,
        ..HealthConfig::default()
    };
    let sleeps = program(&image, &["sleep", "600"]);
    let patient = HealthConfig { start_period: Duration::from_secs(60), ..health("/ok") };
    let well = task(ContainerSpec { healthcheck: Some(patient), ..sleeps.clone() });
    let ill = task(ContainerSpec { healthcheck: Some(health("/never")), ..sleeps });
    for task in [&well, &ill] {
        engine.prepare(task, silent()).await.unwrap();
        engine.start(task).await.unwrap();
    }
    let state = engine.inspect(well.id).await.unwrap().state;
    assert_eq!(state, RunState::Running { healthy: Some(false) });
    let made = docker(&["exec", &well.name(), "/bin/busybox", "touch", "/ok"]).status().unwrap();
    assert!(made.success());
    assert_eq!(engine.wait_healthy(well.id).await.unwrap(), RunState::Running { healthy: Some(true) });
    assert_eq!(engine.wait_healthy(ill.id).await.unwrap(), RunState::Running { healthy: Some(false) });
    let exit = engine.wait(ill.id).await.unwrap();
    assert_eq!((exit.code, exit.error.as_str()), (1, "unhealthy container"));
    for task in [&well, &ill] {
        engine.remove(task.id).await.unwrap();
    }
}

#[tokio::test]
async fn nodes_that_share_an_engine_see_only_their_own_and_a_restarted_one_finds_its_own() {
    let Some(image) = image("nodes_that_share_an_engine") else { return };
    let node = shoal_core::model::NodeId::from_u128(u128::from(std::process::id()) << 64);
    let mine = shoal_runtime_docker::DockerController::connect(&socket(), node, "a");
    let other = controller(&socket());
    let task = task(program(&image, &["sleep", "600"]));
    mine.prepare(&task, silent()).await.unwrap();
    let started = mine.start(&task).await.unwrap();
    assert_eq!(other.list().await.unwrap(), []);
    assert_eq!(other.inspect(task.id).await, Err(ControllerError::NotFound(task.id)));
    other.remove(task.id).await.unwrap();
    // The name is taken, by a container that is not this node's.
    let refused = other.prepare(&task, silent()).await;
    assert!(matches!(refused, Err(ControllerError::Task(_))), "{refused:?}");
    let again = shoal_runtime_docker::DockerController::connect(&socket(), node, "a");
    let found = again.inspect(task.id).await.unwrap();
    assert_eq!((found.status.pid, found.status.container_id), (started.pid, started.container_id));
    assert_eq!(again.list().await.unwrap().len(), 1);
    again.remove(task.id).await.unwrap();
}

#[tokio::test]
async fn an_engine_that_goes_is_unavailable_and_the_container_is_found_again_after_it_returns() {
    let Some(image) = image("an_engine_that_goes") else { return };
    let mut cable = Cable::new();
    let engine = Arc::new(controller(cable.socket()));
    let task = task(program(&image, &["sleep", "600"]));
    let unavailable = |error: &ControllerError| matches!(error, ControllerError::Unavailable(_));
    assert!(unavailable(&engine.prepare(&task, silent()).await.unwrap_err()));
    cable.mend();
    engine.prepare(&task, silent()).await.unwrap();
    cable.cut();
    assert!(unavailable(&engine.start(&task).await.unwrap_err()));
    cable.mend();
    let started = engine.start(&task).await.unwrap();
    let (waiter, id) = (engine.clone(), task.id);
    let wait = tokio::spawn(async move { waiter.wait(id).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    cable.cut();
    assert!(unavailable(&wait.await.unwrap().unwrap_err()));
    for result in [engine.inspect(id).await.map(drop), engine.stop(&task).await.map(drop)] {
        assert!(unavailable(&result.unwrap_err()));
    }
    cable.mend();
    assert_eq!(engine.inspect(id).await.unwrap().status.pid, started.pid);
    engine.remove(id).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_hangs_is_unavailable_in_every_call() {
    let mut cable = Cable::new();
    cable.hang();
    let engine = controller(cable.socket());
    let task = task(ContainerSpec::default());
    let results = [
        engine.prepare(&task, silent()).await.map(drop),
        engine.start(&task).await.map(drop),
        engine.wait_healthy(task.id).await.map(drop),
        engine.wait(task.id).await.map(drop),
        engine.stop(&task).await.map(drop),
        engine.remove(task.id).await.map(drop),
        engine.inspect(task.id).await.map(drop),
        engine.list().await.map(drop),
        engine.describe().await.map(drop),
    ];
    for (call, result) in results.iter().enumerate() {
        assert!(matches!(result, Err(ControllerError::Unavailable(_))), "call {call}: {result:?}");
    }
}

#[tokio::test]
async fn the_engine_describes_its_host() {
    let Some(_image) = image("the_engine_describes_its_host") else { return };
    let description = controller(&socket()).describe().await.unwrap();
    assert!(description.resources.nano_cpus >= 1_000_000_000 && description.resources.memory_bytes > 1 << 20);
    assert_eq!(description.platform.os, "linux");
    assert!(!description.engine.version.is_empty() && !description.platform.architecture.is_empty());
    assert!(description.engine.plugins.contains(&("Volume".into(), "local".into())));
}
