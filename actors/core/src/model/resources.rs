//! Amounts of processor, memory and processes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// An amount of each resource; zero where nothing is said.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Billionths of a processor.
    pub nano_cpus: u64,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Processes at most; a limit only, never reserved.
    pub pids: u64,
    /// User-defined countable resources by kind.
    pub generic: BTreeMap<String, u64>,
}

impl Resources {
    /// Whether each amount of `wanted` (but pids) is there.
    #[must_use]
    pub fn covers(&self, wanted: &Self) -> bool {
        self.nano_cpus >= wanted.nano_cpus
            && self.memory_bytes >= wanted.memory_bytes
            && wanted
                .generic
                .iter()
                .all(|(kind, count)| self.generic.get(kind).copied().unwrap_or_default() >= *count)
    }
}

/// What a task may use at most, and what is kept free for it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceRequirements {
    /// Never more than this.
    pub limits: Resources,
    /// Placed only where this much is unreserved.
    pub reservations: Resources,
}
