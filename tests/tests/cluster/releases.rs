//! What a service says of its releases: what becomes of one that fails, how fast it goes, and which changes need none.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use shoal_tests::cluster::{Cluster, Peer};
use shoal_tests::engine;
use shoal_tests::lab::Lab;
use shoal_tests::runner::Scenario;
use shoal_tests::{sh, wait};

use super::{START_MAX, STOP_MAX, both, ours, says};

pub(crate) const SCENARIOS: &[Scenario] = &[
    ours("release_that_fails_rolls_back_by_itself", rolls_back),
    both("release_that_fails_pauses_and_goes_on_when_mended", pauses),
    ours("release_rests_as_long_as_it_is_told", rests),
    ours("change_that_tasks_do_not_see_restarts_none", restarts_none),
];

const POLL: Duration = Duration::from_millis(100);
const UPDATE: [&str; 3] = ["service", "update", "--no-resolve-image"];

/// Three tasks, of which one after the other is replaced and each watched for so long that it fails within.
fn create(cluster: &Cluster<'_>, more: &[&str]) -> Result<()> {
    let flags = ["--update-delay", "0s", "--update-monitor", "2s", "--restart-delay", "200ms"];
    cluster.create(1, "web", 3, &[&flags[..], more].concat())?;
    cluster.await_running("web", 3, &[], START_MAX).map(drop)
}

fn inspect(cluster: &Cluster<'_>) -> Result<Value> {
    cluster.api(1).get("/services/web")
}

/// The service's running containers, on all hosts.
fn containers(cluster: &Cluster<'_>) -> Result<BTreeSet<String>> {
    let mut all = BTreeSet::new();
    for host in cluster.lab.hosts().iter().filter(|host| host.has_engine()) {
        let running = engine::running(&host.engine())?;
        all.extend(running.into_iter().filter(|one| one.service == "web").map(|one| one.id));
    }
    Ok(all)
}

/// Wait until the service's update is in a state; its message.
fn await_update(cluster: &Cluster<'_>, state: &str) -> Result<String> {
    let (message, _) = wait::until(&format!("an update that is {state}"), START_MAX, POLL, || {
        let status = inspect(cluster)?["UpdateStatus"].clone();
        wait::seen(status["State"] == state, || status.to_string())?;
        Ok(status["Message"].as_str().unwrap_or_default().to_owned())
    })?;
    Ok(message)
}

/// Releases that cannot start, and one that ends at once.
const BAD: [&[&str]; 3] =
    [&["--image", "no-such-image:1"], &["--args", "/no/such/program"], &["--args", "sh -c 'exit 3'"]];

fn rolls_back(lab: &mut Lab, peer: Peer) -> Result<()> {
    let cluster = Cluster::form(lab, peer, 1, 1)?;
    create(&cluster, &["--update-failure-action", "rollback", "--update-max-failure-ratio", "0.3"])?;
    let good = inspect(&cluster)?["Spec"]["TaskTemplate"]["ContainerSpec"].clone();
    for bad in BAD {
        let said = cluster.try_docker(1, &[&UPDATE[..], bad, &["web"]].concat())?;
        println!("{bad:?}: {:?} {}", said.code, said.text());
        // It says why at any time, and afterwards.
        says(&said.text(), "rollback: ")?;
        says(&said.text(), "due to failure or early termination of task")?;
        let message = await_update(&cluster, "rollback_completed")?;
        says(&message, "rollback completed, begun due to failure or early termination of task")?;
        let now = inspect(&cluster)?["Spec"]["TaskTemplate"]["ContainerSpec"].clone();
        ensure!(now == good, "after {bad:?} it is {now}, and was {good}");
        cluster.await_running("web", 3, &[], START_MAX)?;
    }
    // One that does not fail is let through, and what a user wants back is shown as well.
    cluster.docker(1, &[&UPDATE[..], &["--env-add", "A=1", "web"]].concat())?;
    await_update(&cluster, "completed")?;
    let said = cluster.docker(1, &["service", "rollback", "web"])?;
    says(&said, "rollback")?;
    says(&said, "converged")?;
    await_update(&cluster, "rollback_completed").map(drop)
}

fn pauses(lab: &mut Lab, peer: Peer) -> Result<()> {
    let cluster = Cluster::form(lab, peer, 1, 1)?;
    create(&cluster, &["--update-failure-action", "pause"])?;
    let before = containers(&cluster)?;
    for bad in BAD {
        let said = cluster.try_docker(1, &[&UPDATE[..], bad, &["web"]].concat())?;
        println!("{bad:?}: {:?} {}", said.code, said.text());
        says(&said.text(), "update paused due to failure or early termination of task")?;
        await_update(&cluster, "paused")?;
        // Nobody but the first was touched.
        let kept = containers(&cluster)?.intersection(&before).count();
        ensure!(kept >= 2, "{kept} of the old tasks are left");
    }
    let mend = ["--image", "bb:1", "--args", "sleep 1d", "web"];
    says(&cluster.docker(1, &[&UPDATE[..], &mend].concat())?, "converged")?;
    await_update(&cluster, "completed")?;
    cluster.await_running("web", 3, &[], START_MAX)?;
    let kept = containers(&cluster)?.intersection(&before).count();
    ensure!(kept == 0, "{kept} of the old tasks are left");
    Ok(())
}

/// When the task that runs in each slot came to run, in order; in milliseconds.
fn started(cluster: &Cluster<'_>) -> Result<Vec<i64>> {
    let mut all = Vec::new();
    for host in cluster.lab.hosts().iter().filter(|host| host.has_engine()) {
        for one in engine::running(&host.engine())?.iter().filter(|one| one.service == "web") {
            let seen = host.engine().get(&format!("/containers/{}/json", one.id))?;
            let at = seen["State"]["StartedAt"].as_str().context("no time")?;
            let at = sh::must(Command::new("date").args(["-d", at, "+%s%3N"]), STOP_MAX)?;
            let at = at.trim().parse().with_context(|| format!("no time: {at}"))?;
            all.push(at);
        }
    }
    all.sort_unstable();
    Ok(all)
}

fn rests(lab: &mut Lab, peer: Peer) -> Result<()> {
    let cluster = Cluster::form(lab, peer, 1, 1)?;
    let flags = "--update-delay 3s --update-monitor 1500ms --update-parallelism 1 --update-order start-first \
                 --update-max-failure-ratio 0.25 --rollback-delay 2s --rollback-monitor 1s --rollback-parallelism 2";
    let flags: Vec<&str> = flags.split_whitespace().collect();
    cluster.create(1, "web", 3, &flags)?;
    cluster.await_running("web", 3, &[], START_MAX)?;
    let kept = |spec: &Value| {
        let (update, rollback) = (&spec["Spec"]["UpdateConfig"], &spec["Spec"]["RollbackConfig"]);
        let nanos = |value: &Value| value.as_u64().unwrap_or_default();
        (nanos(&update["Delay"]), nanos(&update["Monitor"]), nanos(&rollback["Delay"]))
            == (3_000_000_000, 1_500_000_000, 2_000_000_000)
            && update["Order"] == "start-first"
            && update["MaxFailureRatio"] == 0.25
            && rollback["Parallelism"] == 2
    };
    let spec = inspect(&cluster)?;
    ensure!(kept(&spec), "not kept: {}", spec["Spec"]);
    cluster.docker(1, &[&UPDATE[..], &["--env-add", "A=1", "web"]].concat())?;
    let at = started(&cluster)?;
    println!("started at {at:?}");
    ensure!(at.len() == 3 && at.windows(2).all(|two| two[1] - two[0] >= 3_000), "too fast: {at:?}");
    // An update of something else leaves them as they are.
    cluster.docker(1, &[&UPDATE[..], &["--update-parallelism", "2", "web"]].concat())?;
    let spec = inspect(&cluster)?;
    ensure!(kept(&spec) && spec["Spec"]["UpdateConfig"]["Parallelism"] == 2, "not kept: {}", spec["Spec"]);
    ensure!(started(&cluster)? == at, "tasks were restarted for how they are to be released");
    Ok(())
}

fn restarts_none(lab: &mut Lab, peer: Peer) -> Result<()> {
    let cluster = Cluster::form(lab, peer, 1, 1)?;
    for host in ["h1", "h2"] {
        cluster.docker(1, &["node", "update", "--label-add", "zone=a", host])?;
    }
    create(&cluster, &["--publish", "8080:80", "--label", "tier=front"])?;
    let before = containers(&cluster)?;
    let changes: [&[&str]; 8] = [
        &["--label-add", "tier=back"],
        &["--label-rm", "tier"],
        &["--label-add", "shoal.drain=5s"],
        &["--constraint-add", "node.labels.zone==a"],
        &["--constraint-add", "node.hostname!=h9"],
        &["--constraint-rm", "node.hostname!=h9"],
        &["--publish-add", "8081:81"],
        &["--update-order", "start-first"],
    ];
    for change in changes {
        cluster.docker(1, &[&UPDATE[..], change, &["web"]].concat())?;
        std::thread::sleep(POLL * 10);
        let now = containers(&cluster)?;
        ensure!(now == before, "{change:?} made {now:?} of {before:?}");
    }
    // A constraint that one host does not fit any more moves its tasks alone.
    let on_first = engine::running(&cluster.lab.host(1).engine())?;
    let on_first: BTreeSet<String> = on_first.into_iter().map(|one| one.id).collect();
    cluster.docker(1, &["node", "update", "--label-add", "zone=b", "h2"])?;
    cluster.await_running("web", 3, &[2], START_MAX)?;
    let now = containers(&cluster)?;
    ensure!(on_first.is_subset(&now), "tasks that fit were replaced: {now:?}, and there were {on_first:?}");
    Ok(())
}
