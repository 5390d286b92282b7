//! Addresses: ranges of networks, virtual addresses of services and addresses of tasks.
//!
//! They are chosen as the entry is applied and are part of the state from then on: an election derives nothing anew.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{ApplyError, State};
use crate::model::{
    AddressPools, EndpointMode, Network, NetworkAttachment, NetworkId, NetworkSpec, NodeId, Pool, Service,
    ServiceNetwork, ServiceSpec, Task, TaskNetwork, UpdateState,
};
use crate::put_back::{Bug, is_put_back};

/// Addresses of a range at least: the gateway, a service and a task.
const ADDRESSES_MIN: u128 = 3;
/// The same of a part of it, which need not have the gateway.
const PART_MIN: u128 = 2;

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u32::from(v4).into(),
        IpAddr::V6(v6) => v6.into(),
    }
}

/// The address at this place of the subnet.
fn at(subnet: IpNet, place: u128) -> IpAddr {
    match subnet {
        IpNet::V4(net) => {
            let base = u32::from(net.network());
            Ipv4Addr::from(base.wrapping_add(u32::try_from(place).unwrap_or(u32::MAX))).into()
        }
        IpNet::V6(net) => Ipv6Addr::from(u128::from(net.network()).wrapping_add(place)).into(),
    }
}

/// Places of a subnet that can be handed out: neither its first nor its last.
fn places(subnet: IpNet) -> std::ops::RangeInclusive<u128> {
    let last = number(subnet.broadcast()) - number(subnet.network());
    1..=last.saturating_sub(1)
}

fn overlap(a: IpNet, b: IpNet) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

impl Pool {
    /// Of a subnet, with the gateway that the user wants or its first address; [`Pool::within`] names a part to hand out from.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(subnet: IpNet, gateway: Option<IpAddr>) -> Result<Self, String> {
        let subnet = subnet.trunc();
        let usable = places(subnet);
        if usable.is_empty() || usable.end() - usable.start() + 1 < ADDRESSES_MIN {
            return Err(format!("{subnet} has no room: three addresses at least are needed"));
        }
        let is_fit = !subnet.network().is_loopback()
            && !subnet.network().is_multicast()
            && !subnet.network().is_unspecified();
        if !is_fit {
            return Err(format!("{subnet} is no range for containers"));
        }
        let gateway = gateway.unwrap_or_else(|| at(subnet, 1));
        let inside =
            subnet.contains(&gateway) && usable.contains(&(number(gateway) - number(subnet.network())));
        if !inside {
            return Err(format!("gateway {gateway} is no usable address of {subnet}"));
        }
        Ok(Self { subnet, gateway, range: None })
    }

    /// The same, whose addresses are handed out from this part alone.
    ///
    /// # Errors
    /// What is wrong with the part.
    pub fn within(self, range: IpNet) -> Result<Self, String> {
        let range = range.trunc();
        if !self.subnet.contains(&range) {
            return Err(format!("{range} is no part of {}", self.subnet));
        }
        let pool = Self { range: Some(range), ..self };
        if pool.room() < PART_MIN {
            return Err(format!("{range} has no room: two addresses at least are needed beside the gateway"));
        }
        Ok(pool)
    }

    /// Places of the subnet that are handed out; the gateway's may be among them.
    fn places(&self) -> std::ops::RangeInclusive<u128> {
        let all = places(self.subnet);
        let Some(range) = self.range else { return all };
        let base = number(self.subnet.network());
        let place = |address: IpAddr| number(address).saturating_sub(base);
        place(range.network()).max(*all.start())..=place(range.broadcast()).min(*all.end())
    }

    /// How many addresses are handed out from it.
    fn room(&self) -> u128 {
        let places = self.places();
        if places.is_empty() {
            return 0;
        }
        let gateway = number(self.gateway).saturating_sub(number(self.subnet.network()));
        let all = (places.end() - places.start()).saturating_add(1);
        all - u128::from(places.contains(&gateway))
    }
}

impl State {
    /// Who else has addresses of this range, in words, and which.
    fn in_the_way(&self, subnet: IpNet) -> Option<(String, IpNet)> {
        let of_networks = self
            .networks()
            .flat_map(|network| network.spec.pools.iter().map(move |pool| (network, pool.subnet)));
        let network = of_networks.into_iter().find(|(_, other)| overlap(*other, subnet));
        if let Some((network, other)) = network {
            return Some((format!("network '{}'", network.spec.name), other));
        }
        self.nodes().find_map(|node| {
            let description = node.description.as_ref();
            let addr = description.and_then(|d| d.addr.parse::<std::net::SocketAddr>().ok())?;
            subnet.contains(&addr.ip()).then(|| (format!("node {}", node.id), IpNet::from(addr.ip())))
        })
    }

    /// The first range of the cluster's pools that nobody has. What is in the way is stepped over whole.
    fn free_subnet(&self) -> Option<IpNet> {
        let usual = AddressPools::default();
        let wanted = self.cluster().map_or(&usual, |cluster| &cluster.spec.address_pools);
        wanted.pools.iter().find_map(|pool| {
            let mut first = pool.network();
            loop {
                let subnet = Ipv4Net::new(first, wanted.size).ok()?;
                if !pool.contains(&subnet) {
                    return None;
                }
                let Some((_, other)) = self.in_the_way(subnet.into()) else { return Some(subnet.into()) };
                let last = match other.broadcast() {
                    IpAddr::V4(last) => last.max(subnet.broadcast()),
                    IpAddr::V6(_) => subnet.broadcast(),
                };
                // The one that the last address in the way is in may have begun before it.
                let last = Ipv4Net::new(last, wanted.size).ok()?.broadcast();
                first = Ipv4Addr::from(u32::from(last).checked_add(1)?);
            }
        })
    }

    /// Check the ranges that the user named and choose the others.
    pub(super) fn hand_out_pools(&self, id: NetworkId, spec: &mut NetworkSpec) -> Result<(), ApplyError> {
        for (place, pool) in spec.pools.iter().enumerate() {
            if let Some((owner, _)) = self.in_the_way(pool.subnet) {
                return Err(ApplyError::SubnetTaken { subnet: pool.subnet.to_string(), owner });
            }
            if let Some(other) = spec.pools[..place].iter().find(|other| overlap(other.subnet, pool.subnet)) {
                let owner = format!("{} of the same network", other.subnet);
                return Err(ApplyError::SubnetTaken { subnet: pool.subnet.to_string(), owner });
            }
        }
        let has =
            |spec: &NetworkSpec, v4: bool| spec.pools.iter().any(|pool| pool.subnet.addr().is_ipv4() == v4);
        if !has(spec, true) {
            let subnet = self.free_subnet().ok_or(ApplyError::NoSubnetLeft)?;
            spec.pools.insert(0, Pool { subnet, gateway: at(subnet, 1), range: None });
        }
        if spec.ipv6 && !has(spec, false) {
            // Locally assigned addresses: 40 bits of the cluster's name, 16 of the network's.
            let cluster = self.cluster().map_or(0, |cluster| cluster.id.as_u128());
            let first = 0xfd << 120 | (cluster & ((1 << 40) - 1)) << 80;
            let wish = id.as_u128() & 0xffff;
            let subnet = (0..=0xffffu128).find_map(|step| {
                let base = first | ((wish + step) & 0xffff) << 64;
                let subnet = IpNet::V6(Ipv6Net::new(Ipv6Addr::from(base), 64).ok()?);
                self.in_the_way(subnet).is_none().then_some(subnet)
            });
            let subnet = subnet.ok_or(ApplyError::NoSubnetLeft)?;
            spec.pools.push(Pool { subnet, gateway: at(subnet, 1), range: None });
        }
        Ok(())
    }

    /// How many tasks find an address in the network, and what to tell those that do not.
    #[must_use]
    pub fn room_in(&self, id: NetworkId) -> (usize, String) {
        let Some(network) = self.network(id) else { return (0, format!("network {id} is gone")) };
        let rooms = network.spec.pools.iter().map(|pool| {
            let places = pool.places();
            let taken = at(pool.subnet, *places.start())..=at(pool.subnet, *places.end());
            let taken = self.addresses.range(taken).count();
            let all = usize::try_from(pool.room()).unwrap_or(usize::MAX);
            (all.saturating_sub(taken), pool.range.unwrap_or(pool.subnet))
        });
        rooms.min().map_or((0, String::new()), |(room, subnet)| {
            (room, format!("no free address in network '{}' ({subnet})", network.spec.name))
        })
    }

    /// A free address of a range, and the place after it.
    fn free(&self, network: &Network, range: usize) -> Option<(IpAddr, u128)> {
        let pool = network.spec.pools.get(range)?;
        let places = pool.places();
        let (first, last) = (*places.start(), *places.end());
        let forgets = is_put_back(Bug::AddressGivenTwice);
        let known = network.cursors.get(range).filter(|_| !forgets);
        let cursor = known.copied().unwrap_or(first).clamp(first, last);
        let is_free = |place: &u128| {
            let address = at(pool.subnet, *place);
            address != pool.gateway && (forgets || !self.addresses.contains(&address))
        };
        // A range that is full costs a look at each of its addresses that are taken, never at more.
        let place = (cursor..=last).chain(first..cursor).find(is_free)?;
        Some((at(pool.subnet, place), if place >= last { first } else { place + 1 }))
    }

    /// Take an address from each range of the network.
    fn take(&mut self, id: NetworkId) -> Result<Vec<IpAddr>, ApplyError> {
        let network = self.network(id).cloned().ok_or(ApplyError::NoSuchNetwork(id))?;
        let mut taken = Vec::with_capacity(network.spec.pools.len());
        let mut cursors = network.cursors.clone();
        cursors.resize(network.spec.pools.len(), 0);
        for (range, cursor) in cursors.iter_mut().enumerate() {
            let full = || ApplyError::NoAddressLeft(network.spec.name.clone());
            let (address, next) = self.free(&network, range).ok_or_else(full)?;
            *cursor = next;
            taken.push(address);
        }
        self.addresses.extend(taken.iter().copied());
        if let Some(network) = self.networks.get_mut(&id) {
            Arc::make_mut(network).cursors = cursors;
        }
        Ok(taken)
    }

    /// Give a service its virtual addresses: those that it has stay as they are.
    pub(super) fn hand_out_virtual(
        &mut self,
        before: &[ServiceNetwork],
        spec: &ServiceSpec,
    ) -> Result<Vec<ServiceNetwork>, ApplyError> {
        let mut networks: Vec<ServiceNetwork> = Vec::with_capacity(spec.task.networks.len());
        for wish in &spec.task.networks {
            let id = wish.network;
            if self.network(id).is_none() {
                return Err(ApplyError::NoSuchNetwork(id));
            }
            if networks.iter().any(|network| network.network == id) {
                continue;
            }
            let had = before.iter().find(|had| had.network == id);
            let addresses = match (spec.endpoint.mode, had) {
                (EndpointMode::Dnsrr, _) => Vec::new(),
                (EndpointMode::Vip, Some(had)) if !had.addresses.is_empty() => had.addresses.clone(),
                (EndpointMode::Vip, _) => self.take(id)?,
            };
            networks.push(ServiceNetwork { network: id, addresses });
        }
        let had = before.iter().flat_map(|had| had.addresses.iter().copied());
        let keeps = |address: &IpAddr| networks.iter().any(|network| network.addresses.contains(address));
        self.give_back(had.filter(|address| !keeps(address)));
        Ok(networks)
    }

    /// Nobody has these any more.
    pub(super) fn give_back(&mut self, addresses: impl IntoIterator<Item = IpAddr>) {
        for address in addresses {
            self.addresses.remove(&address);
        }
    }

    /// Give somebody, who has the places `before`, an address in each of these networks. Returns all places.
    pub(super) fn hand_out_places(
        &mut self,
        before: &[TaskNetwork],
        wishes: &[NetworkAttachment],
    ) -> Result<Vec<TaskNetwork>, ApplyError> {
        let mut places = before.to_vec();
        for wish in wishes {
            let id = wish.network;
            if places.iter().any(|place| place.network.id == id) {
                continue;
            }
            let info = Arc::new(self.network(id).ok_or(ApplyError::NoSuchNetwork(id))?.info());
            let addresses = self.take(id)?;
            places.push(TaskNetwork { network: info, aliases: wish.aliases.clone(), addresses });
        }
        Ok(places)
    }

    /// Who needs a network, in words.
    pub(super) fn user_of(&self, id: NetworkId) -> Option<String> {
        let wants = |spec: &ServiceSpec| spec.task.networks.iter().any(|wish| wish.network == id);
        let service = self.services().find(|service| {
            // An update that is under way may have to go back.
            let goes = service.update.as_ref().is_some_and(|update| update.state == UpdateState::Updating);
            wants(&service.spec) || goes && service.previous_spec.as_ref().is_some_and(wants)
        });
        if let Some(service) = service {
            return Some(format!("service '{}'", service.spec.name));
        }
        let is_in = |places: &[TaskNetwork]| places.iter().any(|place| place.network.id == id);
        if let Some(task) = self.tasks().find(|task| holds(task) && is_in(&task.networks)) {
            return Some(format!("task {}", task.name()));
        }
        let attachment = self.attachments().find(|attachment| is_in(&attachment.networks))?;
        let node = self.node(attachment.node).map(|node| node.name().to_owned()).unwrap_or_default();
        Some(format!("container '{}' on node {node}", attachment.title()))
    }

    /// Tasks on this node that hold addresses.
    pub fn attached_on(&self, node: NodeId) -> impl Iterator<Item = &Arc<Task>> {
        self.tasks_of_node(node).filter(|task| holds(task))
    }
}

/// Whether a task's addresses are its own: until it is known to have ended.
pub(super) fn holds(task: &Task) -> bool {
    !task.networks.is_empty() && task.occupies_node()
}

/// A service's virtual addresses.
pub(super) fn virtuals_of(service: &Service) -> impl Iterator<Item = IpAddr> + '_ {
    service.networks.iter().flat_map(|network| network.addresses.iter().copied())
}

/// A task's addresses.
pub(super) fn addresses_of(task: &Task) -> impl Iterator<Item = IpAddr> + '_ {
    places_of(&task.networks)
}

/// The addresses of places.
pub(super) fn places_of(places: &[TaskNetwork]) -> impl Iterator<Item = IpAddr> + '_ {
    places.iter().flat_map(|place| place.addresses.iter().copied())
}

#[cfg(test)]
#[path = "addresses_tests.rs"]
mod tests;
