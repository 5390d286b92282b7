//! Networks that span nodes.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Driver, Map, Version, object};

object! {
    /// `POST /networks/create`
    NetworkCreate {
        name: String,
        check_duplicate: Value,
        driver: String,
        scope: String,
        #[serde(rename = "EnableIPv4")]
        enable_ipv4: bool,
        #[serde(rename = "EnableIPv6")]
        enable_ipv6: bool,
        #[serde(rename = "IPAM")]
        ipam: Ipam,
        internal: bool,
        attachable: bool,
        ingress: bool,
        config_only: bool,
        config_from: Value,
        options: Map,
        labels: Map,
    }
}

object! {
    /// Who hands out a network's addresses, and which.
    Ipam {
        driver: String,
        options: Value,
        config: Vec<IpamConfig>,
    }
}

object! {
    /// A range of addresses.
    IpamConfig {
        subnet: String,
        #[serde(rename = "IPRange")]
        ip_range: String,
        gateway: String,
        auxiliary_addresses: Value,
        aux_address: Value,
    }
}

/// The answer to a network's creation.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct NetworkCreated {
    pub id: String,
    pub warning: String,
}

object! {
    /// A network.
    Network {
        name: String,
        id: String,
        created: String,
        scope: String,
        driver: String,
        #[serde(rename = "EnableIPv4")]
        enable_ipv4: bool,
        #[serde(rename = "EnableIPv6")]
        enable_ipv6: bool,
        #[serde(rename = "IPAM")]
        ipam: Ipam,
        internal: bool,
        attachable: bool,
        ingress: bool,
        config_from: ConfigReference,
        config_only: bool,
        containers: BTreeMap<String, NetworkContainer>,
        options: Map,
        labels: Map,
        services: BTreeMap<String, NetworkService>,
    }
}

object! {
    /// The network that another takes its settings from.
    ConfigReference {
        network: String,
    }
}

object! {
    /// A container of this node in a network.
    NetworkContainer {
        name: String,
        #[serde(rename = "EndpointID")]
        endpoint_id: String,
        mac_address: String,
        #[serde(rename = "IPv4Address")]
        ipv4_address: String,
        #[serde(rename = "IPv6Address")]
        ipv6_address: String,
    }
}

object! {
    /// A service in a network.
    NetworkService {
        #[serde(rename = "VIP")]
        vip: String,
        ports: Vec<String>,
        #[serde(rename = "LocalLBIndex")]
        local_lb_index: u64,
        tasks: Vec<NetworkTask>,
    }
}

object! {
    /// A task in a network.
    NetworkTask {
        name: String,
        #[serde(rename = "EndpointID")]
        endpoint_id: String,
        #[serde(rename = "EndpointIP")]
        endpoint_ip: String,
        info: Map,
    }
}

object! {
    /// A wish to be in a network.
    NetworkTarget {
        target: String,
        aliases: Vec<String>,
        driver_opts: Value,
    }
}

object! {
    /// A service's address in a network.
    VirtualIp {
        #[serde(rename = "NetworkID")]
        network_id: String,
        addr: String,
    }
}

object! {
    /// A task's place in a network.
    NetworkAttachment {
        network: SwarmNetwork,
        addresses: Vec<String>,
    }
}

object! {
    /// A network as tasks show it.
    SwarmNetwork {
        #[serde(rename = "ID")]
        id: String,
        version: Version,
        created_at: String,
        updated_at: String,
        spec: SwarmNetworkSpec,
        driver_state: Driver,
        #[serde(rename = "IPAMOptions")]
        ipam_options: IpamOptions,
    }
}

object! {
    /// What was asked of a network.
    SwarmNetworkSpec {
        name: String,
        labels: Map,
        driver_configuration: Driver,
        #[serde(rename = "IPv6Enabled")]
        ipv6_enabled: bool,
        internal: bool,
        attachable: bool,
        #[serde(rename = "IPAMOptions")]
        ipam_options: IpamOptions,
        scope: String,
    }
}

object! {
    /// Who hands out a network's addresses, and which, as tasks show it.
    IpamOptions {
        driver: Driver,
        configs: Vec<IpamConfig>,
    }
}
