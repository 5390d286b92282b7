//! Nodes that are lost, return, are drained, or change their nature.

use super::*;

fn four_on_two() -> World {
    let mut world = World::new(2);
    world.replicated(4, spec("a"));
    world.settle();
    world
}

fn count_on(world: &World, node: NodeId) -> usize {
    world.live().iter().filter(|task| task.node_id == Some(node)).count()
}

#[test]
fn a_lost_nodes_tasks_are_replaced_at_once() {
    let mut world = four_on_two();
    world.cut_off.insert(n(1));
    world.node_state(n(1), NodeState::Down);
    let at = world.now;
    world.act();
    assert_eq!((world.now, count_on(&world, n(2))), (at, 4), "no time passed");
    assert!(world.live().iter().all(|task| task.status.state == TaskState::Running));
    world.assert_converged();
}

#[test]
fn a_node_that_returns_stops_what_was_replaced() {
    let mut world = four_on_two();
    world.cut_off.insert(n(1));
    world.node_state(n(1), NodeState::Down);
    world.act();
    assert_eq!(world.containers.len(), 6, "the lost ones go on behind the cut");
    world.cut_off.clear();
    world.node_state(n(1), NodeState::Ready);
    world.settle();
    assert_eq!(world.containers.len(), 4);
    world.assert_converged();
}

#[test]
fn a_node_that_is_only_out_of_the_leaders_sight_keeps_its_tasks() {
    for state in [NodeState::Disconnected, NodeState::Unknown] {
        let mut world = four_on_two();
        world.node_state(n(1), state);
        world.settle();
        assert_eq!(count_on(&world, n(1)), 2);
        world.elect();
        world.settle();
        assert_eq!(count_on(&world, n(1)), 2);
    }
}

#[test]
fn a_removed_nodes_tasks_are_orphaned_and_replaced() {
    let mut world = four_on_two();
    let old: Vec<TaskId> =
        world.live().iter().filter(|task| task.node_id == Some(n(1))).map(|task| task.id).collect();
    world.write(Write::NodeRemove(n(1)));
    world.settle();
    for id in old {
        assert_eq!(world.state.task(id).unwrap().status.state, TaskState::Orphaned);
    }
    assert_eq!(count_on(&world, n(2)), 4);
    world.assert_converged();
}

#[test]
fn a_node_that_is_down_for_a_day_has_lost_its_tasks() {
    let mut world = four_on_two();
    world.node_state(n(1), NodeState::Down);
    world.settle();
    let lost =
        |world: &World| world.tasks().iter().filter(|task| task.status.state == TaskState::Orphaned).count();
    assert_eq!(lost(&world), 0);
    world.settle_within(Duration::from_secs(25 * 3600));
    assert_eq!(lost(&world), 2);
}

#[test]
fn a_drained_node_gives_its_tasks_away_and_each_stops_before_its_successor_starts() {
    let mut world = four_on_two();
    world.availability(n(1), Availability::Drain);
    world.orchestrate();
    let held = world.live().iter().filter(|task| task.desired == TaskState::Ready).count();
    assert_eq!(held, 2);
    let at = world.now;
    world.act();
    assert_eq!((world.now, count_on(&world, n(2))), (at, 4), "no restart delay");
    world.assert_converged();
}

#[test]
fn a_task_that_does_not_stop_holds_its_successor_back_for_a_while_only() {
    let mut world = four_on_two();
    world.cut_off.insert(n(1));
    world.availability(n(1), Availability::Drain);
    world.act();
    assert_eq!(world.live().iter().filter(|task| task.desired == TaskState::Ready).count(), 2);
    assert_eq!(world.wake_at, Some(world.now.plus(Duration::from_secs(70))));
    world.settle();
    assert!(world.live().iter().all(|task| task.status.state == TaskState::Running));
}

#[test]
fn a_new_leader_waits_anew_for_a_task_to_stop_whatever_clock_began_the_wait() {
    let limit = Duration::from_secs(70);
    for clock in [Duration::ZERO, Duration::from_secs(300)] {
        for ahead in [true, false] {
            let mut world = four_on_two();
            world.pass(Duration::from_secs(1_000));
            world.cut_off.insert(n(1));
            world.availability(n(1), Availability::Drain);
            world.act();
            world.now = match ahead {
                true => world.now.plus(clock),
                false => Timestamp(world.now.0 - clock.as_secs() * 1_000),
            };
            world.elect();
            world.act();
            let held = world.live().iter().filter(|task| task.desired == TaskState::Ready).count();
            assert_eq!((held, world.wake_at), (2, Some(world.now.plus(limit))), "{clock:?} ahead: {ahead}");
            world.settle_within(limit * 8);
            assert!(world.live().iter().all(|task| task.status.state == TaskState::Running));
        }
    }
}

#[test]
fn a_paused_node_keeps_its_tasks_and_gets_no_more() {
    let mut world = four_on_two();
    world.availability(n(1), Availability::Pause);
    world.scale(S, 8);
    world.settle();
    assert_eq!((count_on(&world, n(1)), count_on(&world, n(2))), (2, 6));
}

#[test]
fn a_node_whose_label_changed_gives_up_what_needs_it() {
    let mut world = World::new(2);
    world.label(n(1), "disk", "ssd");
    let mut task = spec("a");
    task.placement.constraints.push("node.labels.disk==ssd".parse().unwrap());
    world.replicated(2, task);
    world.settle();
    assert_eq!(count_on(&world, n(1)), 2);
    world.label(n(2), "disk", "ssd");
    world.label(n(1), "disk", "hdd");
    world.settle();
    assert_eq!(count_on(&world, n(2)), 2);
    let old = world.tasks().into_iter().find(|task| task.node_id == Some(n(1))).unwrap();
    assert_eq!(old.desired, TaskState::Shutdown);
    assert!(
        world.reasons.iter().any(|reason| reason.contains("node.labels.disk==ssd")),
        "{:?}",
        world.reasons
    );
    world.assert_converged();
}

#[test]
fn a_node_that_shrinks_gives_up_what_it_cannot_hold() {
    let mut world = World::new(2);
    let mut task = spec("a");
    task.resources.reservations.memory_bytes = 3 << 30;
    world.replicated(3, task);
    world.settle();
    let mut description = world.state.node(n(1)).unwrap().description.clone().unwrap();
    assert_eq!(count_on(&world, n(1)), 2);
    description.resources.memory_bytes = 4 << 30;
    world.write(Write::NodeDescription(n(1), description));
    world.settle();
    assert_eq!((count_on(&world, n(1)), count_on(&world, n(2))), (1, 2));
    world.assert_converged();
}

#[test]
fn lost_tasks_do_not_count_as_attempts() {
    let mut world = World::new(2);
    let mut task = spec("a");
    task.restart.max_attempts = 1;
    world.replicated(1, task);
    world.settle();
    for _ in 0..6 {
        let node = world.live_in(1).node_id.unwrap();
        world.node_state(node, NodeState::Down);
        world.settle();
        world.node_state(node, NodeState::Ready);
        world.settle();
        world.assert_converged();
    }
    let task = world.live_in(1);
    world.report(task.id, TaskState::Failed);
    world.settle();
    assert_eq!(world.live().len(), 1);
}
