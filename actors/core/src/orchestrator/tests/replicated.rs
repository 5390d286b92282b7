//! Growing, shrinking, removing, forgetting.

use super::*;

#[test]
fn a_new_service_gets_its_tasks_in_the_slots_from_one() {
    let mut world = World::new(3);
    world.replicated(3, spec("a"));
    let plan = world.decide();
    assert_eq!(plan.steps.len(), 1, "{plan:#?}");
    assert_eq!(plan.steps[0].writes.len(), 3);
    let version = world.state.service(S).unwrap().meta.spec_version;
    assert_eq!(plan.steps[0].expects, [Expect::SpecVersion(ObjectId::Service(S), version)]);
    world.settle();
    world.assert_converged();
    let slots: Vec<_> = world.live().iter().map(|task| task.slot).collect();
    assert_eq!(slots, [Slot::Replica(1), Slot::Replica(2), Slot::Replica(3)]);
    assert_eq!(world.state.service(S).unwrap().update, None);
}

#[test]
fn new_tasks_wait_for_the_scheduler_and_say_so() {
    let mut world = World::new(0);
    world.replicated(1, spec("a"));
    world.orchestrate();
    let task = world.live_in(1);
    assert_eq!((task.desired, task.status.state), (TaskState::Running, TaskState::Pending));
    assert_eq!(task.status.message, "pending task scheduling");
    assert_eq!((task.node_id, task.start_after), (None, None));
}

#[test]
fn a_growing_service_fills_the_lowest_free_slots() {
    let mut world = World::new(2);
    world.replicated(4, spec("a"));
    world.settle();
    world.scale(S, 2);
    world.settle();
    world.scale(S, 5);
    world.settle();
    world.assert_converged();
    let slots: BTreeSet<_> = world.live().iter().map(|task| task.slot).collect();
    assert_eq!(slots, (1..=5).map(Slot::Replica).collect());
}

#[test]
fn a_shrinking_service_leaves_the_nodes_with_most_copies_first() {
    let mut world = World::new(3);
    world.availability(n(2), Availability::Pause);
    world.availability(n(3), Availability::Pause);
    world.replicated(3, spec("a"));
    world.settle();
    world.availability(n(2), Availability::Active);
    world.scale(S, 4);
    world.settle();
    world.scale(S, 2);
    world.settle();
    world.assert_converged();
    let nodes: BTreeSet<_> = world.live().iter().map(|task| task.node_id).collect();
    assert_eq!(nodes, [Some(n(1)), Some(n(2))].into());
}

#[test]
fn a_shrinking_service_gives_up_what_does_not_run_first() {
    let mut world = World::new(1);
    world.replicated(3, spec("a"));
    world.settle();
    world.availability(n(1), Availability::Pause);
    let killed = world.live_in(1);
    world.report(killed.id, TaskState::Failed);
    world.settle();
    assert_eq!(world.live_in(1).status.state, TaskState::Pending);
    world.scale(S, 2);
    world.settle();
    assert!(world.in_slot(1).is_empty(), "its history goes with it");
    world.assert_converged();
}

#[test]
fn a_removed_services_tasks_are_stopped_and_forgotten() {
    let mut world = World::new(2);
    world.replicated(3, spec("a"));
    world.settle();
    world.write(Write::ServiceRemove(S));
    world.orchestrate();
    assert_eq!(world.tasks().len(), 3, "they run until their nodes have stopped them");
    assert!(world.tasks().iter().all(|task| task.desired == TaskState::Remove));
    world.settle();
    assert!(world.tasks().is_empty());
    assert!(world.containers.is_empty());
}

#[test]
fn a_removed_services_tasks_that_were_never_placed_are_forgotten_at_once() {
    let mut world = World::new(0);
    world.replicated(3, spec("a"));
    world.orchestrate();
    world.write(Write::ServiceRemove(S));
    world.orchestrate();
    assert!(world.tasks().is_empty());
}

#[test]
fn history_is_kept_up_to_the_limit() {
    let mut world = World::new(1);
    world.replicated(1, spec("a"));
    world.settle();
    for _ in 0..9 {
        let task = world.live_in(1);
        world.report(task.id, TaskState::Failed);
        world.settle();
    }
    assert_eq!(world.tasks().len(), 6, "five that ended, and the one that runs");
    world.assert_converged();
}

#[test]
fn the_extra_task_of_a_plan_that_was_made_twice_is_shut_down() {
    let mut world = World::new(1);
    world.replicated(1, spec("a"));
    let first = world.decide();
    let second = world.decide();
    for step in first.steps.into_iter().chain(second.steps) {
        let index = world.state.applied() + 1;
        let command = Command { writes: step.writes, ..Command::default() };
        world.state.apply(index, 1, command).unwrap();
    }
    assert_eq!(world.live().len(), 2);
    let index = world.state.applied() + 1;
    let plan = world.decide();
    let command = Command { writes: plan.steps[0].writes.clone(), ..Command::default() };
    world.state.apply(index, 1, command).unwrap();
    world.settle();
    world.assert_converged();
    assert_eq!(world.live().len(), 1);
}

#[test]
fn a_plan_for_a_specification_that_has_changed_is_refused() {
    let mut world = World::new(1);
    world.replicated(5, spec("a"));
    let plan = world.decide();
    world.scale(S, 1);
    let step = plan.steps[0].clone();
    let refused = world.try_commit(step.expects, step.writes);
    assert_eq!(refused, Err(ApplyError::OutOfSequence(ObjectId::Service(S))));
    world.settle();
    world.assert_converged();
}

#[test]
fn a_plan_that_got_lost_is_made_again() {
    let mut world = World::new(1);
    world.replicated(2, spec("a"));
    let lost = world.decide();
    assert!(lost.wake_at.is_some());
    assert!(!world.decide().is_empty());
}

#[test]
fn a_change_of_one_service_is_no_work_on_another() {
    let mut world = World::new(1);
    for number in 1..=20 {
        world.create(ServiceId::from_u128(number), ServiceMode::Replicated { replicas: 1 }, spec("a"));
    }
    world.settle();
    assert!(world.orchestrator.services.is_empty());
    world.scale(ServiceId::from_u128(3), 2);
    assert_eq!(world.orchestrator.services.len(), 1);
    let waits = world.state.tasks_of_service(ServiceId::from_u128(4)).next().unwrap().id;
    world.settle();
    let message =
        TaskStatus { state: TaskState::Running, message: "healthy".into(), ..TaskStatus::default() };
    world.write(Write::TaskStatus(waits, message));
    assert!(world.orchestrator.services.is_empty(), "progress is no reason to look");
}

#[test]
fn large_services_come_in_bounded_steps_and_plans() {
    let mut world = World::new(0);
    world.replicated(20_000, spec("a"));
    let mut plans = 0;
    loop {
        let plan = world.orchestrator.decide(&world.state, world.now, &mut world.rng);
        if plan.is_empty() {
            break;
        }
        plans += 1;
        for step in plan.steps {
            assert!(step.writes.len() <= 256);
            let index = world.state.applied() + 1;
            let command = Command { expects: step.expects, writes: step.writes, ..Command::default() };
            world.state.apply(index, 1, command).unwrap();
        }
    }
    assert_eq!((plans, world.state.tasks().len()), (3, 20_000));
}
