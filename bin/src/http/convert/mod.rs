//! Between Docker's JSON and the model. Inwards everything is checked and every error names its field and the
//! remedy; outwards nothing can fail.

use std::time::Duration;

use super::error::HttpError;

mod container;
mod mount;
pub(super) mod network;
mod node;
mod policy;
mod ports;
mod resources;
mod service;
mod swarm;
mod task;
mod validate;

pub(super) use node::{NodeView, node_json, node_spec};
pub(super) use ports::port_json;
pub(super) use service::{insert_defaults, service_json, service_spec};
pub(super) use swarm::{SwarmView, address_pools, autolock, cluster_info, swarm_json, swarm_spec};
pub(super) use task::task_json;
pub(super) use validate::availability;

/// Docker's words for states, for events.
pub(super) mod words {
    pub(in crate::http) use super::node::state_word as node_state;
    pub(in crate::http) use super::service::update_state_word as update_state;

    /// The word for an availability.
    pub(in crate::http) fn availability(value: shoal_core::model::Availability) -> String {
        super::validate::availability_word(value).unwrap_or_default()
    }
}

/// A number that may not be negative; absent means zero.
fn count(path: &str, value: Option<i64>) -> Result<u64, HttpError> {
    let value = value.unwrap_or_default();
    u64::try_from(value)
        .map_err(|_| HttpError::field(path, format!("{value} is negative: 0 or more is wanted")))
}

/// Nanoseconds that may not be negative.
fn duration(path: &str, value: Option<i64>) -> Result<Option<Duration>, HttpError> {
    value.map(|_| count(path, value).map(Duration::from_nanos)).transpose()
}

/// A duration as Docker writes it.
fn nanos(value: Duration) -> i64 {
    i64::try_from(value.as_nanos()).unwrap_or(i64::MAX)
}

/// A number as Docker's Go types hold it.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Something, unless it is empty.
fn filled<T: Default + PartialEq + Clone>(value: &T) -> Option<T> {
    (*value != T::default()).then(|| value.clone())
}

/// A word out of a fixed few; absent or empty means the first.
fn word<T: Copy>(path: &str, value: Option<&str>, words: &[(&str, T)]) -> Result<T, HttpError> {
    let given = value.unwrap_or_default();
    let found = words.iter().position(|(name, _)| *name == given).or_else(|| given.is_empty().then_some(0));
    found.and_then(|at| words.get(at)).map(|(_, meaning)| *meaning).ok_or_else(|| {
        let known: Vec<_> = words.iter().map(|(name, _)| *name).collect();
        HttpError::field(path, format!("{given:?} is unknown: {} is wanted", known.join(", ")))
    })
}

/// The word for a meaning.
fn word_of<T: Copy + PartialEq>(value: T, words: &[(&'static str, T)]) -> Option<String> {
    words.iter().find(|(_, meaning)| *meaning == value).map(|(name, _)| (*name).to_owned())
}
