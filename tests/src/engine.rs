//! What really runs, asked from the engines themselves.

use anyhow::{Context, Result};
use serde_json::Value;

use crate::http::Api;

/// A running container of a service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Container {
    /// Its id.
    pub id: String,
    /// Its service's name.
    pub service: String,
    /// Its task's id.
    pub task: String,
    /// Its task's name: the service and the slot or node.
    pub slot: String,
}

/// All running containers of services.
///
/// # Errors
/// The engine does not answer.
pub fn running(engine: &Api) -> Result<Vec<Container>> {
    list(engine, "")
}

/// All containers of services, running or not.
///
/// # Errors
/// The engine does not answer.
pub fn all(engine: &Api) -> Result<Vec<Container>> {
    list(engine, "?all=1")
}

fn list(engine: &Api, query: &str) -> Result<Vec<Container>> {
    let list = engine.get(&format!("/containers/json{query}"))?;
    Ok(list.as_array().context("no list of containers")?.iter().filter_map(container).collect())
}

fn container(value: &Value) -> Option<Container> {
    let label = |name: &str| value["Labels"][name].as_str().map(str::to_owned);
    let name = label("com.docker.swarm.task.name")?;
    Some(Container {
        id: value["Id"].as_str()?.to_owned(),
        service: label("com.docker.swarm.service.name")?,
        task: label("com.docker.swarm.task.id")?,
        slot: name.rsplit_once('.').map(|(slot, _)| slot.to_owned()).unwrap_or(name),
    })
}
