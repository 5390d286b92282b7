//! What really runs: a task runs on one host only.

use std::collections::BTreeMap;

use shoal_core::model::TaskId;

use crate::containers::Engine;

/// Where each task was seen to run.
#[derive(Default)]
pub struct Engines(BTreeMap<TaskId, usize>);

impl Engines {
    /// Look at one host's containers.
    pub fn look(&mut self, host: usize, engine: &Engine) -> Vec<String> {
        let mut found = Vec::new();
        for task in engine.running() {
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
