//! Rolling updates.

use super::*;
use crate::model::{FailureAction, PortConfig, PortMode, RegistryAuth, Secret, UpdateOrder, UpdateStatus};
use crate::orchestrator::update::cause_of_rollback;

fn running(replicas: u64, config: UpdateConfig) -> World {
    let mut world = World::new(3);
    world.replicated(replicas, spec("a"));
    world.change(S, |spec| spec.update = Some(config));
    world.settle();
    world
}

/// All do what there is to do, and no time passes.
fn rounds(world: &mut World) {
    for _ in 0..8 {
        world.orchestrate();
        world.schedule();
        world.run_nodes();
    }
}

fn update_to(world: &mut World, image: &str) {
    world.change_task(S, |task| task.container.image = image.into());
}

fn images(world: &World) -> (usize, usize) {
    let live = world.live();
    let of = |image: &str| live.iter().filter(|task| task.spec.container.image == image).count();
    (of("a"), of("b"))
}

fn message(world: &World) -> String {
    world.state.service(S).unwrap().update.as_ref().unwrap().message.clone()
}

#[test]
fn an_update_replaces_every_task_and_completes() {
    let mut world = running(4, UpdateConfig::default());
    update_to(&mut world, "b");
    world.orchestrate();
    assert_eq!(world.update_state(), Some(UpdateState::Updating));
    world.settle();
    assert_eq!((images(&world), world.update_state()), ((0, 4), Some(UpdateState::Completed)));
    assert_eq!(message(&world), "update completed");
    world.assert_converged();
}

#[test]
fn no_more_slots_than_the_parallelism_are_replaced_at_once() {
    for parallelism in [1, 2, 3] {
        let mut world = running(6, UpdateConfig { parallelism, ..UpdateConfig::default() });
        update_to(&mut world, "b");
        for _ in 0..100 {
            world.orchestrate();
            let away = world.live().iter().filter(|task| task.status.state != TaskState::Running).count();
            assert!(away as u64 <= parallelism);
            world.schedule();
            world.run_nodes();
        }
        assert_eq!(images(&world), (0, 6));
    }
}

#[test]
fn new_credentials_replace_no_task() {
    let mut world = running(3, UpdateConfig::default());
    let before: Vec<_> = world.live().iter().map(|task| task.id).collect();
    world.change_task(S, |task| {
        task.container.registry_auth = Some(RegistryAuth(Secret(b"e30=".to_vec())));
    });
    world.settle();
    assert_eq!(world.live().iter().map(|task| task.id).collect::<Vec<_>>(), before);
    world.assert_converged();
}

#[test]
fn parallelism_zero_is_all() {
    let mut world = running(6, UpdateConfig { parallelism: 0, ..UpdateConfig::default() });
    update_to(&mut world, "b");
    world.orchestrate();
    assert_eq!(images(&world), (0, 6));
}

#[test]
fn the_delay_lies_between_two_batches() {
    let delay = Duration::from_secs(30);
    let mut world = running(3, UpdateConfig { delay, ..UpdateConfig::default() });
    update_to(&mut world, "b");
    world.act();
    assert_eq!(images(&world), (2, 1));
    world.elect();
    world.act();
    assert_eq!(images(&world), (2, 1), "a new leader keeps to it");
    assert_eq!(world.wake_at, Some(world.now.plus(delay)));
    world.pass(delay);
    world.act();
    assert_eq!(images(&world), (1, 2));
    world.settle();
    world.assert_converged();
}

#[test]
fn stop_first_starts_the_new_task_once_the_old_has_ended() {
    let mut world = running(1, UpdateConfig::default());
    let old = world.live_in(1);
    update_to(&mut world, "b");
    world.orchestrate();
    assert_eq!(world.state.task(old.id).unwrap().desired, TaskState::Shutdown);
    assert_eq!(world.live_in(1).desired, TaskState::Ready);
    world.report(old.id, TaskState::Shutdown);
    world.orchestrate();
    assert_eq!(world.live_in(1).desired, TaskState::Running);
}

#[test]
fn start_first_keeps_the_old_task_until_the_new_one_runs() {
    let mut world = running(1, UpdateConfig { order: UpdateOrder::StartFirst, ..UpdateConfig::default() });
    let old = world.live_in(1);
    update_to(&mut world, "b");
    for _ in 0..20 {
        world.orchestrate();
        let serving = world.live().iter().filter(|task| task.status.state == TaskState::Running).count();
        assert!(serving >= 1, "never without one");
        world.schedule();
        world.run_nodes();
    }
    assert_eq!(world.state.task(old.id).unwrap().status.state, TaskState::Shutdown);
    world.settle();
    world.assert_converged();
}

#[test]
fn update_pauses_after_first_failed_task() {
    let mut world = running(4, UpdateConfig::default());
    world.broken.insert("b".into());
    update_to(&mut world, "b");
    world.settle_within(Duration::from_secs(60));
    assert_eq!((images(&world), world.update_state()), ((3, 1), Some(UpdateState::Paused)));
    assert!(message(&world).starts_with("update paused due to failure or early termination of task"));
    world.elect();
    world.settle_within(Duration::from_secs(60));
    assert_eq!(images(&world), (3, 1), "a new leader does not go on");
}

#[test]
fn a_paused_update_goes_on_with_the_next_specification() {
    let mut world = running(4, UpdateConfig::default());
    world.broken.insert("b".into());
    update_to(&mut world, "b");
    world.settle_within(Duration::from_secs(60));
    update_to(&mut world, "c");
    world.settle();
    assert_eq!(world.update_state(), Some(UpdateState::Completed));
    assert!(world.live().iter().all(|task| task.spec.container.image == "c"));
    world.assert_converged();
}

#[test]
fn failures_below_the_ratio_do_not_stop_an_update() {
    let config = UpdateConfig { max_failure_millionths: 250_000, ..UpdateConfig::default() };
    let mut world = running(4, config);
    update_to(&mut world, "b");
    world.act();
    let new = world.live().into_iter().find(|task| task.spec.container.image == "b").unwrap();
    world.report(new.id, TaskState::Failed);
    world.settle();
    assert_eq!((images(&world), world.update_state()), ((0, 4), Some(UpdateState::Completed)));
    assert_eq!(message(&world), "update completed; a task failed on the way");
}

#[test]
fn an_update_that_goes_on_despite_failures_ends() {
    let config = UpdateConfig { failure_action: FailureAction::Continue, ..UpdateConfig::default() };
    let mut world = running(3, config);
    world.broken.insert("b".into());
    update_to(&mut world, "b");
    world.settle_within(Duration::from_secs(120));
    assert_eq!((images(&world), world.update_state()), ((0, 3), Some(UpdateState::Completed)));
}

#[test]
fn a_failed_update_rolls_back_and_a_failed_rollback_pauses() {
    let config = UpdateConfig { failure_action: FailureAction::Rollback, ..UpdateConfig::default() };
    let mut world = running(3, config);
    world.broken.insert("b".into());
    update_to(&mut world, "b");
    let mut said = BTreeSet::new();
    while world.update_state() != Some(UpdateState::Completed) {
        world.act();
        said.insert(message(&world));
        world.pass(Duration::from_secs(1));
    }
    world.settle();
    assert_eq!((images(&world), world.update_state()), ((3, 0), Some(UpdateState::Completed)));
    world.assert_converged();
    // Whenever one looks, it says why.
    let cause = " due to failure or early termination of task ";
    let back: Vec<_> = said.iter().filter(|message| message.starts_with("rollback")).collect();
    assert!(back.len() >= 2 && back.iter().all(|message| message.contains(cause)), "{said:?}");
    assert!(message(&world).starts_with("rollback completed, begun due to"), "{}", message(&world));
    world.broken.insert("a".into());
    update_to(&mut world, "b");
    world.settle_within(Duration::from_secs(120));
    assert_eq!(world.update_state(), Some(UpdateState::Paused));
    assert!(message(&world).starts_with("rollback paused"), "{}", message(&world));
    assert_eq!(world.state.service(S).unwrap().spec.task.container.image, "a");
}

#[test]
fn a_rollback_that_a_user_wants_goes_by_the_rules_for_one() {
    let mut world = running(4, UpdateConfig::default());
    world.change(S, |spec| spec.rollback = Some(UpdateConfig { parallelism: 3, ..UpdateConfig::default() }));
    update_to(&mut world, "b");
    world.settle();
    let back = world.state.service(S).unwrap().previous_spec.clone().unwrap();
    let status = UpdateStatus::rollback(world.now);
    world
        .try_commit(vec![], vec![Write::ServiceSpec(S, back), Write::ServiceUpdate(S, Some(status))])
        .unwrap();
    world.orchestrate();
    assert_eq!(images(&world), (3, 1), "three at once");
    world.settle();
    assert_eq!((images(&world), message(&world).as_str()), ((4, 0), "rollback completed"));
}

#[test]
fn a_new_task_is_watched_before_the_update_completes() {
    let monitor = Duration::from_secs(20);
    let mut world = running(1, UpdateConfig { monitor, ..UpdateConfig::default() });
    update_to(&mut world, "b");
    world.act();
    assert_eq!(world.update_state(), Some(UpdateState::Updating));
    assert_eq!(world.wake_at, Some(world.now.plus(monitor)));
    world.pass(Duration::from_secs(19));
    let new = world.live_in(1);
    world.report(new.id, TaskState::Failed);
    world.act();
    assert_eq!(world.update_state(), Some(UpdateState::Paused));
}

/// A world in whose update the first new task hangs before it runs.
fn hanging(config: UpdateConfig) -> World {
    let mut world = running(3, config);
    world.change(S, |spec| drop(spec.labels.insert("shoal.progress-deadline".into(), "100s".into())));
    world.settle();
    update_to(&mut world, "b");
    world.orchestrate();
    world.schedule();
    let stops: Vec<_> =
        world.state.tasks().filter(|task| task.desired > TaskState::Running).map(|t| t.id).collect();
    for id in stops {
        world.report(id, TaskState::Shutdown);
    }
    world.orchestrate();
    let new = world.live().into_iter().find(|task| task.spec.container.image == "b").unwrap();
    world.report(new.id, TaskState::Preparing);
    world.orchestrate();
    world
}

#[test]
fn an_update_whose_task_hangs_pauses_and_says_so() {
    let mut world = hanging(UpdateConfig::default());
    assert_eq!(world.wake_at, Some(world.now.plus(Duration::from_secs(100))));
    world.pass(Duration::from_secs(99));
    world.orchestrate();
    assert_eq!(world.update_state(), Some(UpdateState::Updating));
    world.pass(Duration::from_secs(1));
    world.orchestrate();
    assert_eq!((images(&world), world.update_state()), ((2, 1), Some(UpdateState::Paused)));
    assert!(message(&world).contains("shows no progress"), "{}", message(&world));
}

#[test]
fn an_update_whose_task_hangs_goes_on_or_back_if_that_is_asked_for() {
    let of = |failure_action| UpdateConfig { failure_action, ..UpdateConfig::default() };
    let mut world = hanging(of(FailureAction::Continue));
    world.pass(Duration::from_secs(100));
    world.orchestrate();
    assert_eq!(images(&world), (1, 2), "the next one is replaced");
    let mut world = hanging(of(FailureAction::Rollback));
    world.pass(Duration::from_secs(100));
    world.settle();
    assert_eq!(images(&world), (3, 0));
    let message = message(&world);
    assert!(message.starts_with("rollback completed, begun because task "), "{message}");
    assert!(message.contains("shows no progress"), "{message}");
}

#[test]
fn a_rollback_keeps_its_cause_while_it_waits_for_a_node() {
    for (message, cause) in [
        ("rollback started by a user", None),
        ("rollback in progress: web.2 waits for a node that fits", None),
        ("rollback started due to failure of task 1", Some("due to failure of task 1")),
        ("rollback in progress due to x: web.2 waits for a node that fits", Some("due to x")),
        (
            "rollback in progress because task 1 shows no progress: pulling",
            Some("because task 1 shows no progress: pulling"),
        ),
        ("update in progress", None),
    ] {
        assert_eq!(cause_of_rollback(message), cause, "{message}");
    }
}

#[test]
fn a_change_of_constraints_leaves_tasks_whose_nodes_fit() {
    let mut world = running(3, UpdateConfig::default());
    let before: BTreeSet<_> = world.live().iter().map(|task| task.id).collect();
    world.change_task(S, |task| {
        task.placement.constraints.push("node.hostname != h3".parse().unwrap());
        task.restart.delay = Duration::from_secs(1);
    });
    world.settle();
    let after: BTreeSet<_> = world.live().iter().map(|task| task.id).collect();
    assert_eq!(before.intersection(&after).count(), 2, "only the one on h3 moved");
    assert!(world.live().iter().all(|task| task.node_id != Some(n(3))));
    world.assert_converged();
}

#[test]
fn what_waits_for_a_node_gets_new_constraints() {
    let mut world = World::new(1);
    let mut task = spec("a");
    task.placement.constraints.push("node.hostname==nowhere".parse().unwrap());
    world.replicated(3, task);
    world.settle();
    assert!(world.live().iter().all(|task| task.status.state == TaskState::Pending));
    world.change_task(S, |task| task.placement.constraints.clear());
    world.settle();
    world.assert_converged();
}

#[test]
fn a_replacement_that_finds_no_node_is_said_before_it_is_a_failure() {
    let mut world = running(2, UpdateConfig::default());
    world.change_task(S, |task| {
        task.container.image = "b".into();
        task.placement.constraints.push("node.hostname==nowhere".parse().unwrap());
    });
    rounds(&mut world);
    assert_eq!(world.update_state(), Some(UpdateState::Updating));
    assert!(message(&world).ends_with("waits for a node that fits"), "{}", message(&world));
    assert_eq!(world.live().iter().filter(|task| task.status.state == TaskState::Running).count(), 1);
    let mut spec = world.state.node(n(1)).unwrap().spec.clone();
    spec.labels.insert("x".into(), "y".into());
    world.change_task(S, |task| task.placement.constraints.clear());
    world.settle();
    assert_eq!((images(&world), world.update_state()), ((0, 2), Some(UpdateState::Completed)));
}

/// A world in whose update the first new task finds no node, however often it is told so in other words.
fn homeless(config: UpdateConfig) -> World {
    let mut world = running(2, config);
    world.change(S, |spec| drop(spec.labels.insert("shoal.progress-deadline".into(), "100s".into())));
    world.settle();
    world.change_task(S, |task| {
        task.container.image = "b".into();
        task.placement.constraints.push("node.hostname==nowhere".parse().unwrap());
    });
    for seconds in [0, 10, 80] {
        world.pass(Duration::from_secs(seconds));
        rounds(&mut world);
        let new = world.live().into_iter().find(|task| task.spec.container.image == "b").unwrap();
        let message = format!("no node fits, told after {seconds} s");
        let status = TaskStatus { message, at: world.now, ..new.status.clone() };
        world.try_commit(vec![], vec![Write::TaskStatus(new.id, status)]).unwrap();
        assert_eq!(
            (new.status.state, world.update_state()),
            (TaskState::Pending, Some(UpdateState::Updating))
        );
    }
    world.pass(Duration::from_secs(20));
    world
}

#[test]
fn an_update_whose_task_finds_no_node_pauses_and_says_so() {
    let mut world = homeless(UpdateConfig::default());
    world.orchestrate();
    assert_eq!((images(&world), world.update_state()), ((1, 1), Some(UpdateState::Paused)));
    assert!(message(&world).contains("finds no node: no node fits"), "{}", message(&world));
}

#[test]
fn an_update_whose_task_finds_no_node_goes_on_or_back_if_that_is_asked_for() {
    let of = |failure_action| UpdateConfig { failure_action, ..UpdateConfig::default() };
    let mut world = homeless(of(FailureAction::Continue));
    world.orchestrate();
    assert_eq!(images(&world), (0, 2), "the next one is replaced");
    let mut world = homeless(of(FailureAction::Rollback));
    world.settle();
    assert_eq!(images(&world), (2, 0));
    assert!(message(&world).starts_with("rollback completed, begun because task"), "{}", message(&world));
}

#[test]
fn a_task_that_was_held_back_waits_for_a_node_only_since() {
    let mut world = running(1, UpdateConfig::default());
    world.change(S, |spec| drop(spec.labels.insert("shoal.progress-deadline".into(), "100s".into())));
    world.settle();
    world.change_task(S, |task| {
        task.container.image = "b".into();
        task.placement.constraints.push("node.hostname==nowhere".parse().unwrap());
    });
    world.orchestrate();
    world.schedule();
    let (old, new) = {
        let all: Vec<_> = world.state.tasks().cloned().collect();
        let of = |image: &str| all.iter().find(|task| task.spec.container.image == image).unwrap().id;
        (of("a"), of("b"))
    };
    assert_eq!(world.state.task(new).unwrap().desired, TaskState::Ready);
    // Its predecessor takes longer to stop than a new task may wait.
    world.pass(Duration::from_secs(60));
    world.report(old, TaskState::Shutdown);
    world.orchestrate();
    world.pass(Duration::from_secs(99));
    world.orchestrate();
    assert_eq!(world.state.task(new).unwrap().desired, TaskState::Running);
    assert_eq!(world.update_state(), Some(UpdateState::Updating));
    world.pass(Duration::from_secs(1));
    world.orchestrate();
    assert_eq!(world.update_state(), Some(UpdateState::Paused));
}

#[test]
fn an_update_survives_leaders_and_lost_nodes() {
    let mut world = running(6, UpdateConfig { parallelism: 2, ..UpdateConfig::default() });
    update_to(&mut world, "b");
    for round in 0..60 {
        world.orchestrate();
        world.schedule();
        world.run_nodes();
        if round % 3 == 0 {
            world.elect();
        }
        match round {
            5 => world.node_state(n(1), NodeState::Down),
            20 => world.node_state(n(1), NodeState::Ready),
            _ => {}
        }
    }
    world.settle();
    assert_eq!((images(&world), world.update_state()), ((0, 6), Some(UpdateState::Completed)));
    world.assert_converged();
}

#[test]
fn a_global_service_with_host_ports_updates_though_it_shall_start_first() {
    let mut world = World::new(2);
    world.create(S, ServiceMode::Global, spec("a"));
    world.change(S, |spec| {
        spec.update = Some(UpdateConfig { order: UpdateOrder::StartFirst, ..UpdateConfig::default() });
        spec.endpoint.ports.push(PortConfig {
            target_port: 80,
            published_port: 8080,
            mode: PortMode::Host,
            ..PortConfig::default()
        });
    });
    world.settle();
    assert!(world.live().iter().all(|task| task.ports.len() == 1));
    update_to(&mut world, "b");
    world.settle();
    assert_eq!((images(&world), world.update_state()), ((0, 2), Some(UpdateState::Completed)));
    world.assert_converged();
}

#[test]
fn scaling_is_no_update() {
    let mut world = running(2, UpdateConfig::default());
    world.scale(S, 5);
    world.settle();
    assert_eq!(world.update_state(), None);
    update_to(&mut world, "b");
    world.act();
    world.scale(S, 7);
    world.settle();
    assert_eq!((images(&world), world.update_state()), ((0, 7), Some(UpdateState::Completed)));
    world.assert_converged();
}

#[test]
fn an_old_task_stays_where_its_successor_failed_and_may_not_be_tried_again() {
    let config = UpdateConfig {
        order: UpdateOrder::StartFirst,
        failure_action: FailureAction::Continue,
        ..UpdateConfig::default()
    };
    let mut world = running(2, config);
    world.broken.insert("b".into());
    world.change_task(S, |task| {
        task.container.image = "b".into();
        task.restart.condition = RestartCondition::None;
    });
    world.settle();
    assert_eq!((images(&world), world.update_state()), ((2, 0), Some(UpdateState::Completed)));
    world.assert_converged();
}
