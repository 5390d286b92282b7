//! How a command fails, and with which exit code.

use super::client::ClientError;

/// Why a command did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// It was tried and failed: exit code 1.
    #[error("{0}")]
    Failed(String),
    /// It was asked for in the wrong way: exit code 2.
    #[error("{0}")]
    Usage(String),
    /// It was begun, and was not finished when we stopped watching: exit code 3.
    #[error("{0}")]
    NotConverged(String),
    /// The node refused or was not reached: exit code 1.
    #[error(transparent)]
    Client(#[from] ClientError),
}

impl CliError {
    /// The exit code.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Self::Failed(_) | Self::Client(_) => 1,
            Self::Usage(_) => 2,
            Self::NotConverged(_) => 3,
        }
    }

    /// A failure from anything that has words.
    pub(crate) fn failed(words: impl std::fmt::Display) -> Self {
        Self::Failed(words.to_string())
    }
}

/// What every command returns.
pub type Outcome<T = ()> = Result<T, CliError>;
