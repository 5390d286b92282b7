//! Membership by gossip among all nodes: chitchat over this endpoint's connections. Behind a trait, so that
//! large simulations can put a model in its place.

mod hub;
mod member;

pub use member::{GossipConfig, GossipError, start};

use std::collections::BTreeMap;
use std::net::SocketAddr;

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

/// Who is there.
pub trait Membership: Send + Sync + 'static {
    /// Say something of this node.
    fn set_self(&self, key: &str, value: String);
    /// All known nodes, dead ones too, this one too.
    fn view(&self) -> Vec<Member>;
    /// Counts up with each change of the view.
    fn subscribe(&self) -> watch::Receiver<u64>;
    /// Stop.
    fn shutdown(&self) -> BoxFuture<'_, ()>;
}
