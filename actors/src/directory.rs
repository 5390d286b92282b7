//! Where the other nodes are: what gossip says, or the managers' list, or what was true at the last stop.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use shoal_core::model::NodeId;
use shoal_net::gossip::{Membership, find};
use shoal_wire::v1::ManagerAddr;

#[derive(Default)]
struct Inner {
    managers: BTreeMap<NodeId, String>,
    leader: Option<NodeId>,
    membership: Option<Arc<dyn Membership>>,
}

/// A node's address book. Cheap to clone.
#[derive(Clone, Default)]
pub struct Directory(Arc<Mutex<Inner>>);

impl Directory {
    /// An address book with these managers.
    #[must_use]
    pub fn new(managers: &[ManagerAddr]) -> Self {
        let directory = Self::default();
        directory.set_managers(managers);
        directory
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on ask gossip first.
    pub fn set_membership(&self, membership: Arc<dyn Membership>) {
        self.lock().membership = Some(membership);
    }

    /// The managers as the leader told. Returns whether that is news.
    pub fn set_managers(&self, managers: &[ManagerAddr]) -> bool {
        let managers: BTreeMap<_, _> = managers.iter().map(|m| (m.node_id, m.addr.clone())).collect();
        if managers.is_empty() {
            return false;
        }
        let mut inner = self.lock();
        let news = inner.managers != managers;
        inner.managers = managers;
        news
    }

    /// The managers as known.
    #[must_use]
    pub fn managers(&self) -> Vec<ManagerAddr> {
        let inner = self.lock();
        inner.managers.iter().map(|(id, addr)| ManagerAddr { node_id: *id, addr: addr.clone() }).collect()
    }

    /// Remember who leads.
    pub fn set_leader(&self, leader: Option<NodeId>) {
        self.lock().leader = leader;
    }

    /// Who was last known to lead.
    #[must_use]
    pub fn leader(&self) -> Option<NodeId> {
        self.lock().leader
    }

    /// Where a node is: gossip knows best, since an address may have changed.
    #[must_use]
    pub fn addr_of(&self, node: NodeId) -> Option<SocketAddr> {
        let (membership, listed) = {
            let inner = self.lock();
            (inner.membership.clone(), inner.managers.get(&node).cloned())
        };
        let gossiped = membership.and_then(|m| find(&m.view(), node).map(|member| member.addr));
        gossiped.or_else(|| listed.and_then(|addr| addr.parse().ok()))
    }

    /// Managers that gossip or the leader named, other than those in `not`.
    #[must_use]
    pub fn candidates(&self) -> Vec<(NodeId, SocketAddr)> {
        let (membership, ids) = {
            let inner = self.lock();
            (inner.membership.clone(), inner.managers.keys().copied().collect::<Vec<_>>())
        };
        let mut found: BTreeMap<NodeId, SocketAddr> =
            ids.into_iter().filter_map(|id| self.addr_of(id).map(|addr| (id, addr))).collect();
        let view = membership.map(|membership| membership.view());
        for member in view.iter().flat_map(|view| view.iter()) {
            if member.alive && member.values.get("role").is_some_and(|role| role == "manager") {
                found.insert(member.node_id, member.addr);
            }
        }
        found.into_iter().collect()
    }
}
