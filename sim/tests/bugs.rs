//! Bugs put back are found, told by their exit codes and reduced: `cargo test -p shoal-sim --features put-back --test bugs`.
#![cfg(feature = "put-back")]
#![allow(missing_docs, clippy::unwrap_used)]

use std::process::{Command, Output};

fn sim(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sim")).args(words).env_remove("RUST_LOG").output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

const KIND: [&str; 4] = ["--depth", "fast", "--seconds", "30"];

/// The number of the first seed by which a bug is found.
fn first(bug: &str) -> String {
    let output = sim(&[&["bugs", bug, "--seeds", "40"][..], &KIND].concat());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let text = text(&output);
    let row = text.lines().find(|line| line.contains(&format!("`{bug}`"))).unwrap();
    row.trim_end_matches(" |").rsplit(' ').next().unwrap().to_owned()
}

fn again(bug: &str, seed: &str) -> Output {
    sim(&[&["run", "--seed", seed, "--put-back", bug][..], &KIND].concat())
}

#[test]
fn a_broken_promise_a_crash_and_a_failure_to_heal_are_told_apart() {
    for (bug, code, word) in [
        ("lost-update", 3, "BROKEN"),
        ("silence-counted-as-ack", 2, "CRASHED"),
        ("wish-not-sent", 4, "NOT HEALED"),
        ("tasks-left-at-stop", 3, "BROKEN"),
    ] {
        let output = again(bug, &first(bug));
        assert_eq!(output.status.code(), Some(code), "{bug}: {}", text(&output));
        assert!(text(&output).contains(word), "{bug}: {}", text(&output));
    }
}

#[test]
fn a_failing_run_is_reduced_to_a_file_that_fails_alike() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("small.json");
    let file = file.to_str().unwrap();
    let seed = first("lost-update");
    let words = ["shrink", "--seed", &seed, "--put-back", "lost-update", "--runs", "60", "-o", file];
    let shrunk = sim(&[&words[..], &KIND].concat());
    assert_eq!(shrunk.status.code(), Some(0), "{shrunk:?}");
    let plan: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let events = ["disasters", "wishes"].map(|kind| plan[kind].as_array().unwrap().len());
    assert!(events.iter().sum::<usize>() <= 5, "{events:?}");
    assert_eq!(sim(&["replay", file, "--put-back", "lost-update"]).status.code(), Some(3));
    assert_eq!(sim(&["replay", file]).status.code(), Some(0), "it fails without the bug");
}
