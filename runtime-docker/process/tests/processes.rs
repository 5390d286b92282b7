//! The controller on real processes of this machine.
#![allow(clippy::unwrap_used, reason = "a test, and its helpers, may panic")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use shoal_core::model::{
    ContainerSpec, Meta, Mount, MountKind, NodeId, ResourceRequirements, Resources, ServiceId, Slot, Task,
    TaskId, TaskSpec, TaskState, TaskStatus,
};
use shoal_core::task::conformance::{Programs, check};
use shoal_core::task::{Controller, ControllerError, ExitStatus, RunState};
use shoal_runtime_process::ProcessController;

fn controller(folder: &Path) -> ProcessController {
    ProcessController::open(folder, NodeId::from_u128(5), "thishost").unwrap()
}

fn task(number: u128, container: ContainerSpec) -> Task {
    Task {
        meta: Meta::default(),
        // Control groups are the host's: no two tests, and no two runs, may share an id.
        id: TaskId::from_u128(u128::from(std::process::id()) << 32 | number),
        service_id: ServiceId::from_u128(3),
        service_name: "web".into(),
        slot: Slot::Replica(1),
        node_id: None,
        spec: Arc::new(TaskSpec { container, ..TaskSpec::default() }),
        spec_version: 1,
        ports: Vec::new(),
        networks: Vec::new(),
        desired: TaskState::Running,
        start_after: None,
        status: TaskStatus::default(),
    }
}

fn program(args: &[&str]) -> ContainerSpec {
    ContainerSpec {
        image: "ignored:1".into(),
        args: args.iter().map(ToString::to_string).collect(),
        stop_grace_period: Some(Duration::from_millis(500)),
        ..ContainerSpec::default()
    }
}

fn shell(script: &str) -> ContainerSpec {
    program(&["sh", "-c", script])
}

async fn start(controller: &ProcessController, task: &Task) -> u32 {
    controller.prepare(task, Arc::new(|_| {})).await.unwrap();
    controller.start(task).await.unwrap().pid.unwrap()
}

async fn output(controller: &ProcessController, task: &Task) -> String {
    std::fs::read_to_string(controller.task_folder(task.id).join("stdout.log")).unwrap()
}

fn is_running(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

#[tokio::test]
async fn processes_keep_the_contract_of_every_runtime() {
    let folder = tempfile::tempdir().unwrap();
    let programs = Programs {
        pause: Arc::new(|| Box::pin(tokio::time::sleep(Duration::from_millis(300)))),
        sleeps: program(&["sleep", "600"]),
        ends_well: program(&["true"]),
        ends_with_3: shell("exit 3"),
        is_stubborn: shell("trap '' TERM; while :; do sleep 1; done"),
        is_impossible: program(&["no-such-program-here"]),
    };
    check(&controller(folder.path()), &task(100, ContainerSpec::default()), &programs).await.unwrap();
}

#[tokio::test]
async fn user_folder_environment_and_templates_are_honoured() {
    let folder = tempfile::tempdir().unwrap();
    let controller = controller(folder.path());
    let task = task(
        1,
        ContainerSpec {
            env: vec!["GREETING=hello-{{.Task.Slot}}-{{.Node.Hostname}}".into()],
            dir: "/proc".into(),
            user: "12:34".into(),
            ..shell("echo $GREETING $(pwd) $(id -u) $(id -g) ${HOME:-none}; echo bad >&2")
        },
    );
    start(&controller, &task).await;
    assert_eq!(controller.wait(task.id).await.unwrap(), ExitStatus::default());
    assert_eq!(output(&controller, &task).await, "hello-1-thishost /proc 12 34 none\n");
    let errors = std::fs::read_to_string(controller.task_folder(task.id).join("stderr.log")).unwrap();
    assert_eq!(errors, "bad\n");
}

#[tokio::test]
async fn a_program_gets_its_stop_signal_and_its_own_exit_code_counts() {
    let folder = tempfile::tempdir().unwrap();
    let controller = controller(folder.path());
    let script = "trap 'echo bye; exit 7' USR1; echo up; while :; do sleep 0.05; done";
    let task = task(
        2,
        ContainerSpec {
            stop_signal: "SIGUSR1".into(),
            stop_grace_period: Some(Duration::from_secs(10)),
            ..shell(script)
        },
    );
    start(&controller, &task).await;
    while output(&controller, &task).await.is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(controller.stop(&task).await.unwrap().code, 7);
    assert_eq!(output(&controller, &task).await, "up\nbye\n");
}

#[tokio::test]
async fn what_a_program_leaves_behind_ends_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let controller = controller(folder.path());
    let task = task(3, shell("sleep 600 & echo $!"));
    start(&controller, &task).await;
    assert_eq!(controller.wait(task.id).await.unwrap().code, 0);
    let left = output(&controller, &task).await;
    for _ in 0..100 {
        if !is_running(&left) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{left} still runs");
}

#[tokio::test]
async fn a_restarted_node_adopts_its_processes_and_learns_how_they_end() {
    let folder = tempfile::tempdir().unwrap();
    let first = controller(folder.path());
    let flag = folder.path().join("flag");
    let script = format!("while ! test -e {}; do sleep 0.05; done; exit 5", flag.display());
    let (a, b) = (task(4, shell(&script)), task(5, program(&["sleep", "600"])));
    let pid = start(&first, &a).await;
    start(&first, &b).await;
    drop(first);
    let second = controller(folder.path());
    assert_eq!(second.list().await.unwrap().len(), 2);
    let found = second.inspect(a.id).await.unwrap();
    assert_eq!((found.state, found.status.pid), (RunState::Running { healthy: None }, Some(pid)));
    assert_eq!(second.start(&a).await.unwrap().pid, Some(pid));
    std::fs::write(flag, "").unwrap();
    assert_eq!(second.wait(a.id).await.unwrap().code, 5);
    assert_eq!(second.stop(&b).await.unwrap().code, 143);
    // Another node's folder is not ours.
    let other = ProcessController::open(folder.path(), NodeId::from_u128(6), "x").unwrap();
    assert_eq!(other.list().await.unwrap(), []);
    assert_eq!(other.inspect(a.id).await, Err(ControllerError::NotFound(a.id)));
}

#[tokio::test]
async fn a_reused_process_number_is_not_mistaken() {
    let folder = tempfile::tempdir().unwrap();
    let first = controller(folder.path());
    let task = task(6, program(&["sleep", "600"]));
    let pid = start(&first, &task).await;
    let path = first.task_folder(task.id).join("record.json");
    let record = std::fs::read_to_string(&path).unwrap();
    // As if the number had been given to a process that began later: the one that has it is left alone.
    let began = record.split("\"began\":").nth(1).unwrap().split(',').next().unwrap().to_string();
    std::fs::write(&path, record.replace(&began, "1")).unwrap();
    let second = controller(folder.path());
    let RunState::Exited(exit) = second.inspect(task.id).await.unwrap().state else { panic!("alive") };
    assert_eq!((exit.code, exit.error.as_str()), (-1, "exit status unknown"));
    second.remove(task.id).await.unwrap();
    assert!(is_running(&pid.to_string()));
    let killed = std::process::Command::new("kill").args(["-9", "--", &format!("-{pid}")]).status().unwrap();
    assert!(killed.success());
}

#[tokio::test]
async fn a_process_whose_record_was_lost_between_start_and_write_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let first = controller(folder.path());
    let task = task(7, program(&["sleep", "600"]));
    first.prepare(&task, Arc::new(|_| {})).await.unwrap();
    let path = first.task_folder(task.id).join("record.json");
    let before = std::fs::read(&path).unwrap();
    let pid = first.start(&task).await.unwrap().pid;
    tokio::time::sleep(Duration::from_millis(100)).await;
    std::fs::write(&path, before).unwrap();
    let second = controller(folder.path());
    assert_eq!(second.start(&task).await.unwrap().pid, pid);
    second.remove(task.id).await.unwrap();
    assert!(!is_running(&pid.unwrap().to_string()));
}

#[tokio::test]
async fn what_a_process_cannot_have_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let controller = controller(folder.path());
    let mount = Mount {
        kind: MountKind::Bind,
        source: "/tmp".into(),
        target: "/t".into(),
        read_only: false,
        propagation: None,
        no_copy: false,
        volume_labels: std::collections::BTreeMap::new(),
        volume_driver: None,
        tmpfs_size_bytes: 0,
        tmpfs_mode: 0,
    };
    let cases = [
        (ContainerSpec { mounts: vec![mount], tty: true, ..program(&["true"]) }, "mounts, tty"),
        (ContainerSpec { cap_add: vec!["ALL".into()], ..program(&["true"]) }, "capabilities"),
        (ContainerSpec { user: "no-such-user".into(), ..program(&["true"]) }, "no-such-user"),
        (ContainerSpec { dir: "/no/such".into(), ..program(&["true"]) }, "/no/such"),
        (program(&[]), "ignored:1"),
    ];
    for (number, (spec, words)) in cases.into_iter().enumerate() {
        let task = task(20 + number as u128, spec);
        let result = controller.prepare(&task, Arc::new(|_| {})).await;
        assert!(matches!(&result, Err(ControllerError::Task(text)) if text.contains(words)), "{result:?}");
    }
    assert_eq!(controller.list().await.unwrap(), []);
}

#[tokio::test]
async fn a_reserved_image_runs_the_node_s_own_program() {
    let folder = tempfile::tempdir().unwrap();
    let program = vec!["/bin/echo".to_string(), "own".into()];
    let controller = controller(folder.path()).with_program("shoal/demo:1", program);
    let spec = ContainerSpec {
        image: "shoal/demo:1".into(),
        args: vec!["and more".into()],
        ..ContainerSpec::default()
    };
    let task = task(8, spec);
    start(&controller, &task).await;
    controller.wait(task.id).await.unwrap();
    assert_eq!(output(&controller, &task).await, "own and more\n");
}

#[tokio::test]
async fn a_process_out_of_memory_is_told_as_such_where_cgroups_allow() {
    let probe = ["/sys/fs/cgroup/memory", "/sys/fs/cgroup/cgroup.controllers"];
    let root =
        std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    if !root || !probe.iter().any(|path| Path::new(path).exists()) {
        println!("SKIPPED a_process_out_of_memory_is_told_as_such: no cgroups to write here");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let controller = controller(folder.path());
    let mut task = task(9, shell("x=aaaaaaaa; while :; do x=$x$x; done"));
    let limits =
        Resources { memory_bytes: 16 << 20, pids: 20, nano_cpus: 500_000_000, ..Resources::default() };
    let resources = ResourceRequirements { limits, ..ResourceRequirements::default() };
    task.spec = Arc::new(TaskSpec { resources, ..(*task.spec).clone() });
    start(&controller, &task).await;
    let exit = controller.wait(task.id).await.unwrap();
    controller.remove(task.id).await.unwrap();
    assert!(exit.oom_killed && exit.code == 137, "{exit:?}");
    let left = format!("/sys/fs/cgroup/memory/shoal/{}", task.id);
    assert!(!Path::new(&left).exists());
}

#[tokio::test]
async fn a_node_describes_this_host() {
    let folder = tempfile::tempdir().unwrap();
    let description = controller(folder.path()).describe().await.unwrap();
    assert_eq!(description.engine.version, "process");
    assert!(description.resources.nano_cpus > 0 && description.resources.memory_bytes > 0);
}
