//! All names, kept so that a changed route costs what it changes and a copy costs next to nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use crate::mesh::{Route, RouteChange};
use crate::model::{NetworkId, NetworkInfo, ServiceId, TaskId};

/// The networks that whoever asks is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// All: a program outside the cluster's networks, which sees every one.
    All,
    /// These.
    Networks(BTreeSet<NetworkId>),
}

impl Scope {
    /// One network.
    #[must_use]
    pub fn one(network: NetworkId) -> Self {
        Self::Networks(BTreeSet::from([network]))
    }

    /// Whether the network is among them.
    #[must_use]
    pub fn has(&self, network: NetworkId) -> bool {
        match self {
            Self::All => true,
            Self::Networks(networks) => networks.contains(&network),
        }
    }
}

/// Who has an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Owner {
    pub(super) service: ServiceId,
    /// None if it is the service's virtual address.
    pub(super) task: Option<TaskId>,
    pub(super) network: NetworkId,
}

/// Less than every other.
const NOBODY: Owner =
    Owner { service: ServiceId::from_u128(0), task: None, network: NetworkId::from_u128(0) };

/// A network of any service.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Known {
    pub(super) info: Arc<NetworkInfo>,
    /// Its name in small letters.
    pub(super) name: Arc<str>,
    /// Services in it.
    services: usize,
}

/// What every name in the cluster's networks means. A copy shares all that is not changed later.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NameTable {
    routes: OrdMap<ServiceId, Arc<Route>>,
    /// Names of services and aliases, in small letters: where they are known, and whose they are.
    names: OrdMap<Arc<str>, BTreeSet<(NetworkId, ServiceId)>>,
    addresses: OrdSet<(IpAddr, Owner)>,
    networks: OrdMap<NetworkId, Known>,
}

/// What a route adds to the table.
#[derive(Default)]
struct Parts {
    names: BTreeSet<(Arc<str>, NetworkId)>,
    addresses: BTreeSet<(IpAddr, Owner)>,
    networks: BTreeMap<NetworkId, Arc<NetworkInfo>>,
}

impl Parts {
    fn of(route: &Route) -> Self {
        let mut parts = Self::default();
        let service = route.service;
        for place in &route.networks {
            let network = place.network.id;
            let names = std::iter::once(&route.name).chain(&place.aliases);
            parts.names.extend(names.map(|name| (name.to_ascii_lowercase().into(), network)));
            let owner = Owner { service, task: None, network };
            parts.addresses.extend(place.addresses.iter().map(|address| (*address, owner)));
            parts.networks.insert(network, Arc::clone(&place.network));
        }
        for task in route.tasks() {
            for (network, addresses) in &task.addresses {
                let owner = Owner { service, task: Some(task.task), network: *network };
                parts.addresses.extend(addresses.iter().map(|address| (*address, owner)));
            }
        }
        parts
    }
}

impl NameTable {
    /// Of these routes.
    #[must_use]
    pub fn new(routes: &BTreeMap<ServiceId, Arc<Route>>) -> Self {
        let mut table = Self::default();
        for (service, route) in routes {
            table.set(*service, Some(Arc::clone(route)));
        }
        table
    }

    /// Follow a change of a route.
    pub fn apply(&mut self, change: &RouteChange) {
        if let Some(route) = change.after.as_ref().or(change.before.as_ref()) {
            self.set(route.service, change.after.clone());
        }
    }

    fn set(&mut self, service: ServiceId, after: Option<Arc<Route>>) {
        let old = self.routes.get(&service).map(|route| Parts::of(route)).unwrap_or_default();
        let new = after.as_ref().map(|route| Parts::of(route)).unwrap_or_default();
        for (name, network) in old.names.difference(&new.names) {
            let Some(places) = self.names.get_mut(name) else { continue };
            places.remove(&(*network, service));
            if places.is_empty() {
                self.names.remove(name);
            }
        }
        for (name, network) in new.names.difference(&old.names) {
            self.names.entry(Arc::clone(name)).or_default().insert((*network, service));
        }
        for address in old.addresses.difference(&new.addresses) {
            self.addresses.remove(address);
        }
        for address in new.addresses.difference(&old.addresses) {
            self.addresses.insert(*address);
        }
        for (network, info) in &new.networks {
            let first = !old.networks.contains_key(network);
            let known =
                || Known { info: Arc::clone(info), name: info.name.to_ascii_lowercase().into(), services: 0 };
            let known = self.networks.entry(*network).or_insert_with(known);
            known.services += usize::from(first);
        }
        for network in old.networks.keys().filter(|network| !new.networks.contains_key(network)) {
            let Some(known) = self.networks.get_mut(network) else { continue };
            known.services -= 1;
            if known.services == 0 {
                self.networks.remove(network);
            }
        }
        match after {
            Some(route) => self.routes.insert(service, route),
            None => self.routes.remove(&service),
        };
    }

    /// The networks of a container that asks a network's gateway: those of the task that has its address, and that network.
    #[must_use]
    pub fn scope(&self, source: IpAddr, gateway: NetworkId) -> Scope {
        let mut networks = BTreeSet::from([gateway]);
        let here = self.owners(source).filter(|owner| owner.network == gateway);
        for (route, id) in here.filter_map(|owner| Some((self.routes.get(&owner.service)?, owner.task?))) {
            let task = route.tasks().find(|task| task.task == id);
            networks.extend(task.iter().flat_map(|task| &task.addresses).map(|(network, _)| *network));
        }
        Scope::Networks(networks)
    }

    /// Services that have this name where it is asked for.
    pub(super) fn named<'a>(
        &'a self,
        scope: &Scope,
        name: &str,
    ) -> impl Iterator<Item = (NetworkId, &'a Arc<Route>)> {
        let places = self.names.get(name).into_iter().flatten();
        let seen = places.filter(|(network, _)| scope.has(*network));
        seen.filter_map(|(network, service)| Some((*network, self.routes.get(service)?)))
    }

    /// Who has the address.
    pub(super) fn owners(&self, address: IpAddr) -> impl Iterator<Item = &Owner> {
        let from = self.addresses.range((address, NOBODY)..);
        from.take_while(move |(at, _)| *at == address).map(|(_, owner)| owner)
    }

    pub(super) fn route(&self, service: ServiceId) -> Option<&Arc<Route>> {
        self.routes.get(&service)
    }

    pub(super) fn network(&self, id: NetworkId) -> Option<&Known> {
        self.networks.get(&id)
    }

    /// The networks that are seen.
    pub(super) fn networks<'a>(&'a self, scope: &'a Scope) -> impl Iterator<Item = (NetworkId, &'a Known)> {
        self.networks.iter().filter(|(id, _)| scope.has(**id)).map(|(id, known)| (*id, known))
    }

    /// Whether the address lies in a network of ours.
    pub(super) fn contains(&self, address: IpAddr) -> bool {
        self.networks.values().any(|known| known.info.contains(address))
    }
}
