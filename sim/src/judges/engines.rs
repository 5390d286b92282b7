//! What really runs: a task runs on one host only.

use std::collections::BTreeMap;

use shoal_core::model::TaskId;

/// Where each task was seen to run.
#[derive(Default)]
pub struct Engines(BTreeMap<TaskId, usize>);

impl Engines {
    /// Look at the tasks whose containers run on one host.
    pub fn look(&mut self, host: usize, running: Vec<TaskId>) -> Vec<String> {
        let mut found = Vec::new();
        for task in running {
            let first = *self.0.entry(task).or_insert(host);
            if first != host {
                found.push(format!("task {task} runs on h{host} and ran on h{first}"));
            }
        }
        found
    }

    /// Tasks that ever ran.
    #[must_use]
    pub fn tasks(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_on_two_hosts_is_found() {
        let mut engines = Engines::default();
        let (one, two) = (TaskId::from_u128(1), TaskId::from_u128(2));
        assert!(engines.look(1, vec![one]).is_empty() && engines.look(2, vec![two]).is_empty());
        assert_eq!(engines.look(2, vec![two, one]).len(), 1);
    }
}
