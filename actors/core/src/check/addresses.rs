//! An address belongs to one task, service or attached container, and lies in its network's ranges; ranges do not overlap.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::Violation;
use crate::model::{NetworkId, Pool};
use crate::store::State;

pub(super) fn are_handed_out_once(state: &State, found: &mut Vec<Violation>) {
    let mut owners: BTreeMap<IpAddr, Vec<String>> = BTreeMap::new();
    let mut outside = Vec::new();
    let mut own = |network: NetworkId, address: IpAddr, owner: String| {
        let inside = state.network(network).is_some_and(|network| {
            let is_handed_out = |pool: &Pool| {
                let part = pool.range.unwrap_or(pool.subnet);
                part.contains(&address) && pool.subnet.contains(&address) && pool.gateway != address
            };
            network.spec.pools.iter().any(is_handed_out)
        });
        if !inside {
            outside.push(Violation::AddressTwice { address, owners: vec![owner.clone()] });
        }
        owners.entry(address).or_default().push(owner);
    };
    for service in state.services() {
        for place in &service.networks {
            place
                .addresses
                .iter()
                .for_each(|address| own(place.network, *address, service.spec.name.clone()));
        }
    }
    for task in state.tasks().filter(|task| task.node_id.is_some() && !task.status.state.is_terminal()) {
        for place in &task.networks {
            place.addresses.iter().for_each(|address| own(place.network.id, *address, task.name()));
        }
    }
    for attachment in state.attachments() {
        for place in &attachment.networks {
            place.addresses.iter().for_each(|address| own(place.network.id, *address, attachment.title()));
        }
    }
    found.extend(outside);
    let twice = owners.into_iter().filter(|(_, owners)| owners.len() > 1);
    found.extend(twice.map(|(address, owners)| Violation::AddressTwice { address, owners }));
    let pools: Vec<_> = state
        .networks()
        .flat_map(|network| network.spec.pools.iter().map(|pool| (pool.subnet, network.spec.name.clone())))
        .collect();
    for (at, (a, first)) in pools.iter().enumerate() {
        for (b, second) in &pools[at + 1..] {
            if a.contains(b) || b.contains(a) {
                let owners = vec![first.clone(), second.clone()];
                found.push(Violation::AddressTwice { address: a.addr(), owners });
            }
        }
    }
}
