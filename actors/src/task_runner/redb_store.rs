//! The records in a small redb file. Registry credentials are among them, so the file is readable by its owner alone.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use redb::backends::FileBackend;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use shoal_core::task::BoxFuture;

use super::{Change, StoreError, StoredTask, TaskStore};

/// Key: the task's id. Value: the version of the record's shape, then the record.
const TASKS: TableDefinition<'_, u128, &[u8]> = TableDefinition::new("tasks");
const RECORD_VERSION: u8 = 1;
/// redb's page cache; a node has few tasks and reads them once.
const CACHE_BYTES: usize = 256 << 10;

/// Records in a file. Reads and writes run on the blocking pool, off the actor's thread.
#[derive(Clone)]
pub struct RedbTaskStore {
    path: Arc<str>,
    database: Arc<Database>,
}

impl RedbTaskStore {
    /// Open the file, or make it.
    ///
    /// # Errors
    /// If it cannot be opened, is in use or is damaged.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let name: Arc<str> = path.to_string_lossy().into();
        let broken = |words: String| StoreError { path: name.to_string(), words };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(|error| broken(error.to_string()))?;
        let backend = FileBackend::new(file).map_err(|error| broken(error.to_string()))?;
        let database = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create_with_backend(backend)
            .map_err(|error| broken(error.to_string()))?;
        Ok(Self { path: name, database: Arc::new(database) })
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, redb::Error> + Send + 'static,
    ) -> Result<T, StoreError> {
        let database = self.database.clone();
        let result = tokio::task::spawn_blocking(move || work(&database)).await;
        let words = match result {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        Err(StoreError { path: self.path.to_string(), words })
    }
}

fn read_all(database: &Database) -> Result<Vec<StoredTask>, redb::Error> {
    let transaction = database.begin_read()?;
    let table = match transaction.open_table(TASKS) {
        Ok(table) => table,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut tasks = Vec::new();
    for entry in table.iter()? {
        let (key, value) = entry?;
        // A record that another version wrote is no loss: the managers send the task again.
        match decode(value.value()) {
            Ok(stored) => tasks.push(stored),
            Err(words) => tracing::warn!(task = key.value(), words, "unreadable task record skipped"),
        }
    }
    Ok(tasks)
}

fn write_all(database: &Database, changes: &[(u128, Option<Vec<u8>>)]) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut table = transaction.open_table(TASKS)?;
        for (key, value) in changes {
            match value {
                Some(bytes) => drop(table.insert(key, bytes.as_slice())?),
                None => drop(table.remove(key)?),
            }
        }
    }
    transaction.commit()?;
    Ok(())
}

fn decode(bytes: &[u8]) -> Result<StoredTask, String> {
    let (version, record) = bytes.split_first().ok_or("empty record")?;
    if *version != RECORD_VERSION {
        return Err(format!("record version {version} is not known"));
    }
    shoal_wire::codec::decode(record).map_err(|error| error.to_string())
}

fn encode(stored: &StoredTask) -> Result<Vec<u8>, String> {
    let mut bytes = vec![RECORD_VERSION];
    bytes.extend(shoal_wire::codec::encode(stored).map_err(|error| error.to_string())?);
    Ok(bytes)
}

impl TaskStore for RedbTaskStore {
    fn load(&self) -> BoxFuture<'_, Result<Vec<StoredTask>, StoreError>> {
        Box::pin(self.blocking(read_all))
    }

    fn save(&self, changes: Vec<Change>) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let mut rows = Vec::with_capacity(changes.len());
            for change in changes {
                let value = match &change {
                    Change::Remove(_) => None,
                    Change::Put(stored) => Some(
                        encode(stored).map_err(|words| StoreError { path: self.path.to_string(), words })?,
                    ),
                };
                rows.push((change.task_id().as_u128(), value));
            }
            self.blocking(move |database| write_all(database, &rows)).await
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use shoal_core::model::{TaskId, TaskState, TaskStatus};

    use super::super::tests::task;
    use super::*;

    fn stored(number: u128, state: TaskState) -> StoredTask {
        StoredTask { task: Arc::new(task(number)), status: TaskStatus { state, ..TaskStatus::default() } }
    }

    #[tokio::test]
    async fn records_survive_a_reopening_and_are_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tasks");
        let store = RedbTaskStore::open(&path).unwrap();
        assert_eq!(store.load().await.unwrap(), []);
        let put = |number, state| Change::Put(Box::new(stored(number, state)));
        store.save(vec![put(1, TaskState::Running), put(2, TaskState::Ready)]).await.unwrap();
        store.save(vec![Change::Remove(TaskId::from_u128(2)), put(1, TaskState::Failed)]).await.unwrap();
        assert!(RedbTaskStore::open(&path).is_err(), "opened twice");
        drop(store);
        let store = RedbTaskStore::open(&path).unwrap();
        assert_eq!(store.load().await.unwrap(), [stored(1, TaskState::Failed)]);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_record_of_another_version_is_refused_by_number() {
        assert_eq!(decode(&[9, 1, 2]).unwrap_err(), "record version 9 is not known");
        assert!(decode(&[]).is_err());
        let bytes = encode(&stored(1, TaskState::Ready)).unwrap();
        assert_eq!(decode(&bytes).unwrap(), stored(1, TaskState::Ready));
    }
}
