//! Where on hosts ports are published. Docker's specification has no room for that, so a label of the service holds it.

use serde_json::Value;

use super::super::output::items;
use super::json::{edit_map, put};

/// Where a port that was read from a flag holds its addresses, until they are made a label.
pub(crate) const HOST_IPS: &str = "HostIPs";
const LABEL: &str = "shoal.publish.";

fn published(port: &Value) -> Option<u64> {
    port["PublishedPort"].as_u64().filter(|published| *published != 0)
}

/// The labels that may say where a port is: its own, and the one of all protocols.
fn labels(port: &Value) -> Option<[String; 2]> {
    let published = published(port)?;
    let protocol = port["Protocol"].as_str().unwrap_or("tcp");
    Some([format!("{LABEL}{published}/{protocol}"), format!("{LABEL}{published}")])
}

/// The addresses at which a port of a specification is published; empty for all.
pub(crate) fn of<'a>(spec: &'a Value, port: &Value) -> &'a str {
    let named = |name: &String| spec.get("Labels")?.get(name)?.as_str();
    labels(port).iter().flatten().find_map(named).unwrap_or_default()
}

/// Make labels of what the specification's ports say. Those that were changed, or are not published any more, lose what was said of them
/// before.
pub(crate) fn into_labels(spec: &mut Value, changed: &[Value]) {
    let mut ports = ports(spec);
    let mut add = Vec::new();
    for port in &mut ports {
        let addresses = port.as_object_mut().and_then(|port| port.remove(HOST_IPS));
        let addresses = addresses.as_ref().map(items).unwrap_or_default();
        let addresses: Vec<&str> = addresses.iter().filter_map(Value::as_str).collect();
        if let (false, Some([label, _])) = (addresses.is_empty(), labels(port)) {
            add.push((label, addresses.join(",")));
        }
    }
    let mut remove = Vec::new();
    for old in changed {
        let Some([own, shared]) = labels(old) else { continue };
        remove.push(own);
        // Another protocol's port of that number goes on as it was.
        let others = |port: &&Value| published(port) == published(old) && port["Protocol"] != old["Protocol"];
        if !ports.iter().any(|port| others(&port)) {
            remove.push(shared);
        }
    }
    remove.retain(|name| spec.get("Labels").is_some_and(|labels| labels.get(name).is_some()));
    edit_map(spec, "Labels", &add, &remove);
    if !ports.is_empty() {
        put(spec, "EndpointSpec/Ports", ports);
    }
}

/// The ports of a specification.
pub(crate) fn ports(spec: &Value) -> Vec<Value> {
    spec.pointer("/EndpointSpec/Ports").map(items).unwrap_or_default().to_vec()
}
