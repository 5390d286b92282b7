//! What a node writes down of its tasks, on the machine's simulated disk: whole or not at all, in the disk's time, and not while it is full.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use shoal_actors::task_runner::{Change, MemoryTaskStore, StoreError, StoredTask, TaskStore};
use shoal_core::task::BoxFuture;

use crate::disk::SimDisk;

#[derive(Default)]
struct Inner {
    /// What is durable.
    store: MemoryTaskStore,
    /// Changes that are being written, by number.
    under_way: BTreeMap<u64, Vec<Change>>,
    number: u64,
    /// The disk that they are on, and what decides when the machine goes down; none if they are written at once.
    disk: Option<(SimDisk, ChaCha8Rng)>,
}

/// Records of tasks. Cheap to clone; a clone is the same file, also after a crash of its node.
#[derive(Clone, Default)]
pub struct Records(Arc<Mutex<Inner>>);

fn error(words: impl ToString) -> StoreError {
    StoreError { path: "tasks".into(), words: words.to_string() }
}

impl Records {
    /// From now on they are on this disk.
    pub fn set_disk(&self, disk: SimDisk, seed: u64) {
        self.lock().disk = Some((disk, ChaCha8Rng::seed_from_u64(seed ^ 0x7ec0)));
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The machine goes down: what was being written is there or not.
    pub fn crash(&self) {
        let mut inner = self.lock();
        for changes in std::mem::take(&mut inner.under_way).into_values() {
            // A change does not come to be without those before it.
            if !inner.disk.as_mut().is_some_and(|(_, rng)| rng.random_bool(0.5)) {
                break;
            }
            inner.store.apply(changes);
        }
    }

    /// All of them are gone.
    pub fn wipe(&self) {
        let mut inner = self.lock();
        inner.store = MemoryTaskStore::default();
        inner.under_way.clear();
    }
}

impl TaskStore for Records {
    fn load(&self) -> BoxFuture<'_, Result<Vec<StoredTask>, StoreError>> {
        let store = self.lock().store.clone();
        Box::pin(async move { store.load().await })
    }

    fn save(&self, changes: Vec<Change>) -> BoxFuture<'_, Result<(), StoreError>> {
        let records = self.clone();
        Box::pin(async move {
            let (number, takes) = {
                let mut inner = records.lock();
                let Some((disk, _)) = &inner.disk else {
                    inner.store.apply(changes);
                    return Ok(());
                };
                let takes = disk.durable().map_err(error)?;
                inner.number += 1;
                let number = inner.number;
                inner.under_way.insert(number, changes);
                (number, takes)
            };
            tokio::time::sleep(takes).await;
            let mut inner = records.lock();
            let changes = inner.under_way.remove(&number).ok_or_else(|| error("the machine went down"))?;
            inner.store.apply(changes);
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use shoal_actors::task_runner::RedbTaskStore;
    use shoal_core::model::{TaskId, TaskStatus};

    use super::*;
    use crate::sample;

    fn put(number: u128) -> Change {
        Change::Put(Box::new(StoredTask {
            task: Arc::new(sample::task(number)),
            status: TaskStatus::default(),
        }))
    }

    fn on_disk(seed: u64) -> (Records, SimDisk) {
        let (records, millis) = (Records::default(), Duration::from_millis(5));
        let disk = SimDisk::new(seed, (millis, millis));
        records.set_disk(disk.clone(), seed);
        (records, disk)
    }

    async fn ids(store: &dyn TaskStore) -> Vec<u128> {
        let mut ids: Vec<u128> =
            store.load().await.unwrap().iter().map(|stored| stored.task.id.as_u128()).collect();
        ids.sort_unstable();
        ids
    }

    async fn keeps_the_contract(store: &dyn TaskStore) {
        assert!(ids(store).await.is_empty());
        store.save(vec![put(1), put(2), put(1)]).await.unwrap();
        store
            .save(vec![Change::Remove(TaskId::from_u128(1)), put(3), Change::Remove(TaskId::from_u128(9))])
            .await
            .unwrap();
        assert_eq!(ids(store).await, [2, 3]);
    }

    #[tokio::test]
    async fn the_real_records_and_the_simulated_ones_keep_the_contract() {
        let dir = tempfile::tempdir().unwrap();
        keeps_the_contract(&RedbTaskStore::open(&dir.path().join("tasks.redb")).unwrap()).await;
        keeps_the_contract(&Records::default()).await;
        keeps_the_contract(&on_disk(1).0).await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_crash_meets_is_there_whole_or_not_at_all() {
        let mut ends = std::collections::BTreeSet::new();
        for seed in 0..20 {
            let (records, _) = on_disk(seed);
            records.save(vec![put(1)]).await.unwrap();
            let saving = tokio::spawn({
                let records = records.clone();
                async move { records.save(vec![put(2), Change::Remove(TaskId::from_u128(1))]).await }
            });
            tokio::time::sleep(Duration::from_millis(1)).await;
            records.crash();
            assert!(saving.await.unwrap().is_err());
            ends.insert(ids(&records).await);
        }
        assert_eq!(ends.into_iter().collect::<Vec<_>>(), [vec![1], vec![2]]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_disk_takes_none() {
        let (records, disk) = on_disk(1);
        disk.set_full(true);
        assert!(records.save(vec![put(1)]).await.is_err());
        assert!(ids(&records).await.is_empty());
        disk.set_full(false);
        records.save(vec![put(1)]).await.unwrap();
        assert_eq!(ids(&records).await, [1]);
    }
}
