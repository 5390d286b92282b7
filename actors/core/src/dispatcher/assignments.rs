//! What a node is told of its tasks: all of them once, then what changed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::model::{NodeId, PortConfig, Task, TaskId, TaskState};
use crate::put_back::{Bug, is_put_back};
use crate::store::State;

/// Tasks in an incremental message at most; the rest follows in the next.
pub const INCREMENT_MAX: usize = 1024;

/// Tasks for a node.
#[derive(Debug, Clone, PartialEq)]
pub enum Assignments {
    /// All of them: what is not here shall go.
    Complete {
        /// Number of this message.
        sequence: u64,
        /// The tasks.
        tasks: Vec<Arc<Task>>,
    },
    /// Changes since message `sequence - 1`.
    Incremental {
        /// Number of this message.
        sequence: u64,
        /// New and changed tasks.
        changed: Vec<Arc<Task>>,
        /// Tasks to remove.
        removed: Vec<TaskId>,
    },
}

/// The part of a task that its node does not decide itself.
#[derive(Debug, Clone, PartialEq)]
struct Sent {
    desired: TaskState,
    ports: Vec<PortConfig>,
}

impl Sent {
    fn of(task: &Task) -> Self {
        Self { desired: task.desired, ports: task.ports.clone() }
    }

    fn is(&self, task: &Task) -> bool {
        self.desired == task.desired && self.ports == task.ports
    }
}

/// What one session of one node was told so far.
#[derive(Debug, Clone)]
pub struct AssignmentSet {
    node: NodeId,
    sequence: u64,
    /// None before the complete message.
    sent: Option<BTreeMap<TaskId, Sent>>,
}

/// Whether the task's node has to know of it: it is placed there, and not known to have ended. Tasks that
/// shall stop are among them, so that the node stops them.
#[must_use]
pub fn is_assigned_to_node(task: &Task, node: NodeId) -> bool {
    task.node_id == Some(node) && task.occupies_node()
}

impl AssignmentSet {
    /// For a new session: nothing was told.
    #[must_use]
    pub fn new(node: NodeId) -> Self {
        Self { node, sequence: 0, sent: None }
    }

    /// Number of the last message.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Begin anew with a complete message, after the node has missed one.
    pub fn reset(&mut self) {
        self.sent = None;
    }

    /// The next message, if there is anything to tell: the complete one first, even if it is empty. What a
    /// node reports itself is not echoed. Call until it returns nothing.
    pub fn next(&mut self, state: &State) -> Option<Assignments> {
        let Some(sent) = &self.sent else { return Some(self.complete(state)) };
        let all = state.tasks_of_node(self.node).map(|task| task.id).chain(sent.keys().copied()).collect();
        self.next_of(state, &all)
    }

    /// Like [`AssignmentSet::next`], if nothing but these tasks can have changed since that returned nothing.
    pub fn next_of(&mut self, state: &State, touched: &BTreeSet<TaskId>) -> Option<Assignments> {
        let Some(sent) = &mut self.sent else { return Some(self.complete(state)) };
        let (mut changed, mut removed) = (Vec::new(), Vec::new());
        for id in touched {
            if changed.len() + removed.len() == INCREMENT_MAX {
                break;
            }
            let known = sent.get(id);
            match (state.task(*id).filter(|task| is_assigned_to_node(task, self.node)), known) {
                (Some(task), None) => changed.push(Arc::clone(task)),
                (Some(task), Some(known)) if !known.is(task) && !is_put_back(Bug::WishNotSent) => {
                    changed.push(Arc::clone(task));
                }
                (None, Some(_)) if !is_put_back(Bug::RemovalNotSent) => removed.push(*id),
                _ => {}
            }
        }
        if changed.is_empty() && removed.is_empty() {
            return None;
        }
        for id in &removed {
            sent.remove(id);
        }
        sent.extend(changed.iter().map(|task| (task.id, Sent::of(task))));
        self.sequence += 1;
        Some(Assignments::Incremental { sequence: self.sequence, changed, removed })
    }

    fn complete(&mut self, state: &State) -> Assignments {
        let tasks = state.tasks_of_node(self.node).filter(|task| is_assigned_to_node(task, self.node));
        let tasks: Vec<Arc<Task>> = tasks.cloned().collect();
        self.sent = Some(tasks.iter().map(|task| (task.id, Sent::of(task))).collect());
        self.sequence += 1;
        Assignments::Complete { sequence: self.sequence, tasks }
    }
}
