//! Membership by gossip among all nodes: chitchat over this endpoint's connections. Behind a trait, so that
//! large simulations can put a model in its place.

mod hub;
mod member;

pub use member::{GossipConfig, GossipError, start};

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use shoal_core::model::NodeId;
use shoal_core::task::BoxFuture;
use tokio::sync::{mpsc, watch};

pub(crate) use hub::Inbound;

/// Where the endpoint puts accepted gossip connections.
pub(crate) type Inbox = mpsc::Sender<Inbound>;

/// A node as gossip knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Who.
    pub node_id: NodeId,
    /// Grows with each start of the node.
    pub incarnation: u64,
    /// Where.
    pub addr: SocketAddr,
    /// Whether it was heard lately, directly or by others.
    pub alive: bool,
    /// What it says of itself.
    pub values: BTreeMap<String, String>,
}

/// What gossip knows, in order of the nodes' ids.
pub type View = Arc<[Member]>;

/// The newest that is known of a node.
#[must_use]
pub fn find(view: &[Member], node: NodeId) -> Option<&Member> {
    view.binary_search_by_key(&node, |member| member.node_id).ok().map(|at| &view[at])
}

/// Who is there.
pub trait Membership: Send + Sync + 'static {
    /// Say something of this node.
    fn set_self(&self, key: &str, value: String);
    /// All known nodes by id, dead ones too, this one too. The same slice as long as nothing changes.
    fn view(&self) -> View;
    /// Counts up with each change of the view.
    fn subscribe(&self) -> watch::Receiver<u64>;
    /// Stop.
    fn shutdown(&self) -> BoxFuture<'_, ()>;
}
