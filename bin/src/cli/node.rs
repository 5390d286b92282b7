//! `shoal node …`.

use serde_json::Value;

use super::args::{ListArgs, NodeUpdate, NodeVerb, PsArgs};
use super::client::{Client, encode, filters};
use super::error::{CliError, Outcome};
use super::output::{self, Format, items, number, text};
use super::spec::json::{edit_map, put};
use super::tasks;

pub(crate) async fn run(client: &Client, verb: NodeVerb) -> Outcome {
    match verb {
        NodeVerb::Ls { list } => ls(client, list).await,
        NodeVerb::Ps { nodes, ps } => ps_of(client, nodes, &ps).await,
        NodeVerb::Inspect { nodes, pretty, .. } => inspect(client, &nodes, pretty).await,
        NodeVerb::Update(flags) => update(client, &flags).await,
        NodeVerb::Promote { nodes } => set_role(client, &nodes, "manager").await,
        NodeVerb::Demote { nodes } => set_role(client, &nodes, "worker").await,
        NodeVerb::Rm { nodes, force } => {
            for node in nodes {
                client.delete(&format!("/nodes/{}?force={force}", encode(&node))).await?;
                output::print(&node);
            }
            Ok(())
        }
    }
}

async fn ls(client: &Client, list: ListArgs) -> Outcome {
    let nodes = client.get("/nodes").await?;
    if list.quiet {
        items(&nodes).iter().for_each(|node| output::print(text(node, "/ID")));
        return Ok(());
    }
    if list.format == Format::Json {
        output::print(&output::json(&nodes));
        return Ok(());
    }
    let info = client.get("/info").await?;
    output::print(&table(items(&nodes), text(&info, "/Swarm/NodeID")));
    Ok(())
}

/// The table of `node ls`; `own` is the node that answered.
pub(crate) fn table(nodes: &[Value], own: &str) -> String {
    let row = |node: &Value| {
        let id = text(node, "/ID");
        let leader = node.pointer("/ManagerStatus/Leader").and_then(Value::as_bool).unwrap_or_default();
        let manager = if leader { "leader" } else { text(node, "/ManagerStatus/Reachability") };
        vec![
            format!("{id}{}", if id == own { " *" } else { "" }),
            text(node, "/Description/Hostname").to_owned(),
            text(node, "/Status/State").to_owned(),
            text(node, "/Spec/Availability").to_owned(),
            manager.to_owned(),
            text(node, "/Status/Addr").to_owned(),
            text(node, "/Description/Engine/EngineVersion").to_owned(),
        ]
    };
    let rows: Vec<_> = nodes.iter().map(row).collect();
    output::table(&["ID", "HOSTNAME", "STATUS", "AVAILABILITY", "MANAGER", "ADDRESS", "ENGINE"], &rows)
}

/// A node by id, name, or `self`, which the API knows only as the id that it tells.
async fn find(client: &Client, node: &str) -> Outcome<Value> {
    let own = match node {
        "self" => text(&client.get("/info").await?, "/Swarm/NodeID").to_owned(),
        _ => String::new(),
    };
    let node = if own.is_empty() { node } else { &own };
    Ok(client.get(&format!("/nodes/{}", encode(node))).await?)
}

async fn ps_of(client: &Client, mut nodes: Vec<String>, ps: &PsArgs) -> Outcome {
    if nodes.is_empty() {
        nodes.push("self".into());
    }
    let mut found = Vec::new();
    for node in nodes {
        let node = find(client, &node).await?;
        let tasks = client.get(&format!("/tasks?{}", filters(&[("node", &[text(&node, "/ID")])]))).await?;
        found.extend(items(&tasks).iter().cloned());
    }
    tasks::print(client, found, ps).await
}

async fn inspect(client: &Client, nodes: &[String], pretty: bool) -> Outcome {
    let mut found = Vec::new();
    for node in nodes {
        found.push(find(client, node).await?);
    }
    if pretty {
        found.iter().for_each(|node| output::print(&describe(node)));
    } else {
        output::print(&output::json(&Value::Array(found)));
    }
    Ok(())
}

fn describe(node: &Value) -> String {
    let resources = "/Description/Resources";
    let cpus = number(node, &format!("{resources}/NanoCPUs")).unwrap_or_default() as f64 / 1e9;
    let memory = number(node, &format!("{resources}/MemoryBytes")).unwrap_or_default() >> 20;
    let labels = node.pointer("/Spec/Labels").and_then(Value::as_object);
    let labels: Vec<_> = labels
        .into_iter()
        .flatten()
        .map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default()))
        .collect();
    let lines = [
        ("ID", text(node, "/ID").to_owned()),
        ("Host name", text(node, "/Description/Hostname").to_owned()),
        ("Role", text(node, "/Spec/Role").to_owned()),
        ("Status", format!("{} {}", text(node, "/Status/State"), text(node, "/Status/Message"))),
        ("Availability", text(node, "/Spec/Availability").to_owned()),
        ("Address", text(node, "/Status/Addr").to_owned()),
        ("Manager", text(node, "/ManagerStatus/Reachability").to_owned()),
        (
            "Platform",
            format!(
                "{}/{}",
                text(node, "/Description/Platform/OS"),
                text(node, "/Description/Platform/Architecture")
            ),
        ),
        ("Resources", format!("{cpus} CPUs, {memory} MiB")),
        ("Engine", text(node, "/Description/Engine/EngineVersion").to_owned()),
        ("Labels", labels.join(", ")),
        ("Joined", text(node, "/CreatedAt").to_owned()),
    ];
    lines.iter().map(|(name, value)| format!("{name:<14}{}\n", value.trim())).collect()
}

async fn update(client: &Client, flags: &NodeUpdate) -> Outcome {
    let asked = flags.availability.is_some()
        || flags.role.is_some()
        || !flags.label_add.is_empty()
        || !flags.label_rm.is_empty();
    if !asked {
        return Err(CliError::Usage(
            "nothing to change: name --availability, --role, --label-add or --label-rm".into(),
        ));
    }
    change(client, &flags.node, |spec| lay_over(spec, flags)).await?;
    output::print(&flags.node);
    Ok(())
}

/// Lay the flags over a node's specification.
pub(crate) fn lay_over(spec: &mut Value, flags: &NodeUpdate) {
    if let Some(availability) = flags.availability {
        put(spec, "Availability", availability.to_string());
    }
    if let Some(role) = flags.role {
        put(spec, "Role", role.to_string());
    }
    edit_map(spec, "Labels", &flags.label_add, &flags.label_rm);
}

async fn set_role(client: &Client, nodes: &[String], role: &str) -> Outcome {
    for node in nodes {
        let changed = change(client, node, |spec| put(spec, "Role", role)).await?;
        let words = if changed { "will be" } else { "already is" };
        output::print(&format!("Node {node} {words} a {role}."));
    }
    Ok(())
}

/// Read, change, write; `false` if there was nothing to change.
async fn change(client: &Client, node: &str, edit: impl Fn(&mut Value)) -> Outcome<bool> {
    let found = find(client, node).await?;
    let mut spec = found["Spec"].clone();
    edit(&mut spec);
    if spec == found["Spec"] {
        return Ok(false);
    }
    let version = number(&found, "/Version/Index").unwrap_or_default();
    let id = text(&found, "/ID");
    client.post(&format!("/nodes/{}/update?version={version}", encode(id)), &spec).await?;
    Ok(true)
}
