//! One story each.

use shoal_core::task::{Action, RunState};

use super::*;

#[test]
fn an_assigned_task_runs_and_its_end_is_reported_with_its_exit_code() {
    run(async {
        let mut node = Node::new();
        node.runner.set_complete(tasks(1..=2)).await.unwrap();
        node.until_state(1, TaskState::Running).await;
        node.until_state(2, TaskState::Running).await;
        node.fake.exit(id(1), 0);
        node.fake.exit(id(2), 3);
        node.until_state(1, TaskState::Complete).await;
        node.until_state(2, TaskState::Failed).await;
        assert_eq!(node.status(2).error, "task: non-zero exit (3)");
        assert_eq!(node.status(2).container.unwrap().exit_code, Some(3));
        // Their containers stay, so that logs can be read.
        assert!(node.fake.state(id(1)).is_some());
        let stats = node.runner.stats();
        assert_eq!((stats.completed_total, stats.failed_total, stats.running, stats.tasks), (1, 1, 0, 2));
        assert_eq!(stats.reports_pending, 0);
    });
}

#[test]
fn a_start_makes_no_superfluous_call() {
    run(async {
        let mut node = Node::new();
        node.runner.change(tasks([1]), vec![]).await.unwrap();
        node.until_state(1, TaskState::Running).await;
        let calls = node.fake.calls_of(id(1));
        assert_eq!(calls, [Action::Prepare, Action::Start, Action::WaitHealthy, Action::Wait]);
    });
}

#[test]
fn a_restarted_node_adopts_its_containers_without_touching_them_or_hearing_a_manager() {
    run(async {
        let mut node = Node::new();
        node.runner.set_complete(tasks(1..=3)).await.unwrap();
        node.until_state(3, TaskState::Running).await;
        node.pass(1).await;
        node.fake.alter(|world| drop(world.containers.insert(id(99), RunState::Created)));
        node.restart().await;
        node.pass(300).await;
        for number in 1..=3 {
            assert_eq!(node.fake.calls_of(id(number)), [Action::Inspect, Action::Wait], "task {number}");
            assert_eq!(node.state(number), TaskState::Running);
        }
        assert_eq!(node.runner.stats().adopted_total, 3);
        // Nobody has said that task 99 does not belong here.
        assert!(node.fake.state(id(99)).is_some());
        node.runner.set_complete(tasks(1..=3)).await.unwrap();
        node.until("the orphan is removed", |node| node.fake.state(id(99)).is_none()).await;
        assert_eq!(node.runner.stats().orphans_removed_total, 1);
        assert_eq!(node.fake.calls_of(id(1)), [Action::Inspect, Action::Wait]);
    });
}

#[test]
fn an_end_while_the_node_was_away_is_found_at_its_restart() {
    run(async {
        let mut node = Node::new();
        node.runner.set_complete(tasks(1..=2)).await.unwrap();
        node.until_state(2, TaskState::Running).await;
        node.runner.shutdown().await;
        node.fake.exit(id(1), 9);
        node.fake.alter(|world| drop(world.containers.remove(&id(2))));
        node.restart().await;
        node.until_state(1, TaskState::Failed).await;
        node.until_state(2, TaskState::Failed).await;
        assert_eq!(node.status(1).error, "task: non-zero exit (9)");
        assert_eq!(node.status(2).error, "its container has vanished");
    });
}

#[test]
fn a_node_that_lost_its_records_adopts_what_the_manager_says_runs() {
    run(async {
        let mut node = Node::new();
        node.runner.set_complete(tasks([1])).await.unwrap();
        node.until_state(1, TaskState::Running).await;
        node.store = MemoryTaskStore::default();
        node.restart().await;
        let running = TaskStatus { state: TaskState::Running, ..TaskStatus::default() };
        node.runner.set_complete(vec![Arc::new(Task { status: running, ..task(1) })]).await.unwrap();
        node.pass(10).await;
        assert_eq!(node.fake.calls_of(id(1)), [Action::Inspect, Action::Wait]);
        assert_eq!(node.fake.world().made[&id(1)], 1);
    });
}

#[test]
fn an_engine_that_vanishes_in_any_step_and_returns_costs_no_task() {
    for step in [Action::Prepare, Action::Start, Action::WaitHealthy, Action::Wait] {
        run(async {
            let mut node = Node::new();
            node.fake.alter(|world| world.health = Some(false));
            node.runner.set_complete(tasks([1])).await.unwrap();
            if step == Action::Wait {
                node.until("it has started", |node| node.fake.state(id(1)).is_some_and(runs)).await;
                node.fake.alter(healthy);
            }
            node.until(&format!("{step:?} is under way"), |node| node.fake.calls_of(id(1)).contains(&step))
                .await;
            node.fake.alter(|world| world.down = true);
            node.pass(30).await;
            assert!(node.status(1).message.contains("runtime unavailable"), "{step:?}: {:?}", node.status(1));
            assert!(!node.state(1).is_terminal());
            node.fake.alter(|world| world.down = false);
            node.until("it has started", |node| node.fake.state(id(1)).is_some_and(runs)).await;
            node.fake.alter(healthy);
            node.until_state(1, TaskState::Running).await;
            node.until("the words are back", |node| node.status(1).message == "started").await;
            assert_eq!(node.fake.world().made[&id(1)], 1);
            // Tried with back-off: 30 s are about eight tries.
            assert!(node.fake.calls_of(id(1)).len() < 30, "{:?}", node.fake.calls_of(id(1)));
            assert!(node.runner.stats().runtime_unavailable_total > 2);
        });
    }
}

fn runs(state: RunState) -> bool {
    matches!(state, RunState::Running { .. })
}

fn healthy(world: &mut fake::World) {
    for state in world.containers.values_mut() {
        if runs(state.clone()) {
            *state = RunState::Running { healthy: Some(true) };
        }
    }
}

#[test]
fn an_engine_that_vanishes_while_a_task_ends_is_ridden_out() {
    for step in [Action::Stop, Action::Remove] {
        run(async {
            let mut node = Node::new();
            node.runner.set_complete(tasks([1])).await.unwrap();
            node.until_state(1, TaskState::Running).await;
            node.runner.change(vec![], vec![id(1)]).await.unwrap();
            node.until(&format!("{step:?} is under way"), |node| node.fake.calls_of(id(1)).contains(&step))
                .await;
            node.fake.alter(|world| world.down = true);
            node.pass(20).await;
            assert!(node.fake.state(id(1)).is_some());
            node.fake.alter(|world| world.down = false);
            node.until("it is gone", |node| node.runner.stats().tasks == 0).await;
            assert_eq!(node.fake.state(id(1)), None);
        });
    }
}

#[test]
fn a_stop_that_hangs_ends_in_a_kill() {
    run(async {
        let mut node = Node::new();
        node.runner.set_complete(tasks([1])).await.unwrap();
        node.until_state(1, TaskState::Running).await;
        node.fake.alter(|world| world.hang_stops = true);
        node.runner.set_complete(vec![]).await.unwrap();
        node.until("it is gone", |node| node.runner.stats().tasks == 0).await;
        assert_eq!(node.fake.state(id(1)), None);
    });
}

#[test]
fn a_task_counts_as_running_only_once_healthy_and_fails_if_it_never_is() {
    run(async {
        let mut node = Node::new();
        node.fake.alter(|world| world.health = Some(false));
        node.runner.set_complete(tasks(1..=2)).await.unwrap();
        node.pass(60).await;
        assert_eq!((node.state(1), node.state(2)), (TaskState::Starting, TaskState::Starting));
        node.fake.alter(|world| {
            drop(world.containers.insert(id(1), RunState::Running { healthy: Some(true) }));
        });
        node.until_state(1, TaskState::Running).await;
        node.fake.exit(id(2), 1);
        node.until_state(2, TaskState::Failed).await;
    });
}

#[test]
fn a_task_held_at_ready_starts_when_it_shall() {
    run(async {
        let mut node = Node::new();
        node.runner.set_complete(desired(1, TaskState::Ready)).await.unwrap();
        node.until_state(1, TaskState::Ready).await;
        node.pass(60).await;
        assert_eq!(node.fake.state(id(1)), Some(RunState::Created));
        node.runner.change(tasks([1]), vec![]).await.unwrap();
        node.until_state(1, TaskState::Running).await;
    });
}

#[test]
fn a_task_told_to_shut_down_is_stopped_and_never_runs_again() {
    run(async {
        let mut node = Node::new();
        node.runner.set_complete(tasks([1])).await.unwrap();
        node.until_state(1, TaskState::Running).await;
        node.runner.change(desired(1, TaskState::Shutdown), vec![]).await.unwrap();
        node.until_state(1, TaskState::Shutdown).await;
        assert_eq!(node.status(1).container.unwrap().exit_code, Some(143));
        node.runner.change(tasks([1]), vec![]).await.unwrap();
        node.pass(60).await;
        assert_eq!(node.fake.world().made[&id(1)], 1);
        assert!(!node.fake.state(id(1)).is_some_and(runs));
    });
}

#[test]
fn a_node_that_leaves_lets_its_tasks_go_whatever_is_still_said_of_them() {
    run(async {
        let mut node = Node::new();
        node.runner.set_complete(tasks([1])).await.unwrap();
        node.until_state(1, TaskState::Running).await;
        node.runner.leave().await.unwrap();
        // A message that was on its way.
        node.runner.change(desired(1, TaskState::Shutdown), vec![]).await.unwrap();
        node.runner.set_complete(tasks(1..=2)).await.unwrap();
        node.until("all are gone", |node| node.runner.stats().tasks == 0).await;
        assert_eq!((node.fake.state(id(1)), node.fake.state(id(2))), (None, None));
    });
}

#[test]
fn a_complete_set_stops_and_removes_what_it_does_not_name() {
    run(async {
        let mut node = Node::new();
        node.runner.set_complete(tasks(1..=4)).await.unwrap();
        node.until_state(4, TaskState::Running).await;
        node.runner.set_complete(tasks(3..=5)).await.unwrap();
        node.until_state(5, TaskState::Running).await;
        node.until("1 and 2 are gone", |node| node.runner.stats().tasks == 3).await;
        let left: Vec<_> = node.fake.world().containers.keys().copied().collect();
        assert_eq!(left, [id(3), id(4), id(5)]);
        use Action::{Inspect, Prepare, Remove, Start, Stop, Wait, WaitHealthy};
        let steps = [Inspect, Prepare, Start, WaitHealthy, Wait, Stop, Remove];
        assert_eq!(node.fake.calls_of(id(1)), steps, "a session begins with a look");
    });
}

#[test]
fn a_refused_task_is_rejected_with_the_engine_s_words() {
    run(async {
        let mut node = Node::new();
        node.fake.alter(|world| world.refuse = Some("No such image: nowhere:1".into()));
        node.runner.set_complete(tasks([1])).await.unwrap();
        node.until_state(1, TaskState::Rejected).await;
        assert_eq!(node.status(1).error, "No such image: nowhere:1");
    });
}

#[test]
fn reports_come_again_in_a_new_session_until_they_are_acknowledged() {
    run(async {
        let node = Node::new();
        node.runner.set_complete(tasks(1..=3)).await.unwrap();
        tokio::time::sleep(Duration::from_secs(5)).await;
        let first = node.runner.reports().next(100).await;
        let again = node.runner.reports().next(100).await;
        assert_eq!(first, again);
        assert!(first.reports.iter().all(|(_, status)| status.state == TaskState::Running));
        assert_eq!(first.reports.len(), 3);
        node.runner.ack(first.mark);
        assert_eq!(node.runner.reports().take(100), None);
        // A manager that knows less than it acknowledged (it lost its leader) is told anew.
        node.runner.set_complete(tasks(1..=3)).await.unwrap();
        assert_eq!(node.runner.reports().take(100).unwrap().reports.len(), 3);
    });
}

#[test]
fn starts_are_bounded_and_stops_nearly_not() {
    run(async {
        let mut node = Node::new();
        node.runner.set_complete(tasks(1..=50)).await.unwrap();
        node.until("all run", |node| node.runner.stats().running == 50).await;
        node.runner.set_complete(vec![]).await.unwrap();
        node.until("all are gone", |node| node.runner.stats().tasks == 0).await;
        let busy = node.fake.world().busy_max.clone();
        assert_eq!(busy[&Action::Prepare], node.limits.prepares);
        assert_eq!(busy[&Action::Start], node.limits.starts);
        assert_eq!(busy[&Action::Stop], 50);
    });
}

#[test]
fn a_slow_pull_tells_its_progress_holds_up_nobody_and_is_given_up_for_a_removal() {
    run(async {
        let mut node = Node::with(Limits { prepares: 1, ..Limits::default() });
        node.fake.alter(|world| world.slow_pull = Some(id(1)));
        node.runner.set_complete(tasks(1..=2)).await.unwrap();
        node.until_state(2, TaskState::Running).await;
        node.pass(10).await;
        assert!(node.status(1).message.starts_with("pulling: "), "{:?}", node.status(1));
        assert_eq!(node.state(1), TaskState::Preparing);
        node.runner.change(vec![], vec![id(1)]).await.unwrap();
        node.until("it is forgotten", |node| node.runner.stats().tasks == 1).await;
        assert!(!node.fake.world().made.contains_key(&id(1)));
    });
}

#[test]
fn containers_of_ended_tasks_are_kept_up_to_a_bound() {
    run(async {
        let mut node = Node::with(Limits { ended_containers: 2, ..Limits::default() });
        node.runner.set_complete(tasks(1..=5)).await.unwrap();
        node.until("all run", |node| node.runner.stats().running == 5).await;
        for number in 1..=5 {
            node.fake.exit(id(number), 0);
            node.pass(1).await;
        }
        node.pass(5).await;
        let left: Vec<_> = node.fake.world().containers.keys().copied().collect();
        assert_eq!(left, [id(4), id(5)]);
        assert_eq!(node.state(1), TaskState::Complete);
    });
}

#[test]
fn a_shutdown_leaves_the_containers_running() {
    run(async {
        let mut node = Node::new();
        node.runner.set_complete(tasks(1..=3)).await.unwrap();
        node.until("all run", |node| node.runner.stats().running == 3).await;
        node.runner.shutdown().await;
        node.pass(10).await;
        assert_eq!(node.fake.world().containers.values().filter(|s| runs((*s).clone())).count(), 3);
        assert!(node.runner.set_complete(vec![]).await.is_err());
    });
}
