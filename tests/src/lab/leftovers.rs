//! What earlier labs left on the machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use crate::sh;

/// Begin of the names of all labs' folders and control groups.
pub(super) const PREFIX: &str = "shoal-lab-";

/// Remove what labs left whose process is gone. Called with the lock held, so no other lab is up.
pub(super) fn clean(base: &Path) {
    let Ok(entries) = fs::read_dir(base) else { return };
    for dir in entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()) {
        let Some(name) = dir.file_name().and_then(|name| name.to_str()) else { continue };
        if name.starts_with(PREFIX) {
            kill_all_of(&dir);
            remove(&dir, name);
        }
    }
}

/// Remove a lab's folder and control groups, once its processes are gone.
pub(super) fn remove(dir: &Path, group: &str) {
    for _ in 0..50 {
        let groups = control_groups(group);
        if groups.is_empty() {
            break;
        }
        // Children come after their parents in the list, and only an empty group can go.
        for folder in groups.iter().rev() {
            fs::remove_dir(folder).ok();
        }
        thread::sleep(Duration::from_millis(20));
    }
    // A folder left mounted by the crash of an earlier lab must not be emptied through its mount.
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let below = format!("{}/", dir.display());
    for point in
        mounts.lines().rev().filter_map(|line| line.split(' ').nth(1)).filter(|p| p.starts_with(&below))
    {
        sh::run(Command::new("umount").args(["-l", point]), Duration::from_secs(10)).ok();
    }
    fs::remove_dir_all(dir).ok();
}

/// Kill every process that was started for this folder, keepers first.
fn kill_all_of(dir: &Path) {
    let needle = format!("{}/", dir.display());
    let Ok(entries) = fs::read_dir("/proc") else { return };
    let myself = std::process::id();
    for entry in entries.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let Ok(line) = fs::read(entry.path().join("cmdline")) else { continue };
        if pid as u32 != myself && String::from_utf8_lossy(&line).contains(&needle) {
            // SAFETY: plain system call; a number that is gone by now does no harm within this instant.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
    }
    thread::sleep(Duration::from_millis(100));
}

/// All control groups of a lab, parents before children.
fn control_groups(group: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let root = Path::new("/sys/fs/cgroup");
    let controllers = fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
    for top in controllers.chain([root.to_owned()]) {
        let top = top.join(group);
        if top.is_dir() && !found.contains(&top) {
            walk(top, &mut found);
        }
    }
    found
}

fn walk(folder: PathBuf, found: &mut Vec<PathBuf>) {
    found.push(folder.clone());
    for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(entry.path(), found);
        }
    }
}
