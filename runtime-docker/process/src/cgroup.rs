//! Limits by control groups, version 1 and 2. A host may not allow them: then the caller is told, and goes on without.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use shoal_core::model::Resources;

const ROOT: &str = "/sys/fs/cgroup";
const PARENT: &str = "shoal";
/// Microseconds over which processor time is shared out.
const CPU_PERIOD_US: u64 = 100_000;

/// Whether the limits ask for anything.
pub(crate) fn is_wanted(limits: &Resources) -> bool {
    limits.nano_cpus > 0 || limits.memory_bytes > 0 || limits.pids > 0
}

/// Make the groups of a task and set its limits. Also gives back what was not possible, in words.
pub(crate) fn make(name: &str, limits: &Resources) -> (Vec<PathBuf>, Vec<String>) {
    let root = Path::new(ROOT);
    let unified = root.join("cgroup.controllers").exists();
    let (mut groups, mut troubles) = (Vec::new(), Vec::new());
    for (controller, settings) in settings(limits, unified) {
        let parent = if unified { root.join(PARENT) } else { root.join(controller).join(PARENT) };
        let group = parent.join(name);
        let made = (|| {
            if unified {
                fs::create_dir_all(&parent)?;
                fs::write(root.join("cgroup.subtree_control"), format!("+{controller}"))?;
                fs::write(parent.join("cgroup.subtree_control"), format!("+{controller}"))?;
            }
            fs::create_dir_all(&group)?;
            settings.iter().try_for_each(|(file, value)| fs::write(group.join(file), value))
        })();
        match made {
            Ok(()) => {
                if !groups.contains(&group) {
                    groups.push(group);
                }
            }
            Err(error) => troubles.push(format!("{controller} limit not applied: {error}")),
        }
    }
    (groups, troubles)
}

type Settings = (&'static str, Vec<(&'static str, String)>);

fn settings(limits: &Resources, unified: bool) -> Vec<Settings> {
    let mut all = Vec::new();
    let quota = limits.nano_cpus.saturating_mul(CPU_PERIOD_US) / 1_000_000_000;
    if limits.nano_cpus > 0 && unified {
        all.push(("cpu", vec![("cpu.max", format!("{} {CPU_PERIOD_US}", quota.max(1000)))]));
    } else if limits.nano_cpus > 0 {
        let period = ("cpu.cfs_period_us", CPU_PERIOD_US.to_string());
        all.push(("cpu", vec![period, ("cpu.cfs_quota_us", quota.max(1000).to_string())]));
    }
    if limits.memory_bytes > 0 {
        let file = if unified { "memory.max" } else { "memory.limit_in_bytes" };
        all.push(("memory", vec![(file, limits.memory_bytes.to_string())]));
    }
    if limits.pids > 0 {
        // One more for the shell that notes the exit code.
        all.push(("pids", vec![("pids.max", limits.pids.saturating_add(1).to_string())]));
    }
    all
}

/// Files into which a process writes `0` to join.
pub(crate) fn doors(groups: &[PathBuf]) -> io::Result<Vec<File>> {
    groups.iter().map(|group| OpenOptions::new().write(true).open(group.join("cgroup.procs"))).collect()
}

/// Whether the kernel killed a process of the groups for lack of memory.
pub(crate) fn had_oom_kill(groups: &[PathBuf]) -> bool {
    groups.iter().flat_map(|group| ["memory.events", "memory.oom_control"].map(|file| group.join(file))).any(
        |file| {
            let text = fs::read_to_string(file).unwrap_or_default();
            let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
            count.and_then(|count| count.trim().parse::<u64>().ok()).unwrap_or_default() > 0
        },
    )
}

/// Processes in the groups.
pub(crate) fn members(groups: &[PathBuf]) -> Vec<i32> {
    let texts = groups.iter().filter_map(|group| fs::read_to_string(group.join("cgroup.procs")).ok());
    texts.flat_map(|text| text.lines().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect()
}

/// Remove the groups, which must be empty by now. One that is gone is fine.
pub(crate) fn remove(groups: &[PathBuf]) -> io::Result<()> {
    for group in groups {
        match fs::remove_dir(group) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_become_settings_of_either_version() {
        let limits = Resources { nano_cpus: 500_000_000, memory_bytes: 9, pids: 3, ..Resources::default() };
        let text = |unified| format!("{:?}", settings(&limits, unified));
        assert!(text(true).contains("(\"cpu.max\", \"50000 100000\")"), "{}", text(true));
        assert!(text(false).contains("(\"cpu.cfs_quota_us\", \"50000\")"));
        assert!(text(false).contains("(\"memory.limit_in_bytes\", \"9\")"));
        assert!(text(true).contains("(\"pids.max\", \"4\")"));
        assert!(!is_wanted(&Resources::default()) && is_wanted(&limits));
    }
}
