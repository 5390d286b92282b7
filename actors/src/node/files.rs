//! What a node keeps on disk besides its tasks and raft: its certificate, and what it remembers of itself and the managers.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ring::rand::{SecureRandom as _, SystemRandom};
use serde::{Deserialize, Serialize};
use shoal_net::RESET_KEY_BYTES;
use shoal_net::identity::{CA_FILE, CERT_FILE, Credentials, KEY_FILE};
use shoal_wire::codec;
use shoal_wire::v1::ManagerAddr;

use crate::disk::{Disk, FileDisk};

/// The folder of the certificate.
const IDENTITY: &str = "identity";
const NODE: &str = "node.bin";
const RESET_KEY: &str = "reset.key";

/// Files of a data folder. What is written comes to the disk in the order in which it was asked for, and no actor waits in a
/// system call for it.
pub(super) struct Files {
    root: PathBuf,
    disk: Arc<dyn Disk>,
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
    /// Those of a folder, or of another disk.
    pub(super) fn new(root: &Path, disk: Option<Arc<dyn Disk>>) -> io::Result<Self> {
        let disk = match disk {
            Some(disk) => disk,
            None => {
                let disk = Arc::new(FileDisk::open(root)?);
                DirBuilder::new().recursive(true).mode(0o700).create(root.join(IDENTITY))?;
                disk
            }
        };
        Ok(Self { root: root.to_owned(), disk })
    }

    pub(super) fn raft(&self) -> PathBuf {
        self.root.join("raft")
    }

    pub(super) fn tasks(&self) -> PathBuf {
        self.root.join("tasks.redb")
    }

    /// The secret behind QUIC's stateless resets; made at the first start, and kept beyond any membership.
    pub(super) async fn reset_key(&self) -> io::Result<[u8; RESET_KEY_BYTES]> {
        let kept = self.read(RESET_KEY).await?;
        if let Some(key) = kept.as_deref().and_then(|bytes| bytes.try_into().ok()) {
            return Ok(key);
        }
        if kept.is_some() {
            tracing::warn!(name = RESET_KEY, "not a key: made anew");
        }
        let mut key = [0; RESET_KEY_BYTES];
        SystemRandom::new().fill(&mut key).map_err(|_| io::Error::other("the system has no randomness"))?;
        self.write(RESET_KEY, key.to_vec()).await?;
        Ok(key)
    }

    /// What is on the disk, if it is there. Errors name the file.
    async fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match self.disk.read(name).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.named(name, &error)),
        }
    }

    async fn write(&self, name: &str, bytes: Vec<u8>) -> io::Result<()> {
        self.disk.replace(name, bytes).await.map_err(|error| self.named(name, &error))
    }

    fn named(&self, name: &str, error: &io::Error) -> io::Error {
        io::Error::new(error.kind(), format!("{}: {error}", self.root.join(name).display()))
    }

    pub(super) async fn load(&self) -> io::Result<Saved> {
        let Some(bytes) = self.read(NODE).await? else { return Ok(Saved::default()) };
        let malformed = |error| self.named(NODE, &io::Error::new(io::ErrorKind::InvalidData, error));
        codec::decode(&bytes).map_err(malformed)
    }

    pub(super) async fn save(&self, saved: &Saved) -> io::Result<()> {
        self.write(NODE, codec::encode(saved).map_err(io::Error::other)?).await
    }

    /// The node's certificate, if it has one.
    pub(super) async fn credentials(&self) -> Result<Option<Credentials>, String> {
        let (key_and_cert, ca) = (in_identity(KEY_FILE), in_identity(CA_FILE));
        let read = |name: String| async move { self.read(&name).await.map_err(|error| error.to_string()) };
        let (Some(both), Some(root)) = (read(key_and_cert.clone()).await?, read(ca).await?) else {
            return Ok(None);
        };
        let named = |error| format!("{}: {error}", self.root.join(key_and_cert).display());
        Credentials::from_files(&both, root).map(Some).map_err(named)
    }

    pub(super) async fn store(&self, credentials: &Credentials) -> io::Result<()> {
        for (name, bytes) in credentials.files() {
            self.write(&in_identity(name), bytes).await?;
        }
        Ok(())
    }

    /// Become a member. A node that goes down in the midst of it is none: it is by its certificate, which would find nobody without
    /// the managers' addresses.
    pub(super) async fn enter(&self, saved: &Saved, credentials: &Credentials) -> io::Result<()> {
        self.save(saved).await?;
        self.store(credentials).await
    }

    /// Forget the cluster. A node that goes down in the midst of it is told at its next start that it is no member; one that joins
    /// finds nothing of another cluster.
    pub(super) async fn wipe(&self) -> io::Result<()> {
        unless_gone(std::fs::remove_dir_all(self.raft()))?;
        unless_gone(std::fs::remove_file(self.tasks()))?;
        for name in [KEY_FILE, CERT_FILE, CA_FILE] {
            self.disk.remove(&in_identity(name)).await?;
        }
        self.disk.remove(NODE).await
    }
}

fn in_identity(name: &str) -> String {
    format!("{IDENTITY}/{name}")
}

fn unless_gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::Duration;

    use shoal_core::model::{ClusterId, NodeId, Role, Timestamp};
    use shoal_net::ca::CertificateAuthority;
    use shoal_net::identity::{Identity, NodeKey};

    use super::*;

    fn credentials() -> Credentials {
        let now = Timestamp(1_800_000_000_000);
        let (cluster_id, later) = (ClusterId::from_u128(5), now.plus(Duration::from_secs(3600)));
        let authority = CertificateAuthority::create(cluster_id, now, later).unwrap();
        let identity = Identity { node_id: NodeId::from_u128(7), role: Role::Worker, cluster_id, as_of: 9 };
        let key = NodeKey::generate().unwrap();
        let cert = authority.sign(&key.csr().unwrap(), &identity, now, later).unwrap();
        Credentials::new(key, cert, authority.to_root_ca().cert_der).unwrap()
    }

    #[tokio::test]
    async fn what_is_kept_is_there_at_the_next_start_for_its_owner_alone_until_it_is_wiped() {
        let dir = tempfile::tempdir().unwrap();
        let (stored, saved) = (credentials(), Saved { incarnation: 3, ..Saved::default() });
        let files = Files::new(dir.path(), None).unwrap();
        assert!(files.credentials().await.unwrap().is_none());
        assert_eq!(files.load().await.unwrap(), Saved::default());
        let secret = files.reset_key().await.unwrap();
        files.store(&stored).await.unwrap();
        files.save(&saved).await.unwrap();
        let files = Files::new(dir.path(), None).unwrap();
        assert_eq!(files.reset_key().await.unwrap(), secret);
        assert_eq!(files.credentials().await.unwrap().unwrap().not_after(), stored.not_after());
        assert_eq!(files.load().await.unwrap(), saved);
        for folder in [dir.path().to_owned(), dir.path().join(IDENTITY)] {
            for entry in std::fs::read_dir(folder).unwrap() {
                let entry = entry.unwrap();
                assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o077, 0, "{entry:?}");
            }
        }
        files.wipe().await.unwrap();
        assert!(files.credentials().await.unwrap().is_none());
        assert_eq!(files.load().await.unwrap(), Saved::default());
        assert_eq!(files.reset_key().await.unwrap(), secret);
        // A node that left may join again.
        files.store(&stored).await.unwrap();
    }

    #[tokio::test]
    async fn a_damaged_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::new(dir.path(), None).unwrap();
        files.store(&credentials()).await.unwrap();
        for (name, damaged) in [("identity/node.key", vec![1]), (NODE, vec![0xff; 3])] {
            std::fs::write(dir.path().join(name), damaged).unwrap();
        }
        let words = files.credentials().await.unwrap_err();
        assert!(words.contains("identity/node.key: the node's key: node.key is cut short"), "{words}");
        assert!(files.load().await.unwrap_err().to_string().contains("node.bin"));
    }
}
