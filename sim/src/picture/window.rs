//! The part of a run that is shown.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::event::{Event, What};

/// A part of virtual time, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Its first microsecond.
    pub from_us: u64,
    /// Its last.
    pub to_us: u64,
}

/// What a later event of the same key takes the place of.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Key<'a> {
    Life(usize),
    Held(usize),
    Lead(usize),
    Fault(u64),
    Task(usize, &'a str),
}

impl Window {
    /// The time around the moment when something broke: as told, else of the first judge's word, else the end of
    /// the events. It ends with the events at the latest.
    #[must_use]
    pub fn around(events: &[Event], broken_at: Option<u64>, before: Duration, after: Duration) -> Self {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let end = events.iter().map(last_moment).max().unwrap_or_default();
        let judged = || {
            let words = events.iter().filter(|event| matches!(event.what, What::Broken { .. }));
            words.map(|event| event.at_us).min()
        };
        let at = broken_at.or_else(judged).unwrap_or(end);
        let to_us = at.saturating_add(micros(after)).min(end.max(at));
        Self { from_us: at.saturating_sub(micros(before)), to_us }
    }

    /// What is in the window, in order, after what began before it and still holds.
    pub(super) fn shown(self, events: &[Event]) -> Vec<&Event> {
        let mut events: Vec<&Event> = events.iter().filter(|event| event.at_us <= self.to_us).collect();
        events.sort_by_key(|event| event.at_us);
        let (earlier, inside) = events.split_at(events.partition_point(|event| event.at_us < self.from_us));
        let mut shown = holding(earlier);
        shown.extend(earlier.iter().filter(|event| {
            matches!(event.what, What::Message { arrived_us: Some(arrived), .. } if arrived >= self.from_us)
        }));
        shown.sort_by_key(|event| event.at_us);
        shown.extend(inside);
        shown
    }
}

fn last_moment(event: &Event) -> u64 {
    match event.what {
        What::Message { arrived_us: Some(arrived), .. } => arrived.max(event.at_us),
        _ => event.at_us,
    }
}

/// Of events in order, those whose effect lasts beyond the last.
fn holding<'a>(events: &[&'a Event]) -> Vec<&'a Event> {
    let mut last: BTreeMap<Key<'_>, &Event> = BTreeMap::new();
    for event in events {
        if let What::Up { host } | What::Down { host, .. } = event.what {
            last.remove(&Key::Held(host));
            last.remove(&Key::Lead(host));
        }
        match effect(&event.what) {
            Some((key, true)) => last.insert(key, event),
            Some((key, false)) => last.remove(&key),
            None => None,
        };
    }
    last.into_values().collect()
}

/// What an event has an effect on, and whether it begins or changes it; otherwise it ends it.
fn effect(what: &What) -> Option<(Key<'_>, bool)> {
    Some(match what {
        What::Up { host } | What::Down { host, .. } => (Key::Life(*host), true),
        What::Held { host, held } => (Key::Held(*host), *held),
        What::Leads { host, .. } => (Key::Lead(*host), true),
        What::Follows { host } => (Key::Lead(*host), false),
        What::Fault { id, .. } => (Key::Fault(*id), true),
        What::Mended { id } => (Key::Fault(*id), false),
        What::Task { host, task, step } => (Key::Task(*host, task), step != "removed"),
        What::Message { .. } | What::Person { .. } | What::Broken { .. } | What::Note { .. } => return None,
    })
}
