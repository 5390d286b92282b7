//! Whether all is well once nothing breaks any more.

use std::collections::BTreeSet;
use std::sync::Arc;

use shoal_actors::api::NodeApi as _;
use shoal_actors::raft::RaftHandle;
use shoal_core::check::converged;
use shoal_core::mesh::{Route, RouteTable};
use shoal_core::model::{NodeState, Role, TaskState};
use shoal_core::store::State;

use super::leftovers;
use crate::host::Host;

/// What still ails the cluster; nothing if it is well.
#[must_use]
pub fn healed(hosts: &[Host]) -> Option<String> {
    let rafts: Vec<(usize, RaftHandle)> =
        hosts.iter().filter_map(|host| Some((host.number, host.node()?.raft()?))).collect();
    let states: Vec<State> = rafts.iter().map(|(_, raft)| raft.state()).collect();
    let Some(state) = states.iter().max_by_key(|state| state.applied()) else {
        return Some("no manager serves".into());
    };
    let managers: BTreeSet<String> = state
        .nodes()
        .filter(|node| node.spec.role == Role::Manager)
        .map(|node| node.hostname().to_owned())
        .collect();
    let serving: BTreeSet<String> = rafts.iter().map(|(number, _)| format!("h{number}")).collect();
    if managers != serving {
        let words = hosts.iter().filter_map(|host| {
            let local = host.node()?.local();
            Some(format!("h{}: {:?} {}", host.number, local.state, local.error))
        });
        let words: Vec<_> = words.collect();
        return Some(format!("{managers:?} are managers, {serving:?} serve as such; {}", words.join(", ")));
    }
    if !rafts.iter().any(|(_, raft)| raft.leadership().borrow().is_me) {
        return Some("nobody leads".into());
    }
    if let Some(other) = states.iter().find(|other| other.applied() != state.applied()) {
        return Some(format!("managers are at {} and {}", state.applied(), other.applied()));
    }
    if state.nodes().len() != hosts.len() {
        return Some(format!("{} of {} nodes are members", state.nodes().len(), hosts.len()));
    }
    if let Some(node) = state.nodes().find(|node| node.status.state != NodeState::Ready) {
        return Some(format!("{} is {:?}: {}", node.hostname(), node.status.state, node.status.message));
    }
    let missing = converged(state);
    if let Some(first) = missing.first() {
        return Some(format!("{first}, and {} more", missing.len() - 1));
    }
    hosts
        .iter()
        .find_map(|host| leftover(host, state))
        .or_else(|| leftovers::containers(hosts, state))
        .or_else(|| leftovers::places(hosts, state))
        .or_else(|| leftovers::history(state))
        .or_else(|| hosts.iter().find_map(|host| astray(host, state)))
}

/// Whose routes are not those of the state.
fn astray(host: &Host, state: &State) -> Option<String> {
    let known = host.mesh.get()?.routes();
    let wanted: Vec<_> = RouteTable::new(state).routes().cloned().collect();
    let differs = |(known, wanted): (&Arc<Route>, &Arc<Route>)| known != wanted;
    let other = known.len() != wanted.len() || known.iter().zip(&wanted).any(differs);
    other.then(|| format!("h{} knows routes {known:?}, and they are {wanted:?}", host.number))
}

/// What runs and should not, or should and does not.
fn leftover(host: &Host, state: &State) -> Option<String> {
    let name = format!("h{}", host.number);
    let node = leftovers::node_on(host, state)?;
    let wanted: BTreeSet<_> = state
        .tasks_of_node(node.id)
        .filter(|task| task.desired == TaskState::Running && task.status.state == TaskState::Running)
        .map(|task| task.id)
        .collect();
    let running: BTreeSet<_> = host.engine.running().into_iter().collect();
    if let Some(task) = running.difference(&wanted).next() {
        return Some(format!("{name} still runs task {task}"));
    }
    wanted.difference(&running).next().map(|task| format!("{name} does not run task {task}"))
}
