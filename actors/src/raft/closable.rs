//! The disk while consensus runs: once it has stopped nothing of it writes any more, so that the files may be removed.

use std::io;
use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::disk::{Disk, DiskFuture};

/// Changes that may be under way at once; more wait.
const CHANGES_MAX: u32 = 64;

/// Another disk, until it is closed.
pub(super) struct Closable {
    disk: Arc<dyn Disk>,
    changes: Arc<Semaphore>,
}

impl Closable {
    pub(super) fn new(disk: Arc<dyn Disk>) -> Self {
        Self { disk, changes: Arc::new(Semaphore::new(CHANGES_MAX as usize)) }
    }

    /// Refuse further changes, and wait for those that are under way.
    pub(super) async fn close(&self) {
        // Who waited before is served first. An error says that it is closed already.
        let _all = self.changes.acquire_many(CHANGES_MAX).await;
        self.changes.close();
        // What was begun and is not waited for any more is done before this.
        let _ = self.disk.list().await;
    }

    fn change(
        &self,
        change: impl FnOnce(Arc<dyn Disk>) -> DiskFuture<()> + Send + 'static,
    ) -> DiskFuture<()> {
        let (disk, changes) = (Arc::clone(&self.disk), Arc::clone(&self.changes));
        Box::pin(async move {
            let _permit = changes.acquire().await.map_err(|_| io::Error::other("consensus has stopped"))?;
            change(disk).await
        })
    }
}

impl Disk for Closable {
    fn list(&self) -> DiskFuture<Vec<String>> {
        self.disk.list()
    }

    fn read(&self, name: &str) -> DiskFuture<Vec<u8>> {
        self.disk.read(name)
    }

    fn read_at(&self, name: &str, offset: u64, len: usize) -> DiskFuture<Vec<u8>> {
        self.disk.read_at(name, offset, len)
    }

    fn write(&self, name: &str, offset: u64, bytes: Vec<u8>) -> DiskFuture<()> {
        let name = name.to_owned();
        self.change(move |disk| disk.write(&name, offset, bytes))
    }

    fn replace(&self, name: &str, bytes: Vec<u8>) -> DiskFuture<()> {
        let name = name.to_owned();
        self.change(move |disk| disk.replace(&name, bytes))
    }

    fn note(&self, name: &str, bytes: Vec<u8>) {
        if !self.changes.is_closed() {
            self.disk.note(name, bytes);
        }
    }

    fn remove(&self, name: &str) -> DiskFuture<()> {
        let name = name.to_owned();
        self.change(move |disk| disk.remove(&name))
    }

    fn offload(&self, job: Box<dyn FnOnce() + Send>) {
        self.disk.offload(job);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::disk::FileDisk;

    #[tokio::test]
    async fn nothing_is_changed_once_it_is_closed_and_what_was_begun_is_done_before() {
        let dir = tempfile::tempdir().unwrap();
        let closable = Arc::new(Closable::new(Arc::new(FileDisk::open(dir.path()).unwrap())));
        let begun = tokio::spawn(closable.replace("begun", vec![1; 1 << 20]));
        tokio::task::yield_now().await;
        closable.close().await;
        assert_eq!(closable.list().await.unwrap(), ["begun"]);
        begun.await.unwrap().unwrap();
        let error = closable.replace("late", vec![1]).await.unwrap_err();
        assert!(error.to_string().contains("stopped"), "{error}");
        closable.write("begun", 0, vec![2]).await.unwrap_err();
        closable.remove("begun").await.unwrap_err();
        closable.note("noted", vec![1]);
        tokio::time::timeout(Duration::from_secs(5), closable.close()).await.unwrap();
        assert_eq!(closable.list().await.unwrap(), ["begun"]);
        assert_eq!(closable.read_at("begun", 0, 1).await.unwrap(), [1]);
    }
}
