use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::model::*;
use crate::store::tests as store;
use crate::store::{Command, State, Write};

fn ids(numbers: &[u128]) -> Vec<TaskId> {
    numbers.iter().map(|number| TaskId::from_u128(*number)).collect()
}

fn backend(task: u128, node: u128) -> Backend {
    Backend {
        task: TaskId::from_u128(task),
        node: NodeId::from_u128(node),
        addr: String::new(),
        slot: Slot::Replica(task as u64),
        addresses: Vec::new(),
    }
}

fn service(id: u128, published: u16) -> Service {
    let mut service = store::service(id, &format!("s{id}"));
    if published != 0 {
        let port = PortConfig { target_port: 80, published_port: published, ..PortConfig::default() };
        service.spec.endpoint.ports.push(port);
    }
    service
}

fn task(id: u128, service: u128, node: u128, state: TaskState) -> Task {
    let status = TaskStatus { state, ..TaskStatus::default() };
    Task { node_id: Some(NodeId::from_u128(node)), status, ..(*store::task(id, service)).clone() }
}

/// A state, and a table that follows it by its events alone.
struct Followed {
    state: State,
    table: RouteTable,
}

impl Followed {
    fn new() -> Self {
        let mut followed = Self { state: State::default(), table: RouteTable::default() };
        for id in 1..=3 {
            let status = NodeStatus { state: NodeState::Ready, ..NodeStatus::default() };
            let node = Node { id: NodeId::from_u128(id), status, ..Node::default() };
            followed.write(vec![Write::NodeCreate(Box::new(node))]);
        }
        let spec = NetworkSpec { name: "back".into(), attachable: true, ..NetworkSpec::default() };
        let network = Network { id: NetworkId::from_u128(5), spec, ..Network::default() };
        followed.write(vec![Write::NetworkCreate(Box::new(network))]);
        followed
    }

    fn write(&mut self, writes: Vec<Write>) -> Option<Routes> {
        let command = Command { writes, ..Command::default() };
        let applied = self.state.apply(self.state.applied() + 1, 1, command).unwrap_or_default();
        let mut touched = BTreeSet::new();
        for event in &applied.events {
            self.table.touch(&self.state, event.object, event.kind, &mut touched);
        }
        self.table.renew(&self.state, &touched)
    }

    fn backends(&self) -> Vec<TaskId> {
        self.table.routes().flat_map(|route| route.backends.iter().map(|backend| backend.task)).collect()
    }
}

#[test]
fn a_task_takes_traffic_from_when_it_runs_until_it_shall_stop() {
    let mut followed = Followed::new();
    followed.write(vec![Write::ServiceCreate(Box::new(service(1, 80)))]);
    let id = TaskId::from_u128(7);
    let status = |state| Write::TaskStatus(id, TaskStatus { state, ..TaskStatus::default() });
    followed.write(vec![Write::TaskCreate(task(7, 1, 1, TaskState::Assigned).into())]);
    assert!(followed.write(vec![status(TaskState::Starting)]).is_none());
    assert!(followed.write(vec![status(TaskState::Running)]).is_some());
    assert_eq!(followed.backends(), ids(&[7]));
    assert!(followed.write(vec![Write::TaskDesired(id, TaskState::Shutdown)]).is_some());
    assert_eq!(followed.backends(), ids(&[]));
    assert!(followed.write(vec![status(TaskState::Shutdown)]).is_none());
}

#[test]
fn an_unhealthy_task_takes_no_traffic_though_it_has_not_ended() {
    let mut followed = Followed::new();
    followed.write(vec![
        Write::ServiceCreate(Box::new(service(1, 80))),
        Write::TaskCreate(task(7, 1, 1, TaskState::Running).into()),
        Write::TaskCreate(task(8, 1, 2, TaskState::Running).into()),
    ]);
    let state = TaskState::Running;
    let sick = TaskStatus { state, error: "unhealthy container".into(), ..TaskStatus::default() };
    assert!(followed.write(vec![Write::TaskStatus(TaskId::from_u128(7), sick)]).is_some());
    assert_eq!(followed.backends(), ids(&[8]));
}

#[test]
fn a_lost_nodes_tasks_take_no_traffic_and_a_service_that_goes_takes_its_route_along() {
    let mut followed = Followed::new();
    followed.write(vec![
        Write::ServiceCreate(Box::new(service(1, 80))),
        Write::TaskCreate(task(7, 1, 1, TaskState::Running).into()),
        Write::TaskCreate(task(8, 1, 2, TaskState::Running).into()),
    ]);
    assert_eq!(followed.backends(), ids(&[7, 8]));
    let down = NodeStatus { state: NodeState::Down, ..NodeStatus::default() };
    followed.write(vec![Write::NodeStatus(NodeId::from_u128(1), down)]);
    assert_eq!(followed.backends(), ids(&[8]));
    let gone = followed.write(vec![Write::ServiceRemove(ServiceId::from_u128(1))]);
    assert_eq!(gone, Some(Routes::Changed { changed: vec![], removed: vec![ServiceId::from_u128(1)] }));
}

#[test]
fn services_without_a_port_on_the_mesh_cost_nothing() {
    let mut followed = Followed::new();
    let mut hosts = service(1, 80);
    hosts.spec.endpoint.ports[0].mode = PortMode::Host;
    let writes = vec![Write::ServiceCreate(Box::new(hosts)), Write::ServiceCreate(Box::new(service(2, 0)))];
    assert_eq!(followed.write(writes), None);
    assert_eq!(followed.write(vec![Write::TaskCreate(task(7, 1, 1, TaskState::Running).into())]), None);
}

#[test]
fn the_least_loaded_is_chosen_and_ones_own_among_equals() {
    let backends = [backend(1, 1), backend(2, 2), backend(3, 3)];
    let chosen = |loads: [Load; 3], here: u128, turn| {
        let at = |backend: &Backend| loads[backend.task.as_u128() as usize - 1];
        choose(&backends, at, NodeId::from_u128(here), turn).map(|backend| backend.task.as_u128())
    };
    let open = |open| Load { open, ..Load::default() };
    let failed = Load { failed: true, ..Load::default() };
    let tried = Load { tried: true, ..Load::default() };
    assert_eq!(chosen([open(1), open(1), open(1)], 2, 0), Some(2));
    assert_eq!(chosen([open(0), open(1), open(1)], 2, 0), Some(1));
    // Nobody of here: by turns.
    let turns: Vec<_> = (0..4).map(|turn| chosen([open(0); 3], 9, turn)).collect();
    assert_eq!(turns, [Some(1), Some(2), Some(3), Some(1)]);
    assert_eq!(chosen([failed, open(9), failed], 1, 0), Some(2));
    assert_eq!(chosen([failed, tried, tried], 2, 0), Some(1));
    assert_eq!(chosen([tried; 3], 1, 0), None);
    assert_eq!(choose(&[], |_| Load::default(), NodeId::from_u128(1), 5), None);
}

#[test]
fn labels_say_how_traffic_is_treated() {
    let read = |key: &str, value: &str| Options::of_labels(&BTreeMap::from([(key.into(), value.into())]));
    assert_eq!(Options::of_labels(&BTreeMap::new()), Ok(Options::default()));
    assert_eq!(read("shoal.drain", "5s").map(|o| o.drain), Ok(Duration::from_secs(5)));
    assert_eq!(read("shoal.drain", "0").map(|o| o.drain), Ok(Duration::ZERO));
    assert!(read("shoal.proxy-protocol", "v2").is_ok_and(|o| o.proxy_header));
    for (key, value) in [("shoal.drain", "soon"), ("shoal.drain", "3601s"), ("shoal.proxy-protocol", "v1")] {
        let error = read(key, value).unwrap_err().to_string();
        assert!(error.starts_with(key) && error.contains("wanted"), "{error}");
    }
}

#[test]
fn a_container_that_is_no_task_has_a_route_from_when_it_is_made_until_it_leaves() {
    let mut followed = Followed::new();
    let (id, node) = (AttachmentId::from_u128(77), NodeId::from_u128(1));
    assert_eq!(followed.write(vec![enter(77, 1)]), None);
    let made = Write::AttachmentContainer { id, container: "0123456789abcdef".into(), name: "box".into() };
    let Some(Routes::Changed { changed, .. }) = followed.write(vec![made]) else { panic!("no route") };
    assert_eq!((changed[0].name.as_str(), changed[0].attached), ("box", true));
    assert_eq!(changed[0].networks[0].aliases, ["alias", "0123456789ab"]);
    let task = id.as_task();
    assert_eq!(followed.backends(), [task]);
    assert_eq!(RouteTable::new(&followed.state).routes().count(), 1);
    let status = |state| Write::NodeStatus(node, NodeStatus { state, ..NodeStatus::default() });
    followed.write(vec![status(NodeState::Down)]);
    assert_eq!(followed.backends(), []);
    followed.write(vec![status(NodeState::Ready)]);
    assert_eq!(followed.backends(), [task]);
    let gone = followed.write(vec![Write::NodeRemove(node)]);
    assert_eq!(gone, Some(Routes::Changed { changed: vec![], removed: vec![id.as_service()] }));
}

/// A container of a node enters the network.
fn enter(id: u128, node: u128) -> Write {
    let wish = NetworkAttachment { network: NetworkId::from_u128(5), aliases: vec!["alias".into()] };
    Write::Attach { id: AttachmentId::from_u128(id), node: NodeId::from_u128(node), networks: vec![wish] }
}

/// The same whose ports are at these addresses alone, if at any.
fn service_at(id: u128, port: u16, at: &str) -> Service {
    let mut service = service(id, port);
    for port in &mut service.spec.endpoint.ports {
        port.at = place(at).into_iter().collect();
    }
    service
}

fn any_write() -> impl Strategy<Value = Write> {
    let state = prop::sample::select(vec![TaskState::Assigned, TaskState::Running, TaskState::Shutdown]);
    let node = prop::sample::select(vec![NodeState::Ready, NodeState::Down]);
    let text = |state| TaskStatus { state, ..TaskStatus::default() };
    prop_oneof![
        (
            1u128..4,
            prop::sample::select(vec![0, 80, 81, 82]),
            prop::sample::select(vec!["", "::1", "::", "127.0.0.1"])
        )
            .prop_map(|(id, port, at)| Write::ServiceCreate(Box::new(service_at(id, port, at)))),
        (1u128..4, prop::sample::select(vec![0, 80, 81, 83]))
            .prop_map(|(id, port)| Write::ServiceSpec(ServiceId::from_u128(id), service(id, port).spec)),
        (1u128..4).prop_map(|id| Write::ServiceRemove(ServiceId::from_u128(id))),
        (10u128..20, 1u128..4, 1u128..4, state.clone())
            .prop_map(|(id, service, node, state)| Write::TaskCreate(task(id, service, node, state).into())),
        (10u128..20, state)
            .prop_map(move |(id, state)| Write::TaskStatus(TaskId::from_u128(id), text(state))),
        (10u128..20).prop_map(|id| Write::TaskDesired(TaskId::from_u128(id), TaskState::Shutdown)),
        (10u128..20).prop_map(|id| Write::TaskRemove(TaskId::from_u128(id))),
        (1u128..4, node).prop_map(|(id, state)| {
            Write::NodeStatus(NodeId::from_u128(id), NodeStatus { state, ..NodeStatus::default() })
        }),
        (1u128..4).prop_map(|id| Write::NodeRemove(NodeId::from_u128(id))),
        (30u128..34, 1u128..4).prop_map(|(id, node)| enter(id, node)),
        (30u128..34, "[ab]").prop_map(|(id, name)| Write::AttachmentContainer {
            id: AttachmentId::from_u128(id),
            container: "c0ffee".into(),
            name,
        }),
        (30u128..34).prop_map(|id| Write::Detach { id: AttachmentId::from_u128(id), network: None }),
    ]
}

proptest! {
    /// A table that follows the changes is the one that is made anew; a node that takes in what it is told has the same.
    #[test]
    fn a_table_that_follows_is_as_one_made_anew(writes in prop::collection::vec(any_write(), 1..60)) {
        let mut followed = Followed::new();
        let mut told: BTreeMap<ServiceId, std::sync::Arc<Route>> = BTreeMap::new();
        for write in writes {
            if let Some(routes) = followed.write(vec![write]) {
                routes.take_into(&mut told);
            }
            let anew = RouteTable::new(&followed.state);
            prop_assert_eq!(followed.table.complete(), anew.complete());
            prop_assert_eq!(vec![Routes::Complete(told.values().cloned().collect())], anew.complete());
            let broken = crate::check::check(&followed.state);
            prop_assert!(!broken.iter().any(|v| matches!(v, crate::check::Violation::PortTwice { .. })), "{:?}", broken);
        }
    }
}
