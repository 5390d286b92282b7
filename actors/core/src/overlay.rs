//! Networks that span nodes, as one node sees them: where each address is, which packets may pass, and who stands behind a
//! virtual address. Made from the routes alone.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::mesh::{Backend, Route, RouteChange};
use crate::model::{NetworkId, NodeId, ServiceId, TaskId};

/// Where an address is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its network.
    pub network: NetworkId,
    /// Its task.
    pub task: TaskId,
    /// The task's node.
    pub node: NodeId,
    /// The node's address for other nodes, `ip:port`.
    pub addr: String,
}

/// Who stands behind a virtual address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Virtual {
    /// Its network.
    pub network: NetworkId,
    /// Addresses of the tasks that take its traffic, of its own family.
    pub backends: Vec<IpAddr>,
}

/// Why a packet does not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dropped {
    /// Nobody has the address that it goes to.
    Nobody,
    /// The address that it goes to is not on the node that it came to.
    Elsewhere,
    /// The address that it comes from is not the sender's.
    Spoofed,
    /// It goes from one network to another.
    Crossing,
}

impl Dropped {
    /// Every one.
    pub const ALL: [Self; 4] = [Self::Nobody, Self::Elsewhere, Self::Spoofed, Self::Crossing];

    /// Its name in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nobody => "nobody",
            Self::Elsewhere => "elsewhere",
            Self::Spoofed => "spoofed",
            Self::Crossing => "crossing",
        }
    }
}

/// A container gets its stop signal at the end of its drain, and has ended so long after it.
const STOP_MAX: Duration = Duration::from_secs(30);
/// Addresses of the past that are known at once.
const PAST_MAX: usize = 4096;

/// The addresses of all networks, kept up to date by changes of routes.
#[derive(Debug, Clone, Default)]
pub struct OverlayTable {
    places: BTreeMap<IpAddr, Place>,
    virtuals: BTreeMap<IpAddr, (ServiceId, Virtual)>,
    /// Addresses that their tasks have no more, and until when they are remembered: the container of a task that failed, or whose service
    /// was removed, may finish what it has begun, and its connections must hear of its end.
    past: BTreeMap<IpAddr, (Place, Duration)>,
    now: Duration,
}

impl OverlayTable {
    /// So much time has passed since some beginning: forget addresses that were given up long ago.
    pub fn pass_to(&mut self, now: Duration) {
        self.now = self.now.max(now);
        let now = self.now;
        self.past.retain(|_, (_, until)| *until > now);
    }

    /// Take in a change.
    pub fn follow(&mut self, change: &RouteChange) {
        if let Some(before) = &change.before {
            let until = self.now.saturating_add(before.options.drain).saturating_add(STOP_MAX);
            for (_, address, backend) in addresses(before) {
                if self.places.get(&address).is_some_and(|place| place.task == backend.task)
                    && let Some(place) = self.places.remove(&address)
                    && self.past.len() < PAST_MAX
                {
                    self.past.insert(address, (place, until));
                }
            }
            for address in before.networks.iter().flat_map(|network| &network.addresses) {
                if self.virtuals.get(address).is_some_and(|(service, _)| *service == before.service) {
                    self.virtuals.remove(address);
                }
            }
        }
        let Some(after) = &change.after else { return };
        for (network, address, backend) in addresses(after) {
            let place = Place { network, task: backend.task, node: backend.node, addr: backend.addr.clone() };
            self.places.insert(address, place);
            self.past.remove(&address);
        }
        for place in &after.networks {
            for address in &place.addresses {
                let network = place.network.id;
                let backends = after.backends.iter().flat_map(|backend| of(backend, network));
                let backends = backends.filter(|ip| ip.is_ipv4() == address.is_ipv4()).collect();
                self.virtuals.insert(*address, (after.service, Virtual { network, backends }));
            }
        }
    }

    /// Where an address is.
    #[must_use]
    pub fn place(&self, address: IpAddr) -> Option<&Place> {
        self.places.get(&address)
    }

    /// Where an address is, or was until lately.
    fn known(&self, address: IpAddr) -> Option<&Place> {
        self.places.get(&address).or_else(|| self.past.get(&address).map(|(place, _)| place))
    }

    /// All virtual addresses.
    pub fn virtuals(&self) -> impl Iterator<Item = (IpAddr, &Virtual)> {
        self.virtuals.iter().map(|(address, (_, of))| (*address, of))
    }

    /// Whether datagrams that go to this virtual address must not be turned to this task any more.
    #[must_use]
    pub fn has_left(&self, to: IpAddr, task: IpAddr) -> bool {
        self.virtuals.get(&to).is_some_and(|(_, of)| !of.backends.contains(&task))
    }

    /// Whether somebody stood behind a virtual address before who does not now; one that is gone itself leads nowhere anyway.
    #[must_use]
    pub fn lacks_backend_of(&self, before: &Self) -> bool {
        let left = |(to, (_, of)): (&IpAddr, &(ServiceId, Virtual))| {
            of.backends.iter().any(|task| self.has_left(*to, *task))
        };
        before.virtuals.iter().any(left)
    }

    /// All addresses that packets may go to and come from: those of tasks, and those that were until lately.
    pub fn reachable(&self) -> impl Iterator<Item = (IpAddr, &Place)> {
        self.places().chain(self.past.iter().map(|(address, (place, _))| (*address, place)))
    }

    /// Whether addresses are remembered that no task has any more.
    #[must_use]
    pub fn has_past(&self) -> bool {
        !self.past.is_empty()
    }

    /// All addresses of tasks.
    pub fn places(&self) -> impl Iterator<Item = (IpAddr, &Place)> {
        self.places.iter().map(|(address, place)| (*address, place))
    }

    /// Where a packet that a task of this node sends goes. What its own bridge carries does not come here.
    ///
    /// # Errors
    /// Why it goes nowhere.
    pub fn outward(&self, here: NodeId, from: IpAddr, to: IpAddr) -> Result<&Place, Dropped> {
        let sender = self.known(from).filter(|place| place.node == here).ok_or(Dropped::Spoofed)?;
        let place = self.known(to).ok_or(Dropped::Nobody)?;
        if place.network != sender.network {
            return Err(Dropped::Crossing);
        }
        // A task of this very node is reached by its bridge.
        if place.node == here { Err(Dropped::Elsewhere) } else { Ok(place) }
    }

    /// Whether a packet that another node sends may be passed on to a task of this one.
    ///
    /// # Errors
    /// Why not.
    pub fn inward(&self, here: NodeId, node: NodeId, from: IpAddr, to: IpAddr) -> Result<(), Dropped> {
        let sender = self.known(from).filter(|place| place.node == node).ok_or(Dropped::Spoofed)?;
        let place = self.known(to).ok_or(Dropped::Nobody)?;
        if place.network != sender.network {
            return Err(Dropped::Crossing);
        }
        if place.node == here { Ok(()) } else { Err(Dropped::Elsewhere) }
    }
}

fn of(backend: &Backend, network: NetworkId) -> impl Iterator<Item = IpAddr> + '_ {
    let places = backend.addresses.iter().filter(move |(id, _)| *id == network);
    places.flat_map(|(_, addresses)| addresses.iter().copied())
}

fn addresses(route: &Route) -> impl Iterator<Item = (NetworkId, IpAddr, &Backend)> {
    route.tasks().flat_map(|backend| {
        let places = backend.addresses.iter();
        places.flat_map(move |(network, addresses)| addresses.iter().map(move |ip| (*network, *ip, backend)))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::mesh::{Options, RouteNetwork};
    use crate::model::{NetworkInfo, Pool, Slot};

    const HERE: NodeId = NodeId::from_u128(1);
    const THERE: NodeId = NodeId::from_u128(2);

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn backend(task: u128, node: NodeId, network: u128, address: &str) -> Backend {
        Backend {
            task: TaskId::from_u128(task),
            node,
            addr: "192.0.2.1:7300".into(),
            slot: Slot::Replica(task.try_into().unwrap()),
            addresses: vec![(NetworkId::from_u128(network), vec![ip(address)])],
        }
    }

    fn route(network: u128, virtuals: &[&str], backends: Vec<Backend>, others: Vec<Backend>) -> Arc<Route> {
        let pool = Pool::new(format!("10.{network}.0.0/16").parse().unwrap(), None).unwrap();
        let info = NetworkInfo {
            id: NetworkId::from_u128(network),
            name: "n".into(),
            internal: false,
            attachable: false,
            pools: vec![pool],
        };
        Arc::new(Route {
            service: ServiceId::from_u128(network),
            name: "web".into(),
            ports: Vec::new(),
            options: Options::default(),
            backends,
            networks: vec![RouteNetwork {
                network: Arc::new(info),
                aliases: Vec::new(),
                addresses: virtuals.iter().map(|text| ip(text)).collect(),
            }],
            others,
            attached: false,
        })
    }

    fn table(routes: &[Arc<Route>]) -> OverlayTable {
        let mut table = OverlayTable::default();
        for route in routes {
            table.follow(&RouteChange { before: None, after: Some(Arc::clone(route)) });
        }
        table
    }

    #[test]
    fn packets_pass_within_a_network_and_from_their_own_sender_alone() {
        let one =
            route(1, &[], vec![backend(1, HERE, 1, "10.1.0.1")], vec![backend(2, THERE, 1, "10.1.0.2")]);
        let two = route(2, &[], vec![backend(3, THERE, 2, "10.2.0.3")], vec![]);
        let table = table(&[one, two]);
        let out = |from: &str, to: &str| table.outward(HERE, ip(from), ip(to)).map(|place| place.node);
        assert_eq!(out("10.1.0.1", "10.1.0.2"), Ok(THERE));
        assert_eq!(out("10.1.0.1", "10.1.0.9"), Err(Dropped::Nobody));
        assert_eq!(out("10.1.0.1", "10.2.0.3"), Err(Dropped::Crossing));
        assert_eq!(out("10.1.0.2", "10.1.0.2"), Err(Dropped::Spoofed));
        assert_eq!(out("192.168.0.1", "10.1.0.2"), Err(Dropped::Spoofed));
        let into = |node, from: &str, to: &str| table.inward(HERE, node, ip(from), ip(to));
        assert_eq!(into(THERE, "10.1.0.2", "10.1.0.1"), Ok(()));
        assert_eq!(into(NodeId::from_u128(3), "10.1.0.2", "10.1.0.1"), Err(Dropped::Spoofed));
        assert_eq!(into(THERE, "10.2.0.3", "10.1.0.1"), Err(Dropped::Crossing));
        assert_eq!(into(THERE, "10.1.0.2", "10.1.0.2"), Err(Dropped::Elsewhere));
    }

    #[test]
    fn a_virtual_address_leads_to_tasks_that_take_traffic() {
        let some = vec![backend(1, HERE, 1, "10.1.0.1"), backend(2, THERE, 1, "10.1.0.2")];
        let before = route(1, &["10.1.9.9"], some.clone(), vec![backend(3, HERE, 1, "10.1.0.3")]);
        let mut table = table(&[Arc::clone(&before)]);
        let behind = |table: &OverlayTable| -> Vec<Vec<IpAddr>> {
            table.virtuals().map(|(_, behind)| behind.backends.clone()).collect()
        };
        assert_eq!(behind(&table), [[ip("10.1.0.1"), ip("10.1.0.2")]]);
        let earlier = table.clone();
        let after = route(1, &["10.1.9.9"], vec![some[0].clone()], vec![]);
        table.follow(&RouteChange { before: Some(before), after: Some(Arc::clone(&after)) });
        assert_eq!(behind(&table), [[ip("10.1.0.1")]]);
        assert_eq!(table.places().count(), 1);
        // Datagrams must leave the one that left; what is no virtual address of anybody is left alone.
        let left = |to: &str, task: &str| table.has_left(ip(to), ip(task));
        assert!(
            left("10.1.9.9", "10.1.0.2") && !left("10.1.9.9", "10.1.0.1") && !left("10.1.9.8", "10.1.0.2")
        );
        assert!(
            table.lacks_backend_of(&earlier)
                && !earlier.lacks_backend_of(&table)
                && !table.lacks_backend_of(&table)
        );
        table.follow(&RouteChange { before: Some(after), after: None });
        assert_eq!((table.virtuals().count(), table.places().count()), (0, 0));
    }

    #[test]
    fn what_has_ended_finishes_what_it_began_unless_its_address_is_anothers() {
        let one = route(1, &["10.1.9.9"], vec![backend(1, HERE, 1, "10.1.0.1")], vec![]);
        let two = route(2, &[], vec![backend(2, THERE, 1, "10.1.0.2")], vec![]);
        let mut both = table(&[Arc::clone(&one), Arc::clone(&two)]);
        both.pass_to(Duration::from_secs(1_000));
        both.follow(&RouteChange { before: Some(two), after: None });
        assert!(both.places().all(|(address, _)| address == ip("10.1.0.1")), "it is no place any more");
        let passes = |table: &OverlayTable| {
            (
                table.outward(HERE, ip("10.1.0.1"), ip("10.1.0.2")).map(|place| place.node),
                table.inward(HERE, THERE, ip("10.1.0.2"), ip("10.1.0.1")),
            )
        };
        let long = Options::default().drain + STOP_MAX;
        both.pass_to(Duration::from_secs(1_000) + long - Duration::from_millis(1));
        assert_eq!(passes(&both), (Ok(THERE), Ok(())));
        // Its place on another node outweighs what was.
        let mut taken = both.clone();
        let next = route(3, &[], vec![backend(3, NodeId::from_u128(3), 1, "10.1.0.2")], vec![]);
        taken.follow(&RouteChange { before: None, after: Some(next) });
        assert_eq!(passes(&taken), (Ok(NodeId::from_u128(3)), Err(Dropped::Spoofed)));
        both.pass_to(Duration::from_secs(1_000) + long);
        assert_eq!(passes(&both), (Err(Dropped::Nobody), Err(Dropped::Spoofed)));
        assert!(!both.has_past() && both.reachable().all(|(_, place)| place.node == HERE));
    }

    #[test]
    fn an_address_that_went_to_another_task_is_not_taken_from_it() {
        let first = route(1, &[], vec![backend(1, HERE, 1, "10.1.0.1")], vec![]);
        let mut table = table(&[Arc::clone(&first)]);
        let mut second = (*route(1, &[], vec![backend(2, THERE, 1, "10.1.0.1")], vec![])).clone();
        second.service = ServiceId::from_u128(7);
        table.follow(&RouteChange { before: None, after: Some(Arc::new(second)) });
        table.follow(&RouteChange { before: Some(first), after: None });
        assert_eq!(table.place(ip("10.1.0.1")).map(|place| place.node), Some(THERE));
    }
}
