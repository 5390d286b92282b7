//! What a question is answered with.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::parse::{self, PortName, TaskName};
use super::table::{NameTable, Scope};
use crate::mesh::{Backend, Route};
use crate::model::{NetworkId, PortConfig, TaskId};

/// Addresses in an answer; more fit no message.
const ADDRESSES_MAX: usize = 2048;
/// Tasks in an answer about ports, which are longer.
const PLACES_MAX: usize = 256;

/// What is asked about a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueryKind {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// Where a port of it is.
    Srv,
    /// The name of an address.
    Ptr,
    /// Whatever there is.
    Any,
    /// Something that nobody here has.
    Other,
}

impl QueryKind {
    fn is_about(self, address: &IpAddr) -> bool {
        match self {
            Self::A => address.is_ipv4(),
            Self::Aaaa => address.is_ipv6(),
            Self::Any => true,
            Self::Srv | Self::Ptr | Self::Other => false,
        }
    }
}

/// Where a port is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The port in the container.
    pub port: u16,
    /// The task's name.
    pub target: String,
    /// The task's addresses, in the networks of whoever asks.
    pub addresses: Vec<IpAddr>,
}

/// What a question is answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Nobody here has this name: others may.
    NotOurs,
    /// Nobody has this name, and nobody else is to be asked.
    NoSuchName,
    /// The name is somebody's, and there is nothing of what was asked.
    Empty,
    /// Addresses, one at least.
    Addresses(Vec<IpAddr>),
    /// Places of a port, one at least.
    Places(Vec<Place>),
    /// Names of an address, one at least.
    Names(Vec<String>),
}

/// What a name stands for.
enum What {
    /// A service: its virtual address, or its tasks.
    Service,
    /// The tasks of a service.
    Tasks,
    /// Tasks in a slot.
    Task(TaskName<'static>),
}

impl What {
    fn takes(&self, backend: &Backend) -> bool {
        match self {
            Self::Service | Self::Tasks => true,
            Self::Task(name) => is_named(backend, name),
        }
    }
}

fn is_named(backend: &Backend, name: &TaskName<'_>) -> bool {
    backend.slot == name.slot && name.task.is_none_or(|task| task == backend.task)
}

/// What a name stands for, and in which networks.
struct Found<'a> {
    what: What,
    places: Vec<(NetworkId, &'a Arc<Route>)>,
    /// The network that the name says.
    said: Option<Arc<str>>,
}

impl Found<'_> {
    /// Addresses that may be told.
    fn addresses(&self, kind: QueryKind, turn: u64) -> Answer {
        let mut all = Vec::new();
        for (network, route) in &self.places {
            let tasks = route.backends.iter().filter(|backend| self.what.takes(backend));
            let healthy: Vec<IpAddr> = tasks.flat_map(|task| addresses(task, *network)).copied().collect();
            let place = route.networks.iter().find(|place| place.network.id == *network);
            match place.filter(|place| matches!(self.what, What::Service) && !place.addresses.is_empty()) {
                // A virtual address that nobody answers at is of no use.
                Some(_) if healthy.is_empty() => {}
                Some(place) => all.extend_from_slice(&place.addresses),
                None => all.extend(healthy),
            }
        }
        all.retain(|address| kind.is_about(address));
        by_turns(&mut all, turn, ADDRESSES_MAX);
        if all.is_empty() { Answer::Empty } else { Answer::Addresses(all) }
    }

    /// Where a port of it is answered. None if it has no such port.
    ///
    /// A number is a port of the container, whether it is published or not: what an image exposes is known to engines alone.
    fn ports(&self, wanted: &PortName<'_>, turn: u64) -> Option<Vec<Place>> {
        let number = parse::port(wanted.port);
        let is_named = |port: &&PortConfig| {
            port.protocol == wanted.protocol
                && !port.name.is_empty()
                && port.name.eq_ignore_ascii_case(wanted.port)
        };
        let mut known = false;
        let mut places: BTreeMap<(TaskId, u16), Place> = BTreeMap::new();
        for (network, route) in &self.places {
            let named = route.ports.iter().filter(is_named).map(|port| port.target_port);
            for port in named.chain(number).collect::<BTreeSet<u16>>() {
                known = true;
                for backend in route.backends.iter().filter(|backend| self.what.takes(backend)) {
                    let place = places.entry((backend.task, port)).or_insert_with(|| {
                        let target = self.target(route, backend);
                        Place { port, target, addresses: Vec::new() }
                    });
                    let new = addresses(backend, *network).filter(|a| !place.addresses.contains(a)).copied();
                    place.addresses.extend(new.collect::<Vec<_>>());
                }
            }
        }
        let mut places: Vec<Place> =
            places.into_values().filter(|place| !place.addresses.is_empty()).collect();
        by_turns(&mut places, turn, PLACES_MAX);
        known.then_some(places)
    }

    /// The name of whoever answers there: a task's long one, or a container's own.
    fn target(&self, route: &Route, backend: &Backend) -> String {
        let name = if route.attached {
            route.name.clone()
        } else {
            parse::task(&route.name, backend.slot, backend.task)
        };
        self.said.as_ref().map_or_else(|| name.clone(), |said| format!("{name}.{said}"))
    }
}

fn addresses(backend: &Backend, network: NetworkId) -> impl Iterator<Item = &IpAddr> {
    let here = backend.addresses.iter().filter(move |(id, _)| *id == network);
    here.flat_map(|(_, addresses)| addresses)
}

/// Another one first each turn; so many at most.
fn by_turns<T>(all: &mut Vec<T>, turn: u64, most: usize) {
    if let Some(first) = turn.checked_rem(all.len() as u64) {
        all.rotate_left(usize::try_from(first).unwrap_or_default());
    }
    all.truncate(most);
}

impl NameTable {
    /// Answer a question. `turn` says who comes first where several answer.
    #[must_use]
    pub fn answer(&self, scope: &Scope, name: &str, kind: QueryKind, turn: u64) -> Answer {
        let Some(name) = parse::plain(name) else { return Answer::NotOurs };
        if let Some(address) = parse::reverse(&name) {
            return self.reverse(scope, address, kind);
        }
        if let Some(found) = self.find(scope, &name) {
            return match kind {
                QueryKind::A | QueryKind::Aaaa | QueryKind::Any => found.addresses(kind, turn),
                QueryKind::Srv | QueryKind::Ptr | QueryKind::Other => Answer::Empty,
            };
        }
        let Some(port) = PortName::of(&name) else { return Answer::NotOurs };
        match self.find(scope, port.of).map(|found| found.ports(&port, turn)) {
            None => Answer::NotOurs,
            // Whose port it would be is known, so nobody else has it.
            Some(None) => Answer::NoSuchName,
            Some(Some(places)) if matches!(kind, QueryKind::Srv | QueryKind::Any) && !places.is_empty() => {
                Answer::Places(places)
            }
            Some(Some(_)) => Answer::Empty,
        }
    }

    /// Whose name it is where it is asked for: a service's, its tasks', or a container's that is no task.
    #[must_use]
    pub fn holder(&self, scope: &Scope, name: &str) -> Option<&Arc<Route>> {
        let found = self.find(scope, &parse::plain(name)?)?;
        found.places.first().map(|(_, route)| *route)
    }

    /// The name as it is, or else with a network's name at its end.
    fn find(&self, scope: &Scope, name: &str) -> Option<Found<'_>> {
        self.find_in(scope, name).or_else(|| {
            self.networks(scope).find_map(|(id, known)| {
                let name = name.strip_suffix(&*known.name)?.strip_suffix('.')?;
                let said = Some(Arc::clone(&known.info.name));
                Some(Found { said, ..self.find_in(&Scope::one(id), name)? })
            })
        })
    }

    fn find_in(&self, scope: &Scope, name: &str) -> Option<Found<'_>> {
        let found = |what, name: &str| {
            let mut places: Vec<_> = self.named(scope, name).collect();
            // A container that a user names like a service takes nothing from it.
            let services = places.iter().filter(|(_, route)| !route.attached).map(|(network, _)| *network);
            let services: BTreeSet<NetworkId> = services.collect();
            let is_tasks = matches!(what, What::Tasks);
            places.retain(|(network, route)| !route.attached || !is_tasks && !services.contains(network));
            (!places.is_empty()).then_some(Found { what, places, said: None })
        };
        let task = |name: TaskName<'_>| {
            let has_it = |(_, route): &(NetworkId, &Arc<Route>)| {
                // A task has no alias, and a container that is none no number.
                !route.attached
                    && route.name.eq_ignore_ascii_case(name.service)
                    && route.tasks().any(|task| is_named(task, &name))
            };
            let places: Vec<_> = self.named(scope, name.service).filter(has_it).collect();
            let what = What::Task(TaskName { service: "", ..name });
            (!places.is_empty()).then_some(Found { what, places, said: None })
        };
        found(What::Service, name)
            .or_else(|| found(What::Tasks, name.strip_prefix("tasks.")?))
            .or_else(|| task(TaskName::short(name)?))
            .or_else(|| task(TaskName::long(name)?))
    }

    fn reverse(&self, scope: &Scope, address: IpAddr, kind: QueryKind) -> Answer {
        let seen = self.owners(address).filter(|owner| scope.has(owner.network));
        let name = |owner: &super::table::Owner| {
            let (route, network) = (self.route(owner.service)?, &self.network(owner.network)?.info.name);
            let Some(id) = owner.task.filter(|_| !route.attached) else {
                return Some(format!("{}.{network}", route.name));
            };
            let task = route.tasks().find(|task| task.task == id)?;
            Some(format!("{}.{network}", parse::task(&route.name, task.slot, id)))
        };
        let names: Vec<String> = seen.filter_map(name).collect();
        match kind {
            // Whoever asks others about an address of ours tells them about our networks, and learns nothing.
            _ if names.is_empty() && self.contains(address) => Answer::NoSuchName,
            _ if names.is_empty() => Answer::NotOurs,
            QueryKind::Ptr | QueryKind::Any => Answer::Names(names),
            _ => Answer::Empty,
        }
    }
}
