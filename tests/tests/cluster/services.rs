//! The life of services, with `docker` and with `shoal`.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use shoal_tests::cluster::{Cluster, Peer};
use shoal_tests::lab::Lab;
use shoal_tests::observer::Observer;
use shoal_tests::runner::Scenario;
use shoal_tests::wait;

use super::{START_MAX, STOP_MAX, both, ours, says};

pub(crate) const SCENARIOS: &[Scenario] = &[
    both("service_lives_through_docker", through_docker),
    ours("service_lives_through_shoal", through_shoal),
    both("scaling_up_and_down_never_overshoots", scaling),
    both("failing_task_is_restarted_and_its_history_kept", restarted),
    both("task_that_may_not_restart_stays_ended", not_restarted),
    ours("sixty_tasks_start_on_three_hosts", sixty),
];

/// Which command line a scenario goes through.
type Run = fn(&Cluster<'_>, usize, &[&str]) -> Result<String>;

fn through_docker(lab: &mut Lab, peer: Peer) -> Result<()> {
    lives(lab, peer, |cluster, host, args| cluster.docker(host, args))
}

fn through_shoal(lab: &mut Lab, peer: Peer) -> Result<()> {
    lives(lab, peer, |cluster, host, args| cluster.shoal(host, args))?;
    // The cluster that it made is still there.
    let cluster = Cluster::new(lab, peer);
    cluster.create(1, "web", 1, &[])?;
    for list in [&["node", "ls"][..], &["service", "ls"], &["service", "ps", "web"], &["info"]] {
        let json = cluster.shoal(1, &[list, &["--format", "json"]].concat())?;
        let parsed: Result<Vec<Value>, _> = serde_json::Deserializer::from_str(&json).into_iter().collect();
        ensure!(parsed.is_ok_and(|values| !values.is_empty()), "shoal {list:?} as JSON: {json}");
    }
    for shell in ["bash", "zsh", "fish"] {
        says(&cluster.shoal(1, &["completions", shell])?, "service")?;
    }
    Ok(())
}

fn lives(lab: &mut Lab, peer: Peer, run: Run) -> Result<()> {
    let cluster = Cluster::form(lab, peer, 3, 2)?;
    // Without --detach the command ends when the service runs.
    let image = ["--stop-grace-period", "1s", "busybox:latest", "sleep", "1d"];
    let create = [&["service", "create", "--quiet", "--name", "web", "--replicas", "3"][..], &image].concat();
    run(&cluster, 2, &create)?;
    ensure!(cluster.running("web")?.values().sum::<usize>() == 3, "not three: {:?}", cluster.running("web")?);
    let listed = run(&cluster, 1, &["service", "ls"])?;
    for word in ["web", "replicated", "3/3", "busybox:latest"] {
        says(&listed, word)?;
    }
    let tasks = run(&cluster, 3, &["service", "ps", "web"])?;
    for word in ["web.1", "web.2", "web.3", "Running"] {
        says(&tasks, word)?;
    }
    let inspected: Value = serde_json::from_str(&run(&cluster, 1, &["service", "inspect", "web"])?)?;
    ensure!(inspected[0]["Spec"]["Mode"]["Replicated"]["Replicas"] == 3, "not as asked: {inspected}");
    says(&run(&cluster, 1, &["service", "inspect", "--pretty", "web"])?, "web")?;
    run(&cluster, 1, &["service", "scale", "web=6"])?;
    cluster.await_running("web", 6, &[], START_MAX)?;
    run(&cluster, 1, &["service", "scale", "--detach", "web=2"])?;
    cluster.await_running("web", 2, &[], STOP_MAX)?;
    let again = run(&cluster, 1, &create).err().context("a name was given twice")?;
    says(&format!("{again:#}"), "name conflicts with an existing object")?;
    run(&cluster, 1, &["service", "rm", "web"])?;
    cluster.await_running("web", 0, &[], STOP_MAX)?;
    ensure!(!run(&cluster, 1, &["service", "ls"])?.contains("web"), "web is still listed");
    let gone = run(&cluster, 1, &["service", "inspect", "web"]).err().context("web is still there")?;
    says(&format!("{gone:#}"), "web")
}

fn scaling(lab: &mut Lab, peer: Peer) -> Result<()> {
    let cluster = Cluster::form(lab, peer, 3, 2)?;
    let observer = Observer::start(cluster.lab);
    observer.expect("web", 4);
    cluster.create(1, "web", 4, &[])?;
    cluster.await_running("web", 4, &[], START_MAX)?;
    for count in [12, 3, 9, 1, 6] {
        observer.expect("web", count);
        cluster.docker(1, &["service", "scale", "--detach", &format!("web={count}")])?;
        cluster.await_running("web", count, &[], START_MAX)?;
    }
    let running = cluster.running("web")?;
    ensure!(running.values().all(|&count| count <= 3), "six tasks on five hosts lie unevenly: {running:?}");
    println!("above the count at worst: {:?}", observer.finish(STOP_MAX)?);
    Ok(())
}

fn restarted(lab: &mut Lab, peer: Peer) -> Result<()> {
    let cluster = Cluster::form(lab, peer, 1, 1)?;
    let args = [
        "service",
        "create",
        "--detach",
        "--no-resolve-image",
        "--name",
        "flaky",
        "--restart-delay",
        "500ms",
    ];
    cluster.docker(1, &[&args[..], &["busybox:latest", "sh", "-c", "sleep 1; exit 7"]].concat())?;
    let (tasks, took) = wait::until("three failed tasks", START_MAX, Duration::from_millis(100), || {
        let tasks = cluster.tasks(1, "flaky")?;
        let failed = tasks.iter().filter(|task| task["Status"]["State"] == "failed").count();
        wait::seen(failed >= 3, || format!("{failed} failed"))?;
        Ok(tasks)
    })?;
    println!("three failures and restarts took {took:?}");
    let failed = tasks.iter().find(|task| task["Status"]["State"] == "failed").context("no failed task")?;
    ensure!(failed["Status"]["ContainerStatus"]["ExitCode"] == 7, "no exit code: {}", failed["Status"]);
    says(&cluster.docker(1, &["service", "ps", "--no-trunc", "flaky"])?, "non-zero exit (7)")
}

fn not_restarted(lab: &mut Lab, peer: Peer) -> Result<()> {
    let cluster = Cluster::form(lab, peer, 1, 1)?;
    for (name, condition, code, ends) in
        [("once", "none", "3", "failed"), ("done", "on-failure", "0", "complete")]
    {
        let args = [
            "service",
            "create",
            "--detach",
            "--no-resolve-image",
            "--name",
            name,
            "--restart-condition",
            condition,
        ];
        cluster.docker(1, &[&args[..], &["busybox:latest", "sh", "-c", &format!("exit {code}")]].concat())?;
        wait::until(
            &format!("the task of {name} being {ends}"),
            START_MAX,
            Duration::from_millis(100),
            || {
                let tasks = cluster.tasks(1, name)?;
                wait::seen(tasks.iter().any(|task| task["Status"]["State"] == ends), || format!("{tasks:?}"))
            },
        )?;
    }
    std::thread::sleep(Duration::from_secs(7));
    for name in ["once", "done"] {
        let tasks = cluster.tasks(1, name)?;
        ensure!(tasks.len() == 1, "{name} was restarted: {} tasks", tasks.len());
    }
    let args = [
        "service",
        "create",
        "--detach",
        "--no-resolve-image",
        "--name",
        "thrice",
        "--restart-delay",
        "100ms",
    ];
    let more = ["--restart-max-attempts", "2", "busybox:latest", "sh", "-c", "exit 1"];
    cluster.docker(1, &[&args[..], &more].concat())?;
    wait::until("three attempts", START_MAX, Duration::from_millis(100), || {
        let count = cluster.tasks(1, "thrice")?.len();
        wait::seen(count == 3, || format!("{count}"))
    })?;
    std::thread::sleep(Duration::from_secs(3));
    let count = cluster.tasks(1, "thrice")?.len();
    ensure!(count == 3, "{count} attempts, 3 allowed");
    Ok(())
}

fn sixty(lab: &mut Lab, peer: Peer) -> Result<()> {
    let cluster = Cluster::form(lab, peer, 3, 0)?;
    let observer = Observer::start(cluster.lab);
    observer.expect("web", 60);
    cluster.create(1, "web", 60, &[])?;
    let took = cluster.await_running("web", 60, &[], START_MAX)?;
    println!("create to 60 running: {took:?}");
    let running = cluster.running("web")?;
    ensure!(running.values().all(|&count| count == 20), "60 tasks on 3 hosts lie unevenly: {running:?}");
    observer.finish(STOP_MAX)?;
    cluster.docker(1, &["service", "rm", "web"])?;
    println!("rm to none running: {:?}", cluster.await_running("web", 0, &[], START_MAX)?);
    Ok(())
}
