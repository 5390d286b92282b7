//! A leader is lost while a release or a change of networks is under way: the next one ends it as asked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::{Value, json};
use shoal_tests::cluster::{Cluster, Peer, bare};
use shoal_tests::http::Api;
use shoal_tests::lab::{Lab, docker};
use shoal_tests::observer::Observer;
use shoal_tests::runner::Scenario;
use shoal_tests::wait;

use super::mesh::{self, Asking, at, lost};
use super::networks::{container, form, load, servers};
use super::{START_MAX, STOP_MAX, ours};

pub(crate) const SCENARIOS: &[Scenario] = &[
    ours("release_is_ended_by_the_next_leader", release),
    ours("change_of_networks_is_ended_by_the_next_leader", networks),
    ours("networks_made_while_a_leader_is_lost_are_there_once", creations),
];

const POLL: Duration = Duration::from_millis(20);
/// How long a release of four tasks may take: its pauses, an election, and a busy machine.
const RELEASE_MAX: Duration = Duration::from_secs(90);
/// Tasks where no manager is, replaced one after the other with time for a leader to be lost in between.
const SLOWLY: [&str; 6] =
    ["--constraint", "node.role==worker", "--update-delay", "1s", "--update-monitor", "500ms"];

/// The leader, a manager that stays, and another one.
fn managers(cluster: &Cluster<'_>) -> Result<(usize, usize, usize)> {
    let leader = cluster.leader(1)?;
    Ok((leader, leader % 3 + 1, (leader + 1) % 3 + 1))
}

/// Whether a task runs and shall.
fn runs(task: &Value) -> bool {
    task["Status"]["State"] == "running" && task["DesiredState"] == "running"
}

/// Wait until so many tasks of a service that run are as `wanted` says, in the eyes of a manager.
fn await_tasks(
    cluster: &Cluster<'_>,
    (at, service, count): (usize, &str, usize),
    wanted: impl Fn(&Value) -> bool,
) -> Result<Vec<Value>> {
    let what = format!("{count} tasks of {service} as asked");
    let (found, _) = wait::until(&what, RELEASE_MAX, POLL, || {
        let mut tasks = cluster.tasks(at, service)?;
        tasks.retain(|task| runs(task) && wanted(task));
        wait::seen(tasks.len() >= count, || format!("{}", tasks.len()))?;
        Ok(tasks)
    })?;
    Ok(found)
}

/// Wait until a service's update has ended, and ended well.
fn await_update(cluster: &Cluster<'_>, at: usize, service: &str) -> Result<()> {
    let (state, took) = wait::until("the update's end", RELEASE_MAX, POLL, || {
        let found = cluster.api(at).get(&format!("/services/{service}"))?;
        let state = found["UpdateStatus"]["State"].as_str().unwrap_or_default().to_owned();
        wait::seen(!state.is_empty() && state != "updating", || found["UpdateStatus"].to_string())?;
        Ok(state)
    })?;
    println!("the update ended {took:?} after the loss");
    ensure!(state == "completed", "the update is {state}");
    Ok(())
}

/// The leader's process is killed, once in the middle of a release and once right after one was accepted.
fn release(lab: &mut Lab, peer: Peer) -> Result<()> {
    let mut cluster = Cluster::form(lab, peer, 3, 2)?;
    mesh::create(&cluster, "web", 4, &[&["--publish", "8080:80"][..], &SLOWLY].concat())?;
    cluster.await_running("web", 4, &[], START_MAX)?;
    let observer = Observer::start(cluster.lab);
    // One more while it is updated start-first.
    observer.expect("web", 5);
    for (order, begun) in [("stop-first", 1), ("start-first", 1), ("stop-first", 0), ("start-first", 0)] {
        let (leader, stays, asks) = managers(&cluster)?;
        let mut asking = Vec::new();
        for host in [4, stays] {
            mesh::await_answer(&cluster, asks, host, 8080)?;
            let slow = format!("{}slow/300", at(host, 8080));
            asking.push(("slow", host, Asking::start(&cluster, asks, &slow, &["clients=6"])?));
            let flags = ["clients=4", "keep", "pause=20"];
            asking.push(("kept", host, Asking::start(&cluster, asks, &at(host, 8080), &flags)?));
        }
        let mark = format!("RELEASE={order}-{begun}-{leader}");
        let is_new = |task: &Value| {
            let env = task["Spec"]["ContainerSpec"]["Env"].as_array();
            env.is_some_and(|env| env.iter().any(|entry| *entry == *mark))
        };
        let args = ["service", "update", "--detach", "--no-resolve-image", "--update-order", order];
        cluster.docker(stays, &[&args[..], &["--env-add", &mark, "web"]].concat())?;
        await_tasks(&cluster, (stays, "web", begun), is_new)?;
        cluster.kill(leader)?;
        await_update(&cluster, stays, "web")?;
        ensure!(cluster.leader(stays)? != leader, "h{leader} leads still");
        let tasks = await_tasks(&cluster, (stays, "web", 4), is_new)?;
        ensure!(tasks.len() == 4, "{} tasks", tasks.len());
        cluster.await_running("web", 4, &[], STOP_MAX)?;
        for (how, host, asking) in asking {
            let figures = asking.end()?;
            println!("{mark}, {how} at h{host}: {figures}");
            ensure!(lost(&figures) == 0, "{mark} lost requests ({how} at h{host}): {figures}");
        }
        cluster.restart(leader)?;
        cluster.await_ready(stays, 5)?;
    }
    println!("above the count at worst: {:?}", observer.finish(STOP_MAX)?);
    Ok(())
}

/// The networks that a task is in, each with its address there.
fn places(task: &Value) -> Result<BTreeMap<String, String>> {
    let places = task["NetworksAttachments"].as_array().context("a task in no network")?;
    let place = |place: &Value| {
        let name = place["Network"]["Spec"]["Name"].as_str().context("a network without a name")?;
        Ok((name.to_owned(), bare(&place["Addresses"][0])?.to_owned()))
    };
    let found: BTreeMap<_, _> = places.iter().map(place).collect::<Result<_>>()?;
    ensure!(found.len() == places.len(), "a task is in a network twice: {task}");
    Ok(found)
}

/// Virtual addresses of a service.
fn virtual_addresses(cluster: &Cluster<'_>, at: usize, service: &str) -> Result<Vec<String>> {
    let found = cluster.api(at).get(&format!("/services/{service}"))?;
    let all = found["Endpoint"]["VirtualIPs"].as_array().context("no virtual addresses")?;
    all.iter().map(|of| Ok(bare(&of["Addr"])?.to_owned())).collect()
}

/// A service enters a network and leaves another, and each time the leader is killed meanwhile.
fn networks(lab: &mut Lab, peer: Peer) -> Result<()> {
    let mut cluster = form(lab, peer, 3, 2)?;
    for network in ["one", "two"] {
        cluster.docker(1, &["network", "create", "--driver", "overlay", network])?;
    }
    mesh::create(&cluster, "asks", 2, &["--network", "one", "--network", "two", SLOWLY[0], SLOWLY[1]])?;
    mesh::create(&cluster, "web", 4, &[&["--network", "one"][..], &SLOWLY].concat())?;
    cluster.await_running("asks", 2, &[], START_MAX)?;
    cluster.await_running("web", 4, &[], START_MAX)?;
    let asks = container(&cluster, 5, "asks")?;
    let first = virtual_addresses(&cluster, 1, "web")?;
    for (flag, network, name, in_all) in [
        ("--network-add", "two", "web.one", &["one", "two"][..]),
        ("--network-rm", "one", "web.two", &["two"][..]),
    ] {
        let (leader, stays, _) = managers(&cluster)?;
        // Through the network that it is in before and after.
        let url = format!("http://{name}:80/slow/200");
        let mut command = docker(&cluster.lab.host(5).engine_socket());
        command.args(["exec", "--interactive", &asks, "/traffic", "load", &url, "until=eof", "clients=4"]);
        let asking = Asking::of(command)?;
        let is_new = |task: &Value| places(task).is_ok_and(|places| places.keys().eq(in_all));
        let args = ["service", "update", "--detach", "--no-resolve-image", flag, network, "web"];
        cluster.docker(stays, &args)?;
        await_tasks(&cluster, (stays, "web", 1), is_new)?;
        cluster.kill(leader)?;
        await_update(&cluster, stays, "web")?;
        let tasks = await_tasks(&cluster, (stays, "web", 4), is_new)?;
        ensure!(tasks.len() == 4, "{} tasks", tasks.len());
        cluster.await_running("web", 4, &[], STOP_MAX)?;
        let figures = asking.end()?;
        println!("{flag} {network}, by {name}: {figures}");
        ensure!(lost(&figures) == 0, "{flag} lost requests by {name}: {figures}");
        given_once(&cluster, stays, in_all.len())?;
        let url = format!("http://web.{}:80/", in_all[in_all.len() - 1]);
        let figures = load(&cluster, (5, &asks), &url, &["requests=60", "clients=2", "each"])?;
        ensure!(lost(&figures) == 0 && servers(&figures) == 4, "after {flag}: {figures}");
        cluster.restart(leader)?;
        cluster.await_ready(stays, 5)?;
    }
    let last = virtual_addresses(&cluster, 1, "web")?;
    ensure!(!last.contains(&first[0]), "the address in the network that it left is kept: {last:?}");
    Ok(())
}

/// No address is had by two, and web has as many virtual ones as it is in networks.
fn given_once(cluster: &Cluster<'_>, at: usize, networks: usize) -> Result<()> {
    let own = virtual_addresses(cluster, at, "web")?;
    ensure!(own.len() == networks, "virtual addresses: {own:?}");
    let mut all = own;
    all.extend(virtual_addresses(cluster, at, "asks")?);
    for service in ["web", "asks"] {
        for task in cluster.tasks(at, service)?.iter().filter(|task| runs(task)) {
            all.extend(places(task)?.into_values());
        }
    }
    let unique: BTreeSet<_> = all.iter().collect();
    ensure!(unique.len() == all.len(), "an address was given twice: {all:?}");
    Ok(())
}

/// The networks of the cluster as a manager lists them: names and subnets.
fn listed(manager: &Api) -> Result<Vec<(String, String)>> {
    let list = manager.get("/networks")?;
    let of = |network: &Value| {
        let name = network["Name"].as_str()?;
        let subnet = network["IPAM"]["Config"][0]["Subnet"].as_str()?;
        (network["Scope"] == "swarm").then(|| (name.to_owned(), subnet.to_owned()))
    };
    let mut found: Vec<_> = list.as_array().context("no list of networks")?.iter().filter_map(of).collect();
    found.sort();
    Ok(found)
}

/// Create networks one after the other, each until it is known to be there. Their names.
fn create_until(api: &Api, tag: usize, stop: &AtomicBool) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let name = format!("net-{tag}-{number}");
        let body = json!({"Name": name, "Driver": "overlay"});
        wait::until(&format!("{name} being there"), START_MAX, POLL, || {
            let answer = api.call("POST", "/networks/create", Some(&body))?;
            // An earlier try may have been done though nobody said so.
            let there = answer.status == 201 || answer.text().contains("already exists");
            wait::seen(there, || format!("{}: {}", answer.status, answer.text()))
        })?;
        names.push(name);
    }
    Ok(names)
}

/// Users go on creating networks by two managers while the third, which leads, is killed.
fn creations(lab: &mut Lab, peer: Peer) -> Result<()> {
    let mut cluster = Cluster::form(lab, peer, 3, 0)?;
    let mut made = BTreeSet::new();
    for round in 0..2 {
        let (leader, stays, other) = managers(&cluster)?;
        let apis = [stays, other].map(|host| cluster.api_within(host, Duration::from_secs(8)));
        let stop = AtomicBool::new(false);
        let names = thread::scope(|scope| -> Result<Vec<String>> {
            let users: Vec<_> = apis
                .iter()
                .enumerate()
                .map(|(user, api)| (round * 2 + user, api))
                .map(|(tag, api)| {
                    scope.spawn({
                        let stop = &stop;
                        move || create_until(api, tag, stop)
                    })
                })
                .collect();
            thread::sleep(Duration::from_millis(700));
            let killed = cluster.kill(leader);
            thread::sleep(Duration::from_secs(5));
            stop.store(true, Ordering::Relaxed);
            let mut all = Vec::new();
            for user in users {
                all.extend(user.join().map_err(|_| anyhow!("a user panicked"))??);
            }
            killed.map(|()| all)
        })?;
        println!("{} networks were made while h{leader} was lost", names.len());
        made.extend(names);
        cluster.restart(leader)?;
        cluster.await_ready(stays, 3)?;
        let begun = Instant::now();
        wait::until("all managers listing the same", START_MAX, POLL, || {
            let lists: Vec<_> = (1..=3).map(|host| listed(&cluster.api(host))).collect::<Result<_>>()?;
            wait::seen(lists.iter().all(|list| *list == lists[0]), || format!("{lists:?}"))
        })?;
        println!("h{leader} knows them {:?} after it is ready", begun.elapsed());
    }
    let found = listed(&cluster.api(1))?;
    let (names, subnets): (Vec<_>, Vec<_>) = found.iter().cloned().unzip();
    ensure!(names.iter().collect::<BTreeSet<_>>() == made.iter().collect(), "{names:?}, {made:?} were made");
    ensure!(names.len() == made.len(), "a network is there twice: {names:?}");
    let unique: BTreeSet<_> = subnets.iter().collect();
    ensure!(unique.len() == subnets.len(), "a subnet was given twice: {found:?}");
    Ok(())
}
