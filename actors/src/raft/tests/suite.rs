//! openraft's own suite for storage.

use std::sync::Arc;

use openraft::AnyError;
use openraft::testing::{StoreBuilder, Suite};
use shoal_core::model::NodeId;

use super::disks::MemDisk;
use crate::disk::Disk;
use crate::raft::health::Health;
use crate::raft::key::DataKey;
use crate::raft::log_store::LogStore;
use crate::raft::machine::{Machine, View};
use crate::raft::snapshot::SnapshotStore;
use crate::raft::types::{StorageError, StorageIoError, TypeConfig};

struct Stores;

impl StoreBuilder<TypeConfig, LogStore, Machine> for Stores {
    async fn build(&self) -> Result<((), LogStore, Machine), StorageError> {
        let failed = |error| StorageError::from(StorageIoError::read(AnyError::new(&error)));
        let disk: Arc<dyn Disk> = Arc::new(MemDisk::default());
        let key = DataKey::new([7; 32]);
        let (health, counters) = (Arc::<Health>::default(), Arc::default());
        let (snapshots, found) =
            SnapshotStore::open(Arc::clone(&disk), key.clone(), Arc::clone(&health), Arc::clone(&counters))
                .await
                .map_err(failed)?;
        let log = LogStore::open(disk, key, NodeId::default(), health, Arc::clone(&counters)).await;
        let machine = Machine::new(Arc::new(View::new()), Arc::new(snapshots), counters, found);
        Ok(((), log.map_err(failed)?, machine))
    }
}

#[test]
fn the_storage_passes_the_suite_of_openraft() {
    Suite::test_all(Stores).unwrap();
}
