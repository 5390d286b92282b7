//! The real disk: a thread of its own, so that no actor ever waits in a system call.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

use super::{Disk, DiskFuture};

/// Zeros are written ahead in steps of this size: a write into them needs no change of the file's size, which
/// makes its sync about twice as fast.
const AHEAD: u64 = 256 << 10;

type Job = Box<dyn FnOnce(&mut Worker) + Send>;
/// The newest note that waits to be written: its name and content.
type Note = Option<(String, Vec<u8>)>;

/// A folder on a real disk.
pub struct FileDisk {
    jobs: Sender<Job>,
    note: Arc<Mutex<Note>>,
}

struct Worker {
    dir: PathBuf,
    open: Option<Open>,
}

/// The file that is being written, and up to where it is filled.
struct Open {
    name: String,
    file: File,
    filled: u64,
}

impl FileDisk {
    /// Use this folder; it is created, with access for its owner alone.
    ///
    /// # Errors
    /// If the folder cannot be created or the thread cannot be started.
    pub fn open(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        fs::set_permissions(dir, Permissions::from_mode(0o700))?;
        let mut worker = Worker { dir: dir.to_owned(), open: None };
        let (jobs, queue): (Sender<Job>, Receiver<Job>) = mpsc::channel();
        std::thread::Builder::new().name("disk".into()).spawn(move || {
            for job in queue {
                job(&mut worker);
            }
        })?;
        Ok(Self { jobs, note: Arc::default() })
    }

    fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Worker) -> io::Result<T> + Send + 'static,
    ) -> DiskFuture<T> {
        let (tx, rx) = oneshot::channel();
        let sent = self.jobs.send(Box::new(move |worker| {
            let _ = tx.send(job(worker));
        }));
        Box::pin(async move {
            sent.map_err(|_| io::Error::other("the disk's thread has ended"))?;
            rx.await.map_err(|_| io::Error::other("the disk's thread has ended"))?
        })
    }
}

impl Disk for FileDisk {
    fn list(&self) -> DiskFuture<Vec<String>> {
        self.run(|worker| {
            let mut names = Vec::new();
            for entry in fs::read_dir(&worker.dir)? {
                if let Ok(name) = entry?.file_name().into_string() {
                    names.push(name);
                }
            }
            names.sort();
            Ok(names)
        })
    }

    fn read(&self, name: &str) -> DiskFuture<Vec<u8>> {
        let name = name.to_owned();
        self.run(move |worker| fs::read(worker.dir.join(name)))
    }

    fn read_at(&self, name: &str, offset: u64, len: usize) -> DiskFuture<Vec<u8>> {
        let name = name.to_owned();
        self.run(move |worker| {
            let mut bytes = vec![0; len];
            File::open(worker.dir.join(name))?.read_exact_at(&mut bytes, offset)?;
            Ok(bytes)
        })
    }

    fn write(&self, name: &str, offset: u64, bytes: Vec<u8>) -> DiskFuture<()> {
        let name = name.to_owned();
        self.run(move |worker| worker.write(&name, offset, &bytes))
    }

    fn replace(&self, name: &str, bytes: Vec<u8>) -> DiskFuture<()> {
        let name = name.to_owned();
        self.run(move |worker| worker.replace(&name, &bytes))
    }

    fn note(&self, name: &str, bytes: Vec<u8>) {
        let mut slot = self.note.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = slot.replace((name.to_owned(), bytes)).is_some();
        if waiting {
            return;
        }
        let slot = Arc::clone(&self.note);
        // If the thread has ended, the next real operation says so.
        let _ = self.jobs.send(Box::new(move |worker| {
            let note = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some((name, bytes)) = note
                && let Err(error) = worker.note(&name, &bytes)
            {
                tracing::debug!(%error, name, "a note could not be written");
            }
        }));
    }

    fn remove(&self, name: &str) -> DiskFuture<()> {
        let name = name.to_owned();
        self.run(move |worker| match fs::remove_file(worker.dir.join(&name)) {
            // Without that it may be back after a power cut.
            Ok(()) => worker.sync_folder_of(&name),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        })
    }

    fn offload(&self, job: Box<dyn FnOnce() + Send>) {
        let waiting = Arc::new(Mutex::new(Some(job)));
        let take = Arc::clone(&waiting);
        let run = move |slot: &Mutex<Option<Box<dyn FnOnce() + Send>>>| {
            if let Some(job) = slot.lock().unwrap_or_else(PoisonError::into_inner).take() {
                job();
            }
        };
        let started = std::thread::Builder::new().name("raft-snapshot".into()).spawn(move || run(&take));
        if started.is_err() {
            run(&waiting);
        }
    }
}

impl Worker {
    fn write(&mut self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if self.open.as_ref().is_none_or(|open| open.name != name) {
            let file = OpenOptions::new().write(true).open(self.dir.join(name))?;
            let filled = file.metadata()?.len();
            self.open = Some(Open { name: name.to_owned(), file, filled });
        }
        let Some(open) = &mut self.open else { return Err(io::Error::other("no open file")) };
        let end = offset + bytes.len() as u64;
        if end > open.filled {
            let filled = end.next_multiple_of(AHEAD);
            let mut padded = Vec::with_capacity((filled - offset) as usize);
            padded.extend_from_slice(bytes);
            padded.resize((filled - offset) as usize, 0);
            match open.file.write_all_at(&padded, offset) {
                Ok(()) => open.filled = filled,
                // Perhaps there is space for the bytes themselves.
                Err(_) => open.file.write_all_at(bytes, offset)?,
            }
        } else {
            open.file.write_all_at(bytes, offset)?;
        }
        open.file.sync_data()
    }

    fn replace(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        if self.open.as_ref().is_some_and(|open| open.name == name) {
            self.open = None;
        }
        let temporary = self.dir.join(format!("{name}.tmp"));
        let written = (|| {
            let mut file =
                OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&temporary)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&temporary, self.dir.join(name))?;
            self.sync_folder_of(name)
        })();
        if written.is_err() {
            // It takes space that may be what is missing.
            let _ = fs::remove_file(&temporary);
        }
        written
    }

    fn sync_folder_of(&self, name: &str) -> io::Result<()> {
        let file = self.dir.join(name);
        File::open(file.parent().unwrap_or(&self.dir))?.sync_all()
    }

    fn note(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let file = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(false)
            .mode(0o600)
            .open(self.dir.join(name))?;
        file.write_all_at(bytes, 0)
    }
}
