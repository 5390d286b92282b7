//! Lists of tasks, as `service ps` and `node ps` print them.

use std::collections::BTreeMap;

use serde_json::Value;
use time::OffsetDateTime;

use super::args::PsArgs;
use super::client::Client;
use super::clock;
use super::error::{CliError, Outcome};
use super::output::{self, Format, age, items, number, text};

const ERROR_CHARS_MAX: usize = 60;

/// Print the tasks that pass the filters.
pub(crate) async fn print(client: &Client, tasks: Vec<Value>, flags: &PsArgs) -> Outcome {
    let nodes = names(&client.get("/nodes").await?, "/Description/Hostname");
    let services = names(&client.get("/services").await?, "/Spec/Name");
    let mut kept = Vec::new();
    for task in tasks {
        if passes(&task, &flags.filter, &nodes, &services)? {
            kept.push(task);
        }
    }
    sort(&mut kept, &services);
    if flags.list.quiet {
        kept.iter().for_each(|task| output::print(text(task, "/ID")));
    } else if flags.list.format == Format::Json {
        output::print(&output::json(&Value::Array(kept)));
    } else {
        output::print(&table(&kept, &nodes, &services, flags.no_trunc, clock::now()));
    }
    Ok(())
}

type Names = BTreeMap<String, String>;

fn names(list: &Value, pointer: &str) -> Names {
    items(list).iter().map(|item| (text(item, "/ID").to_owned(), text(item, pointer).to_owned())).collect()
}

/// `web.1`, or `web.<node id>` for a global service.
fn task_name(task: &Value, services: &Names) -> String {
    let id = text(task, "/ServiceID");
    let service = services.get(id).map_or(id, String::as_str);
    match number(task, "/Slot") {
        Some(slot) if slot > 0 => format!("{service}.{slot}"),
        _ => format!("{service}.{}", text(task, "/NodeID")),
    }
}

fn passes(task: &Value, filters: &[(String, String)], nodes: &Names, services: &Names) -> Outcome<bool> {
    for (key, value) in filters {
        let node = text(task, "/NodeID");
        let fits = match key.as_str() {
            "desired-state" => text(task, "/DesiredState") == value,
            "node" => node == value || nodes.get(node) == Some(value),
            "name" => task_name(task, services).starts_with(value.as_str()),
            "id" => text(task, "/ID").starts_with(value.as_str()),
            _ => {
                let words = format!("no filter {key:?}: desired-state, node, name and id are there");
                return Err(CliError::Usage(words));
            }
        };
        if !fits {
            return Ok(false);
        }
    }
    Ok(true)
}

/// By service and slot, the newest task of a slot first.
fn sort(tasks: &mut [Value], services: &Names) {
    tasks.sort_by(|a, b| {
        let slot = |task: &Value| number(task, "/Slot").unwrap_or_default();
        let service = |task: &Value| services.get(text(task, "/ServiceID")).cloned();
        let key = |task: &Value| {
            (
                service(task),
                slot(task),
                if slot(task) == 0 { text(task, "/NodeID").to_owned() } else { String::new() },
            )
        };
        key(a).cmp(&key(b)).then_with(|| text(b, "/CreatedAt").cmp(text(a, "/CreatedAt")))
    });
}

fn table(tasks: &[Value], nodes: &Names, services: &Names, whole: bool, now: OffsetDateTime) -> String {
    let mut last = String::new();
    let mut rows = Vec::with_capacity(tasks.len());
    for task in tasks {
        let name = task_name(task, services);
        // Older attempts stand below the newest of their slot.
        let shown = if name == last { format!(" \\_ {name}") } else { name.clone() };
        last = name;
        let cut = |text: &str, most: usize| {
            if whole || text.chars().count() <= most {
                text.to_owned()
            } else {
                format!("{}…", text.chars().take(most - 1).collect::<String>())
            }
        };
        let node = text(task, "/NodeID");
        let error = match text(task, "/Status/Err") {
            "" if matches!(text(task, "/Status/State"), "new" | "pending") => text(task, "/Status/Message"),
            error => error,
        };
        rows.push(vec![
            if whole { text(task, "/ID").to_owned() } else { text(task, "/ID").chars().take(12).collect() },
            shown,
            text(task, "/Spec/ContainerSpec/Image").split('@').next().unwrap_or_default().to_owned(),
            nodes.get(node).cloned().unwrap_or_else(|| node.to_owned()),
            text(task, "/DesiredState").to_owned(),
            format!("{} {}", text(task, "/Status/State"), age(text(task, "/Status/Timestamp"), now)),
            cut(error, ERROR_CHARS_MAX),
        ]);
    }
    output::table(&["ID", "NAME", "IMAGE", "NODE", "DESIRED", "STATE", "ERROR"], &rows)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn task(id: &str, slot: u64, at: &str, error: &str) -> Value {
        json!({"ID": id, "ServiceID": "s", "Slot": slot, "NodeID": "n", "DesiredState": "running", "CreatedAt": at,
               "Status": {"State": "failed", "Err": error, "Timestamp": at}, "Spec": {"ContainerSpec": {"Image": "bb:1@sha256:0"}}})
    }

    #[test]
    fn older_attempts_stand_below_the_newest_of_their_slot() {
        let services = Names::from([("s".into(), "web".into())]);
        let nodes = Names::from([("n".into(), "h1".into())]);
        let mut tasks = vec![
            task("b", 2, "2026-01-01T00:00:00Z", ""),
            task("old", 1, "2026-01-01T00:00:00Z", "exit 1"),
            task("new", 1, "2026-01-01T00:00:05Z", ""),
        ];
        sort(&mut tasks, &services);
        let now = OffsetDateTime::UNIX_EPOCH;
        let out = table(&tasks, &nodes, &services, true, now);
        let names: Vec<&str> = out.lines().map(|line| line.split("   ").next().unwrap_or_default()).collect();
        assert_eq!(names, ["ID", "new", "old", "b"]);
        assert!(out.contains(" \\_ web.1") && out.contains("bb:1 ") && !out.contains("sha256"), "{out}");
    }

    #[test]
    fn an_unknown_filter_is_refused_by_name() {
        let error = passes(&json!({}), &[("colour".into(), "red".into())], &Names::new(), &Names::new());
        assert!(error.expect_err("refused").to_string().contains("colour"));
    }
}
