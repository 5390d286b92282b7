//! What this node knows of all routes, by service and by port.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use shoal_core::mesh::{Options, Route, Routes};
use shoal_core::model::{NodeId, PortConfig, Protocol, ServiceId, TaskId};

/// A published port, on every node.
pub(super) type Port = (Protocol, u16);

/// Routes, never changed: a new one replaces it whole.
#[derive(Debug, Clone, Default)]
pub(super) struct Table {
    routes: BTreeMap<ServiceId, Arc<Route>>,
    ports: BTreeMap<Port, (Arc<Route>, u16)>,
}

/// Tasks that take traffic no more, and that do so now.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct News {
    pub(super) gone: BTreeSet<TaskId>,
    pub(super) come: BTreeSet<TaskId>,
}

impl News {
    fn note(&mut self, before: Option<&Arc<Route>>, after: Option<&Arc<Route>>) {
        let tasks = |route: Option<&Arc<Route>>| -> BTreeSet<TaskId> {
            route.into_iter().flat_map(|route| &route.backends).map(|backend| backend.task).collect()
        };
        let (before, after) = (tasks(before), tasks(after));
        self.gone.extend(before.difference(&after));
        self.come.extend(after.difference(&before));
    }
}

impl Table {
    /// This one, changed as told.
    pub(super) fn with(&self, routes: Routes) -> (Self, News) {
        let (changed, removed) = match routes {
            Routes::Complete(routes) => {
                let named: BTreeSet<ServiceId> = routes.iter().map(|route| route.service).collect();
                let removed = self.routes.keys().filter(|id| !named.contains(id)).copied().collect();
                (routes, removed)
            }
            Routes::Changed { changed, removed } => (changed, removed),
        };
        let (mut all, mut news) = (self.routes.clone(), News::default());
        for id in removed {
            news.note(all.remove(&id).as_ref(), None);
        }
        for route in changed {
            news.note(all.get(&route.service), Some(&route));
            all.insert(route.service, route);
        }
        let ports = all.values().flat_map(|route| {
            let at = |port: &PortConfig| (port.protocol, port.published_port);
            route.ports.iter().map(move |port| (at(port), (Arc::clone(route), port.target_port)))
        });
        (Self { ports: ports.collect(), routes: all }, news)
    }

    /// The service behind a port, and the port in its containers.
    pub(super) fn port(&self, port: Port) -> Option<&(Arc<Route>, u16)> {
        self.ports.get(&port)
    }

    pub(super) fn ports(&self) -> impl Iterator<Item = (&Port, &(Arc<Route>, u16))> {
        self.ports.iter()
    }

    /// How traffic of a node's tasks is treated.
    pub(super) fn of_node(&self, node: NodeId) -> impl Iterator<Item = (TaskId, Options)> {
        self.routes.values().flat_map(move |route| {
            let here = route.backends.iter().filter(move |backend| backend.node == node);
            here.map(|backend| (backend.task, route.options))
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
