//! The top of the page: what the run was like, and how to repeat it.

use serde_json::Value;

use super::{Window, escaped};

/// The command that repeats the run.
pub(super) fn command(options: &Value) -> String {
    if let Some(command) = options.get("command").and_then(Value::as_str) {
        return command.to_owned();
    }
    let mut command = "cargo run --profile sim -p shoal-sim --bin sim -- run".to_owned();
    for (option, field) in [("seed", "seed"), ("profile", "profile"), ("seconds", "chaos")] {
        let value = options.get(field).and_then(|value| match value {
            Value::Object(_) => value.get("secs").map(Value::to_string),
            value => plain(value),
        });
        if let Some(value) = value {
            command.push_str(&format!(" --{option} {value}"));
        }
    }
    command
}

/// The options that fit into a word each, and what is shown.
pub(super) fn facts(options: &Value, window: Window, events: usize) -> String {
    let mut facts: Vec<(&str, String)> = Vec::new();
    for (name, value) in options.as_object().into_iter().flatten().filter(|(name, _)| *name != "command") {
        if let Some(value) = plain(value).or_else(|| seconds(value)) {
            facts.push((name, value));
        }
    }
    // What a reader asks for first.
    facts.sort_by_key(|(name, _)| match *name {
        "seed" => 0,
        "profile" => 1,
        "hosts" => 2,
        "managers" => 3,
        _ => 4,
    });
    facts.push(("window", format!("{} to {} s", second(window.from_us), second(window.to_us))));
    facts.push(("events", events.to_string()));
    let fact = |(name, value): &(&str, String)| {
        format!("<span class=\"fact\"><i>{}</i> {}</span>", escaped(&name.replace('_', " ")), escaped(value))
    };
    facts.iter().map(fact).collect()
}

fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        _ => None,
    }
}

/// A `Duration` as serde writes it.
fn seconds(value: &Value) -> Option<String> {
    let (secs, nanos) = (value.get("secs")?.as_u64()?, value.get("nanos")?.as_u64()?);
    let micros = secs.checked_mul(1_000_000)?.checked_add(nanos / 1_000)?;
    Some(format!("{} s", second(micros)))
}

fn second(micros: u64) -> String {
    let text = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
