//! The task runner against a runtime in memory, in virtual time.

mod fake;
mod histories;
mod stories;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use shoal_core::model::{Meta, ServiceId, Slot, Task, TaskId, TaskSpec, TaskState, TaskStatus, Timestamp};

use self::fake::Fake;
use super::{Clock, Limits, MemoryTaskStore, Reports, TaskRunnerHandle};

pub(super) fn task(number: u128) -> Task {
    Task {
        meta: Meta::default(),
        id: TaskId::from_u128(number),
        service_id: ServiceId::from_u128(1),
        service_name: "web".into(),
        slot: Slot::Replica(u64::try_from(number).unwrap()),
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

fn id(number: u128) -> TaskId {
    TaskId::from_u128(number)
}

fn tasks(numbers: impl IntoIterator<Item = u128>) -> Vec<Arc<Task>> {
    numbers.into_iter().map(|number| Arc::new(task(number))).collect()
}

fn desired(number: u128, state: TaskState) -> Vec<Arc<Task>> {
    vec![Arc::new(Task { desired: state, ..task(number) })]
}

fn virtual_clock() -> Clock {
    let begin = tokio::time::Instant::now();
    Arc::new(move || Timestamp(1_000_000).plus(begin.elapsed()))
}

/// A node: its disk and its containers outlive its runner.
struct Node {
    fake: Fake,
    store: MemoryTaskStore,
    limits: Limits,
    runner: TaskRunnerHandle,
    reports: Reports,
    /// Latest status heard of each task.
    heard: BTreeMap<TaskId, TaskStatus>,
}

impl Node {
    fn new() -> Self {
        Self::with(Limits::default())
    }

    fn with(limits: Limits) -> Self {
        let (fake, store) = (Fake::default(), MemoryTaskStore::default());
        let runner = Self::runner(&fake, &store, limits);
        let reports = runner.reports();
        Self { fake, store, limits, runner, reports, heard: BTreeMap::new() }
    }

    fn runner(fake: &Fake, store: &MemoryTaskStore, limits: Limits) -> TaskRunnerHandle {
        TaskRunnerHandle::start(Arc::new(fake.clone()), Arc::new(store.clone()), virtual_clock(), limits)
    }

    async fn restart(&mut self) {
        self.runner.shutdown().await;
        self.fake.world().calls.clear();
        self.runner = Self::runner(&self.fake, &self.store, self.limits);
        self.reports = self.runner.reports();
    }

    fn hear(&mut self) {
        while let Some(batch) = self.reports.take(100) {
            self.runner.ack(batch.mark);
            for (id, status) in batch.reports {
                let before = self.heard.insert(id, status.clone());
                let forward = before.as_ref().is_none_or(|before| before.state <= status.state);
                assert!(forward, "{id}: {before:?} then {status:?}");
            }
        }
    }

    fn state(&self, number: u128) -> TaskState {
        self.heard.get(&id(number)).map_or(TaskState::New, |status| status.state)
    }

    fn status(&self, number: u128) -> TaskStatus {
        self.heard.get(&id(number)).cloned().unwrap_or_default()
    }

    /// Let time pass until it holds; an hour at most.
    async fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        for _ in 0..360_000 {
            self.hear();
            if holds(self) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("never: {what}; heard {:?}, calls {:?}", self.heard, self.fake.world().calls);
    }

    async fn until_state(&mut self, number: u128, state: TaskState) {
        self.until(&format!("{number} is {state:?}"), |node| node.state(number) == state).await;
    }

    /// Let time pass, whatever happens.
    async fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds * 10 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            self.hear();
        }
    }
}

/// Run in virtual time on an actix system.
fn run(story: impl Future<Output = ()>) {
    let system = actix::System::with_tokio_rt(|| {
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
    });
    system.block_on(story);
}
