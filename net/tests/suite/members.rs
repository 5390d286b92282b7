//! Who is a member, and what members say of themselves.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use shoal_core::model::{ClusterId, NodeId, Role};
use shoal_core::pace::Pace;
use shoal_net::Endpoint;
use shoal_net::gossip::{GossipConfig, Membership};

use crate::support::{CLUSTER, Ground, World};

struct Member {
    endpoint: Endpoint,
    addr: SocketAddr,
    talk: Arc<dyn Membership>,
}

impl Member {
    fn alive(&self) -> Vec<u128> {
        self.talk.view().iter().filter(|member| member.alive).map(|member| member.node_id.as_u128()).collect()
    }

    fn hears(&self, id: u128, key: &str) -> Option<String> {
        let view = self.talk.view();
        view.iter().find(|member| member.node_id.as_u128() == id)?.values.get(key).cloned()
    }

    fn incarnation(&self, id: u128) -> u64 {
        let view = self.talk.view();
        view.iter().find(|member| member.node_id.as_u128() == id).map_or(0, |member| member.incarnation)
    }

    async fn die(self) {
        self.talk.shutdown().await;
        self.endpoint.shutdown().await;
    }
}

async fn member(
    world: &World,
    id: u128,
    incarnation: u64,
    seeds: &[SocketAddr],
    cluster: ClusterId,
) -> Member {
    let (endpoint, peer) = world.node(id, Role::Worker);
    let (pace, seeds) = (Pace::USUAL, seeds.to_vec());
    let config = GossipConfig {
        pace,
        node_id: NodeId::from_u128(id),
        cluster_id: cluster,
        incarnation,
        addr: peer.addr,
        seeds,
    };
    let talk = world.member(&endpoint, config).await;
    Member { endpoint, addr: peer.addr, talk }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}

pub async fn nodes_find_each_other_hear_values_and_notice_a_dead_one(ground: Arc<dyn Ground>) {
    let world = World::new(&ground);
    let mut nodes = vec![member(&world, 1, 1, &[], CLUSTER).await];
    let seed = nodes[0].addr;
    for id in 2..=4 {
        nodes.push(member(&world, id, 1, &[seed], CLUSTER).await);
    }
    until("all see all alive", || nodes.iter().all(|node| node.alive() == [1, 2, 3, 4])).await;
    let mut news = nodes[0].talk.subscribe();
    nodes[2].talk.set_self("suspects", "nobody".into());
    let heard = |node: &Member| node.hears(3, "suspects").as_deref() == Some("nobody");
    until("all hear a value", || nodes.iter().all(heard)).await;
    assert!(news.has_changed().unwrap(), "a change was not told");
    news.mark_unchanged();
    let dead = nodes.pop().unwrap();
    dead.die().await;
    until("all notice the death", || nodes.iter().all(|node| node.alive() == [1, 2, 3])).await;
    assert!(nodes[0].talk.view().iter().any(|member| member.node_id.as_u128() == 4), "the dead are known");
    let (one, other) = (nodes[0].talk.view(), nodes[0].talk.view());
    assert!(Arc::ptr_eq(&one, &other), "the same slice as long as nothing changes");
}

pub async fn who_comes_back_is_known_by_its_new_incarnation(ground: Arc<dyn Ground>) {
    let world = World::new(&ground);
    let one = member(&world, 1, 1, &[], CLUSTER).await;
    let two = member(&world, 2, 1, &[one.addr], CLUSTER).await;
    until("both are alive", || one.alive() == [1, 2]).await;
    two.die().await;
    until("one is dead", || one.alive() == [1]).await;
    let two = member(&world, 2, 2, &[one.addr], CLUSTER).await;
    until("it is back", || one.alive() == [1, 2] && one.incarnation(2) == 2).await;
    until("it knows the other", || two.alive() == [1, 2]).await;
}

pub async fn another_cluster_is_not_heard(ground: Arc<dyn Ground>) {
    let world = World::new(&ground);
    let one = member(&world, 1, 1, &[], CLUSTER).await;
    let stranger = member(&world, 2, 1, &[one.addr], ClusterId::from_u128(9)).await;
    let three = member(&world, 3, 1, &[one.addr], CLUSTER).await;
    until("those of one cluster know each other", || one.alive() == [1, 3] && three.alive() == [1, 3]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!one.alive().contains(&2) && !three.alive().contains(&2));
    assert!(!stranger.alive().contains(&1) && !stranger.alive().contains(&3));
}
