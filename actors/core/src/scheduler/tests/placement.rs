//! Where tasks go: the rules, and the exhaustive choice.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::cluster::{CPU, NOW, any_cluster, apply, node, placed, service, task};
use super::reference::{Reference, Wanted};
use crate::model::{NodeId, Preference, Slot, Task, TaskId, TaskSpec, TaskState, TaskStatus, Timestamp};
use crate::plan::Plan;
use crate::scheduler::Scheduler;
use crate::scheduler::filter::Filter;
use crate::store::{State, Write};

fn assignments(plan: &Plan) -> Vec<(TaskId, NodeId)> {
    let writes = plan.steps.iter().flat_map(|step| &step.writes);
    writes
        .filter_map(|write| match write {
            Write::TaskAssign { id, node, .. } => Some((*id, *node)),
            _ => None,
        })
        .collect()
}

fn after(state: &State, plan: &Plan) -> State {
    let mut state = state.clone();
    for step in &plan.steps {
        apply(&mut state, step.writes.clone());
    }
    state
}

fn assigned(state: &State, id: TaskId, node: NodeId) -> Task {
    let mut task = Task::clone(state.task(id).expect("the task is there"));
    task.node_id = Some(node);
    task.ports = state.service(task.service_id).expect("its service").spec.endpoint.ports.clone();
    task.status = TaskStatus { state: TaskState::Assigned, ..TaskStatus::default() };
    task
}

/// What an exhaustive search would do, group by group, task by task.
fn exhaustive(state: &State) -> BTreeMap<TaskId, NodeId> {
    let mut reference = Reference::new(state.nodes(), state.tasks(), NOW);
    let mut waiting: Vec<&Arc<Task>> = state
        .tasks()
        .filter(|task| task.status.state <= TaskState::Pending && task.desired <= TaskState::Running)
        .collect();
    waiting.sort_by_key(|task| (task.service_id, task.spec_version, task.id));
    let mut choice = BTreeMap::new();
    for task in waiting {
        let service = state.service(task.service_id).expect("its service");
        let wanted = Wanted { service, version: task.spec_version, spec: &task.spec };
        if let Some(node) = reference.choose(&wanted) {
            reference.add(assigned(state, task.id, node));
            choice.insert(task.id, node);
        }
    }
    choice
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn no_placement_violates_a_filter(state in any_cluster()) {
        let plan = Scheduler::new(&state).decide(&state, NOW);
        let mut reference = Reference::new(state.nodes(), state.tasks(), NOW);
        for (id, node) in assignments(&plan) {
            let task = assigned(&state, id, node);
            let service = state.service(task.service_id).expect("its service");
            let wanted = Wanted { service, version: task.spec_version, spec: &task.spec };
            let found = reference.nodes.iter().find(|found| found.id == node).expect("the node is there");
            prop_assert!(reference.fits(found, &wanted), "{id} does not fit on {}", found.name());
            reference.add(task);
        }
    }

    #[test]
    fn placement_equals_the_exhaustive_greedy_choice(state in any_cluster()) {
        let plan = Scheduler::new(&state).decide(&state, NOW);
        let ours: BTreeMap<TaskId, NodeId> = assignments(&plan).into_iter().collect();
        // Which of a group's alike tasks gets which node does not matter, but the order does not vary either.
        prop_assert_eq!(ours, exhaustive(&state));
    }

    #[test]
    fn the_plan_is_taken_whole_and_nothing_is_left_to_say(state in any_cluster()) {
        let mut scheduler = Scheduler::new(&state);
        let plan = scheduler.decide(&state, NOW);
        let next = after(&state, &plan);
        for (id, node) in assignments(&plan) {
            let task = next.task(id).expect("the task is there");
            prop_assert_eq!((task.node_id, task.status.state), (Some(node), TaskState::Assigned));
        }
        prop_assert!(plan.steps.iter().all(|step| step.writes.len() <= 256));
        // What came later may have changed the numbers in a reason that was given earlier: that is told
        // after a while, and then all is said.
        prop_assert!(scheduler.decide(&next, NOW).is_empty());
        prop_assert!(Scheduler::new(&next).decide(&next, NOW).is_empty());
        let later = NOW.plus(Duration::from_secs(5));
        let corrections = scheduler.decide(&next, later);
        prop_assert!(assignments(&corrections).is_empty());
        prop_assert!(scheduler.decide(&next, later.plus(Duration::from_secs(5))).is_empty());
    }

    #[test]
    fn the_filters_over_all_nodes_agree_with_the_words_for_each(state in any_cluster()) {
        let mut scheduler = Scheduler::new(&state);
        for service in state.services() {
            let verdicts = scheduler.explain(&state, &service.spec.task, service);
            let demand = crate::scheduler::Demand::new(
                service.id, 1, &service.spec.task, &service.spec.endpoint.ports,
            );
            let (fitting, refusals) = scheduler.table.pipeline(&demand);
            let firsts: Vec<Filter> =
                verdicts.iter().filter_map(|v| v.refusals.first().map(|r| r.filter)).collect();
            for filter in Filter::ALL {
                let count = firsts.iter().filter(|first| **first == filter).count();
                prop_assert_eq!(refusals.count(filter) as usize, count, "{:?}", filter);
            }
            for verdict in verdicts {
                let slot = scheduler.table.slot(verdict.node).expect("the node is there");
                prop_assert_eq!(fitting.get(slot), verdict.fits());
            }
        }
    }
}

fn spread_over(labels: &[&str]) -> TaskSpec {
    let mut spec = TaskSpec::default();
    spec.placement.preferences =
        labels.iter().map(|label| Preference { spread: format!("node.labels.{label}") }).collect();
    spec
}

fn state_of(nodes: Vec<crate::model::Node>, services: &[crate::model::Service], tasks: Vec<Task>) -> State {
    let mut state = State::default();
    let mut writes: Vec<Write> = nodes.into_iter().map(|node| Write::NodeCreate(Box::new(node))).collect();
    writes.extend(services.iter().map(|service| Write::ServiceCreate(Box::new(service.clone()))));
    writes.extend(tasks.into_iter().map(|task| Write::TaskCreate(Arc::new(task))));
    apply(&mut state, writes);
    state
}

fn per_node(plan: &Plan) -> BTreeMap<u128, usize> {
    let mut counts = BTreeMap::new();
    for (_, node) in assignments(plan) {
        *counts.entry(node.as_u128()).or_default() += 1;
    }
    counts
}

#[test]
fn zones_get_equal_shares_though_they_have_unequal_numbers_of_nodes() {
    let zone = |number: u128, zone: &str| {
        let mut node = node(number);
        node.spec.labels.insert("zone".into(), zone.into());
        node
    };
    let nodes = vec![zone(1, "a"), zone(2, "a"), zone(3, "a"), zone(4, "b"), node(5)];
    let web = service(1, spread_over(&["zone"]), None);
    let tasks = (1..=9).map(|number| task(number, &web)).collect();
    let state = state_of(nodes, std::slice::from_ref(&web), tasks);
    let plan = Scheduler::new(&state).decide(&state, NOW);
    assert_eq!(per_node(&plan), BTreeMap::from([(1, 1), (2, 1), (3, 1), (4, 3), (5, 3)]));
}

#[test]
fn a_node_that_keeps_failing_the_service_is_the_last_choice() {
    let web = service(1, TaskSpec::default(), None);
    let mut tasks: Vec<Task> =
        (1..=5).map(|number| placed(task(number, &web), &web, 1, TaskState::Failed)).collect();
    tasks.extend((6..=8).map(|number| placed(task(number, &web), &web, 2, TaskState::Running)));
    tasks.push(task(9, &web));
    let state = state_of(vec![node(1), node(2)], std::slice::from_ref(&web), tasks);
    let choice = |now| per_node(&Scheduler::new(&state).decide(&state, now));
    assert_eq!(choice(NOW), BTreeMap::from([(2, 1)]));
    assert_eq!(choice(Timestamp(NOW.0 + 300_000)), BTreeMap::from([(1, 1)]));
}

#[test]
fn a_task_of_a_global_service_is_placed_on_its_node_or_says_why_not() {
    let mut spec = TaskSpec::default();
    spec.resources.reservations.nano_cpus = 2 * CPU;
    let mut web = service(1, spec, None);
    web.spec.mode = crate::model::ServiceMode::Global;
    let mut tasks = vec![placed(task(1, &web), &web, 1, TaskState::Running)];
    tasks.push(placed(task(2, &web), &web, 1, TaskState::Running));
    for (number, on) in [(3, 1), (4, 2)] {
        let mut task = task(number, &web);
        task.node_id = Some(NodeId::from_u128(on));
        task.slot = Slot::Node(NodeId::from_u128(on));
        tasks.push(task);
    }
    let state = state_of(vec![node(1), node(2)], std::slice::from_ref(&web), tasks);
    let plan = Scheduler::new(&state).decide(&state, NOW);
    assert_eq!(per_node(&plan), BTreeMap::from([(2, 1)]));
    let next = after(&state, &plan);
    let waiting = next.task(TaskId::from_u128(3)).expect("the task is there");
    assert_eq!(waiting.status.state, TaskState::Pending);
    assert_eq!(
        waiting.status.message,
        "no suitable node (insufficient resources on 1 node): h1 needs 2 CPUs, 0 free"
    );
}

#[test]
fn a_task_without_its_service_is_left_alone() {
    let web = service(1, TaskSpec::default(), None);
    let mut state = state_of(vec![node(1)], std::slice::from_ref(&web), vec![task(1, &web)]);
    apply(&mut state, vec![Write::ServiceRemove(web.id)]);
    assert!(Scheduler::new(&state).decide(&state, NOW).is_empty());
}

#[test]
fn a_host_port_stays_taken_until_the_stopping_task_is_gone() {
    let web = service(1, TaskSpec::default(), Some(80));
    let mut old = placed(task(1, &web), &web, 1, TaskState::Running);
    old.desired = TaskState::Shutdown;
    let mut state = state_of(vec![node(1)], std::slice::from_ref(&web), vec![old, task(2, &web)]);
    let mut scheduler = Scheduler::new(&state);
    let plan = scheduler.decide(&state, NOW);
    assert!(assignments(&plan).is_empty());
    assert!(plan.explain().contains("host-mode port already in use on 1 node"), "{}", plan.explain());
    let gone = TaskStatus { state: TaskState::Shutdown, ..TaskStatus::default() };
    let applied = apply(&mut state, vec![Write::TaskStatus(TaskId::from_u128(1), gone)]);
    applied.events.iter().for_each(|event| scheduler.observe(&state, event));
    assert_eq!(per_node(&scheduler.decide(&state, NOW)), BTreeMap::from([(1, 1)]));
}

#[test]
fn a_placement_on_its_way_keeps_its_room_whatever_else_is_said_of_the_task() {
    let mut spec = TaskSpec::default();
    spec.resources.reservations.nano_cpus = 3 * CPU;
    let web = service(1, spec, None);
    let mut state = state_of(vec![node(1)], std::slice::from_ref(&web), vec![task(1, &web), task(2, &web)]);
    let mut scheduler = Scheduler::new(&state);
    let plan = scheduler.decide(&state, NOW);
    assert_eq!(assignments(&plan).len(), 1);
    // Something else is said of both before the plan is committed, and heard.
    let waits = TaskStatus { state: TaskState::Pending, ..TaskStatus::default() };
    let writes = [1, 2].map(|id| Write::TaskStatus(TaskId::from_u128(id), waits.clone()));
    let applied = apply(&mut state, writes.to_vec());
    applied.events.iter().for_each(|event| scheduler.observe(&state, event));
    // The plan is committed, and not heard of yet.
    let state = after(&state, &plan);
    assert_eq!(assignments(&scheduler.decide(&state, NOW)), []);
}
