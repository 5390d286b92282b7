//! The data folder: private to its owner, and held by one daemon at a time.

use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

const LOCK_FILE: &str = "node.lock";

/// Why the folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another daemon holds it.
    #[error("the data folder {} is in use by {}: stop that daemon, or choose another --data-dir", .path.display(), holder(.pid))]
    Locked {
        /// The folder.
        path: PathBuf,
        /// The daemon's process, if it could be told.
        pid: Option<u32>,
    },
    /// Another user owns it.
    #[error("the data folder {} belongs to user {owner}, this daemon runs as user {me}: change the owner, or choose another --data-dir", .path.display())]
    Foreign {
        /// The folder.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Who we are.
        me: u32,
    },
    /// It is no folder.
    #[error("the data folder {} is not a folder: choose another --data-dir", .0.display())]
    NotFolder(PathBuf),
    /// The system refused.
    #[error("cannot {step} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
}

fn holder(pid: &Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

/// The data folder, locked as long as this value lives.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    /// The kernel frees the lock with the file, also after a kill.
    _lock: File,
}

impl DataDir {
    /// Create the folder if needed (mode 0700), make it private, lock it.
    ///
    /// # Errors
    /// If another process holds it, another user owns it, or the system refuses.
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        make_private(path)?;
        let lock = lock(path)?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of an entry of the folder.
    #[must_use]
    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

fn io(step: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> DataDirError {
    let path = path.to_owned();
    move |source| DataDirError::Io { step, path, source }
}

fn make_private(path: &Path) -> Result<(), DataDirError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|source| {
        if path.exists() {
            DataDirError::NotFolder(path.to_owned())
        } else {
            io("create the data folder", path)(source)
        }
    })?;
    let meta = std::fs::metadata(path).map_err(io("look at the data folder", path))?;
    // SAFETY: geteuid takes nothing, touches no memory and cannot fail.
    let me = unsafe { libc::geteuid() };
    if meta.uid() != me {
        return Err(DataDirError::Foreign { path: path.to_owned(), owner: meta.uid(), me });
    }
    if meta.mode() & 0o077 != 0 {
        std::fs::set_permissions(path, Permissions::from_mode(0o700))
            .map_err(io("make private the data folder", path))?;
    }
    Ok(())
}

fn lock(folder: &Path) -> Result<File, DataDirError> {
    let path = folder.join(LOCK_FILE);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(io("open the lock file", &path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            let read = file.take(32).read_to_string(&mut text);
            let pid = read.ok().and_then(|_| text.trim().parse().ok());
            return Err(DataDirError::Locked { path: folder.to_owned(), pid });
        }
        Err(TryLockError::Error(source)) => return Err(io("lock", &path)(source)),
    }
    file.set_len(0).and_then(|()| file.rewind()).map_err(io("write the lock file", &path))?;
    writeln!(file, "{}", std::process::id()).map_err(io("write the lock file", &path))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::process::{Command, Stdio};

    use super::*;

    const FOLDER: &str = "TEST_DATA_DIR";

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).expect("there").mode() & 0o777
    }

    #[test]
    fn folder_is_created_private_with_a_private_lock() {
        let parent = tempfile::tempdir().expect("tempdir");
        let dir = DataDir::open(&parent.path().join("a/b")).expect("opens");
        assert_eq!(mode(dir.path()), 0o700);
        assert_eq!(mode(&dir.join(LOCK_FILE)), 0o600);
    }

    #[test]
    fn open_folder_is_made_private() {
        let parent = tempfile::tempdir().expect("tempdir");
        std::fs::set_permissions(parent.path(), Permissions::from_mode(0o755)).expect("chmod");
        let dir = DataDir::open(parent.path()).expect("opens");
        assert_eq!(mode(dir.path()), 0o700);
    }

    #[test]
    fn file_in_place_of_the_folder_is_refused() {
        let parent = tempfile::tempdir().expect("tempdir");
        let path = parent.path().join("file");
        std::fs::write(&path, "x").expect("write");
        assert!(matches!(DataDir::open(&path), Err(DataDirError::NotFolder(p)) if p == path));
    }

    /// The other process of the test below.
    #[test]
    #[ignore = "run by second_process_is_refused_and_told_who_holds_the_folder"]
    fn holds_the_folder_until_stdin_ends() {
        let Some(path) = std::env::var_os(FOLDER) else { return };
        let _dir = DataDir::open(Path::new(&path)).expect("opens");
        println!("held");
        let _ = std::io::stdin().read_line(&mut String::new());
    }

    #[test]
    fn second_process_is_refused_and_told_who_holds_the_folder() {
        let parent = tempfile::tempdir().expect("tempdir");
        let mut other = Command::new(std::env::current_exe().expect("exe"))
            .args(["--exact", "config::data_dir::tests::holds_the_folder_until_stdin_ends"])
            .args(["--ignored", "--nocapture"])
            .env(FOLDER, parent.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("spawns");
        let lines = BufReader::new(other.stdout.take().expect("stdout")).lines();
        assert!(lines.map_while(Result::ok).any(|line| line.contains("held")));

        let error = DataDir::open(parent.path()).expect_err("held by the other").to_string();
        assert!(error.contains(&format!("process {}", other.id())), "{error}");
        assert!(error.contains(&parent.path().display().to_string()), "{error}");

        other.kill().expect("kill -9 frees the lock");
        other.wait().expect("ended");
        DataDir::open(parent.path()).expect("free again");
    }
}
