//! What a node keeps on disk besides its certificate, its tasks and raft.

use std::io;
use std::path::{Path, PathBuf};

use ring::rand::{SecureRandom as _, SystemRandom};
use serde::{Deserialize, Serialize};
use shoal_net::RESET_KEY_BYTES;
use shoal_wire::codec;
use shoal_wire::v1::ManagerAddr;

/// Paths in a data folder.
#[derive(Debug, Clone)]
pub(super) struct Files {
    root: PathBuf,
}

/// What survives a restart.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Saved {
    /// Starts so far.
    pub(super) incarnation: u64,
    /// Managers as last known.
    pub(super) managers: Vec<ManagerAddr>,
    /// The address said at init or join, if one was.
    pub(super) advertise: Option<String>,
    /// Why the node is a member no longer, if so.
    pub(super) error: Option<String>,
}

impl Files {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    pub(super) fn identity(&self) -> PathBuf {
        self.root.join("identity")
    }

    pub(super) fn raft(&self) -> PathBuf {
        self.root.join("raft")
    }

    pub(super) fn tasks(&self) -> PathBuf {
        self.root.join("tasks.redb")
    }

    fn node(&self) -> PathBuf {
        self.root.join("node.bin")
    }

    /// The secret behind QUIC's stateless resets; made at the first start, and kept beyond any membership.
    pub(super) fn reset_key(&self) -> io::Result<[u8; RESET_KEY_BYTES]> {
        let path = self.root.join("reset.key");
        let mut key = [0; RESET_KEY_BYTES];
        match std::fs::read(&path) {
            Ok(bytes) if bytes.len() == RESET_KEY_BYTES => {
                key.copy_from_slice(&bytes);
                return Ok(key);
            }
            Ok(_) => tracing::warn!(path = %path.display(), "not a key: made anew"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        SystemRandom::new().fill(&mut key).map_err(|_| io::Error::other("the system has no randomness"))?;
        std::fs::create_dir_all(&self.root)?;
        shoal_net::identity::write_private(&path, &key)?;
        Ok(key)
    }

    pub(super) fn load(&self) -> io::Result<Saved> {
        match std::fs::read(self.node()) {
            Ok(bytes) => codec::decode(&bytes).map_err(|e| {
                io::Error::new(io::ErrorKind::InvalidData, format!("{}: {e}", self.node().display()))
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Saved::default()),
            Err(error) => Err(error),
        }
    }

    pub(super) fn save(&self, saved: &Saved) -> io::Result<()> {
        let bytes = codec::encode(saved).map_err(io::Error::other)?;
        shoal_net::identity::write_private(&self.node(), &bytes)
    }

    /// Forget the cluster.
    pub(super) fn wipe(&self) -> io::Result<()> {
        for dir in [self.identity(), self.raft()] {
            remove(std::fs::remove_dir_all(dir))?;
        }
        for file in [self.tasks(), self.node()] {
            remove(std::fs::remove_file(file))?;
        }
        Ok(())
    }

    /// Forget consensus: the node is a manager no longer.
    pub(super) fn wipe_raft(&self) -> io::Result<()> {
        remove(std::fs::remove_dir_all(self.raft()))
    }
}

fn remove(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
