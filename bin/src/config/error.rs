//! Why a configuration is refused: the source, what is wrong with it and what to do. Values of secrets are never part of it.

use std::fmt;
use std::path::PathBuf;

/// Where a setting was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// On the command line.
    Flag(&'static str),
    /// In the environment.
    Variable(String),
    /// In the file, at this line.
    File {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Its key.
        key: String,
    },
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) => write!(f, "--{name}"),
            Self::Variable(name) => f.write_str(name),
            Self::File { path, line, key } => write!(f, "{}:{line} {key}", path.display()),
        }
    }
}

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The command line is malformed, or asked for help or the version.
    #[error("{}", super::redact(&.0.to_string()))]
    CommandLine(#[from] clap::Error),
    /// The file cannot be read.
    #[error("cannot read the configuration file {}: {reason}; check --config and the file's permissions", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's words.
        reason: String,
    },
    /// The file is not TOML.
    #[error("{}:{line}: not valid TOML: {reason}", .path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// The parser's words, without the line's text.
        reason: String,
    },
    /// A key that does not exist.
    #[error("{at}: unknown setting{}", .hint.as_ref().map(|h| format!("; did you mean {h}?")).unwrap_or_default())]
    Unknown {
        /// Where.
        at: String,
        /// The nearest name that exists.
        hint: Option<String>,
    },
    /// A value that does not fit.
    #[error("{at}: {reason}; {remedy}")]
    Invalid {
        /// Where.
        at: String,
        /// What is wrong.
        reason: String,
        /// What to do.
        remedy: String,
    },
    /// Two settings that exclude each other.
    #[error("{first} and {second} exclude each other: {remedy}")]
    Conflict {
        /// One.
        first: String,
        /// The other.
        second: String,
        /// What to do.
        remedy: &'static str,
    },
}

impl ConfigError {
    /// Whether this is no error but a request for help or the version.
    #[must_use]
    pub fn is_help(&self) -> bool {
        matches!(self, Self::CommandLine(error) if !error.use_stderr())
    }

    pub(super) fn invalid(at: &Source, reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Invalid { at: at.to_string(), reason: reason.into(), remedy: remedy.into() }
    }

    pub(super) fn unknown<'a>(
        at: String,
        name: &str,
        known: impl Iterator<Item = String>,
        show: impl Fn(&str) -> String + 'a,
    ) -> Self {
        let nearest = known.map(|k| (distance(&k, name), k)).min().filter(|(d, _)| *d <= 3);
        Self::Unknown { at, hint: nearest.map(|(_, k)| show(&k)) }
    }
}

/// Edits between two names (Levenshtein), to suggest what was meant.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().take(64).enumerate() {
        let mut before = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let kept = before + usize::from(x != *y);
            before = row[j + 1];
            row[j + 1] = kept.min(before + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
