//! Stories and properties of [`step`]: a runtime of a few lines obeys it, fails as told, and is watched.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::model::{ContainerStatus, Meta, ServiceId, Slot, TaskId, TaskSpec};
use crate::task::{ControllerError, LocalContainer, Outcome, RETRY_DELAY_MAX, RunState, retry_delay};

pub(crate) fn task() -> Task {
    Task {
        meta: Meta::default(),
        id: TaskId::from_u128(7),
        service_id: ServiceId::from_u128(3),
        service_name: "web".into(),
        slot: Slot::Replica(1),
        node_id: None,
        spec: Arc::new(TaskSpec::default()),
        spec_version: 1,
        ports: Vec::new(),
        networks: Vec::new(),
        desired: TaskState::Running,
        start_after: None,
        status: TaskStatus { state: TaskState::Assigned, ..TaskStatus::default() },
    }
}

/// How the toy runtime treats a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Luck {
    Works,
    Unavailable,
    Refuses,
    Vanishes,
}

/// A runtime with room for one container.
struct Toy {
    task: Task,
    local: Local,
    container: Option<RunState>,
    made: u32,
    now: Timestamp,
    seen: Vec<TaskState>,
}

impl Toy {
    fn new() -> Self {
        let task = task();
        let local = Local::assigned(&task, true);
        Self { task, local, container: None, made: 0, now: Timestamp(1000), seen: Vec::new() }
    }

    /// One step; false once there is nothing to do.
    fn turn(&mut self, luck: Luck) -> bool {
        match step(&self.task, &self.local, self.now) {
            Next::Report(status) => {
                assert!(status.state >= self.local.status.state, "moved back");
                if status.state != self.local.status.state {
                    self.seen.push(status.state);
                }
                self.local.status = status;
                self.local.failure = None;
            }
            Next::RetryAt(at) => {
                assert!(at > self.now && at <= self.now.plus(RETRY_DELAY_MAX), "unbounded or past retry");
                self.now = at;
            }
            Next::Do(action) => {
                let outcome = self.perform(action, luck);
                self.local.absorb(outcome, self.now);
            }
            Next::Idle | Next::Forget => return false,
        }
        true
    }

    fn perform(&mut self, action: Action, luck: Luck) -> Outcome {
        if luck == Luck::Vanishes {
            self.container = None;
        }
        let trouble = match luck {
            Luck::Works | Luck::Vanishes => None,
            Luck::Unavailable => Some(ControllerError::Unavailable("gone fishing".into())),
            Luck::Refuses => Some(ControllerError::Task("no such image".into())),
        };
        let absent = || ControllerError::NotFound(TaskId::from_u128(7));
        let ids = ContainerStatus { container_id: "c".into(), ..ContainerStatus::default() };
        let exit = |state: &Option<RunState>| match state {
            Some(RunState::Exited(exit)) => Ok(exit.clone()),
            Some(_) => Ok(ExitStatus::default()),
            None => Err(absent()),
        };
        let found = self.container.clone();
        match action {
            Action::Inspect => Outcome::Inspected(trouble.map_or_else(
                || {
                    let state = found.ok_or_else(absent)?;
                    Ok(LocalContainer { task_id: self.task.id, state, status: ids })
                },
                Err,
            )),
            Action::Prepare => Outcome::Prepared(trouble.map_or_else(
                || {
                    self.made += u32::from(self.container.is_none());
                    self.container.get_or_insert(RunState::Created);
                    Ok(ids)
                },
                Err,
            )),
            Action::Start => Outcome::Started(trouble.map_or_else(
                || {
                    *self.container.as_mut().ok_or_else(absent)? = RunState::Running { healthy: None };
                    Ok(ids)
                },
                Err,
            )),
            Action::WaitHealthy => Outcome::Healthy(trouble.map_or_else(|| found.ok_or_else(absent), Err)),
            Action::Wait => {
                let result = trouble.map_or_else(|| exit(&found), Err);
                if let Ok(exit) = &result {
                    self.container = Some(RunState::Exited(exit.clone()));
                }
                Outcome::Ended(result)
            }
            Action::Drain => Outcome::Drained,
            Action::Stop => {
                let result = trouble.map_or_else(|| exit(&found), Err);
                if let Ok(exit) = &result {
                    self.container = Some(RunState::Exited(exit.clone()));
                }
                Outcome::Stopped(result)
            }
            Action::Remove => Outcome::Removed(trouble.map_or_else(
                || {
                    self.container = None;
                    Ok(())
                },
                Err,
            )),
        }
    }

    /// Turn until the observed state is reached.
    fn until(&mut self, state: TaskState) {
        for _ in 0..100 {
            if self.local.status.state == state {
                return;
            }
            self.turn(Luck::Works);
        }
        panic!("never reached {state:?}: {:?}", self.seen);
    }

    fn settle(&mut self, luck: Luck) {
        for _ in 0..100 {
            if !self.turn(luck) {
                return;
            }
        }
        panic!("does not settle: {:?}", self.local);
    }
}

#[test]
fn a_task_passes_every_state_on_its_way() {
    use TaskState::{Accepted, Complete, Preparing, Ready, Running, Starting};
    let mut toy = Toy::new();
    toy.settle(Luck::Works);
    assert_eq!(toy.seen, [Accepted, Preparing, Ready, Starting, Running, Complete]);
    assert_eq!(toy.local.status.container.as_ref().unwrap().exit_code, Some(0));
}

#[test]
fn a_task_is_held_at_ready_until_it_shall_run() {
    let mut toy = Toy::new();
    toy.task.desired = TaskState::Ready;
    toy.settle(Luck::Works);
    assert_eq!(toy.local.status.state, TaskState::Ready);
    assert_eq!(toy.container, Some(RunState::Created));
    toy.task.desired = TaskState::Running;
    toy.until(TaskState::Running);
}

#[test]
fn a_refusal_before_the_start_rejects_and_after_it_fails() {
    let mut toy = Toy::new();
    toy.settle(Luck::Refuses);
    assert_eq!(toy.local.status.state, TaskState::Rejected);
    assert_eq!(toy.local.status.error, "no such image");
    let mut toy = Toy::new();
    toy.until(TaskState::Starting);
    for _ in 0..3 {
        toy.turn(Luck::Refuses);
    }
    assert_eq!(toy.local.status.state, TaskState::Failed);
}

#[test]
fn an_absent_runtime_is_retried_and_told_but_never_blamed_on_the_task() {
    for state in [TaskState::Preparing, TaskState::Starting, TaskState::Running] {
        let mut toy = Toy::new();
        toy.until(state);
        for _ in 0..50 {
            toy.turn(Luck::Unavailable);
        }
        assert_eq!(toy.local.status.state, state);
        assert_eq!(toy.local.status.message, "container runtime unavailable: gone fishing");
        toy.until(TaskState::Complete);
    }
}

#[test]
fn an_unhealthy_container_fails_its_task_and_is_stopped() {
    let mut toy = Toy::new();
    toy.until(TaskState::Starting);
    toy.turn(Luck::Works);
    toy.container = Some(RunState::Running { healthy: Some(false) });
    toy.settle(Luck::Works);
    assert_eq!(toy.local.status.state, TaskState::Failed);
    assert_eq!(toy.local.status.error, "unhealthy container");
    assert!(matches!(toy.container, Some(RunState::Exited(_))), "{:?}", toy.container);
}

#[test]
fn a_container_that_turns_unhealthy_while_running_is_stopped_too() {
    let mut toy = Toy::new();
    toy.until(TaskState::Running);
    let verdict = ExitStatus { code: 137, error: "unhealthy container".into(), ..ExitStatus::default() };
    toy.local.absorb(Outcome::Ended(Ok(verdict)), toy.now);
    toy.settle(Luck::Works);
    assert_eq!(
        (toy.local.status.state, &*toy.local.status.error),
        (TaskState::Failed, "unhealthy container")
    );
    assert!(matches!(toy.container, Some(RunState::Exited(_))), "{:?}", toy.container);
}

#[test]
fn an_unhealthy_task_is_told_then_stopped_and_only_then_failed() {
    let mut toy = Toy::new();
    toy.until(TaskState::Running);
    toy.local.drains = true;
    toy.local.container = Container::Running(Health::Bad);
    let mut steps = Vec::new();
    while toy.local.status.state == TaskState::Running {
        match step(&toy.task, &toy.local, toy.now) {
            Next::Do(action) => steps.push(format!("{action:?}")),
            Next::Report(status) => steps.push(format!("{} {}", status.state.as_str(), status.error)),
            other => panic!("{other:?}"),
        }
        toy.turn(Luck::Works);
    }
    assert_eq!(steps, ["running unhealthy container", "Drain", "Stop", "failed unhealthy container"]);
}

#[test]
fn a_node_that_starts_again_goes_on_stopping_what_was_unhealthy() {
    let mut toy = Toy::new();
    toy.until(TaskState::Running);
    let error = "unhealthy container".to_owned();
    toy.local = Local::restored(TaskStatus { error, ..toy.local.status.clone() });
    // It may have become healthy meanwhile: its word was given.
    toy.settle(Luck::Works);
    assert_eq!(toy.local.status.state, TaskState::Failed);
    assert!(matches!(toy.container, Some(RunState::Exited(_))), "{:?}", toy.container);
}

#[test]
fn what_ended_with_an_error_is_looked_at_and_has_failed() {
    let mut toy = Toy::new();
    toy.until(TaskState::Running);
    let exit = ExitStatus { code: 3, error: "no such device".into(), ..ExitStatus::default() };
    toy.container = Some(RunState::Exited(exit.clone()));
    toy.local.absorb(Outcome::Ended(Ok(exit)), toy.now);
    toy.settle(Luck::Works);
    assert_eq!(toy.local.status.error, "task: non-zero exit (3): no such device");
}

#[test]
fn a_restart_adopts_a_running_container_without_a_step_that_changes_it() {
    let mut toy = Toy::new();
    toy.until(TaskState::Running);
    toy.local = Local::restored(toy.local.status.clone());
    assert_eq!(step(&toy.task, &toy.local, toy.now), Next::Do(Action::Inspect));
    toy.turn(Luck::Works);
    assert_eq!(step(&toy.task, &toy.local, toy.now), Next::Do(Action::Wait));
}

#[test]
fn a_removed_task_is_stopped_removed_and_forgotten() {
    let mut toy = Toy::new();
    toy.until(TaskState::Running);
    toy.local.removed = true;
    let mut steps = Vec::new();
    loop {
        match step(&toy.task, &toy.local, toy.now) {
            Next::Do(action) => steps.push(action),
            Next::Forget => break,
            other => panic!("{other:?}"),
        }
        toy.turn(Luck::Works);
    }
    assert_eq!(steps, [Action::Stop, Action::Remove]);
}

#[test]
fn traffic_ends_before_the_stop_and_once() {
    for removed in [false, true] {
        let mut toy = Toy::new();
        toy.local.drains = true;
        toy.until(TaskState::Running);
        (toy.task.desired, toy.local.removed) = (TaskState::Shutdown, removed);
        let mut steps = Vec::new();
        for _ in 0..20 {
            if let Next::Do(action) = step(&toy.task, &toy.local, toy.now) {
                steps.push(action);
            }
            toy.turn(Luck::Works);
        }
        assert_eq!(steps[..2], [Action::Drain, Action::Stop], "{removed}");
        assert_eq!(steps.iter().filter(|step| **step == Action::Drain).count(), 1);
    }
}

#[test]
fn a_stop_that_keeps_failing_ends_in_a_kill() {
    let mut toy = Toy::new();
    toy.until(TaskState::Running);
    toy.local.removed = true;
    let mut steps = Vec::new();
    for _ in 0..20 {
        if let Next::Do(action) = step(&toy.task, &toy.local, toy.now) {
            steps.push(action);
        }
        toy.turn(Luck::Unavailable);
    }
    assert_eq!(steps[..6], [[Action::Stop; 5].as_slice(), &[Action::Remove]].concat());
}

#[test]
fn a_manager_that_saw_it_run_does_not_get_it_run_a_second_time() {
    let mut task = task();
    task.status.state = TaskState::Running;
    let mut toy = Toy { local: Local::assigned(&task, true), task, ..Toy::new() };
    toy.settle(Luck::Works);
    assert_eq!((toy.local.status.state, toy.made), (TaskState::Failed, 0));
}

#[test]
fn what_an_earlier_life_started_unseen_is_found_before_it_is_made_again() {
    let running = Some(RunState::Running { healthy: None });
    let mut toy = Toy { container: running.clone(), ..Toy::new() };
    toy.local = Local::assigned(&toy.task, false);
    // Its image cannot be had any more: what runs needs none.
    for luck in [Luck::Works, Luck::Works, Luck::Works, Luck::Refuses] {
        toy.turn(luck);
    }
    assert_ne!(toy.local.status.state, TaskState::Rejected, "it would run beside its successor");
    toy.until(TaskState::Running);
    assert_eq!((toy.made, toy.container), (0, running));

    let mut new = Toy::new();
    new.local = Local::assigned(&new.task, false);
    new.until(TaskState::Running);
    assert_eq!(new.made, 1);
}

#[test]
fn waiting_steps_are_given_up_for_an_end_and_a_start_is_not() {
    let mut toy = Toy::new();
    assert!(!interrupts(&toy.task, &toy.local, Action::Wait));
    toy.task.desired = TaskState::Shutdown;
    for (action, given_up) in [
        (Action::Prepare, true),
        (Action::Wait, true),
        (Action::WaitHealthy, true),
        (Action::Start, false),
        (Action::Stop, false),
        (Action::Remove, false),
    ] {
        assert_eq!(interrupts(&toy.task, &toy.local, action), given_up, "{action:?}");
    }
}

fn luck() -> impl Strategy<Value = Luck> {
    prop_oneof![
        6 => Just(Luck::Works),
        3 => Just(Luck::Unavailable),
        1 => Just(Luck::Refuses),
        1 => Just(Luck::Vanishes),
    ]
}

/// What befalls a task between two steps.
#[derive(Debug, Clone, Copy)]
enum Event {
    None,
    Crash,
    CrashUnwritten,
    Desire(TaskState),
    Unassign,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        20 => Just(Event::None),
        2 => Just(Event::Crash),
        1 => Just(Event::CrashUnwritten),
        1 => Just(Event::Desire(TaskState::Shutdown)),
        1 => Just(Event::Unassign),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_it_moves_forward_and_makes_one_container(
        story in prop::collection::vec((luck(), event()), 0..120),
    ) {
        let mut toy = Toy::new();
        for (luck, event) in story {
            match event {
                Event::None => {}
                // The node's process dies: only what was reported survives.
                Event::Crash => {
                    let removed = toy.local.removed;
                    toy.local = Local { removed, ..Local::restored(toy.local.status.clone()) };
                }
                // It has no record of the task either: the managers name it again, as they know it.
                Event::CrashUnwritten => {
                    let ended = toy.local.removed || toy.local.status.state.is_terminal();
                    if !ended {
                        toy.local = Local::assigned(&toy.task, false);
                        toy.seen.clear();
                    }
                }
                Event::Desire(state) => toy.task.desired = toy.task.desired.max(state),
                Event::Unassign => toy.local.removed = true,
            }
            let before = toy.local.status.state;
            toy.turn(luck);
            prop_assert!(toy.local.status.state >= before);
            let ended = toy.local.status.state.is_terminal();
            let unseen = toy.local.container == Container::Absent && toy.container.is_some();
            prop_assert!(!(ended && unseen), "ended, and its container is not looked for: {:?}", toy.container);
        }
        prop_assert!(toy.seen.windows(2).all(|pair| pair[0] < pair[1]), "{:?}", toy.seen);
        // With a runtime that works again, it comes to rest, and nothing runs once it has ended.
        toy.task.desired = TaskState::Shutdown;
        toy.settle(Luck::Works);
        let still_running = matches!(toy.container, Some(RunState::Running { .. }));
        prop_assert!(!still_running, "{:?}", toy.container);
        toy.local.removed = true;
        toy.settle(Luck::Works);
        prop_assert_eq!(&toy.container, &None);
    }

    #[test]
    fn retries_wait_longer_each_time_up_to_a_bound(attempts in 1u32..10_000) {
        prop_assert!(retry_delay(attempts) <= retry_delay(attempts + 1));
        prop_assert!(retry_delay(attempts) <= RETRY_DELAY_MAX);
    }
}
