//! Whether the cluster's verdicts on its nodes are true: who is well and heard is not declared dead, and who is dead is.

use std::collections::BTreeMap;
use std::time::Duration;

use shoal_core::model::{NodeId, NodeState};
use shoal_core::pace::Pace;
use shoal_core::store::State;

use tokio::time::Instant;

use super::sight::{Sky, host_number};

/// Whoever was heard by another that the leader hears for so long must not be declared dead.
const HEARD: Duration = Duration::from_secs(4);
/// The same where the leader itself is struck: what it said may have waited long for its disk, and cannot be taken back.
const HEARD_BY_STRUCK: Duration = Duration::from_secs(12);
/// A leader that was well for so long must know who is dead for so long.
const KNOWN_AFTER: Duration = Duration::from_secs(8);
/// A leader has said itself what it says after so long.
const OWN_AFTER: Duration = Duration::from_millis(500);

/// Verdicts seen so far.
#[derive(Default)]
pub(super) struct Verdicts {
    pace: Pace,
    known: BTreeMap<NodeId, NodeState>,
    index: u64,
    leader: Option<(usize, u64, Instant)>,
}

impl Verdicts {
    /// None so far, in a cluster of this pace.
    pub(super) fn new(pace: Pace) -> Self {
        Self { pace, ..Self::default() }
    }

    /// Nobody leads as far as is known.
    pub(super) fn nobody_leads(&mut self) {
        self.leader = None;
    }

    /// Look at the state of the host that leads in this term.
    pub(super) fn look(
        &mut self,
        (leader, term): (usize, u64),
        state: &State,
        sky: &Sky,
        hosts: usize,
    ) -> Vec<String> {
        if state.applied() < self.index {
            return Vec::new();
        }
        if self.leader.is_none_or(|(who, when, _)| (who, when) != (leader, term)) {
            self.leader = Some((leader, term, Instant::now()));
        }
        // What is new in the state of a new leader was said by the one before it.
        let long = self.leader.is_some_and(|(.., since)| since.elapsed() > self.pace.of(KNOWN_AFTER));
        let its_own = self.leader.is_some_and(|(.., since)| since.elapsed() > self.pace.of(OWN_AFTER));
        let heard = if sky.well(leader, HEARD) { HEARD } else { HEARD_BY_STRUCK };
        let mut found = Vec::new();
        self.index = state.applied();
        for node in state.nodes() {
            let Some(host) = host_number(node.hostname()).filter(|host| *host <= hosts) else { continue };
            let now = node.status.state;
            let before = self.known.insert(node.id, now);
            if its_own
                && now == NodeState::Down
                && before.is_some_and(|before| before != NodeState::Down)
                && let Some(witness) = (1..=hosts).find(|witness| {
                    *witness != host
                        && *witness != leader
                        && sky.sound(*witness, host, heard)
                        && sky.linked(*witness, leader, heard)
                })
            {
                let why = &node.status.message;
                found.push(format!("h{host} was declared dead by h{leader}, and h{witness} hears it: {why}"));
            }
            let unnoticed = now == NodeState::Ready && before == Some(NodeState::Ready);
            if long && unnoticed && sky.dead(host, KNOWN_AFTER) && leads_well(leader, sky, hosts) {
                found.push(format!(
                    "h{host} is dead for {KNOWN_AFTER:?}, and h{leader} says that it is ready"
                ));
            }
        }
        found
    }
}

/// Whether the leader was well, and heard all who were.
fn leads_well(leader: usize, sky: &Sky, hosts: usize) -> bool {
    let others = (1..=hosts).filter(|host| sky.sound(leader, *host, KNOWN_AFTER)).count();
    others > hosts / 2
}

#[cfg(test)]
mod tests {
    use shoal_core::model::{Node, NodeDescription, NodeStatus};
    use shoal_core::store::{Command, Write};

    use super::super::sight::Sight;
    use super::*;

    fn say(state: &mut State, life: NodeState) {
        let status = NodeStatus { state: life, ..NodeStatus::default() };
        let id = NodeId::from_u128(1);
        let write = match state.node(id) {
            Some(_) => Write::NodeStatus(id, status),
            None => {
                let description = Some(NodeDescription { hostname: "h1".into(), ..Default::default() });
                Write::NodeCreate(Box::new(Node { id, status, description, ..Node::default() }))
            }
        };
        let index = state.applied() + 1;
        state.apply(index, 1, Command { writes: vec![write], ..Command::default() }).expect("legal");
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_node_that_is_called_ready_is_found_only_by_a_leader_that_is_well() {
        let (mut verdicts, mut sky, mut state) = (Verdicts::default(), Sky::default(), State::default());
        say(&mut state, NodeState::Ready);
        let nodes = BTreeMap::new();
        for _ in 0..2 {
            sky.look(&Sight {
                nodes: &nodes,
                states: &BTreeMap::new(),
                turning: &Default::default(),
                faults: &[],
                hosts: 3,
            });
            assert!(verdicts.look((2, 1), &state, &sky, 3).is_empty());
            tokio::time::advance(KNOWN_AFTER).await;
        }
        // Nobody is up, so no leader is well; nor is there a witness for the dead one.
        say(&mut state, NodeState::Down);
        assert!(verdicts.look((2, 1), &state, &sky, 3).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_node_that_a_leader_that_is_well_calls_ready_is_found() {
        let (mut verdicts, mut state) = (Verdicts::default(), State::default());
        let sky = Sky::of(&[2, 3], &[1]);
        say(&mut state, NodeState::Ready);
        assert!(verdicts.look((2, 1), &state, &sky, 3).is_empty());
        tokio::time::advance(KNOWN_AFTER + OWN_AFTER).await;
        let found = verdicts.look((2, 1), &state, &sky, 3);
        assert!(found.len() == 1 && found[0].contains("h1 is dead for"), "{found:?}");
        // One that was elected just now says what it has not found out itself.
        assert!(verdicts.look((3, 2), &state, &sky, 3).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_others_hear_is_not_to_be_declared_dead() {
        let (mut verdicts, mut state) = (Verdicts::default(), State::default());
        let sky = Sky::of(&[1, 2, 3], &[]);
        say(&mut state, NodeState::Ready);
        assert!(verdicts.look((2, 1), &state, &sky, 3).is_empty());
        tokio::time::advance(HEARD).await;
        say(&mut state, NodeState::Down);
        let found = verdicts.look((2, 1), &state, &sky, 3);
        assert!(
            found.len() == 1 && found[0].contains("h1 was declared dead by h2, and h3 hears it"),
            "{found:?}"
        );
    }
}
