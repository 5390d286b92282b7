//! `/shoal/v1/ports`: the mesh's ports on this node.

use hyper::StatusCode;
use serde_json::json;
use shoal_core::mesh::place_text;
use shoal_core::model::Protocol;
use shoal_net::mesh::PortStats;

use super::super::body::{self, Answer};
use super::super::context::Context;
use super::super::query::Query;

/// `GET /shoal/v1/ports?service`: of all services, or of the one of that name.
pub(in crate::http) fn list(context: &Context, query: &Query) -> Answer {
    let stats = context.api.mesh();
    let wanted = query.get("service");
    let of = |port: &&PortStats| wanted.is_none_or(|name| port.service == name);
    let ports: Vec<_> = stats.ports.iter().filter(of).map(port).collect();
    let found = json!({
        "Ports": ports,
        "ServedForOthers": stats.served,
        "RefusedToOthers": stats.served_refused,
        "CutConnections": stats.cut,
    });
    body::json(StatusCode::OK, &found)
}

fn port(port: &PortStats) -> serde_json::Value {
    let protocol = match port.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    };
    json!({
        "Service": port.service,
        "Protocol": protocol,
        "PublishedPort": port.published,
        "TargetPort": port.target,
        "HostAddresses": port.at.iter().map(place_text).collect::<Vec<_>>(),
        "ListeningAt": port.here,
        "Backends": port.backends,
        "Error": port.error,
        "Connections": port.accepted,
        "OpenConnections": port.open,
        "RefusedConnections": port.refused,
        "Retries": port.retries,
        "MovedConnections": port.moved,
        "DroppedDatagrams": port.dropped,
        "ConnectMicroseconds": port.connect.sum_us,
        "Answers": port.first_byte.count(),
        "FirstByteMicroseconds": port.first_byte.sum_us,
        "BytesIn": port.bytes_in,
        "BytesOut": port.bytes_out,
    })
}
