//! `/nodes`

use std::sync::Arc;

use hyper::StatusCode;
use shoal_core::model::{Node, NodeId, NodeState, Role};
use shoal_core::seats;
use shoal_core::store::{Expect, ObjectId, State, Write};

use super::super::body::{self, Answer};
use super::super::context::Context;
use super::super::convert::{NodeView, SwarmView, node_json, node_spec};
use super::super::decode::decode;
use super::super::error::HttpError;
use super::super::query::Query;
use super::super::types;
use super::pick;

const FILTERS: [&str; 6] = ["id", "label", "node.label", "membership", "name", "role"];

/// What of the cluster's life is needed to show nodes.
struct Views {
    leader: Option<NodeId>,
    reachable: Vec<NodeId>,
    own: Option<NodeId>,
    swarm: SwarmView,
}

impl Views {
    fn of(context: &Context, state: &State) -> Self {
        Self {
            leader: context.api.leader(),
            reachable: context.api.reachable_managers(),
            own: context.api.local().node_id,
            swarm: state.cluster().map(|c| SwarmView::of(&c.root_ca)).unwrap_or_default(),
        }
    }

    fn json(&self, node: &Node) -> types::Node {
        node_json(
            node,
            &NodeView {
                is_leader: self.leader == Some(node.id),
                is_reachable: self.reachable.contains(&node.id) || self.own == Some(node.id),
                tls: self.swarm.tls.clone(),
            },
        )
    }
}

/// The node that a word means. `self` is this one.
///
/// # Errors
/// 404, or 400 if several fit.
pub(super) fn resolve(context: &Context, state: &State, wanted: &str) -> Result<Arc<Node>, HttpError> {
    let own = if wanted == "self" { context.api.local().node_id } else { None };
    if let Some(node) = own.and_then(|id| state.node(id)) {
        return Ok(Arc::clone(node));
    }
    pick(
        "node",
        wanted,
        state.nodes(),
        |n| n.id.to_string(),
        |n| n.hostname() == wanted || n.name() == wanted,
    )
    .cloned()
}

/// `GET /nodes`
pub(in crate::http) async fn list(context: &Context, query: &Query) -> Result<Answer, HttpError> {
    let filters = query.filters(&FILTERS)?;
    for role in filters.values("role") {
        if !matches!(role, "manager" | "worker") {
            return Err(HttpError::invalid(format!(
                "invalid role filter '{role}': manager or worker is wanted"
            )));
        }
    }
    for membership in filters.values("membership") {
        if !matches!(membership, "accepted" | "pending") {
            return Err(HttpError::invalid(format!(
                "invalid membership filter '{membership}': accepted or pending is wanted"
            )));
        }
    }
    let snapshot = context.read().await?;
    let views = Views::of(context, &snapshot.state);
    let nodes: Vec<_> = snapshot
        .state
        .nodes()
        .filter(|node| {
            let engine = node.description.as_ref().map(|d| &d.engine.labels);
            filters.any("id", |prefix| node.id.to_string().starts_with(prefix))
                && filters.any("name", |prefix| {
                    node.name().starts_with(prefix) || node.hostname().starts_with(prefix)
                })
                && engine.map_or_else(|| !filters.has("label"), |labels| filters.labels("label", labels))
                && filters.labels("node.label", &node.spec.labels)
                && filters.any("role", |role| node.spec.role.to_string() == role)
                && filters.any("membership", |membership| membership == "accepted")
        })
        .map(|node| views.json(node))
        .collect();
    Ok(snapshot.mark(body::json(StatusCode::OK, &nodes)))
}

/// `GET /nodes/{id}`
pub(in crate::http) async fn inspect(context: &Context, id: &str) -> Result<Answer, HttpError> {
    let snapshot = context.read().await?;
    let node = resolve(context, &snapshot.state, id)?;
    let json = Views::of(context, &snapshot.state).json(&node);
    Ok(snapshot.mark(body::json(StatusCode::OK, &json)))
}

/// `POST /nodes/{id}/update?version`
pub(in crate::http) async fn update(
    context: &Context,
    id: &str,
    query: &Query,
    bytes: &[u8],
) -> Result<Answer, HttpError> {
    let version = query.version("node")?;
    let spec = node_spec(decode(bytes, "Spec")?)?;
    let snapshot = context.read().await?;
    let node = resolve(context, &snapshot.state, id)?;
    if node.meta.spec_version != version {
        return Err(HttpError::out_of_sequence());
    }
    let mut expects = vec![Expect::SpecVersion(ObjectId::Node(node.id), version)];
    if node.spec.role == Role::Manager && spec.role == Role::Worker {
        check_demotion(context, &snapshot.state, &node)?;
        // Two demotions at once could each be right alone: all other managers must stay as they were seen.
        expects.extend(
            managers(&snapshot.state)
                .filter(|other| other.id != node.id)
                .map(|other| Expect::SpecVersion(ObjectId::Node(other.id), other.meta.spec_version)),
        );
    }
    context.propose(expects, vec![Write::NodeSpec(node.id, spec)]).await?;
    Ok(body::empty(StatusCode::OK))
}

fn managers(state: &State) -> impl Iterator<Item = &Arc<Node>> {
    state.nodes().filter(|node| node.spec.role == Role::Manager)
}

/// Whether the cluster could go on without this manager.
fn check_demotion(context: &Context, state: &State, node: &Node) -> Result<(), HttpError> {
    if managers(state).all(|other| other.id == node.id) {
        return Err(HttpError::invalid(
            "rpc error: code = FailedPrecondition desc = attempting to demote the last manager of the swarm: \
             promote another node first",
        ));
    }
    if node.manager.is_none() {
        // Its promotion has not given it a seat yet: nothing is lost by taking it back.
        return Ok(());
    }
    let reachable = context.api.reachable_managers();
    let own = context.api.local().node_id;
    let voters: Vec<_> =
        state.nodes().filter(|other| other.manager.is_some() && other.id != node.id).collect();
    let up = voters.iter().filter(|v| reachable.contains(&v.id) || own == Some(v.id)).count();
    if !seats::keeps_quorum(voters.len(), up) {
        let quorum = voters.len() / 2 + 1;
        return Err(HttpError::invalid(format!(
            "rpc error: code = FailedPrecondition desc = can't remove node from raft: this would result in a \
             loss of quorum: of the {} managers that would remain {up} can be reached and {quorum} are needed; \
             bring the others back first, or demote those instead",
            voters.len()
        )));
    }
    Ok(())
}

/// `DELETE /nodes/{id}?force`
pub(in crate::http) async fn remove(context: &Context, id: &str, query: &Query) -> Result<Answer, HttpError> {
    let snapshot = context.read().await?;
    let node = resolve(context, &snapshot.state, id)?;
    let refuse = |words: String| {
        Err(HttpError::invalid(format!(
            "rpc error: code = FailedPrecondition desc = node {} {words}",
            node.id
        )))
    };
    if node.spec.role == Role::Manager {
        return refuse(
            "is a cluster manager and is a member of the raft cluster. It must be demoted to worker before \
             removal"
                .to_owned(),
        );
    }
    if node.manager.is_some() {
        return refuse(
            "is still being demoted and keeps its seat in raft until then: try again soon".to_owned(),
        );
    }
    if node.status.state != NodeState::Down && !query.flag("force") {
        return refuse(
            "is not down and can't be removed: stop it or let it leave first, or use --force".to_owned(),
        );
    }
    let unchanged = Expect::SpecVersion(ObjectId::Node(node.id), node.meta.spec_version);
    context.propose(vec![unchanged], vec![Write::NodeRemove(node.id)]).await?;
    Ok(body::empty(StatusCode::OK))
}
