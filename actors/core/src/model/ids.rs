//! Identifiers: 128 random bits, written as 25 characters of base 36. A type each, so that a
//! task's id never passes as a node's.

use std::fmt;
use std::str::FromStr;

use rand::RngCore;
use serde::{Deserialize, Serialize};

/// Length of every identifier as text.
pub const ID_LEN: usize = 25;
const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// The text is not an identifier: 25 characters of `0-9a-z` below 2^128.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an identifier: 25 characters of 0-9 and a-z are wanted")]
pub struct ParseIdError(pub String);

fn parse(text: &str) -> Result<u128, ParseIdError> {
    let bad = || ParseIdError(text.chars().take(64).collect());
    if text.len() != ID_LEN {
        return Err(bad());
    }
    text.bytes().try_fold(0u128, |acc, byte| {
        let digit = DIGITS.iter().position(|d| *d == byte).ok_or_else(bad)?;
        acc.checked_mul(36).and_then(|acc| acc.checked_add(digit as u128)).ok_or_else(bad)
    })
}

fn write(mut value: u128, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut text = [b'0'; ID_LEN];
    for place in text.iter_mut().rev() {
        *place = DIGITS[(value % 36) as usize];
        value /= 36;
    }
    f.pad(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
}

macro_rules! id {
    ($(#[$doc:meta] $name:ident),* $(,)?) => {$(
        #[$doc]
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(u128);

        impl $name {
            /// A fresh identifier from the caller's generator.
            pub fn random(rng: &mut dyn RngCore) -> Self {
                let mut bytes = [0; 16];
                rng.fill_bytes(&mut bytes);
                Self(u128::from_le_bytes(bytes))
            }
            /// The identifier with this value; for tests and decoders.
            pub const fn from_u128(value: u128) -> Self {
                Self(value)
            }
            /// The value of this identifier.
            pub const fn as_u128(self) -> u128 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write(self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write(self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                parse(text).map(Self)
            }
        }
    )*};
}

id! {
    /// Names a cluster; the organisation in every certificate.
    ClusterId,
    /// Names a node; the common name in its certificate and its raft id.
    NodeId,
    /// Names a service.
    ServiceId,
    /// Names a task.
    TaskId,
    /// Names a network.
    NetworkId,
    /// Names a container that is no task, in networks that span nodes.
    AttachmentId,
    /// Names a secret.
    SecretId,
    /// Names a config.
    ConfigId,
}

/// A small number as a node's id: storage suites number their nodes.
impl From<u64> for NodeId {
    fn from(value: u64) -> Self {
        Self(value.into())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_id_reads_back_as_written(value: u128) {
            let id = TaskId::from_u128(value);
            prop_assert_eq!(id.to_string().len(), ID_LEN);
            prop_assert_eq!(id.to_string().parse::<TaskId>(), Ok(id));
        }

        #[test]
        fn ids_sort_as_their_text(a: u128, b: u128) {
            let (a, b) = (NodeId::from_u128(a), NodeId::from_u128(b));
            prop_assert_eq!(a.cmp(&b), a.to_string().cmp(&b.to_string()));
        }
    }

    #[test]
    fn what_is_not_an_id_is_refused() {
        for text in
            ["", "abc", "zzzzzzzzzzzzzzzzzzzzzzzzz", "A000000000000000000000000", "é00000000000000000000000"]
        {
            assert!(text.parse::<NodeId>().is_err(), "{text}");
        }
    }
}
