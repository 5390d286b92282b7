//! `shoal info` and `shoal version`.

use serde_json::{Value, json};

use super::client::Client;
use super::error::Outcome;
use super::output::{self, Format, items, number, text};

pub(crate) async fn info(client: &Client, format: Format) -> Outcome {
    let info = client.get("/info").await?;
    match format {
        Format::Json => output::print(&output::json(&info)),
        Format::Table => output::print(&describe(&info)),
    }
    Ok(())
}

fn describe(info: &Value) -> String {
    let swarm = |name: &str| text(info, &format!("/Swarm/{name}")).to_owned();
    let manager = info.pointer("/Swarm/ControlAvailable").and_then(Value::as_bool).unwrap_or_default();
    let state = swarm("LocalNodeState");
    let mut lines = vec![
        ("Host name", text(info, "/Name").to_owned()),
        ("Version", text(info, "/ServerVersion").to_owned()),
        (
            "Cluster",
            if swarm("Error").is_empty() { state.clone() } else { format!("{state}: {}", swarm("Error")) },
        ),
    ];
    if state != "inactive" {
        let managers = info.pointer("/Swarm/RemoteManagers").map(items).unwrap_or_default();
        let managers: Vec<&str> = managers.iter().map(|m| text(m, "/Addr")).collect();
        lines.extend([
            ("Cluster id", text(info, "/Swarm/Cluster/ID").to_owned()),
            ("Node id", swarm("NodeID")),
            ("Address", swarm("NodeAddr")),
            ("Role", if manager { "manager" } else { "worker" }.to_owned()),
            ("Managers", managers.join(", ")),
        ]);
        if manager {
            let count = |name: &str| number(info, &format!("/Swarm/{name}")).unwrap_or_default();
            lines.push(("Nodes", format!("{} ({} managers)", count("Nodes"), count("Managers"))));
        }
    }
    lines.iter().map(|(name, value)| format!("{name:<12}{value}\n")).collect()
}

pub(crate) async fn version(client: &Client, format: Format) -> Outcome {
    let own = env!("CARGO_PKG_VERSION");
    let server = client.get("/version").await;
    match format {
        Format::Json => {
            let server = server.as_ref().map_or(Value::Null, Clone::clone);
            output::print(&output::json(&json!({"Client": {"Version": own}, "Server": server})));
        }
        Format::Table => {
            let mut lines = format!("Client  {own}\n");
            if let Ok(server) = &server {
                lines.push_str(&format!(
                    "Node    {} (API {})\n",
                    text(server, "/Version"),
                    text(server, "/ApiVersion")
                ));
            }
            output::print(&lines);
        }
    }
    server.map(|_| ()).map_err(Into::into)
}
