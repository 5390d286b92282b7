//! `shoal port …`.

use serde_json::Value;

use super::args::{ListArgs, PortVerb};
use super::client::{Client, encode};
use super::error::Outcome;
use super::output::{self, Format, items, number, text};

pub(crate) async fn run(client: &Client, verb: PortVerb) -> Outcome {
    let PortVerb::Ls { service, list } = verb;
    ls(client, service.as_deref(), list).await
}

async fn ls(client: &Client, service: Option<&str>, list: ListArgs) -> Outcome {
    let query = service.map(|name| format!("?service={}", encode(name))).unwrap_or_default();
    let found = client.get(&format!("/shoal/v1/ports{query}")).await?;
    let ports = found.get("Ports").map(items).unwrap_or_default();
    if list.quiet {
        ports.iter().for_each(|port| output::print(&published(port)));
    } else if list.format == Format::Json {
        output::print(&output::json(&found));
    } else {
        output::print(&table(ports));
    }
    Ok(())
}

fn published(port: &Value) -> String {
    format!("{}/{}", count(port, "PublishedPort"), text(port, "/Protocol"))
}

fn count(port: &Value, name: &str) -> u64 {
    number(port, &format!("/{name}")).unwrap_or_default()
}

/// The addresses of hosts at which it is published.
fn at(port: &Value) -> String {
    let at = port.get("HostAddresses").map(items).unwrap_or_default();
    let at: Vec<&str> = at.iter().filter_map(Value::as_str).collect();
    if at.is_empty() { "*".to_owned() } else { at.join(",") }
}

/// What has become of it on this host.
fn here(port: &Value) -> &str {
    let error = text(port, "/Error");
    match port.get("ListeningAt").map(items) {
        _ if !error.is_empty() => error,
        Some([]) => "no such address",
        _ => "listening",
    }
}

fn table(ports: &[Value]) -> String {
    let row = |port: &Value| {
        vec![
            published(port),
            at(port),
            text(port, "/Service").to_owned(),
            count(port, "TargetPort").to_string(),
            count(port, "Backends").to_string(),
            count(port, "OpenConnections").to_string(),
            count(port, "Connections").to_string(),
            count(port, "RefusedConnections").to_string(),
            count(port, "Retries").to_string(),
            here(port).to_owned(),
        ]
    };
    let rows: Vec<_> = ports.iter().map(row).collect();
    let headings =
        ["PORT", "AT", "SERVICE", "TARGET", "TASKS", "OPEN", "TOTAL", "REFUSED", "RETRIES", "HERE"];
    output::table(&headings, &rows)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_port_that_cannot_be_had_says_why() {
        let ports = [
            json!({"Service": "web", "Protocol": "tcp", "PublishedPort": 80, "TargetPort": 8080, "Backends": 3}),
            json!({"Service": "db", "Protocol": "tcp", "PublishedPort": 5432, "Error": "in use"}),
            json!({"Service": "in", "Protocol": "udp", "PublishedPort": 53, "HostAddresses": ["10.0.0.0/8", "::1"], "ListeningAt": []}),
        ];
        let text = table(&ports);
        assert!(text.contains("80/tcp     *                web       8080     3"), "{text}");
        let last = text.lines().nth(3).unwrap_or_default();
        assert!(last.contains("10.0.0.0/8,::1") && last.ends_with("no such address"), "{text}");
        assert!(text.lines().nth(2).is_some_and(|line| line.ends_with("in use")), "{text}");
    }
}
