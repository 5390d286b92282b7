//! The TOML file as a source. Every entry remembers its line.

use std::io::Read as _;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::ConfigError;
use super::error::Source;
use super::keys::{KEYS, Key, Shape};
use super::layers::{Entry, Layer};

/// A file larger than this is not a configuration.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Read the file.
pub(super) fn read(path: &Path) -> Result<Layer, ConfigError> {
    let unreadable = |reason: String| ConfigError::Unreadable { path: path.to_owned(), reason };
    let file = std::fs::File::open(path).map_err(|e| unreadable(e.to_string()))?;
    let mut text = String::new();
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(|e| unreadable(e.to_string()))?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(unreadable(format!("it is larger than {FILE_BYTES_MAX} bytes")));
    }
    parse(path, &text)
}

/// Take the settings out of the text of a file.
pub(super) fn parse(path: &Path, text: &str) -> Result<Layer, ConfigError> {
    let file = File { path, text };
    let table = DeTable::parse(text).map_err(|error| ConfigError::Syntax {
        path: path.to_owned(),
        line: file.line(error.span().map_or(0, |span| span.start)),
        reason: error.message().to_owned(),
    })?;
    let mut layer = Layer::default();
    for (name, value) in table.get_ref() {
        let at = name.span().start;
        let name = name.get_ref().as_ref();
        let Some(key) = Key::by_name(name) else {
            let known = KEYS.iter().map(|key| key.name.to_owned());
            return Err(ConfigError::unknown(file.source(at, name).to_string(), name, known, str::to_owned));
        };
        layer.insert(key, file.entries(key, at, value)?);
    }
    Ok(layer)
}

/// The file being read.
struct File<'a> {
    path: &'a Path,
    text: &'a str,
}

impl File<'_> {
    fn line(&self, at: usize) -> usize {
        1 + self.text.bytes().take(at).filter(|byte| *byte == b'\n').count()
    }

    fn source(&self, at: usize, key: &str) -> Source {
        Source::File { path: self.path.to_owned(), line: self.line(at), key: key.to_owned() }
    }

    fn entry(&self, at: usize, key: Key, value: String) -> Entry {
        Entry { value, source: self.source(at, key.name) }
    }

    fn entries(&self, key: Key, at: usize, value: &Spanned<DeValue<'_>>) -> Result<Vec<Entry>, ConfigError> {
        let refuse = |at: usize, found: &DeValue<'_>, wanted: &str| {
            let reason = format!("a {} is written there", found.type_str());
            ConfigError::invalid(&self.source(at, key.name), reason, format!("write {wanted}"))
        };
        match (key.shape, value.get_ref()) {
            (Shape::Switch, DeValue::Boolean(on)) => Ok(vec![self.entry(at, key, on.to_string())]),
            (Shape::Switch, other) => Err(refuse(at, other, "true or false")),
            (Shape::Text | Shape::List, DeValue::String(text)) => {
                Ok(vec![self.entry(at, key, text.to_string())])
            }
            (Shape::Text, other) => Err(refuse(at, other, "a string")),
            (Shape::List | Shape::Table, DeValue::Array(items)) => items
                .iter()
                .map(|item| match item.get_ref() {
                    DeValue::String(text) => Ok(self.entry(item.span().start, key, text.to_string())),
                    other => Err(refuse(item.span().start, other, "an array of strings")),
                })
                .collect::<Result<_, _>>(),
            (Shape::Table, DeValue::Table(table)) => table
                .iter()
                .map(|(name, item)| match item.get_ref() {
                    DeValue::String(text) => {
                        Ok(self.entry(name.span().start, key, format!("{}={text}", name.get_ref())))
                    }
                    other => Err(refuse(name.span().start, other, "strings as values")),
                })
                .collect::<Result<_, _>>(),
            (Shape::List, other) => Err(refuse(at, other, "a string or an array of strings")),
            (Shape::Table, other) => Err(refuse(at, other, "a table of strings or an array of K=V")),
        }
    }
}
