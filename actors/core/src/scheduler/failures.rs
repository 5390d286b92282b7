//! Which nodes keep failing which services: such a node is the last choice for a while.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::{ServiceId, TaskId, Timestamp};

/// Failures are remembered for so long.
const WINDOW: Duration = Duration::from_secs(5 * 60);
/// So many of them make a node the last choice.
const ENOUGH: usize = 5;

/// The newest failures by service, version and node; never more than [`ENOUGH`] each.
#[derive(Debug, Clone, Default)]
pub(super) struct Failures {
    seen: BTreeMap<(ServiceId, u64), BTreeMap<u32, BTreeMap<TaskId, Timestamp>>>,
}

impl Failures {
    /// A task of that service and version failed on the node. Hearing it again changes nothing.
    pub(super) fn note(&mut self, service: ServiceId, version: u64, slot: u32, task: TaskId, at: Timestamp) {
        let tasks = self.seen.entry((service, version)).or_default().entry(slot).or_default();
        tasks.insert(task, at);
        if tasks.len() > ENOUGH
            && let Some(oldest) = tasks.iter().min_by_key(|(id, at)| (**at, **id)).map(|(id, _)| *id)
        {
            tasks.remove(&oldest);
        }
    }

    /// The nodes that failed it too often of late, in order.
    pub(super) fn failing(&self, service: ServiceId, version: u64, now: Timestamp) -> Vec<u32> {
        let Some(nodes) = self.seen.get(&(service, version)) else { return Vec::new() };
        let recent = |tasks: &BTreeMap<TaskId, Timestamp>| {
            tasks.values().filter(|at| now.since(**at) < WINDOW).count() >= ENOUGH
        };
        nodes.iter().filter(|(_, tasks)| recent(tasks)).map(|(slot, _)| *slot).collect()
    }

    /// Forget what is too old to count.
    pub(super) fn prune(&mut self, now: Timestamp) {
        self.seen.retain(|_, nodes| {
            nodes.retain(|_, tasks| {
                tasks.retain(|_, at| now.since(*at) < WINDOW);
                !tasks.is_empty()
            });
            !nodes.is_empty()
        });
    }

    /// Forget a node.
    pub(super) fn forget(&mut self, slot: u32) {
        for nodes in self.seen.values_mut() {
            nodes.remove(&slot);
        }
    }

    #[cfg(test)]
    pub(super) fn entries(&self) -> impl Iterator<Item = (ServiceId, u64, u32, TaskId, Timestamp)> + '_ {
        self.seen.iter().flat_map(|((service, version), nodes)| {
            nodes.iter().flat_map(|(slot, tasks)| {
                tasks.iter().map(|(task, at)| (*service, *version, *slot, *task, *at))
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_failures_within_five_minutes_make_a_node_the_last_choice() {
        let (service, mut failures) = (ServiceId::from_u128(1), Failures::default());
        for number in 0..5 {
            assert!(failures.failing(service, 3, Timestamp(60_000)).is_empty());
            for _ in 0..2 {
                let at = Timestamp(u64::try_from(number).expect("small") * 10_000);
                failures.note(service, 3, 7, TaskId::from_u128(number), at);
            }
        }
        assert_eq!(failures.failing(service, 3, Timestamp(60_000)), [7]);
        assert!(failures.failing(service, 4, Timestamp(60_000)).is_empty());
        assert!(failures.failing(service, 3, Timestamp(300_000)).is_empty());
        failures.prune(Timestamp(345_000));
        assert!(failures.seen.is_empty());
    }
}
