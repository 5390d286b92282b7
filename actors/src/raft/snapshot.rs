//! Snapshots: the whole state in one encrypted file, replaced atomically.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use shoal_core::put_back::{Bug, is_put_back};
use shoal_core::store::State;
use shoal_wire::codec;
use tokio::sync::{oneshot, watch};

use super::error::{KeyError, OpenError};
use super::frame::{Kind, Scan, Sealer};
use super::health::Health;
use super::key::DataKey;
use super::recent::{self, Recent};
use super::stats::Counters;
use super::types::{LogId, SnapshotMeta};
use crate::disk::{Disk, is_full};

pub(super) const FILE: &str = "snapshot";
/// How often whoever waits for a snapshot looks whether consensus stops.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// The state as it travels and is kept.
#[derive(Serialize, Deserialize)]
enum Image {
    V1(State, recent::Image),
}

/// All that is replicated.
#[derive(Debug, Clone, Default)]
pub(super) struct Replicated {
    pub(super) state: State,
    pub(super) recent: Recent,
}

/// The file's only record.
#[derive(Serialize, Deserialize)]
enum Record {
    V1 { meta: SnapshotMeta, image: Vec<u8> },
}

/// Why a snapshot could not be made or kept.
#[derive(Debug, thiserror::Error)]
pub(super) enum SnapshotError {
    #[error("raft/{FILE}: {0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Codec(#[from] codec::CodecError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("stopping before a snapshot is on the disk")]
    Stopping,
}

/// Write a state as a snapshot's image, aside if it can be.
pub(super) async fn encode(disk: &dyn Disk, replicated: Replicated) -> Result<Vec<u8>, SnapshotError> {
    let (tx, rx) = oneshot::channel();
    disk.offload(Box::new(move || {
        let recent = match is_put_back(Bug::SnapshotWithoutRecent) {
            true => Recent::default(),
            false => replicated.recent,
        };
        let _ = tx.send(codec::encode(&Image::V1(replicated.state, recent.image())));
    }));
    Ok(rx.await.map_err(|_| io::Error::other("the snapshot was not written to its end"))??)
}

/// Read a snapshot's image.
pub(super) fn decode(image: &[u8]) -> Result<Replicated, SnapshotError> {
    let Image::V1(state, recent) = codec::decode_record(image)?;
    Ok(Replicated { state, recent: recent.into() })
}

/// Keeps the newest snapshot.
pub(super) struct SnapshotStore {
    disk: Arc<dyn Disk>,
    key: DataKey,
    health: Arc<Health>,
    counters: Arc<Counters>,
    newest: watch::Sender<Option<SnapshotMeta>>,
    /// One save at a time, so that an older one never replaces a newer one.
    saving: tokio::sync::Mutex<()>,
}

impl SnapshotStore {
    /// The store, and the snapshot that is on the disk.
    pub(super) async fn open(
        disk: Arc<dyn Disk>,
        key: DataKey,
        health: Arc<Health>,
        counters: Arc<Counters>,
    ) -> Result<(Self, Option<(SnapshotMeta, Replicated)>), OpenError> {
        let store = Self {
            disk,
            key,
            health,
            counters,
            newest: watch::Sender::default(),
            saving: tokio::sync::Mutex::default(),
        };
        let corrupt = |error: SnapshotError| match error {
            SnapshotError::Open(error) => error,
            SnapshotError::Io(error) => OpenError::io(FILE, error),
            other => OpenError::Corrupt { file: FILE.into(), offset: 64, reason: other.to_string() },
        };
        let found = match store.load().await.map_err(corrupt)? {
            None => None,
            Some((meta, image)) => {
                let replicated = decode(&image).map_err(corrupt)?;
                store.counters.snapshot_bytes.store(image.len() as u64, Relaxed);
                store.set_newest(meta.clone());
                Some((meta, replicated))
            }
        };
        Ok((store, found))
    }

    pub(super) fn disk(&self) -> &dyn Disk {
        &*self.disk
    }

    fn set_newest(&self, meta: SnapshotMeta) {
        self.newest.send_replace(Some(meta));
    }

    /// The newest entry that the newest snapshot holds.
    pub(super) fn newest(&self) -> Option<LogId> {
        self.newest.borrow().as_ref().and_then(|meta| meta.last_log_id)
    }

    /// Wait until a snapshot that holds this entry is on the disk.
    pub(super) async fn holds(&self, last: LogId) -> Result<(), SnapshotError> {
        let mut newest = self.newest.subscribe();
        let holds =
            |meta: &Option<SnapshotMeta>| meta.as_ref().and_then(|meta| meta.last_log_id) >= Some(last);
        loop {
            if let Ok(Ok(_)) = tokio::time::timeout(LOOK_EVERY, newest.wait_for(holds)).await {
                return Ok(());
            }
            // Whoever should save it may have given up.
            if self.health.is_stopping() || self.health.failed().is_some() {
                return Err(SnapshotError::Stopping);
            }
        }
    }

    /// The snapshot on the disk.
    pub(super) async fn load(&self) -> Result<Option<(SnapshotMeta, Vec<u8>)>, SnapshotError> {
        let bytes = match self.disk.read(FILE).await {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mut scan = Scan::new(FILE, &bytes, &self.key)?;
        let frame = scan.next_frame()?.filter(|frame| frame.kind == Kind::Snapshot).ok_or_else(|| {
            OpenError::Corrupt { file: FILE.into(), offset: 64, reason: "the snapshot is damaged".into() }
        })?;
        let Record::V1 { meta, image } = codec::decode_record(&frame.content)?;
        Ok(Some((meta, image)))
    }

    /// Keep a snapshot instead of the one before; while the disk is full, wait for space. Returns the image.
    pub(super) async fn save(&self, meta: SnapshotMeta, image: Vec<u8>) -> Result<Vec<u8>, SnapshotError> {
        let _one = self.saving.lock().await;
        if self.newest() > meta.last_log_id {
            return Ok(image);
        }
        let (mut bytes, mut sealer) = Sealer::new(&self.key, meta.last_log_id.map_or(0, |id| id.index))?;
        let size = image.len() as u64;
        let record = Record::V1 { meta, image };
        bytes.extend(sealer.seal(Kind::Snapshot, 0, &codec::encode(&record)?)?);
        let mut pause = Duration::from_millis(200);
        loop {
            let write = self.disk.replace(FILE, bytes.clone());
            if is_put_back(Bug::SnapshotNotAwaited) {
                tokio::spawn(write);
                break;
            }
            match write.await {
                Ok(()) => break,
                Err(error) if is_full(&error) => {
                    tracing::warn!(%error, "no space for a snapshot: the log grows until there is");
                    if self.health.pause(pause).await {
                        return Err(SnapshotError::Stopping);
                    }
                    pause = (pause * 2).min(Duration::from_secs(5));
                }
                Err(error) => {
                    self.health.fail(format!("raft/{FILE}: {error}"));
                    return Err(error.into());
                }
            }
        }
        let Record::V1 { meta, image } = record;
        self.counters.snapshot_bytes.store(size, Relaxed);
        self.set_newest(meta);
        Ok(image)
    }
}
