//! The key under which everything on disk is encrypted.

use std::fmt;
use std::io;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use ring::aead::{AES_256_GCM, LessSafeKey, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};

use super::error::KeyError;
use crate::disk::Disk;

pub(super) const FILE: &str = "key";

/// 256 secret bits.
#[derive(Clone, PartialEq, Eq)]
pub struct DataKey([u8; 32]);

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DataKey(…)")
    }
}

impl DataKey {
    /// The key with these bytes.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// A fresh key.
    ///
    /// # Errors
    /// If the system has no randomness.
    pub fn random() -> Result<Self, KeyError> {
        let mut bytes = [0; 32];
        SystemRandom::new().fill(&mut bytes).map_err(|_| KeyError::Random)?;
        Ok(Self(bytes))
    }

    /// Names the key without giving it away.
    pub(super) fn id(&self) -> [u8; 8] {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &self.0), b"shoal raft key id");
        let mut id = [0; 8];
        id.copy_from_slice(&tag.as_ref()[..8]);
        id
    }

    /// The key of one file. Each file has a random salt, so its nonces may simply count.
    pub(super) fn for_file(&self, salt: &[u8]) -> Option<Arc<LessSafeKey>> {
        let prk = Salt::new(HKDF_SHA256, salt).extract(&self.0);
        let okm = prk.expand(&[b"shoal raft file v1"], &AES_256_GCM).ok()?;
        Some(Arc::new(LessSafeKey::new(UnboundKey::from(okm))))
    }
}

/// Where the data key comes from. A locked cluster's would ask for its passphrase here.
pub trait KeySource: Send + Sync + 'static {
    /// The key; `fresh` if nothing is encrypted yet, so that a new one may be made.
    fn key(&self, disk: Arc<dyn Disk>, fresh: bool) -> BoxFuture<'static, Result<DataKey, KeyError>>;
}

/// A key in the file `key` beside the log, readable by its owner alone.
#[derive(Debug, Clone, Copy, Default)]
pub struct FileKey;

impl KeySource for FileKey {
    fn key(&self, disk: Arc<dyn Disk>, fresh: bool) -> BoxFuture<'static, Result<DataKey, KeyError>> {
        Box::pin(async move {
            match disk.read(FILE).await {
                Ok(bytes) => match <[u8; 32]>::try_from(bytes.as_slice()) {
                    Ok(bytes) => Ok(DataKey(bytes)),
                    Err(_) => Err(KeyError::Malformed(bytes.len())),
                },
                Err(error) if error.kind() == io::ErrorKind::NotFound && fresh => {
                    let key = DataKey::random()?;
                    disk.replace(FILE, key.0.to_vec()).await?;
                    Ok(key)
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => Err(KeyError::Missing),
                Err(error) => Err(error.into()),
            }
        })
    }
}
