//! Networks that span nodes.

use std::net::IpAddr;
use std::sync::Arc;

use serde_json::Value;
use shoal_core::model::{
    Network, NetworkAttachment, NetworkId, NetworkSpec, NodeId, Pool, PortConfig, Service, ServiceNetwork,
    Task, TaskNetwork,
};
use shoal_core::store::State;

use super::super::clock;
use super::super::decode::refuse;
use super::super::error::HttpError;
use super::super::handlers::networks::resolve;
use super::super::types::{
    self, ConfigReference, Driver, Ipam, IpamConfig, IpamOptions, NetworkCreate, NetworkTarget, SwarmNetwork,
    SwarmNetworkSpec, VirtualIp, version,
};
use super::{filled, validate};

/// The one driver that spans nodes.
pub(in crate::http) const DRIVER: &str = "overlay";
/// Where such networks are.
pub(in crate::http) const SCOPE: &str = "swarm";
const IPAM_DRIVER: &str = "default";

/// Whether a network is asked for that spans nodes: one that is ours to make or to refuse.
pub(in crate::http) fn spans_nodes(json: &NetworkCreate) -> bool {
    json.driver.as_deref() == Some(DRIVER)
        || json.scope.as_deref() == Some(SCOPE)
        || json.ingress == Some(true)
}

/// Read what is asked of a network, checked.
///
/// # Errors
/// 400 that names the field and the remedy.
pub(in crate::http) fn network_spec(json: NetworkCreate) -> Result<NetworkSpec, HttpError> {
    let name = json.name.unwrap_or_default();
    validate::network_name("Name", &name)?;
    if let Some(driver) = json.driver.as_deref().filter(|driver| !matches!(*driver, "" | DRIVER)) {
        let problem =
            format!("{driver:?} does not span nodes: {DRIVER} is wanted, or no Scope for one of this node");
        return Err(HttpError::field("Driver", problem));
    }
    if let Some(scope) = json.scope.as_deref().filter(|scope| !matches!(*scope, "" | SCOPE)) {
        let problem = format!("{scope:?} is not where networks of driver {DRIVER} are: leave it out");
        return Err(HttpError::field("Scope", problem));
    }
    if json.ingress == Some(true) {
        let problem =
            "there is no ingress network: published ports need none, they lead to every service as it is";
        return Err(HttpError::field("Ingress", problem));
    }
    if json.config_only == Some(true) {
        return Err(HttpError::field("ConfigOnly", "not supported: give each network its own settings"));
    }
    let remedy = "not supported: give the network its own settings";
    refuse("ConfigFrom", json.config_from.as_ref(), remedy)?;
    if json.enable_ipv4 == Some(false) {
        return Err(HttpError::field("EnableIPv4", "such networks always have IPv4 addresses: leave it out"));
    }
    let ipv6 = json.enable_ipv6.unwrap_or_default();
    Ok(NetworkSpec {
        name,
        labels: json.labels.unwrap_or_default(),
        options: json.options.unwrap_or_default(),
        internal: json.internal.unwrap_or_default(),
        attachable: json.attachable.unwrap_or_default(),
        ipv6,
        pools: pools(json.ipam.unwrap_or_default(), ipv6)?,
    })
}

fn pools(json: Ipam, ipv6: bool) -> Result<Vec<Pool>, HttpError> {
    if let Some(driver) = json.driver.as_deref().filter(|driver| !matches!(*driver, "" | IPAM_DRIVER)) {
        let problem = format!("{driver:?} is unknown: {IPAM_DRIVER} is wanted");
        return Err(HttpError::field("IPAM.Driver", problem));
    }
    refuse("IPAM.Options", json.options.as_ref(), "not supported: leave them out")?;
    let mut pools: Vec<Pool> = Vec::new();
    for (at, config) in json.config.unwrap_or_default().into_iter().enumerate() {
        let path = format!("IPAM.Config[{at}]");
        let Some(pool) = pool(&path, config)? else { continue };
        let path = format!("{path}.Subnet");
        let is_v4 = pool.subnet.addr().is_ipv4();
        if !is_v4 && !ipv6 {
            let problem = format!("{} is of IPv6: set EnableIPv6 (--ipv6)", pool.subnet);
            return Err(HttpError::field(&path, problem));
        }
        if pools.iter().any(|other| other.subnet.addr().is_ipv4() == is_v4) {
            let problem = format!(
                "{} is the second of its family: one range of IPv4 and one of IPv6 at most",
                pool.subnet
            );
            return Err(HttpError::field(&path, problem));
        }
        pools.push(pool);
    }
    Ok(pools)
}

fn pool(path: &str, json: IpamConfig) -> Result<Option<Pool>, HttpError> {
    let at = |field: &str| format!("{path}.{field}");
    let remedy = "not supported: name the part that addresses are handed out from (IPRange)";
    refuse(&at("AuxiliaryAddresses"), json.auxiliary_addresses.as_ref(), remedy)?;
    refuse(&at("AuxAddress"), json.aux_address.as_ref(), remedy)?;
    let (subnet, gateway) = (json.subnet.unwrap_or_default(), json.gateway.unwrap_or_default());
    let part = json.ip_range.unwrap_or_default();
    if subnet.is_empty() {
        return match gateway.is_empty() && part.is_empty() {
            true => Ok(None),
            false => Err(HttpError::field(
                &at("Subnet"),
                "it is missing: a gateway or a part of a subnet needs the subnet that it is in",
            )),
        };
    }
    let net = |field: &str, text: &str| {
        let problem = format!("{text:?} is no subnet: such as 10.20.0.0/16 is wanted");
        text.parse().map_err(|_| HttpError::field(&at(field), problem))
    };
    let wrong = |_| HttpError::field(&at("Gateway"), format!("{gateway:?} is no address"));
    let gateway = (!gateway.is_empty()).then(|| gateway.parse::<IpAddr>().map_err(wrong)).transpose()?;
    let pool = Pool::new(net("Subnet", &subnet)?, gateway)
        .map_err(|problem| HttpError::field(&at("Subnet"), problem))?;
    if part.is_empty() {
        return Ok(Some(pool));
    }
    let part = net("IPRange", &part)?;
    pool.within(part).map(Some).map_err(|problem| HttpError::field(&at("IPRange"), problem))
}

fn config(pool: &Pool) -> IpamConfig {
    IpamConfig {
        subnet: Some(pool.subnet.to_string()),
        gateway: Some(pool.gateway.to_string()),
        ip_range: pool.range.map(|range| range.to_string()),
        ..IpamConfig::default()
    }
}

/// Write a network without what is in it.
pub(in crate::http) fn network_json(network: &Network) -> types::Network {
    let spec = &network.spec;
    types::Network {
        name: Some(spec.name.clone()),
        id: Some(network.id.to_string()),
        created: Some(clock::text(network.meta.created_at)),
        scope: Some(SCOPE.to_owned()),
        driver: Some(DRIVER.to_owned()),
        enable_ipv4: Some(true),
        enable_ipv6: Some(spec.ipv6),
        ipam: Some(Ipam {
            driver: Some(IPAM_DRIVER.to_owned()),
            options: Some(Value::Null),
            config: Some(spec.pools.iter().map(config).collect()),
        }),
        internal: Some(spec.internal),
        attachable: Some(spec.attachable),
        ingress: Some(false),
        config_from: Some(ConfigReference { network: Some(String::new()) }),
        config_only: Some(false),
        containers: None,
        options: Some(spec.options.clone()),
        labels: Some(spec.labels.clone()),
        services: None,
    }
}

/// An address with the length of its range, `10.128.0.3/20`.
fn with_length(pools: &[Pool], address: IpAddr) -> Option<String> {
    let pool = pools.iter().find(|pool| pool.subnet.contains(&address))?;
    Some(format!("{address}/{}", pool.subnet.prefix_len()))
}

fn place(places: &[TaskNetwork], network: NetworkId) -> Option<&TaskNetwork> {
    places.iter().find(|place| place.network.id == network)
}

/// Write the containers of a node that are in a network, by the engine's id.
pub(in crate::http) fn containers_json(
    state: &State,
    network: &Network,
    node: NodeId,
) -> std::collections::BTreeMap<String, types::NetworkContainer> {
    let container = |name: String, endpoint: String, places: &[TaskNetwork]| {
        let place = place(places, network.id)?;
        let address = |v4: bool| {
            let found = place.addresses.iter().find(|address| address.is_ipv4() == v4);
            found.and_then(|address| with_length(&network.spec.pools, *address)).unwrap_or_default()
        };
        Some(types::NetworkContainer {
            name: Some(name),
            endpoint_id: Some(endpoint),
            mac_address: Some(String::new()),
            ipv4_address: Some(address(true)),
            ipv6_address: Some(address(false)),
        })
    };
    let tasks = state.attached_on(node).filter_map(|task| {
        let id = task.status.container.as_ref()?.container_id.clone();
        Some((id, container(task.name(), task.id.to_string(), &task.networks)?))
    });
    let others = state.attachments_of_node(node).filter(|other| !other.container.is_empty());
    let others = others.filter_map(|other| {
        let json = container(other.name.clone(), other.id.to_string(), &other.networks)?;
        Some((other.container.clone(), json))
    });
    tasks.chain(others).collect()
}

/// Write the services that are in a network, by name, with their live tasks.
pub(in crate::http) fn services_json(
    state: &State,
    network: &Network,
) -> std::collections::BTreeMap<String, types::NetworkService> {
    let service = |service: &Arc<Service>| {
        let place = service.networks.iter().find(|place| place.network == network.id)?;
        let tasks = state.tasks_of_service(service.id).filter(|task| task.is_live());
        let json = types::NetworkService {
            vip: Some(place.addresses.first().map(ToString::to_string).unwrap_or_default()),
            ports: Some(service.spec.endpoint.ports.iter().map(port).collect()),
            local_lb_index: Some(0),
            tasks: Some(tasks.filter_map(|task| task_json(state, network, task)).collect()),
        };
        Some((service.spec.name.clone(), json))
    };
    state.services().filter_map(service).collect()
}

fn port(port: &PortConfig) -> String {
    format!("Target: {}, Publish: {}", port.target_port, port.published_port)
}

fn task_json(state: &State, network: &Network, task: &Task) -> Option<types::NetworkTask> {
    let address = place(&task.networks, network.id)?.addresses.first()?;
    let host = task.node_id.and_then(|id| state.node(id)).and_then(|node| node.description.as_ref());
    let host = host.map(|host| host.addr.rsplit_once(':').map_or(host.addr.as_str(), |(ip, _)| ip));
    Some(types::NetworkTask {
        name: Some(task.name()),
        endpoint_id: Some(task.id.to_string()),
        endpoint_ip: Some(address.to_string()),
        info: Some([("Host IP".to_owned(), host.unwrap_or_default().to_owned())].into()),
    })
}

/// Read the networks that tasks shall be in; each is there and named once.
///
/// # Errors
/// 400 that names the field and the remedy; 404 if a network is not there.
pub(super) fn attachments(
    path: &str,
    json: Option<Vec<NetworkTarget>>,
    state: &State,
) -> Result<Vec<NetworkAttachment>, HttpError> {
    let mut found: Vec<NetworkAttachment> = Vec::new();
    for (at, json) in json.unwrap_or_default().into_iter().enumerate() {
        let at = |field: &str| format!("{path}.{at}.{field}");
        refuse(&at("DriverOpts"), json.driver_opts.as_ref(), "not supported: leave them out")?;
        let target = json.target.unwrap_or_default();
        if target.is_empty() {
            return Err(HttpError::field(&at("Target"), "it is missing: a network's name or id is wanted"));
        }
        let network = resolve(state, &target)?.id;
        if found.iter().any(|other| other.network == network) {
            let problem = format!("network {target} is named twice: put all aliases into one");
            return Err(HttpError::field(&at("Target"), problem));
        }
        let aliases = json.aliases.unwrap_or_default();
        for (place, alias) in aliases.iter().enumerate() {
            validate::alias(&at(&format!("Aliases.{place}")), alias)?;
        }
        found.push(NetworkAttachment { network, aliases });
    }
    Ok(found)
}

/// Write a wish to be in a network.
pub(super) fn target_json(wish: &NetworkAttachment) -> NetworkTarget {
    NetworkTarget {
        target: Some(wish.network.to_string()),
        aliases: filled(&wish.aliases),
        driver_opts: None,
    }
}

/// Write a service's virtual addresses.
pub(super) fn virtual_ips(service: &Service, state: &State) -> Vec<VirtualIp> {
    let addresses = |place: &ServiceNetwork| {
        let network = state.network(place.network)?;
        let address = |address: &IpAddr| VirtualIp {
            network_id: Some(network.id.to_string()),
            addr: with_length(&network.spec.pools, *address),
        };
        Some(place.addresses.iter().map(address).collect::<Vec<_>>())
    };
    service.networks.iter().filter_map(addresses).flatten().collect()
}

/// Write a task's place in a network; none if the network is gone, as it may be once the task has ended.
pub(super) fn attachment_json(place: &TaskNetwork, state: &State) -> Option<types::NetworkAttachment> {
    let network = state.network(place.network.id)?;
    let pools = &network.spec.pools;
    let driver = |name: &str| Driver { name: Some(name.to_owned()), options: None };
    let ipam_options =
        IpamOptions { driver: Some(driver(IPAM_DRIVER)), configs: Some(pools.iter().map(config).collect()) };
    let spec = SwarmNetworkSpec {
        name: Some(network.spec.name.clone()),
        labels: Some(network.spec.labels.clone()),
        driver_configuration: Some(driver(DRIVER)),
        ipv6_enabled: filled(&network.spec.ipv6),
        internal: filled(&network.spec.internal),
        attachable: filled(&network.spec.attachable),
        ipam_options: Some(ipam_options.clone()),
        scope: Some(SCOPE.to_owned()),
    };
    Some(types::NetworkAttachment {
        network: Some(SwarmNetwork {
            id: Some(network.id.to_string()),
            version: version(network.meta.spec_version),
            created_at: Some(clock::text(network.meta.created_at)),
            updated_at: Some(clock::text(network.meta.updated_at)),
            spec: Some(spec),
            driver_state: Some(driver(DRIVER)),
            ipam_options: Some(ipam_options),
        }),
        addresses: Some(place.addresses.iter().filter_map(|a| with_length(pools, *a)).collect()),
    })
}
