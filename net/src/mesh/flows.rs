//! Who has how many connections open: what decides where the next one goes, and when a task may be stopped.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shoal_core::model::{NodeId, TaskId};
use tokio::sync::watch;
use tokio::time::Instant;

use super::table::News;

/// A backend that failed is avoided for so long.
const FAILED_FOR: Duration = Duration::from_secs(2);
/// A task that drained is remembered for so long, for those who have not heard.
const DRAINED_FOR: Duration = Duration::from_secs(600);
/// A task that began to take traffic so lately may not listen yet.
const YOUNG_FOR: Duration = Duration::from_secs(10);
/// Tasks remembered before the old ones are looked through.
const PRUNE_AT: usize = 1024;

/// What connections of a task are told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Word {
    /// Go on.
    #[default]
    Stay,
    /// It takes traffic no more: who is between two exchanges may go elsewhere.
    Leave,
    /// This node takes no more traffic: who is between two exchanges ends.
    Close,
    /// Its time is over: all are broken off.
    Cut,
}

/// What is known of a task's connections.
#[derive(Debug)]
struct Flow {
    open: watch::Sender<u32>,
    word: watch::Sender<Word>,
    draining: Option<Instant>,
    failed_at: Option<Instant>,
}

impl Default for Flow {
    fn default() -> Self {
        Self {
            open: watch::channel(0).0,
            word: watch::channel(Word::Stay).0,
            draining: None,
            failed_at: None,
        }
    }
}

impl Flow {
    /// Tell its connections. Those that shall end are told nothing less any more.
    fn tell(&self, word: Word) {
        self.word.send_if_modified(|now| {
            let news = *now != word && (*now < Word::Close || *now < word);
            if news {
                *now = word;
            }
            news
        });
    }

    fn matters(&self) -> bool {
        *self.open.borrow() > 0
            || self.draining.is_some_and(|since| since.elapsed() < DRAINED_FOR)
            || self.failed_at.is_some_and(|at| at.elapsed() < FAILED_FOR)
    }
}

#[derive(Debug, Default)]
struct Inner {
    tasks: BTreeMap<TaskId, Flow>,
    nodes: BTreeMap<NodeId, Instant>,
    /// Tasks that began to take traffic lately, and when.
    young: BTreeMap<TaskId, Instant>,
    /// This node takes no more traffic.
    closing: bool,
}

/// All of this node's connections, by task.
#[derive(Debug, Default, Clone)]
pub(super) struct Flows(Arc<Mutex<Inner>>);

/// The task takes nothing new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Draining;

/// A connection that counts; dropped, it does no longer.
#[derive(Debug)]
pub(super) struct Counted {
    flows: Flows,
    task: TaskId,
    word: watch::Receiver<Word>,
}

impl Counted {
    /// What it is told now.
    pub(super) fn word(&self) -> Word {
        *self.word.borrow()
    }

    /// Returns when it is told something else.
    pub(super) async fn news(&mut self) -> Word {
        if self.word.changed().await.is_err() {
            return std::future::pending().await;
        }
        *self.word.borrow_and_update()
    }

    /// Returns when the connection is to be broken off.
    pub(super) async fn cut(&mut self) {
        self.told(Word::Cut).await;
    }

    /// Returns when its node takes no more traffic, or it is to be broken off.
    pub(super) async fn closed(&mut self) {
        self.told(Word::Close).await;
    }

    /// Returns when it is told this or more.
    async fn told(&mut self, least: Word) {
        if self.word.wait_for(|word| *word >= least).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut inner = self.flows.lock();
        let Some(flow) = inner.tasks.get_mut(&self.task) else { return };
        flow.open.send_modify(|open| *open = open.saturating_sub(1));
        if !flow.matters() {
            inner.tasks.remove(&self.task);
        }
    }
}

impl Flows {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Count a connection to a task, unless that takes nothing new.
    pub(super) fn enter(&self, task: TaskId) -> Result<Counted, Draining> {
        let mut inner = self.lock();
        if inner.tasks.len() >= PRUNE_AT {
            inner.tasks.retain(|_, flow| flow.matters());
        }
        let closing = inner.closing;
        let flow = inner.tasks.entry(task).or_default();
        if flow.draining.is_some() {
            return Err(Draining);
        }
        if closing {
            flow.tell(Word::Close);
        }
        flow.open.send_modify(|open| *open += 1);
        Ok(Counted { flows: self.clone(), task, word: flow.word.subscribe() })
    }

    /// Tell connections whose task takes traffic no more, and remember which tasks begin to.
    pub(super) fn follow(&self, news: &News) {
        let mut inner = self.lock();
        inner.young.retain(|id, since| since.elapsed() < YOUNG_FOR && !news.gone.contains(id));
        inner.young.extend(news.come.iter().map(|id| (*id, Instant::now())));
        let gone = news.gone.iter().map(|id| (id, Word::Leave));
        for (id, word) in gone.chain(news.come.iter().map(|id| (id, Word::Stay))) {
            if let Some(flow) = inner.tasks.get(id) {
                flow.tell(word);
            }
        }
    }

    /// Open connections of a task, and whether one to it or its node failed lately.
    pub(super) fn load(&self, task: TaskId, node: NodeId) -> (u32, bool) {
        let inner = self.lock();
        let lately = |at: Option<Instant>| at.is_some_and(|at| at.elapsed() < FAILED_FOR);
        let flow = inner.tasks.get(&task);
        let failed = lately(flow.and_then(|flow| flow.failed_at)) || lately(inner.nodes.get(&node).copied());
        (flow.map_or(0, |flow| *flow.open.borrow()), failed)
    }

    /// Whether a task began to take traffic so lately that it may not listen yet.
    pub(super) fn is_young(&self, task: TaskId) -> bool {
        self.lock().young.get(&task).is_some_and(|since| since.elapsed() < YOUNG_FOR)
    }

    /// A connection to a task could not be made.
    pub(super) fn failed(&self, task: TaskId) {
        self.lock().tasks.entry(task).or_default().failed_at = Some(Instant::now());
    }

    /// A node does not answer.
    pub(super) fn silent(&self, node: NodeId) {
        self.lock().nodes.insert(node, Instant::now());
    }

    /// A node answers.
    pub(super) fn answers(&self, node: NodeId) {
        self.lock().nodes.remove(&node);
    }

    /// Let a task take nothing new. Returns what ends with its last connection, and how many there are.
    pub(super) fn drain(&self, task: TaskId) -> (impl Future<Output = ()> + use<>, u32) {
        let mut inner = self.lock();
        let flow = inner.tasks.entry(task).or_default();
        flow.draining.get_or_insert_with(Instant::now);
        let mut open = flow.open.subscribe();
        let count = *open.borrow_and_update();
        let idle = async move {
            let _ = open.wait_for(|open| *open == 0).await;
        };
        (idle, count)
    }

    /// Break off all connections of a task. Returns how many.
    pub(super) fn cut(&self, task: TaskId) -> u32 {
        let inner = self.lock();
        let Some(flow) = inner.tasks.get(&task) else { return 0 };
        flow.tell(Word::Cut);
        *flow.open.borrow()
    }

    /// This node takes no more traffic: all connections are told, later ones, too.
    pub(super) fn close(&self) {
        let mut inner = self.lock();
        inner.closing = true;
        inner.tasks.values().for_each(|flow| flow.tell(Word::Close));
    }

    /// Whether this node takes no more traffic.
    pub(super) fn is_closing(&self) -> bool {
        self.lock().closing
    }

    /// Break off all connections. Returns how many.
    pub(super) fn cut_all(&self) -> u32 {
        let inner = self.lock();
        inner.tasks.values().for_each(|flow| flow.tell(Word::Cut));
        inner.tasks.values().map(|flow| *flow.open.borrow()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TASK: TaskId = TaskId::from_u128(1);
    const NODE: NodeId = NodeId::from_u128(2);

    #[tokio::test(start_paused = true)]
    async fn a_drain_ends_with_the_last_connection_and_lets_nobody_in() {
        let flows = Flows::default();
        let (one, two) = (flows.enter(TASK).unwrap(), flows.enter(TASK).unwrap());
        let (idle, open) = flows.drain(TASK);
        assert_eq!((open, flows.enter(TASK).unwrap_err()), (2, Draining));
        let mut idle = tokio::spawn(idle);
        drop(one);
        assert!(tokio::time::timeout(Duration::from_secs(5), &mut idle).await.is_err());
        drop(two);
        idle.await.unwrap();
        assert!(flows.enter(TASK).is_err(), "it was let in again once it was idle");
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_closes_tells_all_connections_and_takes_nothing_back() {
        let flows = Flows::default();
        let mut before = flows.enter(TASK).unwrap();
        flows.close();
        assert!(flows.is_closing());
        before.closed().await;
        let after = flows.enter(TASK).unwrap();
        assert_eq!((before.word(), after.word()), (Word::Close, Word::Close));
        flows.follow(&News { gone: [TASK].into(), ..News::default() });
        assert_eq!(after.word(), Word::Close, "a task that leaves changes nothing");
        assert_eq!(flows.cut_all(), 2);
        before.cut().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_is_young_for_a_while_after_it_came() {
        let flows = Flows::default();
        assert!(!flows.is_young(TASK), "nobody told of it");
        flows.follow(&News { come: [TASK].into(), ..News::default() });
        tokio::time::advance(YOUNG_FOR / 2).await;
        flows.follow(&News::default());
        assert!(flows.is_young(TASK));
        tokio::time::advance(YOUNG_FOR / 2).await;
        assert!(!flows.is_young(TASK));
        flows.follow(&News { come: [TASK].into(), ..News::default() });
        flows.follow(&News { gone: [TASK].into(), ..News::default() });
        assert!(!flows.is_young(TASK) && flows.lock().young.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_cut_hears_of_it_and_a_failure_is_soon_forgiven() {
        let flows = Flows::default();
        let mut one = flows.enter(TASK).unwrap();
        assert!(tokio::time::timeout(Duration::from_secs(1), one.cut()).await.is_err());
        assert_eq!(flows.cut(TASK), 1);
        one.cut().await;
        flows.failed(TASK);
        assert_eq!(flows.load(TASK, NODE), (1, true));
        tokio::time::advance(FAILED_FOR).await;
        assert_eq!(flows.load(TASK, NODE), (1, false));
        flows.silent(NODE);
        assert_eq!(flows.load(TASK, NODE), (1, true));
        flows.answers(NODE);
        assert_eq!(flows.load(TASK, NODE), (1, false));
        drop(one);
        assert!(flows.lock().tasks.is_empty(), "what does not matter is kept");
    }
}
