//! What the other nodes say: each publishes whom it does not hear, and a suspect that lives refutes it by a
//! newer incarnation.

use std::collections::BTreeMap;
use std::fmt;

use super::Evidence;
use crate::model::NodeId;

/// Entries read of one peer's list at most.
const SUSPECTS_MAX: usize = 10_000;

/// Whom a node suspects, and as which incarnation. As text `ID@INCARNATION,…`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Suspects(BTreeMap<NodeId, u64>);

impl Suspects {
    /// Suspect a node as it is in this incarnation and all before.
    pub fn insert(&mut self, node: NodeId, incarnation: u64) {
        let known = self.0.entry(node).or_default();
        *known = incarnation.max(*known);
    }

    /// Whether the node is suspected in this incarnation; a newer one refutes the suspicion.
    #[must_use]
    pub fn suspects(&self, node: NodeId, incarnation: u64) -> bool {
        self.0.get(&node).is_some_and(|suspected| *suspected >= incarnation)
    }

    /// Read what a peer publishes. What is malformed is nobody's name and passed over; an id alone is
    /// suspected in every incarnation.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut suspects = Self::default();
        for entry in text.split(',').take(SUSPECTS_MAX) {
            let (id, incarnation) = match entry.split_once('@') {
                Some((id, incarnation)) => (id, incarnation.parse().ok()),
                None => (entry, Some(u64::MAX)),
            };
            if let (Ok(node), Some(incarnation)) = (id.parse(), incarnation) {
                suspects.insert(node, incarnation);
            }
        }
        suspects
    }
}

impl fmt::Display for Suspects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (node, incarnation)) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{node}@{incarnation}")?;
        }
        Ok(())
    }
}

/// A node as this node's gossip knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerView {
    /// Who.
    pub node: NodeId,
    /// Grows with each start, and with each refutation.
    pub incarnation: u64,
    /// Whether gossip hears it.
    pub alive: bool,
    /// Whom it suspects.
    pub suspects: Suspects,
}

/// The words of all peers, counted once for all nodes.
#[derive(Debug, Clone, Default)]
pub struct Witnesses {
    me: NodeId,
    known: BTreeMap<NodeId, PeerView>,
    peers: u32,
    suspected_by: BTreeMap<NodeId, u32>,
}

impl Witnesses {
    /// Count what gossip knows. Of a node that is known in several incarnations the newest counts.
    #[must_use]
    pub fn new(me: NodeId, views: impl IntoIterator<Item = PeerView>) -> Self {
        let mut witnesses = Self { me, ..Self::default() };
        for view in views {
            let newer = witnesses
                .known
                .get(&view.node)
                .is_none_or(|known| (known.incarnation, known.alive) < (view.incarnation, view.alive));
            if newer {
                witnesses.known.insert(view.node, view);
            }
        }
        for peer in witnesses.known.values().filter(|peer| peer.alive && peer.node != me) {
            witnesses.peers += 1;
            for (node, suspected) in &peer.suspects.0 {
                let refuted = witnesses.known.get(node).is_some_and(|view| view.incarnation > *suspected);
                if *node != peer.node && !refuted {
                    *witnesses.suspected_by.entry(*node).or_default() += 1;
                }
            }
        }
        witnesses
    }

    /// What gossip and the peers say of a node.
    #[must_use]
    pub fn evidence(&self, node: NodeId) -> Evidence {
        let known = self.known.contains_key(&node);
        let alive = self.known.get(&node).is_some_and(|view| view.alive);
        let itself = u32::from(alive && node != self.me);
        let peers_asked = self.peers.saturating_sub(itself);
        let suspecting = self.suspected_by.get(&node).copied().unwrap_or_default();
        Evidence {
            known,
            gossip_alive: alive || node == self.me,
            // Nobody suspects whom nobody knows: all may have been started anew since it was last there.
            peers_hearing: if known { peers_asked.saturating_sub(suspecting) } else { 0 },
            peers_asked,
        }
    }

    /// The incarnation with which this node shall go on to refute those who suspect it, if anybody does.
    #[must_use]
    pub fn refutation(&self, incarnation: u64) -> Option<u64> {
        self.known
            .values()
            .filter(|peer| peer.alive && peer.node != self.me)
            .filter_map(|peer| peer.suspects.0.get(&self.me))
            .filter(|suspected| **suspected >= incarnation && **suspected < u64::MAX)
            .map(|suspected| suspected + 1)
            .max()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn id(number: u128) -> NodeId {
        NodeId::from_u128(number)
    }

    fn view(number: u128, incarnation: u64, alive: bool, suspects: &[(u128, u64)]) -> PeerView {
        let mut list = Suspects::default();
        suspects.iter().for_each(|(node, incarnation)| list.insert(id(*node), *incarnation));
        PeerView { node: id(number), incarnation, alive, suspects: list }
    }

    #[test]
    fn peers_that_do_not_suspect_a_node_hear_it() {
        let views = [
            view(1, 1, true, &[]),
            view(2, 1, false, &[]),
            view(3, 1, true, &[(2, 1)]),
            view(4, 1, true, &[]),
            view(5, 1, false, &[]),
        ];
        let witnesses = Witnesses::new(id(1), views);
        let evidence = |number| witnesses.evidence(id(number));
        assert_eq!(
            evidence(2),
            Evidence { known: true, gossip_alive: false, peers_hearing: 1, peers_asked: 2 }
        );
        assert_eq!(
            evidence(3),
            Evidence { known: true, gossip_alive: true, peers_hearing: 1, peers_asked: 1 }
        );
        assert!(evidence(1).gossip_alive);
        // All were started anew since this one was there: that nobody suspects it means nothing.
        assert_eq!(
            evidence(9),
            Evidence { known: false, gossip_alive: false, peers_hearing: 0, peers_asked: 2 }
        );
    }

    #[test]
    fn a_suspect_refutes_by_a_newer_incarnation() {
        let peers = [view(1, 1, true, &[]), view(3, 1, true, &[(2, 7)]), view(4, 1, true, &[(2, 6)])];
        let as_incarnation = |incarnation| {
            let own = view(2, incarnation, true, &[]);
            let suspect = Witnesses::new(id(2), peers.iter().cloned().chain([own.clone()]));
            let leader = Witnesses::new(id(1), peers.iter().cloned().chain([own]));
            (leader.evidence(id(2)).peers_hearing, suspect.refutation(incarnation))
        };
        assert_eq!(as_incarnation(6), (0, Some(8)));
        assert_eq!(as_incarnation(7), (1, Some(8)));
        assert_eq!(as_incarnation(8), (2, None));
    }

    #[test]
    fn a_restarted_node_is_judged_by_its_newest_incarnation() {
        let views = [view(2, 5, true, &[]), view(2, 4, false, &[]), view(3, 1, true, &[(2, 4)])];
        let evidence = Witnesses::new(id(1), views).evidence(id(2));
        assert_eq!(evidence, Evidence { known: true, gossip_alive: true, peers_hearing: 1, peers_asked: 1 });
    }

    proptest! {
        #[test]
        fn suspects_read_back_as_written(list: BTreeMap<u128, u64>) {
            let mut suspects = Suspects::default();
            list.iter().for_each(|(node, incarnation)| suspects.insert(id(*node), *incarnation));
            prop_assert_eq!(Suspects::parse(&suspects.to_string()), suspects);
        }

        #[test]
        fn reading_a_list_never_panics(text: String) {
            let _ = Suspects::parse(&text);
        }
    }
}
