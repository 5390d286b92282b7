//! What this node knows of all routes, by service and by port.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use shoal_core::mesh::{Options, Route, RouteChange};
use shoal_core::model::{NodeId, Protocol, ServiceId, TaskId};

/// A published port of a service.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Published {
    pub(super) route: Arc<Route>,
    /// The port in its containers.
    pub(super) target: u16,
    /// The ranges that the addresses of hosts lie in at which it is listened on; none for all.
    pub(super) at: Vec<IpNet>,
}

/// Where on this host somebody may listen: a port at one of its addresses, or at all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Spot {
    pub(super) protocol: Protocol,
    pub(super) number: u16,
    pub(super) address: Option<IpAddr>,
}

/// Routes, never changed: a new one replaces it whole.
#[derive(Debug, Clone, Default)]
pub(super) struct Table {
    routes: BTreeMap<ServiceId, Arc<Route>>,
    /// By protocol and number: services that share one have addresses that do not meet.
    ports: BTreeMap<(Protocol, u16), Vec<Published>>,
}

/// Tasks that take traffic no more, and that do so now.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct News {
    pub(super) gone: BTreeSet<TaskId>,
    pub(super) come: BTreeSet<TaskId>,
}

impl News {
    fn note(&mut self, RouteChange { before, after }: &RouteChange) {
        let tasks = |route: &Option<Arc<Route>>| -> BTreeSet<TaskId> {
            route.iter().flat_map(|route| &route.backends).map(|backend| backend.task).collect()
        };
        let (before, after) = (tasks(before), tasks(after));
        self.gone.extend(before.difference(&after));
        self.come.extend(after.difference(&before));
    }
}

impl Table {
    /// This one, changed as told; and which tasks take traffic no more or do so now, and how those of this node are treated.
    pub(super) fn with(&self, changes: &[RouteChange], here: NodeId) -> (Self, News, Vec<(TaskId, Options)>) {
        let (mut table, mut news) = (self.clone(), News::default());
        for change in changes {
            news.note(change);
            // What is known here counts, not what is told of it.
            let service = change.after.as_ref().or(change.before.as_ref()).map(|route| route.service);
            if let Some(known) = service.and_then(|service| table.routes.remove(&service)) {
                table.withdraw(&known);
            }
            if let Some(route) = &change.after {
                table.publish(route);
                table.routes.insert(route.service, Arc::clone(route));
            }
        }
        let options = changes.iter().flat_map(|change| change.options_on(here)).collect();
        (table, news, options)
    }

    fn publish(&mut self, route: &Arc<Route>) {
        for port in &route.ports {
            let (route, at) = (Arc::clone(route), port.at.clone());
            let published = Published { route, target: port.target_port, at };
            let all = self.ports.entry((port.protocol, port.published_port)).or_default();
            // In the order of services, so that it does not matter which came first.
            let place = all.partition_point(|other| other.route.service <= published.route.service);
            all.insert(place, published);
        }
    }

    fn withdraw(&mut self, route: &Route) {
        for port in &route.ports {
            let key = (port.protocol, port.published_port);
            let Some(all) = self.ports.get_mut(&key) else { continue };
            all.retain(|published| published.route.service != route.service);
            if all.is_empty() {
                self.ports.remove(&key);
            }
        }
    }

    /// What is published where a client was listened to.
    pub(super) fn at(&self, spot: Spot) -> Option<&Published> {
        let has = |published: &&Published| match spot.address {
            Some(address) => published.at.is_empty() || published.at.iter().any(|net| net.contains(&address)),
            None => published.at.is_empty(),
        };
        self.ports.get(&(spot.protocol, spot.number))?.iter().find(has)
    }

    pub(super) fn published(&self) -> impl Iterator<Item = (Protocol, u16, &Published)> {
        self.ports.iter().flat_map(|((protocol, number), all)| {
            all.iter().map(move |published| (*protocol, *number, published))
        })
    }

    /// The route by which a task of a node takes traffic at this port of its container.
    pub(super) fn serving(
        &self,
        node: NodeId,
        task: TaskId,
        protocol: Protocol,
        port: u16,
    ) -> Option<&Arc<Route>> {
        self.routes.values().find(|route| {
            route.ports.iter().any(|p| p.protocol == protocol && p.target_port == port)
                && route.backends.iter().any(|backend| backend.task == task && backend.node == node)
        })
    }
}

#[cfg(test)]
mod tests {
    use shoal_core::model::PortConfig;

    use super::*;

    const HERE: NodeId = NodeId::from_u128(1);

    fn route(service: u128, ports: &[u16]) -> Arc<Route> {
        let port = |number: &u16| PortConfig {
            published_port: *number,
            target_port: 80,
            at: vec![format!("10.0.0.{service}/32").parse().unwrap()],
            ..PortConfig::default()
        };
        Arc::new(Route {
            service: ServiceId::from_u128(service),
            name: format!("s{service}"),
            ports: ports.iter().map(port).collect(),
            options: Options::default(),
            backends: Vec::new(),
            networks: Vec::new(),
            others: Vec::new(),
            attached: false,
        })
    }

    #[test]
    fn a_table_that_followed_changes_is_one_made_of_what_is_left() {
        // Each of these is what becomes of a service, whatever it was before: two share a port, one moves, one leaves.
        let story: [(u128, &[u16]); 7] =
            [(2, &[80, 81]), (1, &[80]), (3, &[82]), (2, &[80]), (3, &[83]), (1, &[]), (1, &[80, 84])];
        let mut routes: BTreeMap<ServiceId, Arc<Route>> = BTreeMap::new();
        let mut table = Table::default();
        for (service, ports) in story {
            let after = Some(route(service, ports)).filter(|route| !route.ports.is_empty());
            let id = ServiceId::from_u128(service);
            let before = match &after {
                Some(route) => routes.insert(id, Arc::clone(route)),
                None => routes.remove(&id),
            };
            (table, ..) = table.with(&[RouteChange { before, after }], HERE);
            let all =
                routes.values().map(|route| RouteChange { before: None, after: Some(Arc::clone(route)) });
            let (fresh, ..) = Table::default().with(&all.collect::<Vec<_>>(), HERE);
            assert_eq!(
                (&table.ports, &table.routes),
                (&fresh.ports, &fresh.routes),
                "after {service} {ports:?}"
            );
        }
        assert_eq!(table.ports.keys().map(|(_, number)| *number).collect::<Vec<_>>(), [80, 83, 84]);
        assert_eq!(table.ports[&(Protocol::Tcp, 80)].len(), 2);
    }
}
