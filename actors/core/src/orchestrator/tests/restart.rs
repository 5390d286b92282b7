//! The restart policy.

use super::*;

fn policy(condition: RestartCondition, delay: u64, max_attempts: u64, window: u64) -> TaskSpec {
    TaskSpec {
        restart: RestartPolicy {
            condition,
            delay: Duration::from_secs(delay),
            max_attempts,
            window: Duration::from_secs(window),
        },
        ..spec("a")
    }
}

fn with_one(task: TaskSpec) -> World {
    let mut world = World::new(2);
    world.replicated(1, task);
    world.settle();
    world
}

fn end(world: &mut World, state: TaskState) -> Arc<Task> {
    let task = world.live_in(1);
    world.report(task.id, state);
    world.orchestrate();
    task
}

#[test]
fn a_task_that_failed_is_replaced_after_the_delay() {
    let mut world = with_one(policy(RestartCondition::Any, 5, 0, 0));
    let old = end(&mut world, TaskState::Failed);
    let new = world.live_in(1);
    assert_eq!(world.state.task(old.id).unwrap().desired, TaskState::Shutdown);
    assert_eq!(
        (new.desired, new.start_after),
        (TaskState::Ready, Some(world.now.plus(Duration::from_secs(5))))
    );
    world.act();
    assert_eq!(world.live_in(1).status.state, TaskState::Ready, "prepared, not started");
    assert_eq!(world.wake_at, new.start_after);
    world.pass(Duration::from_secs(5));
    world.act();
    assert_eq!(world.live_in(1).status.state, TaskState::Running);
    world.assert_converged();
}

#[test]
fn without_a_delay_the_new_task_runs_at_once() {
    let mut world = with_one(policy(RestartCondition::Any, 0, 0, 0));
    end(&mut world, TaskState::Rejected);
    let new = world.live_in(1);
    assert_eq!((new.desired, new.start_after), (TaskState::Running, None));
}

#[test]
fn a_new_leader_keeps_to_the_delay() {
    let mut world = with_one(policy(RestartCondition::Any, 5, 0, 0));
    end(&mut world, TaskState::Failed);
    world.pass(Duration::from_secs(3));
    world.elect();
    world.act();
    assert_eq!(world.live_in(1).desired, TaskState::Ready);
    assert_eq!(world.wake_at, Some(world.now.plus(Duration::from_secs(2))));
    world.settle();
    world.assert_converged();
}

#[test]
fn on_failure_leaves_a_task_alone_that_completed() {
    let mut world = with_one(policy(RestartCondition::OnFailure, 0, 0, 0));
    end(&mut world, TaskState::Failed);
    world.act();
    end(&mut world, TaskState::Complete);
    world.settle();
    assert!(world.live().is_empty());
    world.assert_converged();
    world.elect();
    world.settle();
    assert!(world.live().is_empty(), "a new leader does not run it again");
}

#[test]
fn none_never_replaces_what_ended() {
    let mut world = with_one(policy(RestartCondition::None, 0, 0, 0));
    end(&mut world, TaskState::Failed);
    world.settle();
    assert!(world.live().is_empty());
    assert_eq!(world.tasks().len(), 1);
}

#[test]
fn attempts_are_bounded_also_across_leaders_and_beyond_the_history() {
    let mut world = with_one(policy(RestartCondition::Any, 1, 7, 0));
    let mut runs = 1;
    loop {
        let task = world.live_in(1);
        world.report(task.id, TaskState::Failed);
        world.elect();
        world.settle();
        if world.live().is_empty() {
            break;
        }
        runs += 1;
    }
    assert_eq!(runs, 8, "the first, and seven attempts");
    world.pass(Duration::from_secs(100_000));
    world.settle();
    assert!(world.live().is_empty());
    world.change_task(S, |task| task.container.image = "b".into());
    world.settle();
    assert_eq!(world.live().len(), 1, "a new specification is a new chance");
    world.assert_converged();
}

#[test]
fn attempts_outside_of_the_window_do_not_count() {
    let mut world = with_one(policy(RestartCondition::Any, 0, 2, 10));
    for _ in 0..6 {
        world.pass(Duration::from_secs(6));
        end(&mut world, TaskState::Failed);
        world.act();
        assert_eq!(world.live().len(), 1);
    }
    end(&mut world, TaskState::Failed);
    world.act();
    assert!(world.live().is_empty(), "now there were two restarts within ten seconds");
    world.pass(Duration::from_secs(1000));
    world.settle();
    assert!(world.live().is_empty(), "and it stays so");
}

#[test]
fn a_crash_loop_goes_on_at_the_pace_of_the_delay() {
    let mut world = World::new(1);
    world.broken.insert("a".into());
    world.replicated(1, policy(RestartCondition::Any, 5, 0, 0));
    let begin = world.now;
    world.settle_within(Duration::from_secs(60));
    assert!(world.now.since(begin) <= Duration::from_secs(60));
    let made = world.reasons.iter().filter(|reason| reason.contains("replaces")).count();
    assert!((12..=13).contains(&made), "{made}");
    assert!(world.tasks().len() <= 7);
}
