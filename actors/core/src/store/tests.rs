use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::model::*;

pub(crate) fn service(id: u128, name: &str) -> Service {
    Service::new(
        ServiceId::from_u128(id),
        ServiceSpec {
            name: name.into(),
            labels: Default::default(),
            mode: ServiceMode::Replicated { replicas: 1 },
            task: Arc::default(),
            update: None,
            rollback: None,
            endpoint: EndpointSpec::default(),
        },
    )
}

pub(crate) fn task(id: u128, service: u128) -> Arc<Task> {
    Arc::new(Task {
        meta: Meta::default(),
        id: TaskId::from_u128(id),
        service_id: ServiceId::from_u128(service),
        service_name: "web".into(),
        slot: Slot::Replica(1),
        node_id: None,
        spec: Arc::default(),
        spec_version: 1,
        ports: vec![],
        networks: Vec::new(),
        desired: TaskState::Running,
        start_after: None,
        status: TaskStatus::default(),
    })
}

fn node(id: u128) -> Box<Node> {
    Box::new(Node { id: NodeId::from_u128(id), ..Node::default() })
}

fn command(writes: Vec<Write>) -> Command {
    Command { writes, ..Command::default() }
}

fn with(writes: Vec<Write>) -> State {
    let mut state = State::default();
    state.apply(1, 1, command(writes)).unwrap();
    state
}

#[test]
fn a_refused_command_changes_nothing() {
    let mut state = with(vec![Write::ServiceCreate(Box::new(service(1, "web")))]);
    let before = state.clone();
    let writes = vec![Write::NodeCreate(node(1)), Write::ServiceCreate(Box::new(service(2, "web")))];
    assert_eq!(state.apply(2, 1, command(writes)), Err(ApplyError::NameTaken("web".into())));
    assert_eq!(state.nodes().len(), before.nodes().len());
    assert_eq!(state.applied(), 2);
}

#[test]
fn status_changes_never_make_a_users_update_fail() {
    let mut state = with(vec![Write::NodeCreate(node(1))]);
    let id = NodeId::from_u128(1);
    let version = state.node(id).unwrap().meta.spec_version;
    state.apply(2, 1, command(vec![Write::NodeStatus(id, NodeStatus::default())])).unwrap();
    let update = |spec_version| Command {
        expects: vec![Expect::SpecVersion(ObjectId::Node(id), spec_version)],
        writes: vec![Write::NodeSpec(id, NodeSpec::default())],
        ..Command::default()
    };
    state.apply(3, 1, update(version)).unwrap();
    assert_eq!(state.apply(4, 1, update(version)), Err(ApplyError::OutOfSequence(ObjectId::Node(id))));
}

#[test]
fn nothing_is_placed_on_a_node_that_went_down_or_was_changed_meanwhile() {
    let mut state = with(vec![Write::NodeCreate(node(1))]);
    let id = NodeId::from_u128(1);
    let version = state.node(id).unwrap().meta.spec_version;
    let role = |role| Command { expects: vec![Expect::Role(id, role)], ..Command::default() };
    let placed = |version| Command { expects: vec![Expect::Placeable(id, version)], ..Command::default() };
    let status = |state| Write::NodeStatus(id, NodeStatus { state, ..NodeStatus::default() });
    let late = Err(ApplyError::OutOfSequence(ObjectId::Node(id)));
    state.apply(2, 1, command(vec![status(NodeState::Ready)])).unwrap();
    state.apply(3, 1, placed(version)).unwrap();
    state.apply(4, 1, command(vec![status(NodeState::Down)])).unwrap();
    assert_eq!(state.apply(5, 1, placed(version)), late);
    let back = vec![status(NodeState::Ready), Write::NodeSpec(id, NodeSpec::default())];
    state.apply(6, 1, command(back)).unwrap();
    assert_eq!(state.apply(7, 1, placed(version)), late);
    state.apply(8, 1, role(Role::Worker)).unwrap();
    assert_eq!(state.apply(9, 1, role(Role::Manager)), late);
    state.apply(10, 1, command(vec![Write::NodeRemove(id)])).unwrap();
    assert_eq!(state.apply(11, 1, placed(version)), Err(ApplyError::NotFound(ObjectId::Node(id))));
}

#[test]
fn a_leader_of_an_earlier_term_writes_nothing() {
    let mut state = State::default();
    let late = Command { term: Some(3), writes: vec![Write::NodeCreate(node(1))], ..Command::default() };
    assert_eq!(state.apply(1, 4, late), Err(ApplyError::StaleTerm { proposed: 3, committed: 4 }));
}

#[test]
fn a_removed_node_never_comes_back_under_its_id() {
    let mut state = with(vec![Write::NodeCreate(node(1))]);
    let id = NodeId::from_u128(1);
    state.apply(2, 1, command(vec![Write::NodeRemove(id)])).unwrap();
    assert_eq!(
        state.apply(3, 1, command(vec![Write::NodeCreate(node(1))])),
        Err(ApplyError::NodeRemoved(id))
    );
}

#[test]
fn observed_state_only_moves_forward() {
    let mut state = with(vec![Write::TaskCreate(task(1, 1))]);
    let id = TaskId::from_u128(1);
    let report = |state| Write::TaskStatus(id, TaskStatus { state, ..TaskStatus::default() });
    for (index, wanted) in
        [(2, TaskState::Running), (3, TaskState::Starting), (4, TaskState::Failed), (5, TaskState::Running)]
    {
        state.apply(index, 1, command(vec![report(wanted)])).unwrap();
    }
    assert_eq!(state.task(id).unwrap().status.state, TaskState::Failed);
}

#[test]
fn a_task_is_placed_once() {
    let mut state =
        with(vec![Write::NodeCreate(node(1)), Write::NodeCreate(node(2)), Write::TaskCreate(task(1, 1))]);
    let id = TaskId::from_u128(1);
    let assign = |node| Write::TaskAssign {
        id,
        node: NodeId::from_u128(node),
        ports: vec![],
        message: String::new(),
        at: Timestamp(1),
    };
    state.apply(2, 1, command(vec![assign(1), assign(2)])).unwrap();
    assert_eq!(state.task(id).unwrap().node_id, Some(NodeId::from_u128(1)));
    assert_eq!(state.tasks_of_node(NodeId::from_u128(1)).count(), 1);
    assert_eq!(state.tasks_of_node(NodeId::from_u128(2)).count(), 0);
}

#[test]
fn a_change_of_replicas_alone_outdates_no_task() {
    let mut state = with(vec![Write::ServiceCreate(Box::new(service(1, "web")))]);
    let id = ServiceId::from_u128(1);
    let mut spec = service(1, "web").spec;
    spec.mode = ServiceMode::Replicated { replicas: 9 };
    state.apply(2, 1, command(vec![Write::ServiceSpec(id, spec.clone())])).unwrap();
    let scaled = state.service(id).unwrap();
    assert_eq!((scaled.task_spec_version, scaled.meta.spec_version), (1, 2));
    Arc::make_mut(&mut spec.task).force_update = 1;
    state.apply(3, 1, command(vec![Write::ServiceSpec(id, spec)])).unwrap();
    assert_eq!(state.service(id).unwrap().task_spec_version, 3);
}

#[test]
fn a_reader_keeps_its_snapshot() {
    let mut state = with(vec![Write::NodeCreate(node(1))]);
    let snapshot = state.clone();
    state.apply(2, 1, command(vec![Write::NodeRemove(NodeId::from_u128(1))])).unwrap();
    assert!(snapshot.node(NodeId::from_u128(1)).is_some());
}

fn any_state() -> impl Strategy<Value = TaskState> {
    (0..TaskState::ALL.len()).prop_map(|at| TaskState::ALL[at])
}

fn any_write() -> impl Strategy<Value = Write> {
    let (nodes, services, tasks) = (0u128..4, 0u128..4, 0u128..8);
    prop_oneof![
        nodes.clone().prop_map(|id| Write::NodeCreate(node(id))),
        nodes.clone().prop_map(|id| Write::NodeRemove(NodeId::from_u128(id))),
        (services.clone(), "[ab]").prop_map(|(id, name)| Write::ServiceCreate(Box::new(service(id, &name)))),
        (services.clone(), "[ab]")
            .prop_map(|(id, name)| Write::ServiceSpec(ServiceId::from_u128(id), service(id, &name).spec)),
        services.clone().prop_map(|id| Write::ServiceRemove(ServiceId::from_u128(id))),
        (tasks.clone(), services).prop_map(|(id, service)| Write::TaskCreate(task(id, service))),
        (tasks.clone(), nodes).prop_map(|(id, node)| Write::TaskAssign {
            id: TaskId::from_u128(id),
            node: NodeId::from_u128(node),
            ports: vec![],
            message: String::new(),
            at: Timestamp(0),
        }),
        (tasks.clone(), any_state()).prop_map(|(id, state)| Write::TaskDesired(TaskId::from_u128(id), state)),
        (tasks.clone(), any_state()).prop_map(|(id, state)| Write::TaskStatus(
            TaskId::from_u128(id),
            TaskStatus { state, ..TaskStatus::default() }
        )),
        tasks.prop_map(|id| Write::TaskRemove(TaskId::from_u128(id))),
    ]
}

proptest! {
    #[test]
    fn indexes_always_agree_with_the_objects(commands in prop::collection::vec(prop::collection::vec(any_write(), 1..4), 1..60)) {
        let mut state = State::default();
        for (index, writes) in commands.into_iter().enumerate() {
            let before = state.clone();
            let refused = state.apply(index as u64 + 1, 1, command(writes)).is_err();
            if refused {
                prop_assert_eq!(state.tasks().collect::<Vec<_>>(), before.tasks().collect::<Vec<_>>());
                prop_assert_eq!(state.services().collect::<Vec<_>>(), before.services().collect::<Vec<_>>());
            }
            let by_service: usize = state.services_with_tasks().map(|id| state.tasks_of_service(id).count()).sum();
            prop_assert_eq!(by_service, state.tasks().len());
            for task in state.tasks() {
                if let Some(node) = task.node_id {
                    prop_assert!(state.tasks_of_node(node).any(|t| t.id == task.id));
                }
            }
            for service in state.services() {
                prop_assert_eq!(state.service_named(&service.spec.name).map(|s| s.id), Some(service.id));
            }
        }
    }

    #[test]
    fn applying_is_deterministic(commands in prop::collection::vec(prop::collection::vec(any_write(), 1..4), 1..40)) {
        let run = || {
            let mut state = State::default();
            let results: Vec<_> = commands.iter().enumerate().map(|(i, w)| state.apply(i as u64 + 1, 1, command(w.clone()))).collect();
            (state, results)
        };
        prop_assert_eq!(run(), run());
    }
}
