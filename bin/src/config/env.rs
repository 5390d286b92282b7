//! The environment as a source.

use std::collections::BTreeMap;

use super::ConfigError;
use super::error::Source;
use super::keys::{CLIENT_VARIABLES, CONFIG_VARIABLE, KEYS, Key, PREFIX, Shape};
use super::layers::{Entry, Layer};

/// Take the `SHOAL_*` variables. An unknown one is a mistake of the user and refused by name; an empty one is unset.
pub(super) fn read(env: &BTreeMap<String, String>) -> Result<Layer, ConfigError> {
    let mut layer = Layer::default();
    for (name, value) in env.iter().filter(|(name, _)| name.starts_with(PREFIX)) {
        if name == CONFIG_VARIABLE || CLIENT_VARIABLES.contains(&name.as_str()) {
            continue;
        }
        let Some(key) = KEYS.into_iter().find(|key| key.variable() == *name) else {
            let known = KEYS.iter().map(|key| key.variable());
            return Err(ConfigError::unknown(name.clone(), name, known, str::to_owned));
        };
        if !value.is_empty() {
            layer.insert(key, split(key, value).into_iter().map(|v| entry(name, v)).collect());
        }
    }
    Ok(layer)
}

fn split(key: Key, value: &str) -> Vec<String> {
    match key.shape {
        Shape::List | Shape::Table => {
            value.split(',').map(str::trim).filter(|v| !v.is_empty()).map(str::to_owned).collect()
        }
        Shape::Text | Shape::Switch => vec![value.to_owned()],
    }
}

fn entry(name: &str, value: String) -> Entry {
    Entry { value, source: Source::Variable(name.to_owned()) }
}
