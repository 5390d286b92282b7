//! Reads `/proc`: whether a process is the one that was started, and what the host has.

use std::fs;

use serde::{Deserialize, Serialize};

/// A process, told from a later one with the same number by when it began, and in which life of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessId {
    pub(crate) pid: u32,
    /// Clock ticks since the host's start.
    pub(crate) began: u64,
    pub(crate) boot: String,
}

impl ProcessId {
    /// The process with this number, if there is one that has not ended.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let (state, began) = stat(pid)?;
        (!matches!(state, 'Z' | 'X')).then(|| Self { pid, began, boot: boot_id() })
    }

    /// Whether it still runs.
    pub(crate) fn is_alive(&self) -> bool {
        Self::of(self.pid).as_ref() == Some(self)
    }
}

/// Whether the arguments of a process name this text.
pub(crate) fn is_called(pid: u32, text: &str) -> bool {
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    arguments.split(|byte| *byte == 0).any(|argument| argument == text.as_bytes())
}

/// State and begin (fields 3 and 22); the name in field 2 may hold anything, parentheses too.
fn stat(pid: u32) -> Option<(char, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

pub(crate) fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_string()
}

/// Bytes of memory of the host.
pub(crate) fn memory_bytes() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or_default().saturating_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_begin_and_not_by_its_number_alone() {
        let me = ProcessId::of(std::process::id()).unwrap();
        assert!(me.is_alive());
        assert!(!ProcessId { began: me.began + 1, ..me.clone() }.is_alive());
        assert!(!ProcessId { boot: "another".into(), ..me }.is_alive());
        assert_eq!(ProcessId::of(u32::MAX), None);
        assert!(memory_bytes() > 1 << 20);
    }
}
