//! The cluster for trying out, as a user meets it.

use std::time::Duration;

use anyhow::{Result, ensure};
use shoal_tests::cluster::Peer;
use shoal_tests::lab::{Lab, binary};
use shoal_tests::runner::Scenario;
use shoal_tests::{sh, wait};

use super::{STOP_MAX, ours, says};

pub(crate) const SCENARIOS: &[Scenario] =
    &[ours("shoal_up_shows_what_any_node_answers_and_down_leaves_nothing", up_and_down)];

/// Three nodes, an image and a service.
const UP_MAX: Duration = Duration::from_secs(180);
const ADDRESSES: [&str; 3] = ["127.0.0.1", "127.0.0.2", "127.0.0.3"];

fn up_and_down(lab: &mut Lab, _: Peer) -> Result<()> {
    let host = lab.host(1);
    let (shoal, dir) = (binary("shoal")?, host.dir().join("demo"));
    let run = |args: &[&str]| {
        let mut words = vec![shoal.display().to_string()];
        words.extend(args.iter().map(|word| (*word).to_owned()));
        words.extend(["--dir".to_owned(), dir.display().to_string()]);
        sh::must(&mut host.inside().command(&words), UP_MAX)
    };
    let engine = format!("unix://{}", host.engine_socket().display());
    let said = run(&["up", "--engine", &engine, "--replicas", "4"])?;
    for words in ["The cluster is there: 3 managers.", "4/4", "ingress:8080->8080/tcp", "Stop "] {
        says(&said, words)?;
    }
    // Each node's answer stands beside its address, and is one that anybody gets.
    for address in ADDRESSES {
        let line = said.lines().find(|line| line.contains(&format!("http://{address}:8080 ")));
        ensure!(line.is_some_and(|line| line.contains(" demo.")), "no answer of {address}: {said}");
        let page = host.http(&format!("{address}:8080"), "/")?.text();
        ensure!(page.starts_with("demo."), "{address} answers {page}");
    }
    says(&run(&["up", "--engine", &engine])?, "A cluster runs in")?;
    run(&["down"])?;
    wait::until("an engine without containers", STOP_MAX, Duration::from_millis(200), || {
        let left = lab.docker(1, &["ps", "--all", "--quiet"])?.text();
        wait::seen(left.trim().is_empty(), || left.clone())
    })?;
    ensure!(!dir.exists(), "the demo's folder is left");
    Ok(())
}
