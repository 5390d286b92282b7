//! The sources as layers of text, and how one is laid over another.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::FromArgMatches as _;

use super::error::Source;
use super::flags::Flags;
use super::keys::{CONFIG_VARIABLE, KEYS, Key};
use super::{ConfigError, env, file, flags};

/// A value as written, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// As written.
    pub(super) value: String,
    /// Where.
    pub(super) source: Source,
}

/// What one source, or all of them together, say for each key.
#[derive(Debug, Default)]
pub(super) struct Layer(BTreeMap<&'static str, Vec<Entry>>);

impl Layer {
    /// Say something for a key. An empty list in a file is a word too: it takes away what a lower source says.
    pub(super) fn insert(&mut self, key: Key, entries: Vec<Entry>) {
        self.0.insert(key.name, entries);
    }

    /// All that is said for a key.
    pub(super) fn list(&self, name: &'static str) -> &[Entry] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    /// What is said for a key that takes one value.
    pub(super) fn one(&self, name: &'static str) -> Option<&Entry> {
        self.list(name).last()
    }

    /// Lay `upper` over this one, key by key.
    pub(super) fn cover(&mut self, upper: Self) {
        self.0.extend(upper.0);
    }
}

/// Read the three sources and lay them over each other.
pub(super) fn read(
    args: &[std::ffi::OsString],
    environment: &BTreeMap<String, String>,
) -> Result<Layer, ConfigError> {
    let flags = Flags::from_arg_matches(&flags::command().try_get_matches_from(args)?)?;
    let mut all = match config_file(&flags, environment) {
        Some(path) => file::read(&path)?,
        None => Layer::default(),
    };
    all.cover(env::read(environment)?);
    let mut upper = Layer::default();
    for key in KEYS {
        let source = Source::Flag(key.name);
        let entries: Vec<Entry> =
            flags.values(key).into_iter().map(|value| Entry { value, source: source.clone() }).collect();
        if !entries.is_empty() {
            upper.insert(key, entries);
        }
    }
    all.cover(upper);
    Ok(all)
}

fn config_file(flags: &Flags, environment: &BTreeMap<String, String>) -> Option<PathBuf> {
    let from_env = || environment.get(CONFIG_VARIABLE).filter(|path| !path.is_empty()).cloned();
    flags.config.clone().or_else(from_env).map(|path| Path::new(&path).to_owned())
}
