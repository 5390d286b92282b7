//! What is kept of a task in its folder: a record, the exit file that the shell writes, and the output.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use shoal_core::model::TaskId;
use shoal_core::task::{ExitStatus, RunState};

use crate::cgroup;
use crate::proc::{self, ProcessId};

/// Bytes of an exit file that are looked at; more is not ours.
const EXIT_FILE_BYTES_MAX: u64 = 4096;

/// The record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// `web.1.<task id>`.
    pub(crate) name: String,
    /// The node it belongs to.
    pub(crate) node: String,
    /// The shell that runs it, once started.
    pub(crate) process: Option<ProcessId>,
    /// It was killed by us.
    pub(crate) killed: bool,
    /// Its control groups.
    pub(crate) cgroups: Vec<PathBuf>,
}

/// A task's folder.
#[derive(Debug, Clone)]
pub(crate) struct Folder {
    path: PathBuf,
    task: TaskId,
}

impl Folder {
    pub(crate) fn new(parent: &Path, task: TaskId) -> Self {
        Self { path: parent.join(task.to_string()), task }
    }

    /// Its record; none if the task is not known here.
    pub(crate) fn read(&self) -> io::Result<Option<Record>> {
        match fs::read(self.path.join("record.json")) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Replaces the record as a whole, so that a crash leaves the old or the new one.
    pub(crate) fn write(&self, record: &Record) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.path)?;
        let (new, at) = (self.path.join("record.new"), self.path.join("record.json"));
        fs::write(&new, serde_json::to_vec(record)?)?;
        fs::rename(new, at)
    }

    pub(crate) fn remove(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// A file for output, appended to.
    pub(crate) fn output(&self, name: &str) -> io::Result<File> {
        OpenOptions::new().append(true).create(true).mode(0o600).open(self.path.join(name))
    }

    /// The exit file, empty.
    pub(crate) fn exit_file(&self) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true).mode(0o600).open(self.path.join("exit"))
    }

    /// How the task fares. `record` must be its newest.
    pub(crate) fn state(&self, record: &Record) -> (RunState, Option<u32>) {
        let before = self.noted();
        if let Some(code) = before.code {
            return (self.exited(record, code, String::new()), None);
        }
        let Some(process) = record.process.clone().or_else(|| self.unrecorded(&before)) else {
            return (RunState::Created, None);
        };
        if process.is_alive() {
            return (RunState::Running { healthy: None }, Some(process.pid));
        }
        // It may have ended, and noted so, since the first look.
        let exit = match self.noted().code {
            Some(code) => self.exited(record, code, String::new()),
            None if record.killed => self.exited(record, 137, String::new()),
            None if process.boot != proc::boot_id() => {
                self.exited(record, -1, "the host was restarted".into())
            }
            None => self.exited(record, -1, "exit status unknown".into()),
        };
        (exit, None)
    }

    /// A process that was started just before the node died, and is in no record: it has noted its own number, and has
    /// the task's id among its arguments.
    fn unrecorded(&self, noted: &Noted) -> Option<ProcessId> {
        let pid = noted.pid?;
        proc::is_called(pid, &self.task.to_string()).then(|| ProcessId::of(pid))?
    }

    /// Whether the shell is ready for signals, or has ended already.
    pub(crate) fn is_settled(&self, process: &ProcessId) -> bool {
        self.noted().pid.is_some() || !process.is_alive()
    }

    fn exited(&self, record: &Record, code: i64, error: String) -> RunState {
        let oom_killed = code != 0 && cgroup::had_oom_kill(&record.cgroups);
        RunState::Exited(ExitStatus { code, oom_killed, error })
    }

    fn noted(&self) -> Noted {
        use io::Read;
        let mut text = String::new();
        let file = File::open(self.path.join("exit"));
        let read = file.and_then(|file| file.take(EXIT_FILE_BYTES_MAX).read_to_string(&mut text));
        if read.is_err() {
            return Noted::default();
        }
        // A line without its end is still being written.
        let lines = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
        let mut noted = Noted::default();
        for line in lines {
            match line.split_once(' ') {
                Some(("pid", pid)) => noted.pid = pid.parse().ok(),
                Some(("exit", code)) => noted.code = code.parse().ok(),
                _ => {}
            }
        }
        noted
    }
}

/// What the shell wrote.
#[derive(Debug, Default)]
struct Noted {
    pid: Option<u32>,
    code: Option<i64>,
}
