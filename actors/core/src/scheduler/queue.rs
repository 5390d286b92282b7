//! The tasks that wait for a node, in groups that are placed in bulk.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::demand::{HostPort, taken_ports};
use crate::model::{NodeId, PortConfig, ServiceId, Task, TaskId, TaskSpec, TaskState, Timestamp};

/// Tasks of one key differ in nothing that matters for their place.
pub(super) type GroupKey = (ServiceId, u64, Vec<HostPort>);

/// One task that waits.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Waiting {
    /// The node that its orchestrator chose, for a global service.
    pub(super) node: Option<NodeId>,
    /// Why it waits, as it was last told, and when; none while it is new.
    pub(super) told: Option<(Arc<str>, Timestamp)>,
}

/// The waiting tasks of one service's version.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Group {
    pub(super) spec: Arc<TaskSpec>,
    pub(super) service_name: Arc<str>,
    /// The ports that its tasks name themselves; empty where the service's apply.
    pub(super) ports: Vec<PortConfig>,
    pub(super) tasks: BTreeMap<TaskId, Waiting>,
}

/// All waiting tasks.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Queue {
    pub(super) groups: BTreeMap<GroupKey, Group>,
    keys: BTreeMap<TaskId, GroupKey>,
}

/// Whether the task waits for a node.
pub(super) fn waits(task: &Task) -> bool {
    task.status.state <= TaskState::Pending && task.desired <= TaskState::Running
}

impl Queue {
    /// How many tasks wait.
    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    /// Take in a task that waits.
    pub(super) fn put(&mut self, task: &Task) {
        let key = (task.service_id, task.spec_version, taken_ports(&task.ports));
        let status = &task.status;
        let told =
            (status.state == TaskState::Pending).then(|| (Arc::from(status.error.as_str()), status.at));
        let waiting = Waiting { node: task.node_id, told };
        if self.keys.get(&task.id).is_some_and(|known| *known != key) {
            self.remove(task.id);
        }
        self.keys.insert(task.id, key.clone());
        let group = self.groups.entry(key).or_insert_with(|| Group {
            spec: Arc::clone(&task.spec),
            service_name: Arc::clone(&task.service_name),
            ports: task.ports.clone(),
            tasks: BTreeMap::new(),
        });
        group.tasks.insert(task.id, waiting);
    }

    /// The task waits no more.
    pub(super) fn remove(&mut self, id: TaskId) {
        if let Some(key) = self.keys.remove(&id)
            && let Some(group) = self.groups.get_mut(&key)
        {
            group.tasks.remove(&id);
            if group.tasks.is_empty() {
                self.groups.remove(&key);
            }
        }
    }

    /// Take a group out to place its tasks.
    pub(super) fn take(&mut self, key: &GroupKey) -> Option<Group> {
        self.groups.remove(key)
    }

    /// Put back what of a taken group still waits; `placed` waits no more.
    pub(super) fn put_back(&mut self, key: GroupKey, group: Group, placed: impl Iterator<Item = TaskId>) {
        for id in placed {
            self.keys.remove(&id);
        }
        if !group.tasks.is_empty() {
            self.groups.insert(key, group);
        }
    }
}
