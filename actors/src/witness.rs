//! What every node says about the others by gossip: whom it does not hear, and that it lives itself when
//! somebody says otherwise.

use std::sync::Arc;
use std::time::Duration;

use shoal_core::liveness::{PeerView, Suspects, Witnesses};
use shoal_core::model::NodeId;
use shoal_net::gossip::{Member, Membership};

/// Least time between two looks.
const PUBLISH_EVERY: Duration = Duration::from_millis(25);
const SUSPECTS: &str = "suspects";
const INCARNATION: &str = "incarnation";

fn peer_view(member: &Member) -> PeerView {
    let value = |key| member.values.get(key).map_or("", String::as_str);
    PeerView {
        node: member.node_id,
        // That of its start, or one with which it refuted its death since.
        incarnation: value(INCARNATION)
            .parse()
            .map_or(member.incarnation, |it: u64| it.max(member.incarnation)),
        alive: member.alive,
        suspects: Suspects::parse(value(SUSPECTS)),
    }
}

/// The words of all that gossip knows.
pub(crate) fn witnesses(me: NodeId, members: &[Member]) -> Witnesses {
    Witnesses::new(me, members.iter().map(peer_view))
}

fn suspects(me: NodeId, members: &[Member]) -> Suspects {
    let mut suspects = Suspects::default();
    for member in members.iter().filter(|member| !member.alive && member.node_id != me) {
        suspects.insert(member.node_id, peer_view(member).incarnation);
    }
    suspects
}

/// Publish, as long as this node is a member.
pub(crate) async fn publish(membership: Arc<dyn Membership>, me: NodeId, mut incarnation: u64) {
    let mut changed = membership.subscribe();
    let mut published = Suspects::default();
    loop {
        changed.borrow_and_update();
        let members = membership.view();
        let now = suspects(me, &members);
        if now != published {
            membership.set_self(SUSPECTS, now.to_string());
            published = now;
        }
        if let Some(newer) = witnesses(me, &members).refutation(incarnation) {
            tracing::info!(incarnation = newer, "some node takes this one for dead: it says that it lives");
            incarnation = newer;
            membership.set_self(INCARNATION, newer.to_string());
        }
        tokio::time::sleep(PUBLISH_EVERY).await;
        if changed.changed().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(number: u128, alive: bool, values: &[(&str, &str)]) -> Member {
        Member {
            node_id: NodeId::from_u128(number),
            incarnation: 3,
            addr: ([127, 0, 0, 1], 2377).into(),
            alive,
            values: values.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        }
    }

    #[test]
    fn a_refuted_suspicion_does_not_count() {
        let me = NodeId::from_u128(1);
        let dead = suspects(me, &[member(1, false, &[]), member(2, false, &[])]);
        let told = dead.to_string();
        let peers = |values: &[(&str, &str)]| {
            [member(1, true, &[]), member(2, true, values), member(3, true, &[("suspects", &told)])]
        };
        let hearing = |values: &[(&str, &str)]| {
            witnesses(me, &peers(values)).evidence(NodeId::from_u128(2)).peers_hearing
        };
        assert_eq!((hearing(&[]), hearing(&[("incarnation", "4")])), (0, 1));
        assert_eq!(witnesses(NodeId::from_u128(2), &peers(&[])).refutation(3), Some(4));
    }

    #[test]
    fn nonsense_in_gossip_is_passed_over() {
        let members = [member(2, true, &[("incarnation", "x"), ("suspects", ",,@,x@y")])];
        assert_eq!(peer_view(&members[0]).incarnation, 3);
        assert_eq!(peer_view(&members[0]).suspects, Suspects::default());
    }
}
