//! A scheduler that was told of every event equals one that is built from the state.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::cluster::{NOW, any_cluster, any_node, any_sketch, sketched};
use crate::model::{Node, NodeId, Service, ServiceId, TaskId, TaskState, TaskStatus};
use crate::scheduler::Scheduler;
use crate::store::{Command, Event, State, Write};

/// A change from outside, or a decision of the scheduler.
#[derive(Debug, Clone)]
enum Change {
    NodePut(Box<Node>),
    NodeRemove(u128),
    TaskCreate((usize, Option<u128>, TaskState, bool)),
    TaskStatus(u128, TaskState),
    TaskEnd(u128),
    TaskRemove(u128),
    ServiceRemove(u128),
    /// Decide; the n-th step is refused.
    Decide(usize),
    /// Let the scheduler hear what it has not yet heard.
    Observe,
}

fn any_change() -> impl Strategy<Value = Change> {
    let states =
        select(vec![TaskState::Running, TaskState::Shutdown, TaskState::Failed, TaskState::Orphaned]);
    prop_oneof![
        3 => (1..9u128).prop_flat_map(any_node).prop_map(|node| Change::NodePut(Box::new(node))),
        1 => (1..9u128).prop_map(Change::NodeRemove),
        4 => any_sketch().prop_map(Change::TaskCreate),
        4 => (1..80u128, states).prop_map(|(id, state)| Change::TaskStatus(id, state)),
        2 => (1..80u128).prop_map(Change::TaskEnd),
        2 => (1..80u128).prop_map(Change::TaskRemove),
        1 => (1..4u128).prop_map(Change::ServiceRemove),
        3 => (0..4usize).prop_map(Change::Decide),
        4 => Just(Change::Observe),
    ]
}

fn writes(state: &State, services: &[Arc<Service>], fresh: &mut u128, change: &Change) -> Vec<Write> {
    match change {
        Change::NodePut(node) if state.node(node.id).is_some() => {
            let mut writes = vec![
                Write::NodeSpec(node.id, node.spec.clone()),
                Write::NodeStatus(node.id, node.status.clone()),
            ];
            if let Some(description) = &node.description {
                writes.push(Write::NodeDescription(node.id, description.clone()));
            }
            writes
        }
        Change::NodePut(node) if state.is_removed(node.id) => Vec::new(),
        Change::NodePut(node) => vec![Write::NodeCreate(node.clone())],
        Change::NodeRemove(id) if state.node(NodeId::from_u128(*id)).is_some() => {
            vec![Write::NodeRemove(NodeId::from_u128(*id))]
        }
        Change::TaskCreate(sketch) => {
            *fresh += 1;
            let services: Vec<Service> = services.iter().map(|service| Service::clone(service)).collect();
            vec![Write::TaskCreate(Arc::new(sketched(*fresh, &services, *sketch)))]
        }
        Change::TaskStatus(id, to) if !failed(state, *id) => {
            let status = TaskStatus { state: *to, at: NOW, ..TaskStatus::default() };
            vec![Write::TaskStatus(TaskId::from_u128(*id), status)]
        }
        Change::TaskEnd(id) => vec![Write::TaskDesired(TaskId::from_u128(*id), TaskState::Shutdown)],
        // A failure is remembered longer than its task, so such tasks are kept as they are here.
        Change::TaskRemove(id) if !failed(state, *id) => vec![Write::TaskRemove(TaskId::from_u128(*id))],
        Change::ServiceRemove(id) if state.service(ServiceId::from_u128(*id)).is_some() => {
            vec![Write::ServiceRemove(ServiceId::from_u128(*id))]
        }
        _ => Vec::new(),
    }
}

fn failed(state: &State, id: u128) -> bool {
    let task = state.task(TaskId::from_u128(id));
    task.is_some_and(|task| matches!(task.status.state, TaskState::Failed | TaskState::Rejected))
}

fn commit(state: &mut State, command: Command, unheard: &mut Vec<Event>) -> bool {
    let index = state.applied() + 1;
    match state.apply(index, 0, Command { at: NOW, ..command }) {
        Ok(applied) => unheard.extend(applied.events),
        Err(_) => return false,
    }
    true
}

fn decide(scheduler: &mut Scheduler, state: &mut State, refuse: usize, unheard: &mut Vec<Event>) {
    let plan = scheduler.decide(state, NOW);
    for (at, step) in plan.steps.iter().enumerate() {
        let command =
            Command { expects: step.expects.clone(), writes: step.writes.clone(), ..Command::default() };
        if at == refuse || !commit(state, command, unheard) {
            scheduler.refused(state, step);
        }
    }
}

/// A node: id, free processors, memory and generic resources, live tasks, whether it takes tasks.
type Line = (NodeId, u64, u64, BTreeMap<String, u64>, u32, bool);

/// What the table says, by node id instead of by slot.
#[derive(Debug, PartialEq)]
struct Ledger {
    nodes: Vec<Line>,
    services: BTreeMap<ServiceId, BTreeMap<NodeId, u32>>,
    ports: BTreeMap<String, BTreeMap<NodeId, u32>>,
    failures: Vec<(ServiceId, u64, NodeId, TaskId)>,
}

fn ledger(scheduler: &Scheduler) -> Ledger {
    let table = &scheduler.table;
    let id = |slot: u32| table.node(slot).expect("only known nodes are counted").id;
    let by_id = |nodes: &BTreeMap<u32, u32>| -> BTreeMap<NodeId, u32> {
        nodes.iter().map(|(slot, count)| (id(*slot), *count)).collect()
    };
    let nodes = table.iter().map(|(slot, node)| {
        let at = slot as usize;
        let generic = table.generic.iter().map(|(kind, column)| (kind.clone(), column.free(at)));
        let generic = generic.filter(|(_, free)| *free > 0).collect();
        let (cpus, memory) = (table.cpus.free(at), table.memory.free(at));
        (node.id, cpus, memory, generic, table.tasks_on(slot), table.ready.get(slot))
    });
    let mut failures: Vec<_> = table
        .failures
        .entries()
        .map(|(service, version, slot, task, _)| (service, version, id(slot), task))
        .collect();
    failures.sort();
    Ledger {
        nodes: nodes.collect(),
        services: table.services.iter().map(|(service, nodes)| (*service, by_id(nodes))).collect(),
        ports: table.ports.iter().map(|(port, nodes)| (format!("{port:?}"), by_id(nodes))).collect(),
        failures,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn observing_every_event_equals_building_anew(
        mut state in any_cluster(),
        changes in vec(any_change(), 0..60),
    ) {
        let services: Vec<Arc<Service>> = state.services().cloned().collect();
        let mut scheduler = Scheduler::new(&state);
        let mut fresh = 1000;
        let mut unheard = Vec::new();
        for change in changes.iter().chain([&Change::Observe]) {
            match change {
                Change::Decide(refuse) => decide(&mut scheduler, &mut state, *refuse, &mut unheard),
                Change::Observe => unheard.drain(..).for_each(|event| scheduler.observe(&state, &event)),
                change => {
                    let writes = writes(&state, &services, &mut fresh, change);
                    commit(&mut state, Command { writes, ..Command::default() }, &mut unheard);
                }
            }
        }
        let mut anew = Scheduler::new(&state);
        prop_assert_eq!(ledger(&scheduler), ledger(&anew));
        prop_assert_eq!(scheduler.waiting(), anew.waiting());
        let (plan, wanted) = (scheduler.decide(&state, NOW), anew.decide(&state, NOW));
        prop_assert_eq!(&plan, &wanted);
        let there = |write: &Write| match write {
            Write::TaskAssign { node, .. } => state.node(*node).is_some(),
            _ => true,
        };
        prop_assert!(plan.steps.iter().flat_map(|step| &step.writes).all(there), "a removed node was chosen");
    }

    #[test]
    fn two_schedulers_of_one_state_decide_alike(state in any_cluster()) {
        let plan = Scheduler::new(&state).decide(&state, NOW);
        prop_assert_eq!(&plan, &Scheduler::new(&state.clone()).decide(&state, NOW));
    }
}
