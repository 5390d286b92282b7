//! Gossip of several nodes over real sockets.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use shoal_core::model::{NodeId, Role};
use shoal_core::pace::Pace;
use shoal_net::gossip::{self, GossipConfig, Membership};
use shoal_net::task::Scope;
use shoal_net::*;
use support::*;

async fn member(
    world: &World,
    id: u128,
    seeds: Vec<std::net::SocketAddr>,
) -> (Endpoint, Arc<dyn Membership>) {
    let (endpoint, peer) = world.node(id, Role::Worker);
    let config = GossipConfig {
        pace: Pace::USUAL,
        node_id: NodeId::from_u128(id),
        cluster_id: CLUSTER,
        incarnation: 1,
        addr: peer.addr,
        seeds,
    };
    let membership = gossip::start(&endpoint, config, &Scope::new()).await.unwrap();
    (endpoint, membership)
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}

#[tokio::test]
async fn five_nodes_find_each_other_hear_values_and_notice_a_dead_one() {
    let world = World::new(&(Arc::new(Udp::default()) as Arc<dyn Ground>));
    let mut nodes = vec![member_of_managers(&world).await];
    let seed = nodes[0].0.local_addr().unwrap();
    for id in 2..=5 {
        nodes.push(member(&world, id, vec![seed]).await);
    }
    let alive = |m: &Arc<dyn Membership>| m.view().iter().filter(|m| m.alive).count();
    until("all see all alive", || nodes.iter().all(|(_, m)| alive(m) == 5)).await;
    nodes[3].1.set_self("suspects", "nobody".into());
    let says = |m: &Arc<dyn Membership>| {
        m.view().iter().any(|m| {
            m.node_id == NodeId::from_u128(4) && m.values.get("suspects").is_some_and(|v| v == "nobody")
        })
    };
    until("all hear a value", || nodes.iter().all(|(_, m)| says(m))).await;
    let (endpoint, dead) = nodes.pop().unwrap();
    dead.shutdown().await;
    endpoint.shutdown().await;
    until("all notice the death", || nodes.iter().all(|(_, m)| alive(m) == 4)).await;
}

async fn member_of_managers(world: &World) -> (Endpoint, Arc<dyn Membership>) {
    member(world, 1, vec![]).await
}
