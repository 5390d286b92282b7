//! The disk as the log and a node's own files see it: a few operations on files of one folder, each durable when it is done.

mod file;

use std::io;

use futures_util::future::BoxFuture;

pub use file::FileDisk;

/// The outcome of a disk operation, later.
pub type DiskFuture<T> = BoxFuture<'static, io::Result<T>>;

/// Files in one private folder; a name may begin with another folder in it, which is there. Operations of one caller are done in the
/// order in which they were awaited.
///
/// [`FileDisk`] does them on a thread of its own; a simulator may keep the files in memory, lose what
/// was not synced, tear writes, be slow or full.
pub trait Disk: Send + Sync + 'static {
    /// Names of all files.
    fn list(&self) -> DiskFuture<Vec<String>>;

    /// A file's whole content. `NotFound` if there is none.
    fn read(&self, name: &str) -> DiskFuture<Vec<u8>>;

    /// `len` bytes of a file from `offset` on.
    fn read_at(&self, name: &str, offset: u64, len: usize) -> DiskFuture<Vec<u8>>;

    /// Put `bytes` at `offset` of an existing file. They survive a power cut when this is done; until then
    /// any part of them may be there. Zeros may follow them.
    fn write(&self, name: &str, offset: u64, bytes: Vec<u8>) -> DiskFuture<()>;

    /// Create or replace a file as a whole: after a power cut either the old or the new content is there, and
    /// the new one when this is done.
    fn replace(&self, name: &str, bytes: Vec<u8>) -> DiskFuture<()>;

    /// Remember a few bytes as the content of a file, soon, but not durably. Later notes supersede earlier.
    fn note(&self, name: &str, bytes: Vec<u8>);

    /// Remove a file, if it is there. It stays away after a power cut once this is done.
    fn remove(&self, name: &str) -> DiskFuture<()>;

    /// Do work that may take long (encoding a snapshot) aside, where there is an aside.
    fn offload(&self, job: Box<dyn FnOnce() + Send>) {
        job();
    }
}

/// Whether the error says that there is no space, which may pass.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
