//! Nodes.

use super::{Limits, Map, Version, object};

object! {
    /// A node.
    Node {
        #[serde(rename = "ID")]
        id: String,
        version: Version,
        created_at: String,
        updated_at: String,
        spec: NodeSpec,
        description: NodeDescription,
        status: NodeStatus,
        manager_status: ManagerStatus,
    }
}

object! {
    /// The user's word on a node.
    NodeSpec {
        name: String,
        labels: Map,
        role: String,
        availability: String,
    }
}

object! {
    /// The node's own word.
    NodeDescription {
        hostname: String,
        platform: Platform,
        resources: Limits,
        engine: EngineDescription,
        #[serde(rename = "TLSInfo")]
        tls_info: TlsInfo,
    }
}

object! {
    /// Operating system and processor.
    Platform {
        architecture: String,
        #[serde(rename = "OS")]
        os: String,
    }
}

object! {
    /// What runs a node's containers.
    EngineDescription {
        engine_version: String,
        labels: Map,
        plugins: Vec<Plugin>,
    }
}

object! {
    /// A plugin of the engine.
    Plugin {
        #[serde(rename = "Type")]
        kind: String,
        name: String,
    }
}

object! {
    /// The authority that a node trusts; the binary ones in base 64.
    TlsInfo {
        trust_root: String,
        cert_issuer_subject: String,
        cert_issuer_public_key: String,
    }
}

object! {
    /// Whether a node is there.
    NodeStatus {
        state: String,
        message: String,
        addr: String,
    }
}

object! {
    /// A manager's seat.
    ManagerStatus {
        leader: bool,
        reachability: String,
        addr: String,
    }
}
