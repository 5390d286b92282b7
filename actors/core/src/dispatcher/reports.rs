//! Reports of nodes: checked, merged until they are proposed together.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use crate::model::{NodeId, Task, TaskId, TaskState, TaskStatus};
use crate::put_back::{Bug, is_put_back};
use crate::store::{State, Write};

/// Bytes of a message or an error text that are kept.
pub const TEXT_BYTES_MAX: usize = 4096;

/// Why a report was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no such task (any more).
    #[error("task {0} is not known")]
    UnknownTask(TaskId),
    /// The task is not that node's.
    #[error("task {task} is not assigned to node {node}")]
    NotYours {
        /// The task.
        task: TaskId,
        /// The reporter.
        node: NodeId,
    },
    /// Nodes do not decide on that state.
    #[error("task {task} cannot be reported as {}", state.as_str())]
    NotForNodes {
        /// The task.
        task: TaskId,
        /// The state.
        state: TaskState,
    },
}

/// Reports that wait to be proposed: one for each task, the furthest.
#[derive(Debug, Clone, Default)]
pub struct Reports {
    pending: BTreeMap<TaskId, TaskStatus>,
}

impl Reports {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Tasks with a report that waits.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pending.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Take a node's report on one of its tasks. What says nothing new is dropped silently.
    ///
    /// # Errors
    /// The node may not say that. An unknown task is no fault of the node's: it was removed meanwhile.
    pub fn take(
        &mut self,
        state: &State,
        node: NodeId,
        id: TaskId,
        mut status: TaskStatus,
    ) -> Result<(), Refusal> {
        let task = state.task(id).ok_or(Refusal::UnknownTask(id))?;
        if task.node_id != Some(node) || task.status.state < TaskState::Assigned {
            return Err(Refusal::NotYours { task: id, node });
        }
        let for_nodes = (TaskState::Assigned..=TaskState::Rejected).contains(&status.state);
        if !for_nodes {
            return Err(Refusal::NotForNodes { task: id, state: status.state });
        }
        truncate(&mut status.message);
        truncate(&mut status.error);
        if !is_news(task, &status) {
            return Ok(());
        }
        match self.pending.entry(id) {
            Entry::Vacant(entry) => {
                entry.insert(status);
            }
            Entry::Occupied(mut entry) => {
                let known = entry.get();
                if advances(known, &status) {
                    let container = status.container.take().or_else(|| known.container.clone());
                    entry.insert(TaskStatus { container, ..status });
                }
            }
        }
        Ok(())
    }

    /// Up to `most` of them as writes, those of ended tasks first. What the state knows by now is left out.
    pub fn drain(&mut self, state: &State, most: usize) -> Vec<Write> {
        let mut ids: Vec<(bool, TaskId)> =
            self.pending.iter().map(|(id, status)| (!status.state.is_terminal(), *id)).collect();
        ids.sort_unstable();
        let mut writes = Vec::with_capacity(most.min(ids.len()));
        for (_, id) in ids {
            if writes.len() >= most {
                break;
            }
            if let Some(status) = self.pending.remove(&id)
                && state.task(id).is_some_and(|task| is_news(task, &status))
            {
                writes.push(Write::TaskStatus(id, status));
            }
        }
        writes
    }
}

fn is_news(task: &Task, status: &TaskStatus) -> bool {
    advances(&task.status, status)
}

/// Whether `next` may follow `known`: forward, or the same state told otherwise. What has ended stays so.
fn advances(known: &TaskStatus, next: &TaskStatus) -> bool {
    let back = next.state < known.state && !is_put_back(Bug::TaskGoesBack);
    !known.state.is_terminal() && !back && next != known
}

fn truncate(text: &mut String) {
    if text.len() > TEXT_BYTES_MAX {
        let end = (0..=TEXT_BYTES_MAX).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
        text.truncate(end);
    }
}
