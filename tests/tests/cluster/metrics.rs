//! A real Prometheus reads what the nodes tell.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use shoal_tests::cluster::{Cluster, Peer};
use shoal_tests::lab::Lab;
use shoal_tests::prometheus::Page;
use shoal_tests::runner::Scenario;
use shoal_tests::{http, requirements, wait};

use super::{START_MAX, ours};

pub(crate) const SCENARIOS: &[Scenario] =
    &[ours("every_metric_is_described", described), ours("prometheus_scrapes_three_nodes", scraped)];

/// Words that stand at the beginning of names, one group each.
const GROUPS: [&str; 8] =
    ["raft", "store", "scheduler", "dispatcher", "task", "gossip", "transport", "process"];

fn described(lab: &mut Lab, peer: Peer) -> Result<()> {
    let cluster = Cluster::form(lab, peer, 3, 0)?;
    cluster.create(1, "web", 6, &[])?;
    cluster.await_running("web", 6, &[], START_MAX)?;
    for host in 1..=3 {
        let answer = cluster.lab.host(host).metrics()?;
        ensure!(answer.status == 200, "/metrics answered {}", answer.status);
        let kind = answer.header("content-type").unwrap_or_default();
        ensure!(kind.starts_with("application/openmetrics-text"), "the page's type is {kind:?}");
        ensure!(answer.text().ends_with("# EOF\n"), "the page has no end");
        let page = Page::parse(&answer.text());
        ensure!(page.undescribed().is_empty(), "without text or type: {:?}", page.undescribed());
        for group in GROUPS {
            let has = page
                .kind
                .keys()
                .any(|name| name.starts_with(&format!("shoal_{group}")) || name.starts_with(group));
            ensure!(has, "nothing of {group} among {:?}", page.kind.keys());
        }
    }
    Ok(())
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
