//! Global services.

use super::*;

fn global(world: &mut World) {
    world.create(S, ServiceMode::Global, spec("a"));
    world.settle();
}

fn nodes(world: &World) -> Vec<u128> {
    let mut nodes: Vec<u128> = world.live().iter().map(|task| task.node_id.unwrap().as_u128()).collect();
    nodes.sort_unstable();
    nodes
}

#[test]
fn every_node_gets_one_and_new_nodes_too() {
    let mut world = World::new(2);
    global(&mut world);
    assert_eq!(nodes(&world), [1, 2]);
    world.add_node(3);
    world.settle();
    assert_eq!(nodes(&world), [1, 2, 3]);
    world.assert_converged();
}

#[test]
fn a_drained_node_loses_its_task_and_gets_one_again_when_active() {
    let mut world = World::new(2);
    global(&mut world);
    world.availability(n(1), Availability::Drain);
    world.settle();
    assert_eq!(nodes(&world), [2]);
    world.availability(n(1), Availability::Active);
    world.settle();
    assert_eq!(nodes(&world), [1, 2]);
    world.assert_converged();
}

#[test]
fn a_paused_node_keeps_its_task_but_gets_none() {
    let mut world = World::new(2);
    world.availability(n(2), Availability::Pause);
    global(&mut world);
    assert_eq!(nodes(&world), [1]);
    world.availability(n(2), Availability::Active);
    world.settle();
    world.availability(n(2), Availability::Pause);
    world.settle();
    assert_eq!(nodes(&world), [1, 2]);
}

#[test]
fn only_nodes_that_meet_the_constraints_have_it() {
    let mut world = World::new(3);
    world.label(n(2), "zone", "b");
    let mut task = spec("a");
    task.placement.constraints.push("node.labels.zone==b".parse().unwrap());
    world.create(S, ServiceMode::Global, task);
    world.settle();
    assert_eq!(nodes(&world), [2]);
    world.label(n(3), "zone", "b");
    world.label(n(2), "zone", "c");
    world.settle();
    assert_eq!(nodes(&world), [3]);
    world.assert_converged();
}

#[test]
fn a_lost_node_stops_its_old_task_before_it_starts_a_new_one() {
    let mut world = World::new(2);
    global(&mut world);
    world.cut_off.insert(n(1));
    world.node_state(n(1), NodeState::Down);
    world.settle();
    assert_eq!(nodes(&world), [2]);
    let old = world.tasks().into_iter().find(|task| task.node_id == Some(n(1))).unwrap();
    world.node_state(n(1), NodeState::Ready);
    world.orchestrate();
    let new = world.live().into_iter().find(|task| task.node_id == Some(n(1))).unwrap();
    assert_eq!(new.desired, TaskState::Ready, "held back while {} may run", old.id);
    world.cut_off.clear();
    world.settle();
    world.assert_converged();
    assert_eq!(world.containers.len(), 2);
}

#[test]
fn a_removed_nodes_task_is_forgotten() {
    let mut world = World::new(2);
    global(&mut world);
    world.write(Write::NodeRemove(n(1)));
    world.settle();
    assert_eq!(world.tasks().len(), 1);
    world.assert_converged();
}
