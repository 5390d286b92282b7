//! Disks that misbehave.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::disk::{Disk, DiskFuture};

/// A folder in memory.
#[derive(Clone, Default)]
pub(super) struct MemDisk {
    pub(super) files: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
    /// Of the next write only so many bytes arrive, and then the machine is off.
    pub(super) tear: Arc<Mutex<Option<usize>>>,
    pub(super) full: Arc<AtomicBool>,
}

fn not_found() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl MemDisk {
    fn done<T: Send + 'static>(result: io::Result<T>) -> DiskFuture<T> {
        Box::pin(async move { result })
    }

    fn is_full(&self) -> bool {
        self.full.load(Ordering::SeqCst)
    }
}

impl Disk for MemDisk {
    fn list(&self) -> DiskFuture<Vec<String>> {
        Self::done(Ok(self.files.lock().unwrap().keys().cloned().collect()))
    }

    fn read(&self, name: &str) -> DiskFuture<Vec<u8>> {
        Self::done(self.files.lock().unwrap().get(name).cloned().ok_or_else(not_found))
    }

    fn read_at(&self, name: &str, offset: u64, len: usize) -> DiskFuture<Vec<u8>> {
        let at = usize::try_from(offset).unwrap();
        let files = self.files.lock().unwrap();
        Self::done(
            files.get(name).and_then(|file| file.get(at..at + len)).map(<[u8]>::to_vec).ok_or_else(not_found),
        )
    }

    fn write(&self, name: &str, offset: u64, bytes: Vec<u8>) -> DiskFuture<()> {
        let mut files = self.files.lock().unwrap();
        let Some(file) = files.get_mut(name) else { return Self::done(Err(not_found())) };
        let torn = self.tear.lock().unwrap().take();
        let full = self.is_full().then_some(bytes.len() / 2);
        let count = torn.or(full).unwrap_or(bytes.len()).min(bytes.len());
        let at = usize::try_from(offset).unwrap();
        file.resize(file.len().max(at + count), 0);
        file[at..at + count].copy_from_slice(&bytes[..count]);
        Self::done(match (torn, full) {
            (Some(_), _) => Err(io::Error::other("the machine is off")),
            (_, Some(_)) => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        })
    }

    fn replace(&self, name: &str, bytes: Vec<u8>) -> DiskFuture<()> {
        if self.is_full() {
            return Self::done(Err(io::ErrorKind::StorageFull.into()));
        }
        self.files.lock().unwrap().insert(name.to_owned(), bytes);
        Self::done(Ok(()))
    }

    fn note(&self, name: &str, bytes: Vec<u8>) {
        self.files.lock().unwrap().insert(name.to_owned(), bytes);
    }

    fn remove(&self, name: &str) -> DiskFuture<()> {
        self.files.lock().unwrap().remove(name);
        Self::done(Ok(()))
    }
}

/// Another disk, but full or slow when told so.
pub(super) struct FaultyDisk {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) full: AtomicBool,
    pub(super) slow_ms: AtomicU64,
}

impl FaultyDisk {
    pub(super) fn new(disk: Arc<dyn Disk>) -> Arc<Self> {
        Arc::new(Self { disk, full: AtomicBool::new(false), slow_ms: AtomicU64::new(0) })
    }

    fn faulty(&self, operation: impl FnOnce() -> DiskFuture<()>) -> DiskFuture<()> {
        if self.full.load(Ordering::SeqCst) {
            return Box::pin(async { Err(io::ErrorKind::StorageFull.into()) });
        }
        let slow = Duration::from_millis(self.slow_ms.load(Ordering::SeqCst));
        let operation = operation();
        Box::pin(async move {
            tokio::time::sleep(slow).await;
            operation.await
        })
    }
}

impl Disk for FaultyDisk {
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
        self.faulty(|| self.disk.write(name, offset, bytes))
    }

    fn replace(&self, name: &str, bytes: Vec<u8>) -> DiskFuture<()> {
        self.faulty(|| self.disk.replace(name, bytes))
    }

    fn note(&self, name: &str, bytes: Vec<u8>) {
        self.disk.note(name, bytes);
    }

    fn remove(&self, name: &str) -> DiskFuture<()> {
        self.disk.remove(name)
    }

    fn offload(&self, job: Box<dyn FnOnce() + Send>) {
        self.disk.offload(job);
    }
}
