//! Failures that were found and mended: each is lived through again, and must end well.
#![allow(missing_docs, clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::Command;

fn replays() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("replays");
    let mut files: Vec<_> = folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn what_was_found_once_is_found_no_more() {
    let files = replays();
    assert!(files.len() >= 4, "{files:?}");
    for file in files {
        let output = Command::new(env!("CARGO_BIN_EXE_sim")).arg("replay").arg(&file).output().unwrap();
        assert!(output.status.success(), "{}:\n{}", file.display(), String::from_utf8_lossy(&output.stdout));
    }
}
