//! One codec for everything: bincode 2 (serde), little endian, variable integers, with a limit on each read.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Most bytes that a message may have.
pub const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// Most bytes that a snapshot or a persisted record may have.
pub const RECORD_BYTES_MAX: usize = 1 << 30;

/// Bytes are not what they should be.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// Malformed, or over the limit.
    #[error("malformed {what}: {source}")]
    Decode {
        /// Type that was wanted.
        what: &'static str,
        /// bincode's word.
        source: bincode::error::DecodeError,
    },
    /// There are bytes behind the message.
    #[error("malformed {what}: {extra} bytes too many")]
    Trailing {
        /// Type that was wanted.
        what: &'static str,
        /// How many.
        extra: usize,
    },
    /// Cannot be written.
    #[error("cannot encode {what}: {source}")]
    Encode {
        /// Type that was to be written.
        what: &'static str,
        /// bincode's word.
        source: bincode::error::EncodeError,
    },
}

/// Write a value.
///
/// # Errors
/// If the value's own `Serialize` fails.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, CodecError> {
    bincode::serde::encode_to_vec(value, bincode::config::standard())
        .map_err(|source| CodecError::Encode { what: std::any::type_name::<T>(), source })
}

/// Read a message: at most [`MESSAGE_BYTES_MAX`], nothing behind it.
///
/// # Errors
/// If the bytes are malformed, too many, or claim more than the limit.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    read::<T, MESSAGE_BYTES_MAX>(bytes)
}

/// Read a persisted record or a snapshot: at most [`RECORD_BYTES_MAX`].
///
/// # Errors
/// As [`decode`].
pub fn decode_record<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    read::<T, RECORD_BYTES_MAX>(bytes)
}

fn read<T: DeserializeOwned, const LIMIT: usize>(bytes: &[u8]) -> Result<T, CodecError> {
    let what = std::any::type_name::<T>();
    let config = bincode::config::standard().with_limit::<LIMIT>();
    let (value, used) = bincode::serde::decode_from_slice(bytes, config)
        .map_err(|source| CodecError::Decode { what, source })?;
    if used < bytes.len() {
        return Err(CodecError::Trailing { what, extra: bytes.len() - used });
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shoal_core::store::{Command, State};

    use super::*;

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = decode::<Command>(&bytes);
            let _ = decode::<State>(&bytes);
        }
    }

    #[test]
    fn trailing_bytes_are_refused() {
        let mut bytes = encode(&7u32).unwrap();
        bytes.push(0);
        assert!(matches!(decode::<u32>(&bytes), Err(CodecError::Trailing { extra: 1, .. })));
    }
}
