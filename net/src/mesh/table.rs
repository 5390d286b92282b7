//! What this node knows of all routes, by service and by port.

use std::collections::BTreeMap;
use std::sync::Arc;

use shoal_core::mesh::{Options, Route, Routes};
use shoal_core::model::{NodeId, Protocol, ServiceId, TaskId};

/// A published port, on every node.
pub(super) type Port = (Protocol, u16);

/// Routes, never changed: a new one replaces it whole.
#[derive(Debug, Clone, Default)]
pub(super) struct Table {
    routes: BTreeMap<ServiceId, Arc<Route>>,
    ports: BTreeMap<Port, (Arc<Route>, u16)>,
}

impl Table {
    /// This one, changed as told.
    pub(super) fn with(&self, routes: Routes) -> Self {
        let mut all = match &routes {
            Routes::Complete(_) => BTreeMap::new(),
            Routes::Changed { .. } => self.routes.clone(),
        };
        let (changed, removed) = match routes {
            Routes::Complete(routes) => (routes, Vec::new()),
            Routes::Changed { changed, removed } => (changed, removed),
        };
        for id in removed {
            all.remove(&id);
        }
        all.extend(changed.into_iter().map(|route| (route.service, route)));
        let ports = all.values().flat_map(|route| {
            let port = |p: &shoal_core::model::PortConfig| {
                ((p.protocol, p.published_port), (Arc::clone(route), p.target_port))
            };
            route.ports.iter().map(port)
        });
        Self { ports: ports.collect(), routes: all }
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
