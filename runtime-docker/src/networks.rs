//! The engine's side of networks that span nodes: one bridge for each network that a task or an attached container here is in.
//!
//! The engine gives the bridge and the addresses that were handed out for the cluster; what leads from bridge to bridge
//! across hosts is somebody else's. A bridge is made with the first container of its network and removed after the last.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bollard::Docker;
use bollard::models::{
    ContainerInspectResponse, EndpointIpamConfig, EndpointSettings, Ipam, IpamConfig, NetworkConnectRequest,
    NetworkCreateRequest, NetworkingConfig,
};
use bollard::query_parameters::{InspectNetworkOptions, ListNetworksOptionsBuilder};
use shoal_core::model::{NetworkId, NetworkInfo, Pool, Task, TaskId, TaskNetwork};
use shoal_core::task::ControllerError;

use crate::call::{CHANGE_TIME_MAX, LOOK_TIME_MAX, within};
use crate::labels;

/// What the engine says of a range that another of its networks has.
const OVERLAPS: &str = "overlaps with other one";

/// The networks of this node's tasks on its engine.
#[derive(Debug, Default)]
pub(crate) struct Networks {
    /// Which networks each task or attached container is in: from before it is made until after it is removed.
    users: Mutex<BTreeMap<TaskId, BTreeSet<NetworkId>>>,
    /// Networks that the engine has, by its name for them. Held while one is made or removed.
    present: tokio::sync::Mutex<BTreeMap<NetworkId, String>>,
}

/// The bridge's settings for the engine.
fn request(network: &NetworkInfo) -> NetworkCreateRequest {
    let pool = |pool: &Pool| IpamConfig {
        subnet: Some(pool.subnet.to_string()),
        gateway: Some(pool.gateway.to_string()),
        ..IpamConfig::default()
    };
    let options = [
        ("com.docker.network.bridge.name", network.bridge()),
        // Between nodes addresses stay as they are; towards the outside the node's own rules hide them.
        ("com.docker.network.bridge.enable_ip_masquerade", "false".to_owned()),
        ("com.docker.network.bridge.enable_icc", "true".to_owned()),
    ];
    NetworkCreateRequest {
        name: network.name.to_string(),
        driver: Some("bridge".to_owned()),
        internal: Some(network.internal),
        attachable: Some(true),
        enable_ipv6: Some(network.has_ipv6()),
        ipam: Some(Ipam {
            driver: Some("default".to_owned()),
            config: Some(network.pools.iter().map(pool).collect()),
            options: None,
        }),
        options: Some(options.map(|(name, value)| (name.to_owned(), value)).into()),
        labels: Some(HashMap::from([(labels::NETWORK_ID.to_owned(), network.id.to_string())])),
        ..NetworkCreateRequest::default()
    }
}

/// The addresses that a container has in a network.
pub(crate) fn addresses(place: &TaskNetwork) -> EndpointIpamConfig {
    let of = |v4: bool| place.addresses.iter().find(|ip| ip.is_ipv4() == v4).map(ToString::to_string);
    EndpointIpamConfig { ipv4_address: of(true), ipv6_address: of(false), ..EndpointIpamConfig::default() }
}

fn settings(place: &TaskNetwork) -> EndpointSettings {
    EndpointSettings { ipam_config: Some(addresses(place)), ..EndpointSettings::default() }
}

/// What a container is told of the network that it is made in; the others are added afterwards, for old engines take one.
pub(crate) fn first(task: &Task) -> Option<(String, NetworkingConfig)> {
    let place = task.networks.first()?;
    let name = place.network.name.to_string();
    let endpoints = HashMap::from([(name.clone(), settings(place))]);
    Some((name, NetworkingConfig { endpoints_config: Some(endpoints) }))
}

/// The name servers of a container in networks: its node's.
pub(crate) fn name_servers(places: &[TaskNetwork]) -> Vec<IpAddr> {
    let pools = places.iter().flat_map(|place| &place.network.pools);
    pools.map(|pool| pool.gateway).filter(IpAddr::is_ipv4).collect()
}

impl Networks {
    fn users(&self) -> MutexGuard<'_, BTreeMap<TaskId, BTreeSet<NetworkId>>> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A container was found here that is in these networks, as its label says.
    pub(crate) fn found(&self, task: TaskId, label: &str) {
        let networks: BTreeSet<NetworkId> = label.split(',').filter_map(|id| id.parse().ok()).collect();
        if !networks.is_empty() {
            self.users().entry(task).or_default().extend(networks);
        }
    }

    /// Make what a task, or an attached container, needs to be in these networks and no others.
    pub(crate) async fn ensure(
        &self,
        docker: &Docker,
        user: TaskId,
        places: &[TaskNetwork],
    ) -> Result<(), ControllerError> {
        if places.is_empty() {
            return Ok(());
        }
        let wanted: BTreeSet<NetworkId> = places.iter().map(|place| place.network.id).collect();
        let before = self.users().insert(user, wanted.clone()).unwrap_or_default();
        for place in places {
            self.ensure_one(docker, &place.network).await?;
        }
        self.remove_left(docker, before.difference(&wanted).copied()).await;
        Ok(())
    }

    async fn ensure_one(&self, docker: &Docker, network: &NetworkInfo) -> Result<(), ControllerError> {
        let mut present = self.present.lock().await;
        if present.contains_key(&network.id) {
            return Ok(());
        }
        let call = docker.inspect_network(&network.name, None::<InspectNetworkOptions>);
        match within(LOOK_TIME_MAX, call).await {
            Ok(found) => {
                let label = found.labels.unwrap_or_default().remove(labels::NETWORK_ID);
                if label.as_deref() != Some(network.id.to_string().as_str()) {
                    return Err(ControllerError::Task(format!(
                        "this node's engine has another network named {:?}: remove that one, or name the cluster's otherwise",
                        network.name
                    )));
                }
            }
            Err(failure) if failure.status() == Some(404) => {
                let mut made = within(CHANGE_TIME_MAX, docker.create_network(request(network))).await;
                if made.as_ref().is_err_and(|failure| failure.words().contains(OVERLAPS)) {
                    // Another cluster, or an earlier life of this node, may have left a bridge that nobody needs.
                    self.remove_unused(docker).await;
                    made = within(CHANGE_TIME_MAX, docker.create_network(request(network))).await;
                }
                made.map_err(|failure| match failure.status() {
                    Some(status) if status < 500 && status != 409 && !failure.words().contains(OVERLAPS) => {
                        ControllerError::Task(format!("network {}: {}", network.name, failure.words()))
                    }
                    // Most often a range that an interface of this host has: the words say so, and the host can be mended.
                    _ => {
                        ControllerError::Unavailable(format!("network {}: {}", network.name, failure.words()))
                    }
                })?;
            }
            Err(failure) => return Err(failure.unavailable()),
        }
        present.insert(network.id, network.name.to_string());
        Ok(())
    }

    /// Remove the bridges of all networks that no task of this node is in. The engine keeps those that a container is in.
    async fn remove_unused(&self, docker: &Docker) {
        let filters = HashMap::from([("label", vec![labels::NETWORK_ID.to_owned()])]);
        let options = ListNetworksOptionsBuilder::default().filters(&filters).build();
        let found = within(LOOK_TIME_MAX, docker.list_networks(Some(options))).await.unwrap_or_default();
        for network in found {
            let label = network.labels.unwrap_or_default().remove(labels::NETWORK_ID);
            let id: Option<NetworkId> = label.and_then(|label| label.parse().ok());
            let needed = self.users().values().any(|networks| id.is_some_and(|id| networks.contains(&id)));
            if let (false, Some(engine_id)) = (needed, network.id) {
                // One that a container is in stays, and the words about it reach the user.
                let _ = within(CHANGE_TIME_MAX, docker.remove_network(&engine_id)).await;
            }
        }
    }

    /// Put a container into its task's further networks.
    pub(crate) async fn connect(
        &self,
        docker: &Docker,
        task: &Task,
        container: &str,
        in_already: &BTreeSet<String>,
    ) -> Result<(), ControllerError> {
        for place in task.networks.iter().skip(1) {
            if in_already.contains(place.network.name.as_ref()) {
                continue;
            }
            let request = NetworkConnectRequest {
                container: container.to_owned(),
                endpoint_config: Some(settings(place)),
            };
            let call = docker.connect_network(&place.network.name, request);
            match within(CHANGE_TIME_MAX, call).await {
                Err(failure) if !failure.words().contains("already exists in network") => {
                    self.forget(&place.network).await;
                    return Err(ControllerError::Unavailable(format!(
                        "network {}: {}",
                        place.network.name,
                        failure.words()
                    )));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The engine does not have what was remembered: somebody removed it.
    pub(crate) async fn forget(&self, network: &NetworkInfo) {
        self.present.lock().await.remove(&network.id);
    }

    /// A task's container, or an attached one, is gone: its networks go with it, where it was the last.
    pub(crate) async fn leave(&self, docker: &Docker, user: TaskId) {
        let left = self.users().remove(&user).unwrap_or_default();
        self.remove_left(docker, left).await;
    }

    /// Remove the bridges of networks that somebody left, where nobody is in them any more.
    async fn remove_left(&self, docker: &Docker, left: impl IntoIterator<Item = NetworkId>) {
        let mut left = left.into_iter().peekable();
        if left.peek().is_none() {
            return;
        }
        let mut present = self.present.lock().await;
        for id in left {
            if self.users().values().any(|networks| networks.contains(&id)) {
                continue;
            }
            // After a restart its name is not known: the engine finds it by the label.
            let name = match present.get(&id) {
                Some(name) => name.clone(),
                None => match by_label(docker, id).await {
                    Some(name) => name,
                    None => continue,
                },
            };
            match within(CHANGE_TIME_MAX, docker.remove_network(&name)).await {
                Ok(()) => drop(present.remove(&id)),
                Err(failure) if failure.status() == Some(404) => drop(present.remove(&id)),
                // A container that nobody told us of is in it: it stays, and so it does if the engine is away.
                Err(_) => {}
            }
        }
    }
}

async fn by_label(docker: &Docker, id: NetworkId) -> Option<String> {
    let filters = HashMap::from([("label", vec![format!("{}={id}", labels::NETWORK_ID)])]);
    let options = ListNetworksOptionsBuilder::default().filters(&filters).build();
    let found = within(LOOK_TIME_MAX, docker.list_networks(Some(options))).await.ok()?;
    found.into_iter().next()?.name
}

/// The networks that a container is in, by name.
pub(crate) fn of_container(container: &ContainerInspectResponse) -> BTreeSet<String> {
    let settings = container.network_settings.as_ref();
    let networks = settings.and_then(|settings| settings.networks.as_ref());
    networks.into_iter().flatten().map(|(name, _)| name.clone()).collect()
}
