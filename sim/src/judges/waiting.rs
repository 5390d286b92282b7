//! What the leader must have placed after a while: tasks that ask for nothing that a node might lack.

use std::collections::BTreeMap;
use std::time::Duration;

use shoal_core::model::{
    Availability, Node, NodeId, NodeState, PortMode, Resources, Task, TaskId, TaskState,
};
use shoal_core::pace::Pace;
use shoal_core::store::State;
use tokio::time::Instant;

/// For so long one and the same leader must have led, the node must have been ready, and the task must have waited.
pub(super) const PLACED_AFTER: Duration = Duration::from_secs(20);

/// Since when tasks wait, and nodes could take them, under one leader.
#[derive(Default)]
pub(super) struct Waiting {
    pace: Pace,
    leader: Option<(usize, u64)>,
    tasks: BTreeMap<TaskId, Instant>,
    ready: BTreeMap<NodeId, Instant>,
}

fn is_ready(node: &Node) -> bool {
    node.status.state == NodeState::Ready && node.spec.availability == Availability::Active
}

fn waits(task: &Task) -> bool {
    task.status.state <= TaskState::Pending && task.desired <= TaskState::Running
}

/// Whether any node that is ready will do: what is scarce may be taken by others.
fn is_modest(state: &State, task: &Task) -> bool {
    let placement = &task.spec.placement;
    placement.constraints.is_empty()
        && placement.platforms.is_empty()
        && placement.max_replicas == 0
        && task.spec.networks.is_empty()
        && task.spec.resources.reservations == Resources::default()
        && task.ports.iter().all(|port| port.mode != PortMode::Host)
        && state
            .service(task.service_id)
            .is_some_and(|service| service.spec.endpoint.ports_in(PortMode::Host).next().is_none())
}

impl Waiting {
    /// Nothing waits so far, in a cluster of this pace.
    pub(super) fn new(pace: Pace) -> Self {
        Self { pace, ..Self::default() }
    }

    /// Nobody leads as far as is known, or whoever does is not well.
    pub(super) fn nobody_leads(&mut self) {
        *self = Self::new(self.pace);
    }

    /// Look at the state of who leads in this term, and is well.
    pub(super) fn look(&mut self, leader: usize, term: u64, state: &State) -> Vec<String> {
        if self.leader != Some((leader, term)) {
            *self = Self { leader: Some((leader, term)), ..Self::new(self.pace) };
        }
        let now = Instant::now();
        let since = std::mem::take(&mut self.ready);
        let ready = state.nodes().filter(|node| is_ready(node)).map(|node| node.id);
        self.ready = ready.map(|id| (id, since.get(&id).copied().unwrap_or(now))).collect();
        let since = std::mem::take(&mut self.tasks);
        let waiting = state.tasks().filter(|task| waits(task) && is_modest(state, task));
        self.tasks = waiting.map(|task| (task.id, since.get(&task.id).copied().unwrap_or(now))).collect();
        let after = self.pace.of(PLACED_AFTER);
        let long = |since: &Instant| since.elapsed() >= after;
        let mut found = Vec::new();
        for (id, _) in self.tasks.iter().filter(|(_, since)| long(since)) {
            let given = state.task(*id).and_then(|task| task.node_id);
            let mut free =
                self.ready.iter().filter(|(node, since)| long(since) && given.is_none_or(|id| id == **node));
            if let Some((node, _)) = free.next() {
                found
                    .push(format!("task {id} waits for a node for {after:?}, and node {node} could take it"));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use shoal_core::model::{EndpointSpec, Service, ServiceId, ServiceMode, ServiceSpec};
    use shoal_core::store::{Command, Write};

    use super::*;
    use crate::sample;

    #[tokio::test(start_paused = true)]
    async fn a_task_that_waits_though_a_node_could_take_it_is_found() {
        let (node, service) = (NodeId::from_u128(1), ServiceId::from_u128(1));
        let task = Task { service_id: service, node_id: None, ..sample::task(1) };
        let service = Service::new(
            service,
            ServiceSpec {
                name: "s".into(),
                labels: BTreeMap::new(),
                mode: ServiceMode::Replicated { replicas: 1 },
                task: Arc::default(),
                update: None,
                rollback: None,
                endpoint: EndpointSpec::default(),
            },
        );
        let mut state = State::default();
        let mut apply = |write| {
            let index = state.applied() + 1;
            state.apply(index, 1, Command { writes: vec![write], ..Command::default() }).expect("legal");
            state.clone()
        };
        apply(Write::ServiceCreate(Box::new(service)));
        let nowhere = apply(Write::TaskCreate(Arc::new(task)));
        let mut ready = Node { id: node, ..Node::default() };
        ready.status.state = NodeState::Ready;
        let somewhere = apply(Write::NodeCreate(Box::new(ready)));
        let mut waiting = Waiting::default();
        let mut look = |leader, state| waiting.look(leader, 1, state).len();
        let long = || tokio::time::advance(PLACED_AFTER);
        assert_eq!(look(1, &nowhere), 0);
        long().await;
        assert_eq!([look(1, &nowhere), look(1, &somewhere)], [0, 0]);
        long().await;
        assert_eq!([look(1, &somewhere), look(2, &somewhere)], [1, 0], "a new leader has its own time");
    }
}
