//! Where the local cluster lives, and the record of what was started.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::cli::args::UpArgs;
use crate::cli::client::Client;
use crate::cli::error::{CliError, Outcome};
use crate::cli::host::Host;
use crate::config::{DataDir, DataDirError};

/// Nodes of the local cluster.
pub(crate) const NODES: u8 = 3;
const RECORD: &str = "cluster.json";
const RECORD_VERSION: u32 = 1;
const RECORD_BYTES_MAX: u64 = 1 << 20;
/// A unix socket's address has room for so many bytes.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// A process as told from another of the same id by when it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessId {
    /// Its id.
    pub(crate) pid: i32,
    /// When it began, in the kernel's ticks since boot.
    pub(crate) start_ticks: u64,
}

/// A node that was started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NodeRecord {
    /// Its process, once it was started.
    pub(crate) process: Option<ProcessId>,
    /// Its id in the cluster, once it has one.
    pub(crate) node_id: Option<String>,
}

/// What was started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Version of this form.
    version: u32,
    /// UDP port of the nodes.
    pub(crate) port: u16,
    /// Metrics port of the first node.
    pub(crate) metrics_port: u16,
    /// The engine, as `--engine` takes it.
    pub(crate) engine: String,
    /// The nodes.
    pub(crate) nodes: Vec<NodeRecord>,
}

impl Record {
    pub(crate) fn new(flags: &UpArgs, engine: String) -> Self {
        Self {
            version: RECORD_VERSION,
            port: flags.port,
            metrics_port: flags.metrics_port,
            engine,
            nodes: vec![NodeRecord::default(); usize::from(NODES)],
        }
    }
}

/// The local cluster's folder, held by one command at a time.
pub(crate) struct Layout {
    dir: DataDir,
}

impl Layout {
    /// The folder that is meant.
    pub(crate) fn path(said: Option<&Path>) -> Outcome<PathBuf> {
        let path = match said {
            Some(path) => path.to_owned(),
            None => default_path(|name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from))?,
        };
        std::path::absolute(&path).map_err(|e| CliError::Usage(format!("--dir {}: {e}", path.display())))
    }

    /// Take hold of the folder; it is made if it is missing.
    pub(crate) fn open(path: &Path) -> Outcome<Self> {
        let longest = path.join("node1/shoal.sock");
        if longest.as_os_str().len() > SOCKET_PATH_BYTES_MAX {
            let words = format!(
                "{} is too long for a socket's path (107 bytes): choose a shorter --dir",
                longest.display()
            );
            return Err(CliError::Usage(words));
        }
        match DataDir::open(path) {
            Ok(dir) => Ok(Self { dir }),
            Err(DataDirError::Locked { pid, .. }) => {
                let who = pid.map_or_else(String::new, |pid| format!(" (process {pid})"));
                Err(CliError::Failed(format!(
                    "another `shoal up` or `shoal down`{who} is at work in {}: wait for it",
                    path.display()
                )))
            }
            Err(error) => Err(CliError::failed(error)),
        }
    }

    pub(crate) fn root(&self) -> &Path {
        self.dir.path()
    }

    /// `node1`, `node2`, `node3`.
    pub(crate) fn name(index: usize) -> String {
        format!("node{}", index + 1)
    }

    pub(crate) fn folder(&self, index: usize) -> PathBuf {
        self.dir.join(&Self::name(index))
    }

    pub(crate) fn socket(&self, index: usize) -> PathBuf {
        self.folder(index).join("shoal.sock")
    }

    pub(crate) fn log(&self, index: usize) -> PathBuf {
        self.folder(index).join("node.log")
    }

    pub(crate) fn data(&self, index: usize) -> PathBuf {
        self.folder(index).join("data")
    }

    /// A client of a node's API.
    pub(crate) fn client(&self, index: usize) -> Client {
        Client::new(Host::Unix(self.socket(index)), None)
    }

    /// What was started, if anything was.
    pub(crate) fn load(&self) -> Outcome<Option<Record>> {
        use std::io::Read as _;
        let path = self.dir.join(RECORD);
        let broken = |why: String| {
            let words = format!(
                "cannot use the record {}: {why}; stop the nodes by hand and remove it",
                path.display()
            );
            CliError::Failed(words)
        };
        let file = match std::fs::File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(broken(error.to_string())),
        };
        let mut text = String::new();
        file.take(RECORD_BYTES_MAX).read_to_string(&mut text).map_err(|e| broken(e.to_string()))?;
        let record: Record = serde_json::from_str(&text).map_err(|e| broken(e.to_string()))?;
        if record.version != RECORD_VERSION || record.nodes.len() != usize::from(NODES) {
            return Err(broken("another version of shoal wrote it".into()));
        }
        Ok(Some(record))
    }

    /// Write the record; whole or not at all.
    pub(crate) fn save(&self, record: &Record) -> Outcome {
        let (path, draft) = (self.dir.join(RECORD), self.dir.join("cluster.json.new"));
        let text = serde_json::to_vec_pretty(record).map_err(CliError::failed)?;
        let write = || {
            let mut file = std::fs::File::create(&draft)?;
            file.write_all(&text)?;
            file.sync_all()?;
            std::fs::rename(&draft, &path)
        };
        write().map_err(|e| CliError::Failed(format!("cannot write {}: {e}", path.display())))
    }

    /// Remove all that this layout knows; the folder too, if nothing else is in it.
    pub(crate) fn remove(self) -> Outcome {
        let mut doomed: Vec<PathBuf> = (0..usize::from(NODES)).map(|index| self.folder(index)).collect();
        doomed.extend(["cluster.json.new", RECORD, "node.lock"].map(|name| self.dir.join(name)));
        for path in doomed {
            let done =
                if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
            match done {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(CliError::Failed(format!("cannot remove {}: {error}", path.display())));
                }
                _ => {}
            }
        }
        // Something of somebody else in it is no failure of ours.
        let _ = std::fs::remove_dir(self.root());
        Ok(())
    }
}

fn default_path(env: impl Fn(&str) -> Option<PathBuf>) -> Outcome<PathBuf> {
    env("XDG_STATE_HOME")
        .map(|state| state.join("shoal"))
        .or_else(|| env("HOME").map(|home| home.join(".local/state/shoal")))
        .ok_or_else(|| {
            CliError::Usage("neither HOME nor XDG_STATE_HOME is set: name a folder with --dir".into())
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let mut nodes = vec![NodeRecord::default(); 3];
        nodes[1].process = Some(ProcessId { pid: 7, start_ticks: 9 });
        Record { version: 1, port: 2377, metrics_port: 9421, engine: "process".into(), nodes }
    }

    #[test]
    fn the_folder_is_the_users_state_folder_unless_said() {
        let home = |name: &str| (name == "HOME").then(|| PathBuf::from("/home/u"));
        assert_eq!(default_path(home).expect("home"), Path::new("/home/u/.local/state/shoal"));
        let state = |name: &str| Some(PathBuf::from(if name == "HOME" { "/home/u" } else { "/state" }));
        assert_eq!(default_path(state).expect("state"), Path::new("/state/shoal"));
        assert_eq!(default_path(|_| None).expect_err("neither").code(), 2);
    }

    #[test]
    fn the_record_reads_back_and_all_is_removed_in_the_end() {
        let parent = tempfile::tempdir().expect("tempdir");
        let root = parent.path().join("cluster");
        let layout = Layout::open(&root).expect("opens");
        assert_eq!(layout.load().expect("none yet"), None);
        layout.save(&record()).expect("saves");
        std::fs::create_dir_all(layout.data(0)).expect("data");
        assert_eq!(layout.load().expect("reads"), Some(record()));
        layout.remove().expect("removes");
        assert!(!root.exists());
    }

    #[test]
    fn files_of_others_survive_the_removal() {
        let parent = tempfile::tempdir().expect("tempdir");
        let layout = Layout::open(parent.path()).expect("opens");
        std::fs::write(parent.path().join("mine"), "x").expect("write");
        layout.remove().expect("removes");
        assert!(parent.path().join("mine").exists());
    }

    #[test]
    fn two_commands_at_once_are_refused() {
        let parent = tempfile::tempdir().expect("tempdir");
        let _first = Layout::open(parent.path()).expect("opens");
        let error = Layout::open(parent.path()).err().expect("held").to_string();
        assert!(error.contains("is at work in"), "{error}");
    }

    #[test]
    fn a_broken_record_is_named_and_not_overwritten() {
        let parent = tempfile::tempdir().expect("tempdir");
        let layout = Layout::open(parent.path()).expect("opens");
        std::fs::write(parent.path().join(RECORD), "{").expect("write");
        assert!(layout.load().expect_err("broken").to_string().contains(RECORD));
    }

    #[test]
    fn a_folder_too_long_for_sockets_is_refused() {
        let path = PathBuf::from(format!("/{}", "x".repeat(100)));
        assert_eq!(Layout::open(&path).err().expect("too long").code(), 2);
    }
}
