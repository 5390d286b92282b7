//! What this node knows of all routes, by service and by port.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use shoal_core::mesh::{Options, Route, RouteChange};
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
        let ports = all.values().flat_map(|route| {
            let at = |port: &PortConfig| (port.protocol, port.published_port);
            route.ports.iter().map(move |port| (at(port), (Arc::clone(route), port.target_port)))
        });
        (Self { ports: ports.collect(), routes: all }, news, options)
    }

    /// The service behind a port, and the port in its containers.
    pub(super) fn port(&self, port: Port) -> Option<&(Arc<Route>, u16)> {
        self.ports.get(&port)
    }

    pub(super) fn ports(&self) -> impl Iterator<Item = (&Port, &(Arc<Route>, u16))> {
        self.ports.iter()
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
