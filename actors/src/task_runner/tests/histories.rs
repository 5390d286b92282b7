//! Random histories: whatever managers, engine and node do, no task ever gets a second container.

use proptest::prelude::*;

use super::*;
use crate::task_runner::{Change, TaskStore};

#[derive(Debug, Clone)]
enum Event {
    /// The manager's complete set.
    Complete(Vec<u128>),
    /// A task is added, or told what it shall become.
    Change(u128, bool),
    /// A task is taken away.
    Remove(u128),
    /// A container ends by itself.
    Exit(u128),
    /// The engine goes or returns.
    Engine(bool),
    /// The node restarts.
    Restart,
    /// The node dies: what was not on its disk is lost, and with it what it reported.
    Crash,
    /// Time passes.
    Pass(u64),
}

fn event() -> impl Strategy<Value = Event> {
    let number = 1u128..6;
    prop_oneof![
        prop::collection::btree_set(number.clone(), 0..5)
            .prop_map(|set| Event::Complete(set.into_iter().collect())),
        (number.clone(), any::<bool>()).prop_map(|(number, ends)| Event::Change(number, ends)),
        number.clone().prop_map(Event::Remove),
        number.prop_map(Event::Exit),
        any::<bool>().prop_map(Event::Engine),
        Just(Event::Restart),
        Just(Event::Crash),
        (1u64..2000).prop_map(Event::Pass),
        (1u64..2000).prop_map(Event::Pass),
    ]
}

/// A removed task never comes back: its id is spent. Names a fresh one for each life.
#[derive(Default)]
struct Names(BTreeMap<u128, u128>);

impl Names {
    fn of(&self, number: u128) -> u128 {
        number + 10 * self.0.get(&number).copied().unwrap_or(0)
    }

    fn spend(&mut self, number: u128) {
        *self.0.entry(number).or_default() += 1;
    }
}

async fn live(events: Vec<Event>) {
    let mut node = Node::new();
    let mut names = Names::default();
    let mut held = std::collections::BTreeSet::new();
    for event in events {
        match event {
            Event::Complete(numbers) => {
                for gone in held.iter().filter(|n| !numbers.contains(n)) {
                    names.spend(*gone);
                }
                held = numbers.iter().copied().collect();
                node.runner.set_complete(tasks(numbers.iter().map(|n| names.of(*n)))).await.unwrap();
            }
            Event::Change(number, ends) => {
                held.insert(number);
                let state = if ends { TaskState::Shutdown } else { TaskState::Running };
                node.runner.change(desired(names.of(number), state), vec![]).await.unwrap();
            }
            Event::Remove(number) => {
                node.runner.change(vec![], vec![id(names.of(number))]).await.unwrap();
                held.remove(&number);
                names.spend(number);
            }
            Event::Exit(number) => {
                let task = id(names.of(number));
                if matches!(node.fake.state(task), Some(shoal_core::task::RunState::Running { .. })) {
                    node.fake.exit(task, 1);
                }
            }
            Event::Engine(down) => node.fake.alter(|world| world.down = down),
            Event::Restart => node.restart().await,
            Event::Crash => {
                let disk = MemoryTaskStore::default();
                let records = node.store.load().await.unwrap();
                let records = records.into_iter().map(|stored| Change::Put(Box::new(stored))).collect();
                disk.save(records).await.unwrap();
                node.runner.shutdown().await;
                node.store = disk;
                node.heard.clear();
                node.restart().await;
            }
            Event::Pass(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
        }
        node.hear();
    }
    node.fake.alter(|world| world.down = false);
    let left: Vec<u128> = held.iter().map(|number| names.of(*number)).collect();
    node.runner.set_complete(tasks(left.iter().copied())).await.unwrap();
    // Two sweeps: the first may have met a step that was given up half-way.
    node.pass(130).await;
    {
        let world = node.fake.world();
        assert!(world.made.values().all(|made| *made == 1), "{:?}", world.made);
        let strangers: Vec<_> =
            world.containers.keys().filter(|c| !left.iter().any(|n| id(*n) == **c)).collect();
        assert!(strangers.is_empty(), "{strangers:?}");
    }
    node.runner.set_complete(vec![]).await.unwrap();
    node.until("all is gone", |node| node.fake.world().containers.is_empty()).await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn no_history_makes_a_second_container_or_leaves_one_behind(events in prop::collection::vec(event(), 0..40)) {
        run(live(events));
    }
}
