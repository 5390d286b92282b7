//! What this node knows of all routes, by service and by port.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use shoal_core::mesh::{Options, Route, RouteChange};
use shoal_core::model::{NodeId, Protocol, ServiceId, TaskId};

/// A published port of a service.
#[derive(Debug, Clone)]
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
        let (mut all, mut news) = (self.routes.clone(), News::default());
        for change in changes {
            news.note(change);
            match (&change.before, &change.after) {
                (_, Some(route)) => drop(all.insert(route.service, Arc::clone(route))),
                (Some(route), None) => drop(all.remove(&route.service)),
                (None, None) => {}
            }
        }
        let options = changes.iter().flat_map(|change| change.options_on(here)).collect();
        let mut ports: BTreeMap<_, Vec<Published>> = BTreeMap::new();
        for route in all.values() {
            for port in &route.ports {
                let (route, at) = (Arc::clone(route), port.at.clone());
                let published = Published { route, target: port.target_port, at };
                ports.entry((port.protocol, port.published_port)).or_default().push(published);
            }
        }
        (Self { ports, routes: all }, news, options)
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
