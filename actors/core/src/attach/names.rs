//! Names of services, which no container that is no task may have beside them: the engine of its host answers for a container's
//! own names before anybody else is asked, so that the service would be hidden from all containers of that host.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::mesh::{Options, Route, RouteNetwork};
use crate::model::{Attachment, NetworkAttachment, NetworkId, ServiceId, ServiceSpec, TaskNetwork};
use crate::names::{NameTable, Scope};
use crate::store::State;

/// A container would hide a service, or its tasks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{name}' is a name of service '{service}' in network '{network}', and this host's engine would answer for the container in its \
     place: give the container another name, hostname or alias"
)]
pub struct NameTaken {
    /// The name.
    pub name: String,
    /// Whose it is.
    pub service: String,
    /// Where.
    pub network: String,
}

/// A service would be hidden by a container that is there already.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "container '{container}' on node {node} has the name '{name}' in network '{network}', and its host's engine would answer for it in \
     the service's place: rename the container, or take it out of the network"
)]
pub struct Hidden {
    /// The container.
    pub container: String,
    /// Where it is.
    pub node: String,
    /// The name that both would have.
    pub name: String,
    /// Where.
    pub network: String,
}

/// The first of a container's names that a service has in the network.
pub(super) fn taken<'a>(
    state: &State,
    network: NetworkId,
    names: impl Iterator<Item = &'a str>,
) -> Option<NameTaken> {
    let there = state.services().filter(|service| service.networks.iter().any(|at| at.network == network));
    let routes = there.filter_map(|service| Some((service.id, Arc::new(Route::of(state, service)?))));
    let (table, scope) = (NameTable::new(&routes.collect()), Scope::one(network));
    let taken = |name: &'a str| Some((name, table.holder(&scope, name)?));
    let (name, route) = names.filter(|name| !name.is_empty()).find_map(taken)?;
    let network = state.network(network).map(|network| network.spec.name.clone()).unwrap_or_default();
    Some(NameTaken { name: name.to_owned(), service: route.name.clone(), network })
}

/// The first container that would hide a service as it shall be, and did not as it was: what is so already is no reason to
/// refuse a service its change.
#[must_use]
pub fn hidden(state: &State, before: Option<&ServiceSpec>, after: &ServiceSpec) -> Option<Hidden> {
    if after.task.networks.is_empty() || state.attachments().len() == 0 {
        return None;
    }
    let before = before.map(|spec| own_names(state, spec)).unwrap_or_default();
    let after = own_names(state, after);
    state.attachments().find_map(|container| {
        container.networks.iter().find_map(|place| {
            let scope = Scope::one(place.network.id);
            let is_new =
                |name: &&str| after.holder(&scope, name).is_some() && before.holder(&scope, name).is_none();
            let name = names_of(container, place).find(is_new)?;
            Some(Hidden {
                container: container.title(),
                node: title_of(state, container),
                name: name.to_owned(),
                network: place.network.name.to_string(),
            })
        })
    })
}

fn title_of(state: &State, container: &Attachment) -> String {
    let known = state.node(container.node).map(|node| node.hostname()).filter(|name| !name.is_empty());
    known.map_or_else(|| container.node.to_string(), str::to_owned)
}

/// What a container is called in a network.
fn names_of<'a>(container: &'a Attachment, place: &'a TaskNetwork) -> impl Iterator<Item = &'a str> {
    let aliases = place.aliases.iter().map(String::as_str);
    std::iter::once(container.name.as_str()).chain(aliases).filter(|name| !name.is_empty())
}

/// What a service would be called, were it alone.
fn own_names(state: &State, spec: &ServiceSpec) -> NameTable {
    let network = |wish: &NetworkAttachment| {
        let network = Arc::new(state.network(wish.network)?.info());
        Some(RouteNetwork { network, aliases: wish.aliases.clone(), addresses: Vec::new() })
    };
    let service = ServiceId::from_u128(0);
    let route = Route {
        service,
        name: spec.name.clone(),
        ports: Vec::new(),
        options: Options::default(),
        backends: Vec::new(),
        networks: spec.task.networks.iter().filter_map(network).collect(),
        others: Vec::new(),
        attached: false,
    };
    NameTable::new(&BTreeMap::from([(service, Arc::new(route))]))
}
