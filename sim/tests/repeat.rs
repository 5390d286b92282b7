//! The programme itself: a seed is one story, and the exit code tells how it ended.
#![allow(missing_docs, clippy::unwrap_used)]

use std::process::{Command, Output};

fn sim(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sim")).args(words).env_remove("RUST_LOG").output().unwrap()
}

fn story(output: &Output) -> String {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let line = text.lines().last().unwrap_or_else(|| panic!("{output:?}")).to_owned();
    line.split(" virtual=").next().unwrap().to_owned()
}

#[test]
fn a_seed_is_the_same_story_in_every_process_and_another_seed_another() {
    let run = |seed| sim(&["run", "--seed", seed, "--seconds", "15"]);
    let (one, again, other) = (run("11"), run("11"), run("12"));
    for output in [&one, &again, &other] {
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
    }
    assert_eq!(story(&one), story(&again));
    assert_ne!(story(&one), story(&other));
}

#[test]
fn events_are_kept_on_request() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("events");
    let seconds = ["--seconds", "3", "--profile", "calm", "--events"];
    let output = sim(&[&["run", "--seed", "3"][..], &seconds, &[file.to_str().unwrap()]].concat());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let events = std::fs::read_to_string(file).unwrap();
    assert!(events.lines().count() > 100 && events.contains("h1 starts") && events.contains("send 10.0.0.1"));
}

#[test]
fn an_unknown_profile_is_refused_by_name() {
    let output = sim(&["run", "--seed", "1", "--profile", "rosy"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("rosy"));
}
