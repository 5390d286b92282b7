//! What the managers' states say: sound in themselves, forward only, and the same at the same index.

use std::collections::BTreeMap;

use shoal_core::check::{Violation, check, check_transition};
use shoal_core::store::State;

/// Indexes whose states are kept to compare other managers' with.
const KEPT_MAX: usize = 2_000;

/// The states seen so far.
#[derive(Default)]
pub struct States {
    by_index: BTreeMap<u64, State>,
    /// Digests of the proposals that are remembered with them.
    remembered: BTreeMap<u64, u64>,
    seen: BTreeMap<usize, u64>,
}

impl States {
    /// Whether this state was not seen of this manager yet.
    #[must_use]
    pub fn is_new(&self, host: usize, state: &State) -> bool {
        self.seen.get(&host) != Some(&state.applied())
    }

    /// Look at one manager's state.
    pub fn look(&mut self, host: usize, state: &State) -> Vec<String> {
        let index = state.applied();
        if self.seen.insert(host, index) == Some(index) {
            return Vec::new();
        }
        if let Some(known) = self.by_index.get(&index) {
            if known == state {
                return Vec::new();
            }
            return vec![format!("h{host} has another state at index {index} than another manager")];
        }
        let mut found: Vec<String> = check(state).iter().map(ToString::to_string).collect();
        if let Some((before, old)) = self.by_index.range(..index).next_back() {
            found.extend(between(old, state, before + 1 == index));
        }
        if let Some((after, new)) = self.by_index.range(index..).next() {
            found.extend(between(state, new, index + 1 == *after));
        }
        self.by_index.insert(index, state.clone());
        while self.by_index.len() > KEPT_MAX {
            self.by_index.pop_first();
        }
        found
    }

    /// Look at the digest of the proposals that one manager remembers with its state at an index.
    pub fn remembers(&mut self, host: usize, index: u64, digest: u64) -> Vec<String> {
        let known = *self.remembered.entry(index).or_insert(digest);
        while self.remembered.len() > KEPT_MAX {
            self.remembered.pop_first();
        }
        let differs = known != digest;
        let words = || format!("h{host} remembers other proposals at index {index} than another manager");
        differs.then(words).into_iter().collect()
    }

    /// The newest index seen.
    #[must_use]
    pub fn newest(&self) -> u64 {
        self.by_index.keys().next_back().copied().unwrap_or_default()
    }
}

/// Placements and counts are judged by the state that they were decided on, so between neighbours alone.
fn between(before: &State, after: &State, neighbours: bool) -> Vec<String> {
    let always = |violation: &Violation| {
        neighbours || !matches!(violation, Violation::Misplaced { .. } | Violation::AboveCount { .. })
    };
    // A task that was gone in between may have been told to go by a node that has left.
    let lasting = |violation: &Violation| neighbours || !matches!(violation, Violation::ForgottenAlive(_));
    check_transition(before, after)
        .iter()
        .filter(|violation| always(violation) && lasting(violation))
        .map(ToString::to_string)
        .collect()
}

#[cfg(test)]
mod tests {
    use shoal_core::model::{Node, NodeId, Task, TaskState, TaskStatus};
    use shoal_core::store::{Command, Write};

    use super::*;
    use crate::sample;

    fn applied(writes: impl IntoIterator<Item = Write>) -> State {
        let mut state = State::default();
        for (at, write) in writes.into_iter().enumerate() {
            state
                .apply(at as u64 + 1, 1, Command { writes: vec![write], ..Command::default() })
                .expect("a legal command");
        }
        state
    }

    fn node(id: u128) -> Write {
        Write::NodeCreate(Box::new(Node { id: NodeId::from_u128(id), ..Node::default() }))
    }

    fn task(state: TaskState) -> Write {
        Write::TaskCreate(std::sync::Arc::new(Task {
            desired: TaskState::Shutdown,
            status: TaskStatus { state, ..TaskStatus::default() },
            ..sample::task(1)
        }))
    }

    #[test]
    fn managers_that_disagree_are_found() {
        let mut states = States::default();
        assert!(states.look(1, &applied([node(1)])).is_empty());
        assert!(states.look(2, &applied([node(1)])).is_empty());
        assert_eq!(states.look(3, &applied([node(2)])).len(), 1);
    }

    #[test]
    fn managers_that_remember_other_proposals_are_found() {
        let mut states = States::default();
        assert!(states.remembers(1, 7, 1).is_empty() && states.remembers(2, 7, 1).is_empty());
        assert!(states.remembers(2, 8, 2).is_empty());
        assert_eq!(states.remembers(3, 7, 2).len(), 1);
    }

    #[test]
    fn a_task_that_goes_back_is_found() {
        let mut states = States::default();
        states.look(1, &applied([node(1), task(TaskState::Running)]));
        let found = states.look(2, &applied([node(1), task(TaskState::Starting), node(3)]));
        assert!(found.iter().any(|what| what.contains("went back")), "{found:?}");
    }
}
