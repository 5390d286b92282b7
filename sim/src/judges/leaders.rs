//! One leader in a term.

use std::collections::BTreeMap;

use shoal_actors::raft::RaftHandle;

/// Who led in which term.
#[derive(Default)]
pub struct Leaders(BTreeMap<u64, usize>);

impl Leaders {
    /// Look at one manager.
    pub fn look(&mut self, host: usize, raft: &RaftHandle) -> Vec<String> {
        let now = raft.leadership().borrow().clone();
        if !now.is_me {
            return Vec::new();
        }
        let first = *self.0.entry(now.term).or_insert(host);
        if first == host {
            return Vec::new();
        }
        vec![format!("h{first} and h{host} both lead in term {}", now.term)]
    }

    /// Terms in which somebody led.
    #[must_use]
    pub fn terms(&self) -> usize {
        self.0.len()
    }
}
