//! `/tasks`

use std::collections::BTreeSet;

use hyper::StatusCode;
use shoal_core::model::{ServiceId, Task, TaskState};
use shoal_core::orchestrator::outdated;
use shoal_core::store::State;

use super::super::body::{self, Answer};
use super::super::context::Context;
use super::super::convert::task_json;
use super::super::error::HttpError;
use super::super::query::{Filters, Query};
use super::{nodes, pick, services};

const FILTERS: [&str; 8] =
    ["id", "label", "name", "node", "service", "desired-state", "_up-to-date", "runtime"];

/// `GET /tasks`
pub(in crate::http) async fn list(context: &Context, query: &Query) -> Result<Answer, HttpError> {
    let filters = query.filters(&FILTERS)?;
    let snapshot = context.read().await?;
    let wanted = Wanted::read(context, &snapshot.state, &filters)?;
    let tasks: Vec<_> = wanted
        .candidates(&snapshot.state)
        .into_iter()
        .filter(|task| wanted.fits(&snapshot.state, task))
        .map(|task| task_json(task, &snapshot.state))
        .collect();
    Ok(snapshot.mark(body::json(StatusCode::OK, &tasks)))
}

/// `GET /tasks/{id}`
pub(in crate::http) async fn inspect(context: &Context, id: &str) -> Result<Answer, HttpError> {
    let snapshot = context.read().await?;
    let task = pick("task", id, snapshot.state.tasks(), |t| t.id.to_string(), |t| t.name() == id)?;
    Ok(snapshot.mark(body::json(StatusCode::OK, &task_json(task, &snapshot.state))))
}

/// The filters of a list, resolved.
struct Wanted<'a> {
    filters: &'a Filters,
    services: Option<BTreeSet<ServiceId>>,
    nodes: Option<BTreeSet<shoal_core::model::NodeId>>,
    desired: BTreeSet<TaskState>,
    up_to_date: bool,
}

impl<'a> Wanted<'a> {
    fn read(context: &Context, state: &State, filters: &'a Filters) -> Result<Self, HttpError> {
        let mut services = filters.has("service").then(BTreeSet::new);
        for name in filters.values("service") {
            services.get_or_insert_default().insert(services::resolve(state, name)?.id);
        }
        let mut nodes = filters.has("node").then(BTreeSet::new);
        for name in filters.values("node") {
            nodes.get_or_insert_default().insert(nodes::resolve(context, state, name)?.id);
        }
        let mut desired = BTreeSet::new();
        for word in filters.values("desired-state") {
            let state = TaskState::ALL.iter().find(|state| state.as_str() == word);
            desired.insert(*state.ok_or_else(|| {
                HttpError::invalid(format!(
                    "invalid desired-state filter '{word}': running, shutdown or accepted is wanted"
                ))
            })?);
        }
        let up_to_date = filters.has("_up-to-date")
            && filters.any("_up-to-date", |word| !matches!(word, "0" | "false" | "no" | "none"));
        Ok(Self { filters, services, nodes, desired, up_to_date })
    }

    /// The smallest set that is known to hold all that fit.
    fn candidates<'s>(&self, state: &'s State) -> Vec<&'s Task> {
        match (&self.services, &self.nodes) {
            (Some(ids), _) => {
                ids.iter().flat_map(|id| state.tasks_of_service(*id)).map(AsRef::as_ref).collect()
            }
            (None, Some(ids)) => {
                ids.iter().flat_map(|id| state.tasks_of_node(*id)).map(AsRef::as_ref).collect()
            }
            (None, None) => state.tasks().map(AsRef::as_ref).collect(),
        }
    }

    fn fits(&self, state: &State, task: &Task) -> bool {
        let service = state.service(task.service_id);
        let filters = self.filters;
        filters.any("id", |prefix| task.id.to_string().starts_with(prefix))
            && filters.any("name", |prefix| task.name().starts_with(prefix))
            && self.services.as_ref().is_none_or(|ids| ids.contains(&task.service_id))
            && self.nodes.as_ref().is_none_or(|ids| task.node_id.is_some_and(|id| ids.contains(&id)))
            && (self.desired.is_empty() || self.desired.contains(&task.desired))
            && service.map_or_else(|| !filters.has("label"), |s| filters.labels("label", &s.spec.labels))
            && filters.any("runtime", |runtime| runtime == "container")
            && (!self.up_to_date || service.is_some_and(|service| !outdated(state, service, task)))
    }
}
