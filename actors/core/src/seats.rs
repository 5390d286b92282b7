//! Who shall have a seat in raft: follows the roles that the user asked for.

use std::collections::BTreeMap;

use crate::model::{ManagerStatus, NodeId, Role};
use crate::store::{State, Write};

/// What is to be done about the seats, besides the writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SeatAction {
    /// Take the seat of a node that is demoted or gone.
    Vacate(NodeId),
    /// Write down who has a seat.
    Record(Box<Write>),
}

/// Compare the seats (`voters` with their addresses) with what the state wants and says.
///
/// Seats are given at the node's own request, once it has its certificate as a manager; here they are only
/// taken away, one after the other, never the last one. Each that is unwanted is named: the first may have to stay until
/// another, of a node that is gone for good, was taken.
#[must_use]
pub fn decide(state: &State, voters: &BTreeMap<NodeId, String>) -> Vec<SeatAction> {
    let mut actions = Vec::new();
    for node in state.nodes() {
        let seat = voters.get(&node.id).map(|addr| ManagerStatus { addr: addr.clone() });
        if node.manager != seat {
            actions.push(SeatAction::Record(Box::new(Write::NodeManager(node.id, seat))));
        }
    }
    let unwanted =
        voters.keys().filter(|id| state.node(**id).is_none_or(|node| node.spec.role == Role::Worker));
    actions.extend(unwanted.take(voters.len().saturating_sub(1)).map(|id| SeatAction::Vacate(*id)));
    actions
}

/// How many managers may fail while `seats` of them still form a majority.
#[must_use]
pub const fn tolerated(seats: usize) -> usize {
    seats.saturating_sub(1) / 2
}

/// Whether taking one seat away leaves a majority that can be reached: `reachable` of the remaining ones.
#[must_use]
pub const fn keeps_quorum(remaining: usize, reachable: usize) -> bool {
    remaining > 0 && reachable > remaining / 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Node;
    use crate::store::Command;

    fn state(roles: &[(u128, Role)]) -> State {
        let mut state = State::default();
        let writes = roles
            .iter()
            .map(|(id, role)| {
                let mut node = Node { id: NodeId::from_u128(*id), role: *role, ..Node::default() };
                node.spec.role = *role;
                Write::NodeCreate(Box::new(node))
            })
            .collect();
        state.apply(1, 1, Command { writes, ..Command::default() }).unwrap();
        state
    }

    fn voters(ids: &[u128]) -> BTreeMap<NodeId, String> {
        ids.iter().map(|id| (NodeId::from_u128(*id), format!("10.0.0.{id}:2377"))).collect()
    }

    #[test]
    fn a_demoted_manager_loses_its_seat() {
        let state = state(&[(1, Role::Manager), (2, Role::Worker)]);
        let actions = decide(&state, &voters(&[1, 2]));
        assert!(actions.contains(&SeatAction::Vacate(NodeId::from_u128(2))), "{actions:?}");
    }

    #[test]
    fn a_removed_manager_loses_its_seat() {
        let actions = decide(&state(&[(1, Role::Manager)]), &voters(&[1, 9]));
        assert!(actions.contains(&SeatAction::Vacate(NodeId::from_u128(9))), "{actions:?}");
    }

    #[test]
    fn one_that_cannot_be_taken_now_does_not_hold_up_another() {
        let state = state(&[(1, Role::Worker), (2, Role::Manager)]);
        let vacated = |ids: &[u128]| {
            let actions = decide(&state, &voters(ids)).into_iter();
            actions.filter(|action| matches!(action, SeatAction::Vacate(_))).count()
        };
        assert_eq!((vacated(&[1, 2, 9]), vacated(&[1, 9]), vacated(&[1])), (2, 1, 0));
    }

    #[test]
    fn the_last_seat_is_never_taken() {
        let actions = decide(&state(&[(1, Role::Worker)]), &voters(&[1]));
        assert!(!actions.iter().any(|a| matches!(a, SeatAction::Vacate(_))), "{actions:?}");
    }

    #[test]
    fn seats_are_written_down() {
        let actions = decide(&state(&[(1, Role::Manager)]), &voters(&[1]));
        let seat = Some(ManagerStatus { addr: "10.0.0.1:2377".into() });
        assert_eq!(actions, [SeatAction::Record(Box::new(Write::NodeManager(NodeId::from_u128(1), seat)))]);
    }

    #[test]
    fn quorum_is_a_reachable_majority_of_what_remains() {
        assert!(keeps_quorum(2, 2) && !keeps_quorum(2, 1) && keeps_quorum(1, 1) && !keeps_quorum(0, 0));
        assert_eq!([1, 2, 3, 4, 5, 7].map(tolerated), [0, 0, 1, 1, 2, 3]);
    }
}
