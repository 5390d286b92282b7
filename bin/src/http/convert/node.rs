//! Nodes.

use std::net::SocketAddr;

use shoal_core::model::{Node, NodeDescription, NodeSpec, NodeState, Role};

use super::super::clock;
use super::super::error::HttpError;
use super::super::types::{self, EngineDescription, Limits, ManagerStatus, Plugin, TlsInfo, version};
use super::resources::generic_json;
use super::validate::{availability, availability_word};
use super::{filled, signed, word, word_of};

const ROLES: [(&str, Role); 2] = [("worker", Role::Worker), ("manager", Role::Manager)];

/// What is known of a node beside the node itself.
#[derive(Debug, Clone, Default)]
pub(in crate::http) struct NodeView {
    /// Whether it leads.
    pub(in crate::http) is_leader: bool,
    /// Whether it was heard of lately, if it is a manager.
    pub(in crate::http) is_reachable: bool,
    /// The authority that it trusts.
    pub(in crate::http) tls: TlsInfo,
}

/// Read the user's word on a node, checked.
///
/// # Errors
/// 400 that names the field.
pub(in crate::http) fn node_spec(json: types::NodeSpec) -> Result<NodeSpec, HttpError> {
    let Some(role) = json.role.as_deref().filter(|r| !r.is_empty()) else {
        return Err(HttpError::field("Spec.Role", "it is missing: worker or manager is wanted"));
    };
    let Some(given) = json.availability.as_deref().filter(|a| !a.is_empty()) else {
        return Err(HttpError::field("Spec.Availability", "it is missing: active, pause or drain is wanted"));
    };
    Ok(NodeSpec {
        name: json.name.filter(|n| !n.is_empty()),
        labels: json.labels.unwrap_or_default(),
        role: word("Spec.Role", Some(role), &ROLES)?,
        availability: availability("Spec.Availability", Some(given))?,
    })
}

/// Write the user's word on a node.
pub(in crate::http) fn node_spec_json(spec: &NodeSpec) -> types::NodeSpec {
    types::NodeSpec {
        name: spec.name.clone(),
        labels: Some(spec.labels.clone()),
        role: word_of(spec.role, &ROLES),
        availability: availability_word(spec.availability),
    }
}

/// Docker's word for a node's state.
pub(in crate::http) fn state_word(state: NodeState) -> &'static str {
    match state {
        NodeState::Unknown => "unknown",
        NodeState::Down => "down",
        NodeState::Ready => "ready",
        NodeState::Disconnected => "disconnected",
    }
}

/// Write a node.
pub(in crate::http) fn node_json(node: &Node, view: &NodeView) -> types::Node {
    let addr = node.description.as_ref().map(|d| host(&d.addr)).unwrap_or_default();
    types::Node {
        id: Some(node.id.to_string()),
        version: version(node.meta.spec_version),
        created_at: Some(clock::text(node.meta.created_at)),
        updated_at: Some(clock::text(node.meta.updated_at)),
        spec: Some(node_spec_json(&node.spec)),
        description: Some(
            node.description.as_ref().map(|d| description_json(d, &view.tls)).unwrap_or_default(),
        ),
        status: Some(types::NodeStatus {
            state: Some(state_word(node.status.state).to_owned()),
            message: filled(&node.status.message),
            addr: Some(addr),
        }),
        manager_status: node.manager.as_ref().map(|manager| ManagerStatus {
            leader: filled(&view.is_leader),
            reachability: Some(if view.is_reachable { "reachable" } else { "unreachable" }.to_owned()),
            addr: Some(manager.addr.clone()),
        }),
    }
}

fn host(addr: &str) -> String {
    addr.parse::<SocketAddr>().map_or_else(|_| addr.to_owned(), |addr| addr.ip().to_string())
}

fn description_json(description: &NodeDescription, tls: &TlsInfo) -> types::NodeDescription {
    let NodeDescription { hostname, platform, resources, engine, .. } = description;
    let plugin =
        |(kind, name): &(String, String)| Plugin { kind: Some(kind.clone()), name: Some(name.clone()) };
    types::NodeDescription {
        hostname: Some(hostname.clone()),
        platform: Some(types::Platform {
            architecture: Some(platform.architecture.clone()),
            os: Some(platform.os.clone()),
        }),
        resources: Some(Limits {
            nano_cpus: Some(signed(resources.nano_cpus)),
            memory_bytes: Some(signed(resources.memory_bytes)),
            pids: None,
            generic_resources: generic_json(&resources.generic),
        }),
        engine: Some(EngineDescription {
            engine_version: Some(engine.version.clone()),
            labels: filled(&engine.labels),
            plugins: filled(&engine.plugins.iter().map(plugin).collect()),
        }),
        tls_info: Some(tls.clone()),
    }
}
