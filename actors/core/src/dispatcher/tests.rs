//! Tests of the dispatcher's rules.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::model::{
    ContainerStatus, Meta, Node, NodeId, ServiceId, Slot, Task, TaskId, TaskSpec, TaskState, TaskStatus,
    Timestamp,
};
use crate::store::{Command, State, Write};

const NODE: NodeId = NodeId::from_u128(1);
const OTHER: NodeId = NodeId::from_u128(2);

fn id(number: u128) -> TaskId {
    TaskId::from_u128(number)
}

fn apply(state: &mut State, write: Write) {
    let index = state.applied() + 1;
    state.apply(index, 1, Command { writes: vec![write], ..Command::default() }).unwrap();
}

fn task(number: u128) -> Arc<Task> {
    Arc::new(Task {
        meta: Meta::default(),
        id: id(number),
        service_id: ServiceId::from_u128(9),
        service_name: "web".into(),
        slot: Slot::Replica(number as u64),
        node_id: None,
        spec: Arc::new(TaskSpec::default()),
        spec_version: 1,
        ports: Vec::new(),
        networks: Vec::new(),
        desired: TaskState::Running,
        start_after: None,
        status: TaskStatus { state: TaskState::Pending, ..TaskStatus::default() },
    })
}

fn state() -> State {
    let mut state = State::default();
    for node in [NODE, OTHER] {
        apply(&mut state, Write::NodeCreate(Box::new(Node { id: node, ..Node::default() })));
    }
    state
}

fn place(state: &mut State, number: u128, node: NodeId) {
    apply(state, Write::TaskCreate(task(number)));
    let write = Write::TaskAssign {
        id: id(number),
        node,
        ports: Vec::new(),
        message: String::new(),
        at: Timestamp(1),
    };
    apply(state, write);
}

fn status(state: TaskState) -> TaskStatus {
    TaskStatus { state, at: Timestamp(5), ..TaskStatus::default() }
}

fn ids(tasks: &[Arc<Task>]) -> Vec<TaskId> {
    tasks.iter().map(|task| task.id).collect()
}

mod assignments {
    use super::*;

    #[test]
    fn the_first_message_is_complete_even_if_there_is_nothing() {
        let state = state();
        let mut set = AssignmentSet::new(NODE);
        assert_eq!(set.next(&state), Some(Assignments::Complete { sequence: 1, tasks: vec![] }));
        assert_eq!(set.next(&state), None);
    }

    #[test]
    fn a_node_hears_of_its_own_tasks_only_and_not_before_they_are_placed() {
        let mut state = state();
        place(&mut state, 1, NODE);
        place(&mut state, 2, OTHER);
        apply(&mut state, Write::TaskCreate(task(3)));
        let Some(Assignments::Complete { tasks, .. }) = AssignmentSet::new(NODE).next(&state) else {
            panic!("complete")
        };
        assert_eq!(ids(&tasks), [id(1)]);
    }

    #[test]
    fn later_messages_tell_what_changed_and_count_up() {
        let mut state = state();
        place(&mut state, 1, NODE);
        place(&mut state, 2, NODE);
        let mut set = AssignmentSet::new(NODE);
        set.next(&state).unwrap();
        place(&mut state, 3, NODE);
        apply(&mut state, Write::TaskDesired(id(1), TaskState::Shutdown));
        apply(&mut state, Write::TaskStatus(id(2), status(TaskState::Failed)));
        let Some(Assignments::Incremental { sequence, changed, removed }) = set.next(&state) else {
            panic!("incremental")
        };
        assert_eq!((sequence, ids(&changed), removed), (2, vec![id(1), id(3)], vec![id(2)]));
        assert_eq!(changed[0].desired, TaskState::Shutdown);
        assert_eq!(set.next(&state), None);
    }

    #[test]
    fn what_a_node_reported_is_not_echoed() {
        let mut state = state();
        place(&mut state, 1, NODE);
        let mut set = AssignmentSet::new(NODE);
        set.next(&state).unwrap();
        apply(&mut state, Write::TaskStatus(id(1), status(TaskState::Running)));
        assert_eq!(set.next(&state), None);
    }

    #[test]
    fn a_node_that_returns_is_told_to_stop_what_was_replaced() {
        let mut state = state();
        place(&mut state, 1, NODE);
        apply(&mut state, Write::TaskStatus(id(1), status(TaskState::Running)));
        apply(&mut state, Write::TaskDesired(id(1), TaskState::Shutdown));
        let Some(Assignments::Complete { tasks, .. }) = AssignmentSet::new(NODE).next(&state) else {
            panic!("complete")
        };
        assert_eq!(tasks[0].desired, TaskState::Shutdown);
    }

    #[test]
    fn after_a_reset_everything_is_told_again() {
        let mut state = state();
        place(&mut state, 1, NODE);
        let mut set = AssignmentSet::new(NODE);
        set.next(&state).unwrap();
        set.reset();
        assert!(
            matches!(set.next(&state), Some(Assignments::Complete { sequence: 2, tasks }) if tasks.len() == 1)
        );
    }

    #[test]
    fn many_changes_come_in_several_messages() {
        let mut state = state();
        let mut set = AssignmentSet::new(NODE);
        set.next(&state).unwrap();
        for number in 1..=(INCREMENT_MAX as u128 + 5) {
            place(&mut state, number, NODE);
        }
        let mut told = 0;
        while let Some(Assignments::Incremental { changed, .. }) = set.next(&state) {
            assert!(changed.len() <= INCREMENT_MAX);
            told += changed.len();
        }
        assert_eq!(told, INCREMENT_MAX + 5);
    }

    /// What a node knows if it believes the messages.
    fn follow(known: &mut Vec<(TaskId, TaskState)>, message: Assignments) {
        let upsert = |known: &mut Vec<(TaskId, TaskState)>, task: &Task| {
            known.retain(|(id, _)| *id != task.id);
            known.push((task.id, task.desired));
        };
        match message {
            Assignments::Complete { tasks, .. } => {
                known.clear();
                tasks.iter().for_each(|task| upsert(known, task));
            }
            Assignments::Incremental { changed, removed, .. } => {
                known.retain(|(id, _)| !removed.contains(id));
                changed.iter().for_each(|task| upsert(known, task));
            }
        }
        known.sort();
    }

    proptest! {
        #[test]
        fn a_node_that_follows_knows_what_the_state_says(acts in proptest::collection::vec((0..6u8, 1..8u128), 1..60)) {
            let mut state = state();
            let mut set = AssignmentSet::new(NODE);
            let mut told_of_it_alone = AssignmentSet::new(NODE);
            let mut known = Vec::new();
            let mut last = 0;
            for (act, number) in acts {
                match act {
                    0 if state.task(id(number)).is_none() => place(&mut state, number, NODE),
                    1 if state.task(id(number)).is_none() => place(&mut state, number, OTHER),
                    2 => apply(&mut state, Write::TaskDesired(id(number), TaskState::Shutdown)),
                    3 => apply(&mut state, Write::TaskStatus(id(number), status(TaskState::Running))),
                    4 => apply(&mut state, Write::TaskStatus(id(number), status(TaskState::Complete))),
                    5 if number == 1 => {
                        set.reset();
                        told_of_it_alone.reset();
                    }
                    _ => apply(&mut state, Write::TaskRemove(id(number))),
                }
                while let Some(message) = set.next(&state) {
                    prop_assert_eq!(set.sequence(), last + 1);
                    last = set.sequence();
                    prop_assert_eq!(told_of_it_alone.next_of(&state, &BTreeSet::from([id(number)])), Some(message.clone()));
                    follow(&mut known, message);
                }
                prop_assert_eq!(told_of_it_alone.next(&state), None);
                let wanted: Vec<_> = state
                    .tasks()
                    .filter(|task| is_assigned_to_node(task, NODE))
                    .map(|task| (task.id, task.desired))
                    .collect();
                prop_assert_eq!(&known, &wanted);
            }
        }
    }
}

mod sessions {
    use super::*;

    fn sessions() -> Sessions {
        Sessions::new(Duration::from_millis(900))
    }

    #[test]
    fn a_later_start_takes_the_place_of_an_earlier_one_never_the_reverse() {
        let state = state();
        let mut sessions = sessions();
        let old = sessions.open(&state, NODE, 5, Timestamp(0)).unwrap().session;
        let new = sessions.open(&state, NODE, 6, Timestamp(1)).unwrap();
        assert_eq!(new.replaced, Some(old));
        assert_eq!(
            sessions.open(&state, NODE, 5, Timestamp(2)),
            Err(SessionError::Stale { node: NODE, known: 6, offered: 5 })
        );
        assert!(sessions.heard(NODE, old, Timestamp(3)).is_err());
        assert!(sessions.heard(NODE, new.session, Timestamp(3)).is_ok());
    }

    #[test]
    fn the_same_start_may_connect_again() {
        let state = state();
        let mut sessions = sessions();
        let old = sessions.open(&state, NODE, 5, Timestamp(0)).unwrap().session;
        assert_eq!(sessions.open(&state, NODE, 5, Timestamp(1)).unwrap().replaced, Some(old));
    }

    #[test]
    fn strangers_and_removed_nodes_get_no_session() {
        let mut state = state();
        let stranger = NodeId::from_u128(77);
        let mut sessions = sessions();
        assert_eq!(sessions.open(&state, stranger, 1, Timestamp(0)), Err(SessionError::Unknown(stranger)));
        apply(&mut state, Write::NodeRemove(NODE));
        assert_eq!(sessions.open(&state, NODE, 1, Timestamp(0)), Err(SessionError::Removed(NODE)));
    }

    #[test]
    fn a_silent_session_expires_and_a_heard_one_does_not() {
        let state = state();
        let mut sessions = sessions();
        let silent = sessions.open(&state, NODE, 1, Timestamp(0)).unwrap().session;
        let heard = sessions.open(&state, OTHER, 1, Timestamp(0)).unwrap().session;
        assert_eq!(sessions.next_expiry(), Some(Timestamp(900)));
        sessions.heard(OTHER, heard, Timestamp(600)).unwrap();
        assert_eq!(sessions.expire(Timestamp(899)), []);
        assert_eq!(sessions.silence(NODE, Timestamp(899)), Some(Duration::from_millis(899)));
        assert_eq!(sessions.expire(Timestamp(900)), [(NODE, silent)]);
        assert!(sessions.heard(NODE, silent, Timestamp(901)).is_err());
        assert_eq!(sessions.of(OTHER), Some(heard));
    }

    #[test]
    fn a_starved_leader_blames_nobody() {
        let state = state();
        let mut sessions = sessions();
        sessions.open(&state, NODE, 1, Timestamp(0)).unwrap();
        sessions.excuse(Duration::from_secs(5));
        assert_eq!(sessions.expire(Timestamp(5000)), []);
    }

    #[test]
    fn the_end_of_a_replaced_connection_closes_nothing() {
        let state = state();
        let mut sessions = sessions();
        let old = sessions.open(&state, NODE, 1, Timestamp(0)).unwrap().session;
        let new = sessions.open(&state, NODE, 1, Timestamp(0)).unwrap().session;
        assert!(!sessions.close(NODE, old));
        assert!(sessions.close(NODE, new));
        assert_eq!(sessions.nodes().len(), 0);
    }
}

mod reports {
    use super::*;

    #[test]
    fn a_node_speaks_for_its_own_tasks_only() {
        let mut state = state();
        place(&mut state, 1, OTHER);
        apply(&mut state, Write::TaskCreate(task(2)));
        let mut reports = Reports::new();
        for number in [1, 2] {
            let refused = reports.take(&state, NODE, id(number), status(TaskState::Running));
            assert_eq!(refused, Err(Refusal::NotYours { task: id(number), node: NODE }));
        }
        let refused = reports.take(&state, NODE, id(3), status(TaskState::Running));
        assert_eq!(refused, Err(Refusal::UnknownTask(id(3))));
        assert!(reports.is_empty());
    }

    #[test]
    fn nodes_do_not_decide_on_the_managers_states() {
        let mut state = state();
        place(&mut state, 1, NODE);
        let mut reports = Reports::new();
        for forbidden in [TaskState::New, TaskState::Pending, TaskState::Remove, TaskState::Orphaned] {
            let refused = reports.take(&state, NODE, id(1), status(forbidden));
            assert_eq!(refused, Err(Refusal::NotForNodes { task: id(1), state: forbidden }));
        }
    }

    #[test]
    fn of_several_reports_the_furthest_is_written() {
        let mut state = state();
        place(&mut state, 1, NODE);
        let mut reports = Reports::new();
        let mut starting = status(TaskState::Starting);
        starting.container = Some(ContainerStatus { container_id: "c".into(), ..ContainerStatus::default() });
        for next in [
            status(TaskState::Preparing),
            starting.clone(),
            status(TaskState::Accepted),
            status(TaskState::Running),
        ] {
            reports.take(&state, NODE, id(1), next).unwrap();
        }
        assert_eq!(reports.len(), 1);
        let wanted = TaskStatus { container: starting.container, ..status(TaskState::Running) };
        assert_eq!(reports.drain(&state, 10), [Write::TaskStatus(id(1), wanted)]);
        assert!(reports.is_empty());
    }

    #[test]
    fn what_says_nothing_new_is_dropped() {
        let mut state = state();
        place(&mut state, 1, NODE);
        apply(&mut state, Write::TaskStatus(id(1), status(TaskState::Running)));
        let mut reports = Reports::new();
        reports.take(&state, NODE, id(1), status(TaskState::Running)).unwrap();
        reports.take(&state, NODE, id(1), status(TaskState::Ready)).unwrap();
        assert!(reports.is_empty());
        apply(&mut state, Write::TaskStatus(id(1), status(TaskState::Complete)));
        reports.take(&state, NODE, id(1), status(TaskState::Failed)).unwrap();
        assert!(reports.is_empty(), "it has ended already");
    }

    #[test]
    fn the_same_state_with_other_words_is_taken() {
        let mut state = state();
        place(&mut state, 1, NODE);
        let mut reports = Reports::new();
        for words in ["pulling layer 1 of 2", "pulling layer 2 of 2"] {
            let said = TaskStatus { message: words.into(), ..status(TaskState::Preparing) };
            reports.take(&state, NODE, id(1), said).unwrap();
        }
        let said = TaskStatus { message: "pulling layer 2 of 2".into(), ..status(TaskState::Preparing) };
        assert_eq!(reports.drain(&state, 10), [Write::TaskStatus(id(1), said)]);
    }

    #[test]
    fn ends_are_written_first_and_batches_are_bounded() {
        let mut state = state();
        let mut reports = Reports::new();
        for number in 1..=4 {
            place(&mut state, number, NODE);
            let next = if number == 4 { TaskState::Failed } else { TaskState::Running };
            reports.take(&state, NODE, id(number), status(next)).unwrap();
        }
        let first = reports.drain(&state, 2);
        assert_eq!(first.len(), 2);
        assert_eq!(first[0], Write::TaskStatus(id(4), status(TaskState::Failed)));
        assert_eq!(reports.drain(&state, 10).len(), 2);
    }

    #[test]
    fn a_task_that_was_removed_meanwhile_is_not_written() {
        let mut state = state();
        place(&mut state, 1, NODE);
        let mut reports = Reports::new();
        reports.take(&state, NODE, id(1), status(TaskState::Running)).unwrap();
        apply(&mut state, Write::TaskRemove(id(1)));
        assert_eq!(reports.drain(&state, 10), []);
        assert!(reports.is_empty());
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let mut state = state();
        place(&mut state, 1, NODE);
        let mut reports = Reports::new();
        let long = TaskStatus { error: "ä".repeat(TEXT_BYTES_MAX), ..status(TaskState::Failed) };
        reports.take(&state, NODE, id(1), long).unwrap();
        let Some(Write::TaskStatus(_, kept)) = reports.drain(&state, 1).pop() else { panic!("a status") };
        assert_eq!(kept.error.len(), TEXT_BYTES_MAX);
    }
}
