//! Tests of the judge: it must find what is planted, and be silent where all is well.

use std::sync::Arc;

use super::*;
use crate::model::{
    Meta, Node, NodeDescription, NodeState, NodeStatus, PortConfig, PortMode, Service, ServiceMode,
    ServiceSpec, Task, TaskSpec, TaskState, TaskStatus, Timestamp,
};
use crate::store::{Command, Write};

const S: ServiceId = ServiceId::from_u128(9);
const NODE: NodeId = NodeId::from_u128(1);

fn id(number: u128) -> TaskId {
    TaskId::from_u128(number)
}

fn with(state: &State, write: Write) -> State {
    let mut next = state.clone();
    let index = next.applied() + 1;
    next.apply(index, 1, Command { writes: vec![write], ..Command::default() }).unwrap();
    next
}

fn state(spec: TaskSpec, replicas: u64) -> State {
    let status = NodeStatus { state: NodeState::Ready, ..NodeStatus::default() };
    let description = Some(NodeDescription::default());
    let node = Node { id: NODE, status, description, ..Node::default() };
    let state = with(&State::default(), Write::NodeCreate(Box::new(node)));
    let service = Service::new(
        S,
        ServiceSpec {
            name: "web".into(),
            labels: Default::default(),
            mode: ServiceMode::Replicated { replicas },
            task: Arc::new(spec),
            update: None,
            rollback: None,
            endpoint: Default::default(),
        },
    );
    with(&state, Write::ServiceCreate(Box::new(service)))
}

fn task(state: &State, number: u128, slot: u64) -> Task {
    let service = state.service(S).unwrap();
    Task {
        meta: Meta::default(),
        id: id(number),
        service_id: S,
        service_name: "web".into(),
        slot: Slot::Replica(slot),
        node_id: None,
        spec: Arc::clone(&service.spec.task),
        spec_version: service.meta.spec_version,
        ports: Vec::new(),
        networks: Vec::new(),
        desired: TaskState::Running,
        start_after: None,
        status: TaskStatus { state: TaskState::Pending, ..TaskStatus::default() },
    }
}

fn create(state: &State, task: Task) -> State {
    with(state, Write::TaskCreate(Arc::new(task)))
}

fn assign(state: &State, number: u128, ports: Vec<PortConfig>) -> State {
    let message = String::new();
    with(state, Write::TaskAssign { id: id(number), node: NODE, ports, message, at: Timestamp(1) })
}

fn reach(state: &State, number: u128, to: TaskState) -> State {
    with(state, Write::TaskStatus(id(number), TaskStatus { state: to, ..TaskStatus::default() }))
}

#[test]
fn a_service_that_runs_as_asked_for_is_converged_and_without_fault() {
    let empty = state(TaskSpec::default(), 1);
    assert_eq!(converged(&empty).len(), 1);
    let made = create(&empty, task(&empty, 1, 1));
    let placed = assign(&made, 1, vec![]);
    let runs = reach(&placed, 1, TaskState::Running);
    for (before, after) in [(&empty, &made), (&made, &placed), (&placed, &runs)] {
        assert_eq!(check_transition(before, after), []);
        assert_eq!(check(after), []);
    }
    assert_eq!(converged(&made).len(), 2, "{:?}", converged(&made));
    assert_eq!(converged(&runs), []);
}

#[test]
fn two_tasks_that_shall_run_in_a_slot_are_found() {
    let state = state(TaskSpec::default(), 1);
    let state = create(&state, task(&state, 1, 1));
    let twice = create(&state, task(&state, 2, 1));
    assert!(matches!(&check(&twice)[..], [Violation::SlotTwice { tasks, .. }] if tasks.len() == 2));
    let stopped = with(&twice, Write::TaskDesired(id(1), TaskState::Shutdown));
    assert_eq!(check(&stopped), []);
}

#[test]
fn growth_beyond_the_count_is_found_and_shrinking_is_not_blamed() {
    let one = state(TaskSpec::default(), 1);
    let full = create(&one, task(&one, 1, 1));
    let above = create(&full, task(&full, 2, 2));
    assert!(matches!(
        check_transition(&full, &above)[..],
        [Violation::AboveCount { slots: 2, wanted: 1, .. }]
    ));
    let mut spec = full.service(S).unwrap().spec.clone();
    spec.mode = ServiceMode::Replicated { replicas: 0 };
    assert_eq!(check_transition(&full, &with(&full, Write::ServiceSpec(S, spec))), []);
}

#[test]
fn a_task_on_a_node_that_its_constraints_forbid_is_found() {
    let mut spec = TaskSpec::default();
    spec.placement.constraints.push("node.labels.zone==a".parse().unwrap());
    let state = state(spec, 1);
    let before = create(&state, task(&state, 1, 1));
    let found = check_transition(&before, &assign(&before, 1, vec![]));
    assert!(matches!(&found[..], [Violation::Misplaced { why, .. }] if why.contains("zone")), "{found:?}");
}

#[test]
fn a_task_beyond_a_nodes_resources_is_found() {
    let mut spec = TaskSpec::default();
    spec.resources.reservations.nano_cpus = 1;
    let state = state(spec, 1);
    let before = create(&state, task(&state, 1, 1));
    let found = check_transition(&before, &assign(&before, 1, vec![]));
    assert!(
        matches!(&found[..], [Violation::Misplaced { why, .. }] if why.contains("processors")),
        "{found:?}"
    );
}

#[test]
fn a_port_that_is_given_twice_is_found() {
    let port = PortConfig { published_port: 80, mode: PortMode::Host, ..PortConfig::default() };
    let state = state(TaskSpec::default(), 2);
    let state = create(&state, task(&state, 1, 1));
    let before = assign(&create(&state, task(&state, 2, 2)), 1, vec![port.clone()]);
    let found = check_transition(&before, &assign(&before, 2, vec![port]));
    assert!(matches!(&found[..], [Violation::Misplaced { why, .. }] if why.contains("port 80")), "{found:?}");
}

#[test]
fn a_copy_beyond_the_maximum_of_a_node_is_found() {
    let mut spec = TaskSpec::default();
    spec.placement.max_replicas = 1;
    let state = state(spec, 2);
    let state = create(&state, task(&state, 1, 1));
    let before = assign(&create(&state, task(&state, 2, 2)), 1, vec![]);
    let found = check_transition(&before, &assign(&before, 2, vec![]));
    assert!(matches!(&found[..], [Violation::Misplaced { why, .. }] if why.contains("at most")), "{found:?}");
}

#[test]
fn a_task_on_a_node_that_is_not_ready_is_found() {
    let state = state(TaskSpec::default(), 1);
    let before = create(&state, task(&state, 1, 1));
    let down = with(
        &before,
        Write::NodeStatus(NODE, NodeStatus { state: NodeState::Down, ..NodeStatus::default() }),
    );
    assert_eq!(check_transition(&down, &assign(&down, 1, vec![])).len(), 1);
}

#[test]
fn forgetting_a_task_that_may_run_is_found() {
    let state = state(TaskSpec::default(), 1);
    let runs = reach(&assign(&create(&state, task(&state, 1, 1)), 1, vec![]), 1, TaskState::Running);
    let forgotten = with(&runs, Write::TaskRemove(id(1)));
    assert_eq!(check_transition(&runs, &forgotten), [Violation::ForgottenAlive(id(1))]);
    let ended = reach(&runs, 1, TaskState::Failed);
    assert_eq!(check_transition(&ended, &with(&ended, Write::TaskRemove(id(1)))), []);
}

#[test]
fn a_task_that_goes_back_is_found() {
    let state = state(TaskSpec::default(), 1);
    let early = assign(&create(&state, task(&state, 1, 1)), 1, vec![]);
    let late = with(&reach(&early, 1, TaskState::Failed), Write::TaskDesired(id(1), TaskState::Shutdown));
    assert_eq!(check_transition(&early, &late), []);
    assert!(check_transition(&late, &early).len() >= 2);
}

#[test]
fn senseless_tasks_are_found() {
    let state = state(TaskSpec::default(), 1);
    let odd = |change: &dyn Fn(&mut Task)| {
        let mut task = task(&state, 1, 1);
        change(&mut task);
        check(&create(&state, task)).len()
    };
    assert_eq!(odd(&|_| {}), 0);
    assert_eq!(odd(&|task| task.desired = TaskState::Pending), 1);
    assert_eq!(odd(&|task| task.status.state = TaskState::Running), 1);
    assert_eq!(odd(&|task| task.status.state = TaskState::Remove), 1);
    assert_eq!(odd(&|task| task.node_id = Some(NODE)), 1);
    assert_eq!(odd(&|task| task.slot = Slot::Node(NODE)), 1);
    assert_eq!(odd(&|task| task.slot = Slot::Replica(0)), 1);
}

#[test]
fn leftovers_and_lost_tasks_are_missing_work() {
    let state = state(TaskSpec::default(), 1);
    let runs = reach(&assign(&create(&state, task(&state, 1, 1)), 1, vec![]), 1, TaskState::Running);
    assert_eq!(converged(&runs), []);
    let down = NodeStatus { state: NodeState::Down, ..NodeStatus::default() };
    assert!(!converged(&with(&runs, Write::NodeStatus(NODE, down))).is_empty());
    assert!(!converged(&with(&runs, Write::TaskDesired(id(1), TaskState::Shutdown))).is_empty());
    assert!(!converged(&with(&runs, Write::ServiceRemove(S))).is_empty());
    assert!(!converged(&reach(&runs, 1, TaskState::Failed)).is_empty());
}
