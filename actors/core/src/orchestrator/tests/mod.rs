//! Scenarios against a small world: a scheduler that takes any node that is allowed, nodes that do what they
//! are told. After every single command the judge looks at the state and at the step to it.

mod global;
mod loss;
mod property;
mod replicated;
mod restart;
mod update;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::Orchestrator;
use crate::check::{Violation, check, check_transition, converged};
use crate::model::{
    Availability, Meta, Node, NodeDescription, NodeId, NodeState, NodeStatus, Platform, Resources,
    RestartCondition, RestartPolicy, Service, ServiceId, ServiceMode, ServiceSpec, Slot, Task, TaskId,
    TaskSpec, TaskState, TaskStatus, Timestamp, UpdateConfig, UpdateState,
};
use crate::plan::Plan;
use crate::store::{ApplyError, Command, Expect, ObjectId, State, Write};

const S: ServiceId = ServiceId::from_u128(900);

fn n(number: u128) -> NodeId {
    NodeId::from_u128(number)
}

fn spec(image: &str) -> TaskSpec {
    let mut spec = TaskSpec::default();
    spec.container.image = image.into();
    spec
}

/// A cluster without networks and clocks.
struct World {
    state: State,
    orchestrator: Orchestrator,
    now: Timestamp,
    rng: ChaCha8Rng,
    /// Nodes that can neither report nor be told anything; what runs there goes on.
    cut_off: BTreeSet<NodeId>,
    /// Images whose containers fail as soon as they start.
    broken: BTreeSet<String>,
    /// What really runs.
    containers: BTreeMap<TaskId, NodeId>,
    wake_at: Option<Timestamp>,
    reasons: Vec<String>,
}

impl World {
    fn new(nodes: u128) -> Self {
        let mut world = Self {
            state: State::default(),
            orchestrator: Orchestrator::default(),
            now: Timestamp(1_000_000),
            rng: ChaCha8Rng::seed_from_u64(7),
            cut_off: BTreeSet::new(),
            broken: BTreeSet::new(),
            containers: BTreeMap::new(),
            wake_at: None,
            reasons: Vec::new(),
        };
        for number in 1..=nodes {
            world.add_node(number);
        }
        world.orchestrator = Orchestrator::new(&world.state, world.now);
        world
    }

    fn add_node(&mut self, number: u128) {
        let description = NodeDescription {
            hostname: format!("h{number}"),
            platform: Platform { os: "linux".into(), architecture: "x86_64".into() },
            resources: Resources { nano_cpus: 4_000_000_000, memory_bytes: 8 << 30, ..Resources::default() },
            ..NodeDescription::default()
        };
        let node = Node {
            id: n(number),
            description: Some(description),
            status: NodeStatus { state: NodeState::Ready, since: self.now, ..NodeStatus::default() },
            ..Node::default()
        };
        self.write(Write::NodeCreate(Box::new(node)));
    }

    fn try_commit(&mut self, expects: Vec<Expect>, writes: Vec<Write>) -> Result<(), ApplyError> {
        let before = self.state.clone();
        let index = before.applied() + 1;
        let applied = self.state.apply(index, 1, Command { term: Some(1), at: self.now, expects, writes })?;
        for event in &applied.events {
            self.orchestrator.observe(&self.state, event);
        }
        let mut violations: Vec<Violation> = check_transition(&before, &self.state);
        violations.extend(check(&self.state));
        assert!(violations.is_empty(), "{violations:#?}\nreasons:\n{}", self.reasons.join("\n"));
        Ok(())
    }

    fn write(&mut self, write: Write) {
        self.try_commit(vec![], vec![write]).unwrap();
    }

    fn decide(&mut self) -> Plan {
        let plan = self.orchestrator.decide(&self.state, self.now, &mut self.rng);
        self.wake_at = plan.wake_at;
        self.reasons.extend(plan.reasons.iter().cloned());
        for step in &plan.steps {
            assert!(!step.writes.is_empty() && step.writes.len() <= 256);
        }
        plan
    }

    /// Decide and commit until there is nothing to do. Returns whether anything was done.
    fn orchestrate(&mut self) -> bool {
        for round in 0..100 {
            let plan = self.decide();
            if plan.is_empty() {
                return round > 0;
            }
            for step in plan.steps {
                self.try_commit(step.expects, step.writes).unwrap();
            }
        }
        panic!("plans without end:\n{}", self.reasons.join("\n"));
    }

    /// Place what waits, wherever the judge allows it, on the node with the fewest tasks.
    fn schedule(&mut self) -> bool {
        let waiting: Vec<Arc<Task>> = self
            .state
            .tasks()
            .filter(|task| task.is_live() && task.status.state <= TaskState::Pending)
            .cloned()
            .collect();
        let mut any = false;
        for task in waiting {
            let mut nodes: Vec<(usize, NodeId)> = self
                .state
                .nodes()
                .filter(|node| task.node_id.is_none_or(|preset| preset == node.id))
                .map(|node| (self.state.tasks_of_node(node.id).filter(|t| t.is_live()).count(), node.id))
                .collect();
            nodes.sort();
            any |= nodes.into_iter().any(|(_, node)| self.try_assign(&task, node));
        }
        any
    }

    fn try_assign(&mut self, task: &Task, node: NodeId) -> bool {
        let write = Write::TaskAssign {
            id: task.id,
            node,
            ports: task.ports.clone(),
            message: "scheduler assigned task to node".into(),
            at: self.now,
        };
        let mut trial = self.state.clone();
        let index = trial.applied() + 1;
        let command = Command { at: self.now, writes: vec![write.clone()], ..Command::default() };
        trial.apply(index, 1, command).unwrap();
        if !check_transition(&self.state, &trial).is_empty() {
            return false;
        }
        self.write(write);
        true
    }

    fn report(&mut self, id: TaskId, state: TaskState) {
        let status =
            TaskStatus { state, at: self.now, message: state.as_str().into(), ..TaskStatus::default() };
        self.write(Write::TaskStatus(id, status));
    }

    /// Every node that hears us moves each of its tasks by one step.
    fn run_nodes(&mut self) -> bool {
        let mut any = false;
        let nodes: Vec<NodeId> = self.state.nodes().map(|node| node.id).collect();
        for node in nodes.into_iter().filter(|node| !self.cut_off.contains(node)).collect::<Vec<_>>() {
            if self.state.node(node).is_some_and(|node| node.status.state == NodeState::Down) {
                continue;
            }
            let tasks: Vec<Arc<Task>> = self.state.tasks_of_node(node).cloned().collect();
            self.containers.retain(|id, at| {
                *at != node || tasks.iter().any(|task| task.id == *id && task.occupies_node())
            });
            for task in tasks {
                any |= self.run_task(node, &task);
            }
        }
        any
    }

    fn run_task(&mut self, node: NodeId, task: &Task) -> bool {
        if !task.occupies_node() {
            return false;
        }
        if task.desired > TaskState::Running {
            self.containers.remove(&task.id);
            self.report(task.id, TaskState::Shutdown);
            return true;
        }
        let next = match task.status.state {
            TaskState::Assigned => TaskState::Accepted,
            TaskState::Accepted => TaskState::Preparing,
            TaskState::Preparing => TaskState::Ready,
            TaskState::Ready if task.desired == TaskState::Running => TaskState::Starting,
            TaskState::Starting if self.broken.contains(&task.spec.container.image) => TaskState::Failed,
            TaskState::Starting => TaskState::Running,
            _ => return false,
        };
        if next == TaskState::Running {
            self.containers.insert(task.id, node);
        }
        self.report(task.id, next);
        true
    }

    /// Let everybody act until nothing happens any more at this time.
    fn act(&mut self) {
        for _ in 0..10_000 {
            let mut any = self.orchestrate();
            any |= self.schedule();
            any |= self.run_nodes();
            if !any {
                return;
            }
        }
        panic!("no end:\n{}", self.reasons.join("\n"));
    }

    /// Let everybody act, and time pass, until nobody waits for a time in the next `limit`.
    fn settle_within(&mut self, limit: Duration) {
        let end = self.now.plus(limit);
        loop {
            self.act();
            match self.wake_at.filter(|at| *at <= end) {
                Some(at) => self.now = at.max(Timestamp(self.now.0 + 1)),
                None => return,
            }
        }
    }

    fn settle(&mut self) {
        self.settle_within(Duration::from_secs(3600));
        assert!(self.decide().is_empty());
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now.plus(time);
    }

    fn elect(&mut self) {
        self.orchestrator = Orchestrator::new(&self.state, self.now);
    }

    fn create(&mut self, id: ServiceId, mode: ServiceMode, task: TaskSpec) {
        let spec = ServiceSpec {
            name: format!("s{}", id.as_u128()),
            labels: BTreeMap::new(),
            mode,
            task: Arc::new(task),
            update: None,
            rollback: None,
            endpoint: Default::default(),
        };
        let service = Service::new(id, spec);
        self.write(Write::ServiceCreate(Box::new(service)));
    }

    fn replicated(&mut self, replicas: u64, task: TaskSpec) {
        self.create(S, ServiceMode::Replicated { replicas }, task);
    }

    fn change(&mut self, id: ServiceId, change: impl FnOnce(&mut ServiceSpec)) {
        let mut spec = self.state.service(id).unwrap().spec.clone();
        change(&mut spec);
        self.write(Write::ServiceSpec(id, spec));
    }

    fn scale(&mut self, id: ServiceId, count: u64) {
        self.change(id, |spec| spec.mode = ServiceMode::Replicated { replicas: count });
    }

    fn change_task(&mut self, id: ServiceId, change: impl FnOnce(&mut TaskSpec)) {
        self.change(id, |spec| change(Arc::make_mut(&mut spec.task)));
    }

    fn node_state(&mut self, id: NodeId, state: NodeState) {
        self.write(Write::NodeStatus(id, NodeStatus { state, since: self.now, ..NodeStatus::default() }));
    }

    fn availability(&mut self, id: NodeId, availability: Availability) {
        let mut spec = self.state.node(id).unwrap().spec.clone();
        spec.availability = availability;
        self.write(Write::NodeSpec(id, spec));
    }

    fn label(&mut self, id: NodeId, key: &str, value: &str) {
        let mut spec = self.state.node(id).unwrap().spec.clone();
        spec.labels.insert(key.into(), value.into());
        self.write(Write::NodeSpec(id, spec));
    }

    fn tasks(&self) -> Vec<Arc<Task>> {
        let mut tasks: Vec<_> = self.state.tasks_of_service(S).cloned().collect();
        tasks.sort_by_key(|task| (task.slot, task.meta.created_at, task.spec_version));
        tasks
    }

    fn live(&self) -> Vec<Arc<Task>> {
        self.tasks().into_iter().filter(|task| task.is_live()).collect()
    }

    fn in_slot(&self, number: u64) -> Vec<Arc<Task>> {
        self.tasks().into_iter().filter(|task| task.slot == Slot::Replica(number)).collect()
    }

    fn live_in(&self, number: u64) -> Arc<Task> {
        let live: Vec<_> = self.in_slot(number).into_iter().filter(|task| task.is_live()).collect();
        assert_eq!(live.len(), 1, "{live:#?}");
        Arc::clone(&live[0])
    }

    fn update_state(&self) -> Option<UpdateState> {
        self.state.service(S).unwrap().update.as_ref().map(|update| update.state)
    }

    fn assert_converged(&self) {
        let missing = converged(&self.state);
        assert!(missing.is_empty(), "{missing:#?}\nreasons:\n{}", self.reasons.join("\n"));
    }
}
