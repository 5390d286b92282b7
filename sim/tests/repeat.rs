//! The programme itself: a seed is one story, the exit code tells how it ended, a file says the same as its seed.
#![allow(missing_docs, clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Output};

fn sim(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sim")).args(words).env_remove("RUST_LOG").output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// All of a run's line that must be the same in another run.
fn story(output: &Output) -> String {
    let text = text(output);
    let line = text.lines().last().unwrap_or_else(|| panic!("{output:?}")).to_owned();
    line.split(" virtual=").next().unwrap().to_owned()
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_seed_is_the_same_story_in_every_process_and_another_seed_another() {
    for depth in ["full", "fast"] {
        let run = |seed| sim(&["run", "--seed", seed, "--seconds", "15", "--depth", depth]);
        let (one, again, other) = (run("11"), run("11"), run("12"));
        for output in [&one, &again, &other] {
            assert_eq!(output.status.code(), Some(0), "{}", text(output));
        }
        assert_eq!(story(&one), story(&again));
        assert_ne!(story(&one), story(&other));
    }
}

#[test]
fn a_plan_in_a_file_is_the_story_of_its_seed_and_its_events_can_be_kept_and_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let kind = ["--seed", "3", "--seconds", "5", "--depth", "fast"];
    let planned = sim(&[&["plan", "-o", path(&at("plan"))][..], &kind].concat());
    assert_eq!(planned.status.code(), Some(0), "{planned:?}");
    let replayed = sim(&["replay", path(&at("plan")), "--events", path(&at("events"))]);
    assert_eq!(story(&replayed), story(&sim(&[&["run"][..], &kind].concat())));
    let events = std::fs::read_to_string(at("events")).unwrap();
    assert!(events.lines().count() > 100 && events.contains("RaftAppend"));
    let shown = sim(&["show", path(&at("plan")), "-o", path(&at("page.html"))]);
    assert_eq!(shown.status.code(), Some(0), "{shown:?}");
    assert!(std::fs::read_to_string(at("page.html")).unwrap().contains("seed 3"));
}

#[test]
fn many_seeds_are_summed_up() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("summary");
    let words = ["run", "--seeds", "4", "--seconds", "5", "--depth", "fast", "--summary", path(&file)];
    let output = sim(&words);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let summary: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    assert_eq!((summary["seeds"].as_u64(), summary["passed"].as_u64()), (Some(4), Some(4)));
}

#[test]
fn a_run_that_ends_well_cannot_be_reduced_and_two_of_it_do_not_differ() {
    let kind = ["--seed", "5", "--seconds", "5", "--depth", "fast"];
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("small");
    let shrunk = sim(&[&["shrink", "-o", path(&file)][..], &kind].concat());
    assert_ne!(shrunk.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&shrunk.stderr).contains("does not fail"));
    assert_eq!(sim(&[&["differ"][..], &kind].concat()).status.code(), Some(0));
}

#[test]
fn what_is_unknown_is_refused_by_name() {
    for (words, name) in [(["--profile", "rosy"], "rosy"), (["--depth", "shallow"], "shallow")] {
        let output = sim(&[&["run", "--seed", "1"][..], &words].concat());
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&output.stderr).contains(name));
    }
    let missing = sim(&["replay", "/no/such/plan.json"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("/no/such/plan.json"));
}

#[test]
fn a_large_cluster_of_light_nodes_says_what_it_took() {
    let output = sim(&["bench", "--seconds", "0", "--nodes", "100", "--tasks", "2000"]);
    let text = text(&output);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(text.contains("100 light nodes, 2000 tasks, three managers, one process"), "{text}");
    let moved = text.lines().find(|line| line.contains("a tenth of the nodes lost")).unwrap();
    let count: u64 =
        moved.split(" tasks run elsewhere").next().unwrap().rsplit(' ').next().unwrap().parse().unwrap();
    assert!((100..=400).contains(&count), "{moved}");
}
