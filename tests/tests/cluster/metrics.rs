//! A real Prometheus reads what the nodes tell.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use shoal_tests::cluster::{Cluster, Peer};
use shoal_tests::lab::Lab;
use shoal_tests::prometheus::Page;
use shoal_tests::runner::Scenario;
use shoal_tests::{http, requirements, wait};

use super::{START_MAX, STOP_MAX, mesh, networks, ours, says};

pub(crate) const SCENARIOS: &[Scenario] = &[
    ours("every_metric_is_described", described),
    ours("traffic_is_counted_where_it_passes", counted),
    ours("prometheus_scrapes_three_nodes", scraped),
];

/// Words that stand at the beginning of names, one group each.
const GROUPS: [&str; 11] = [
    "raft",
    "store",
    "scheduler",
    "dispatcher",
    "task",
    "gossip",
    "transport",
    "process",
    "mesh",
    "overlay",
    "names",
];
/// What operators are told that there is.
const MANUAL: &str = include_str!("../../../docs/metrics.md");

/// The names and kinds in the manual's tables.
fn in_manual() -> BTreeMap<&'static str, &'static str> {
    let row = |line: &'static str| {
        let (name, rest) = line.strip_prefix("| `")?.split_once("` | ")?;
        Some((name, rest.split_once(" |")?.0))
    };
    MANUAL.lines().filter_map(row).collect()
}

/// The page of a node, which is as pages should be.
fn page(cluster: &Cluster<'_>, host: usize) -> Result<Page> {
    let answer = cluster.lab.host(host).metrics()?;
    ensure!(answer.status == 200, "/metrics answered {}", answer.status);
    let kind = answer.header("content-type").unwrap_or_default();
    ensure!(kind.starts_with("application/openmetrics-text"), "the page's type is {kind:?}");
    ensure!(answer.text().ends_with("# EOF\n"), "the page has no end");
    let page = Page::parse(&answer.text());
    ensure!(page.undescribed().is_empty(), "without text or type: {:?}", page.undescribed());
    let mut once = BTreeSet::new();
    let twice = page.samples.iter().find(|(name, labels, _)| !once.insert((name, labels)));
    ensure!(twice.is_none(), "there twice: {twice:?}");
    Ok(page)
}

/// Tasks on h1 and h2 in a network and behind a port, of which the one on h2 was asked for by both ways.
fn with_traffic(lab: &mut Lab, peer: Peer) -> Result<Cluster<'_>> {
    let cluster = Cluster::form(lab, peer, 3, 0)?;
    cluster.docker(1, &["network", "create", "--driver", "overlay", "back"])?;
    networks::create(&cluster, "asks", 1, &["--network", "back", "--constraint", "node.hostname==h1"])?;
    let ports = ["--publish", "8080:80", "--publish", "8080:80/udp"];
    let flags = ["--network", "back", "--constraint", "node.hostname==h2"];
    networks::create(&cluster, "web", 1, &[&flags[..], &ports].concat())?;
    let asks = networks::container(&cluster, 1, "asks")?;
    mesh::await_answer(&cluster, 4, 1, 8080)?;
    networks::await_answer(&cluster, (1, &asks), "http://web:80/")?;
    let flags = ["requests=50", "clients=2"];
    let figures = [
        mesh::load(&cluster, 4, &mesh::at(1, 8080), &flags)?,
        networks::load(&cluster, (1, &asks), "http://web:80/", &flags)?,
    ];
    ensure!(figures.iter().all(|figures| mesh::lost(figures) == 0), "lost requests: {figures:?}");
    Ok(cluster)
}

fn described(lab: &mut Lab, peer: Peer) -> Result<()> {
    let cluster = with_traffic(lab, peer)?;
    let manual = in_manual();
    let mut seen = BTreeMap::new();
    for host in 1..=3 {
        let page = page(&cluster, host)?;
        for group in GROUPS {
            let has = page
                .kind
                .keys()
                .any(|name| name.starts_with(&format!("shoal_{group}")) || name.starts_with(group));
            ensure!(has, "nothing of {group} among {:?}", page.kind.keys());
        }
        seen.extend(page.kind);
    }
    let unknown: Vec<_> =
        seen.iter().filter(|(name, kind)| manual.get(name.as_str()) != Some(&kind.as_str())).collect();
    ensure!(unknown.is_empty(), "not in docs/metrics.md, or of another kind there: {unknown:?}");
    let missing: Vec<_> = manual.keys().filter(|name| !seen.contains_key(**name)).collect();
    ensure!(missing.is_empty(), "docs/metrics.md has what no node tells: {missing:?}");
    Ok(())
}

fn counted(lab: &mut Lab, peer: Peer) -> Result<()> {
    let cluster = with_traffic(lab, peer)?;
    // Many requests to the port of h1 and by name from h1, all for h2: at least so many of each, and nothing of the others.
    let some: [(usize, &str); 16] = [
        (1, "shoal_mesh_connections_total"),
        (1, "shoal_mesh_received_bytes_total"),
        (1, "shoal_mesh_sent_bytes_total"),
        (1, "shoal_mesh_connect_microseconds_total"),
        (2, "shoal_mesh_served_total"),
        (2, "shoal_mesh_kept_addresses_total"),
        (1, "shoal_overlay_sent_packets_total"),
        (1, "shoal_overlay_sent_bytes_total"),
        (1, "shoal_overlay_received_packets_total"),
        (1, "shoal_overlay_received_bytes_total"),
        (2, "shoal_overlay_sent_packets_total"),
        (2, "shoal_overlay_sent_bytes_total"),
        (2, "shoal_overlay_received_packets_total"),
        (2, "shoal_overlay_received_bytes_total"),
        (1, "shoal_names_queries_total"),
        (1, "shoal_names_answered_total"),
    ];
    let none: [(usize, &str); 11] = [
        (1, "shoal_mesh_open_connections"),
        (1, "shoal_mesh_refused_total"),
        (1, "shoal_mesh_port_unavailable"),
        (1, "shoal_mesh_served_total"),
        (2, "shoal_mesh_connections_total"),
        (2, "shoal_mesh_served_refused_total"),
        (2, "shoal_mesh_cut_connections_total"),
        (1, "shoal_overlay_malformed_total"),
        (2, "shoal_overlay_malformed_total"),
        (1, "shoal_overlay_unready"),
        (1, "shoal_names_unserved"),
    ];
    wait::until("figures that fit", STOP_MAX, Duration::from_millis(200), || {
        let pages = [page(&cluster, 1)?, page(&cluster, 2)?];
        let value = |(host, name): &(usize, &str)| pages[host - 1].sum(name);
        let low: Vec<_> =
            some.iter().map(|of| (of, value(of))).filter(|(_, sum)| *sum < Some(50.0)).collect();
        let high: Vec<_> =
            none.iter().map(|of| (of, value(of))).filter(|(_, sum)| *sum != Some(0.0)).collect();
        let backends = value(&(1, "shoal_mesh_backends"));
        // One task behind each of its two ports.
        wait::seen(low.is_empty() && high.is_empty() && backends == Some(2.0), || {
            format!("too low: {low:?}, not 0: {high:?}, backends: {backends:?}")
        })
    })?;
    let text = cluster.lab.host(1).metrics()?.text();
    says(&text, "shoal_mesh_connections_total{service=\"web\",port=\"8080\",protocol=\"tcp\"} ")
}

fn scraped(lab: &mut Lab, peer: Peer) -> Result<()> {
    let program =
        requirements::find("prometheus").context("no prometheus: install Debian's package of that name")?;
    let cluster = Cluster::form(lab, peer, 3, 0)?;
    cluster.create(1, "web", 3, &[])?;
    cluster.await_running("web", 3, &[], START_MAX)?;
    // On a fourth host, as people do.
    let host = cluster.lab.host(4);
    let targets: Vec<_> =
        (1..=3).map(|node| format!("'{}'", cluster.lab.host(node).metrics_address())).collect();
    let config = host.dir().join("prometheus.yml");
    std::fs::write(
        &config,
        format!(
            "global: {{scrape_interval: 1s}}\nscrape_configs:\n- job_name: shoal\n  static_configs:\n  - targets: [{}]\n",
            targets.join(", ")
        ),
    )?;
    let flag = |name: &str, path: &Path| format!("--{name}={}", path.display());
    let command = [
        program.display().to_string(),
        flag("config.file", &config),
        flag("storage.tsdb.path", &host.dir().join("prometheus")),
        "--web.listen-address=127.0.0.1:9090".to_owned(),
    ];
    let pid = host.dir().join("prometheus.pid");
    let mut running = host.inside().spawn(&command, &host.dir().join("prometheus.log"), &pid)?;
    let result = judge(&cluster);
    host.inside().signal("KILL", &pid)?;
    running.wait()?;
    result
}

fn judge(cluster: &Cluster<'_>) -> Result<()> {
    let ask = |path: &str| -> Result<Value> { cluster.lab.host(4).http("127.0.0.1:9090", path)?.json() };
    wait::until("three targets that are up", Duration::from_secs(40), Duration::from_millis(300), || {
        let targets = ask("/api/v1/targets")?;
        let targets = targets["data"]["activeTargets"].as_array().cloned().unwrap_or_default();
        let up = targets.iter().filter(|target| target["health"] == "up").count();
        wait::seen(up == 3, || format!("{targets:?}"))
    })?;
    let query = http::encode("{__name__=~\"shoal_.+\"}");
    let (samples, _) =
        wait::until("samples of all nodes", Duration::from_secs(20), Duration::from_millis(300), || {
            let answer = ask(&format!("/api/v1/query?query={query}"))?;
            let samples = answer["data"]["result"].as_array().cloned().unwrap_or_default();
            wait::seen(samples.len() > 30, || format!("{} samples", samples.len()))?;
            Ok(samples)
        })?;
    let metadata = ask("/api/v1/metadata")?;
    let Some(known) = metadata["data"].as_object() else { bail!("no metadata: {metadata}") };
    let undescribed: Vec<_> = known
        .iter()
        .filter(|(name, entries)| {
            name.starts_with("shoal_") && entries[0]["help"].as_str().is_none_or(str::is_empty)
        })
        .collect();
    ensure!(undescribed.is_empty(), "Prometheus has no text for {undescribed:?}");
    println!("{} samples of shoal_* in Prometheus, {} names described", samples.len(), known.len());
    Ok(())
}
