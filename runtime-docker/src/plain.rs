//! Containers that users make themselves, in networks of the cluster: what the engine is told of them is what it is told
//! of tasks.

use std::collections::HashMap;

use bollard::models::{ContainerSummary, EventMessage, EventMessageTypeEnum};
use bollard::query_parameters::{EventsOptionsBuilder, ListContainersOptionsBuilder};
use futures_util::StreamExt;
use serde_json::{Map, Value, json};
use shoal_core::attach::{PlainContainer, Wanted};
use shoal_core::model::{Attachment, AttachmentId, TaskNetwork};
use shoal_core::task::{BoxFuture, ControllerError, PlainContainers};

use crate::call::{Failure, LOOK_TIME_MAX, within};
use crate::controller::DockerController;
use crate::{labels, networks};

/// Label of the engine's networks that a node makes for one of the cluster: the cluster's id of it.
pub const BRIDGE_LABEL: &str = labels::NETWORK_ID;
/// Networks that every engine has, and words for no network of its own.
const ENGINES_OWN: [&str; 5] = ["", "default", "bridge", "host", "none"];
const OF_ANOTHER_CONTAINER: &str = "container:";

/// A field of an object, whatever the case of its name: so the engine reads it.
fn key(object: &Map<String, Value>, name: &str) -> String {
    let known = object.keys().find(|key| key.eq_ignore_ascii_case(name));
    known.cloned().unwrap_or_else(|| name.to_owned())
}

fn field<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    value.as_object()?.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

/// Take out a field that is an object, with the name that it has; what is none, or not there, is an empty one.
fn take(object: &mut Map<String, Value>, name: &str) -> (String, Map<String, Value>) {
    let key = key(object, name);
    let taken = match object.remove(&key) {
        Some(Value::Object(fields)) => fields,
        _ => Map::new(),
    };
    (key, taken)
}

fn texts(value: Option<&Value>) -> Vec<String> {
    let items = value.and_then(Value::as_array).into_iter().flatten();
    items.filter_map(|item| Some(item.as_str()?.to_owned())).collect()
}

/// The networks that a request for a container names, other than those that every engine has; its main network first.
#[must_use]
pub fn wanted(request: &Value) -> Vec<Wanted> {
    let host = field(request, "HostConfig").and_then(|host| field(host, "NetworkMode"));
    let endpoints = field(request, "NetworkingConfig").and_then(|config| field(config, "EndpointsConfig"));
    let endpoints = endpoints.and_then(Value::as_object);
    // Engines answer for a hostname that the user chose as for an alias.
    let hostname = field(request, "Hostname").and_then(Value::as_str).filter(|name| !name.is_empty());
    let of = |name: &str| {
        let mut names = endpoints.and_then(|all| all.get(name)).map(aliases).unwrap_or_default();
        names.extend(hostname.filter(|host| !names.iter().any(|name| name == host)).map(ToOwned::to_owned));
        names
    };
    let others = endpoints.into_iter().flat_map(Map::keys).map(String::as_str);
    let mut names: Vec<&str> = Vec::new();
    for name in host.and_then(Value::as_str).into_iter().chain(others) {
        let is_engines = ENGINES_OWN.contains(&name) || name.starts_with(OF_ANOTHER_CONTAINER);
        if !is_engines && !names.contains(&name) {
            names.push(name);
        }
    }
    names.into_iter().map(|name| Wanted { network: name.to_owned(), aliases: of(name) }).collect()
}

/// Further names that the settings of a container's place in a network give it.
#[must_use]
pub fn aliases(settings: &Value) -> Vec<String> {
    texts(field(settings, "Aliases"))
}

/// The hostname that a user chose for a container, as the engine describes it: without a word it is the beginning of its id.
#[must_use]
pub fn hostname(container: &Value) -> Option<String> {
    let name = field(container, "Config").and_then(|config| field(config, "Hostname"))?.as_str()?;
    let id = field(container, "Id").and_then(Value::as_str).unwrap_or_default();
    (!name.is_empty() && !id.starts_with(name)).then(|| name.to_owned())
}

/// Whether a word means the network of a place: its name or its whole id does.
#[must_use]
pub fn is_named(place: &TaskNetwork, word: &str) -> bool {
    *place.network.name == *word || place.network.id.to_string() == word
}

/// The settings of a container's place in a network, with the addresses that it has there.
///
/// # Errors
/// If they ask for others.
pub fn enter(settings: Value, place: &TaskNetwork) -> Result<Value, String> {
    let mut settings = match settings {
        Value::Object(settings) => settings,
        _ => Map::new(),
    };
    let (key, asked) = take(&mut settings, "IPAMConfig");
    let asked = Value::Object(asked);
    for name in ["IPv4Address", "IPv6Address", "LinkLocalIPs"] {
        let says = match field(&asked, name) {
            Some(Value::String(text)) => !text.is_empty(),
            Some(Value::Array(items)) => !items.is_empty(),
            _ => false,
        };
        if says {
            return Err(format!(
                "IPAMConfig.{name}: network '{}' spans nodes, and its addresses are chosen for the whole cluster: \
                 leave it out (--ip, --ip6, --link-local-ip)",
                place.network.name
            ));
        }
    }
    let addresses = serde_json::to_value(networks::addresses(place)).map_err(|error| error.to_string())?;
    settings.insert(key, addresses);
    Ok(Value::Object(settings))
}

/// Put the container that a request asks for into the networks that it has places in.
///
/// # Errors
/// If it asks for other addresses than it has.
pub fn enter_new(request: &mut Map<String, Value>, attachment: &Attachment) -> Result<(), String> {
    let (config_key, mut config) = take(request, "NetworkingConfig");
    let (endpoints_key, mut endpoints) = take(&mut config, "EndpointsConfig");
    for place in &attachment.networks {
        let known = endpoints.keys().find(|word| is_named(place, word)).cloned();
        let settings = known.and_then(|word| endpoints.remove(&word)).unwrap_or_default();
        endpoints.insert(place.network.name.to_string(), enter(settings, place)?);
    }
    config.insert(endpoints_key, Value::Object(endpoints));
    request.insert(config_key, Value::Object(config));

    let (host_key, mut host) = take(request, "HostConfig");
    let mode = key(&host, "NetworkMode");
    let said = host.get(&mode).and_then(Value::as_str).unwrap_or_default();
    if let Some(place) = attachment.networks.iter().find(|place| is_named(place, said)) {
        host.insert(mode, json!(*place.network.name));
    }
    // Its node knows the names in its networks, and passes on what it does not know.
    let servers = key(&host, "Dns");
    let own = networks::name_servers(&attachment.networks).into_iter().map(|ip| ip.to_string());
    let all: Vec<String> = own.chain(texts(host.get(&servers))).collect();
    host.insert(servers, json!(all));
    request.insert(host_key, Value::Object(host));

    let (labels_key, mut labels) = take(request, "Labels");
    labels.insert(labels::ATTACHMENT.to_owned(), json!(attachment.id.to_string()));
    request.insert(labels_key, Value::Object(labels));
    Ok(())
}

/// Whether a container, as the engine describes it, is a task's.
#[must_use]
pub fn is_task(container: &Value) -> bool {
    let labels = field(container, "Config").and_then(|config| field(config, "Labels"));
    labels.is_some_and(|labels| labels.get(labels::TASK_ID).is_some())
}

fn of_summary(found: ContainerSummary) -> Option<PlainContainer> {
    let labels = found.labels.unwrap_or_default();
    if labels.contains_key(labels::TASK_ID) {
        return None;
    }
    let name = found.names.unwrap_or_default().into_iter().find_map(|name| {
        // With links a container has further names, which begin with another's.
        name.strip_prefix('/').filter(|name| !name.contains('/')).map(ToOwned::to_owned)
    });
    Some(PlainContainer {
        id: found.id?,
        name: name.unwrap_or_default(),
        attachment: labels.get(labels::ATTACHMENT).and_then(|id| id.parse().ok()),
        networks: found.network_settings.and_then(|s| s.networks).unwrap_or_default().into_keys().collect(),
    })
}

/// The container that an event is about.
fn subject(event: EventMessage) -> Option<String> {
    let actor = event.actor?;
    match event.typ {
        // What happens to a network names the container beside it.
        Some(EventMessageTypeEnum::NETWORK) => actor.attributes?.remove("container"),
        _ => actor.id,
    }
}

impl PlainContainers for DockerController {
    fn hold<'a>(
        &'a self,
        id: AttachmentId,
        places: &'a [TaskNetwork],
    ) -> BoxFuture<'a, Result<(), ControllerError>> {
        Box::pin(async move {
            for place in places {
                // Somebody may have removed the bridge while nothing in it ran: it is looked at anew.
                self.networks.forget(&place.network).await;
            }
            self.networks.ensure(self.docker()?, id.as_task(), places).await
        })
    }

    fn let_go(&self, id: AttachmentId) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if let Ok(docker) = self.docker() {
                self.networks.leave(docker, id.as_task()).await;
            }
        })
    }

    fn containers(&self) -> BoxFuture<'_, Result<Vec<PlainContainer>, ControllerError>> {
        Box::pin(async move {
            let options = ListContainersOptionsBuilder::default().all(true).build();
            let listed = within(LOOK_TIME_MAX, self.docker()?.list_containers(Some(options))).await;
            Ok(listed.map_err(Failure::unavailable)?.into_iter().filter_map(of_summary).collect())
        })
    }

    fn watch<'a>(&'a self, tell: &'a (dyn Fn(&str) + Send + Sync)) -> BoxFuture<'a, ControllerError> {
        Box::pin(async move {
            let docker = match self.docker() {
                Ok(docker) => docker,
                Err(error) => return error,
            };
            let filters =
                [("type", vec!["container", "network"]), ("event", vec!["destroy", "rename", "disconnect"])];
            let text = |words: Vec<&str>| words.into_iter().map(ToOwned::to_owned).collect::<Vec<_>>();
            let filters: HashMap<String, Vec<String>> =
                filters.map(|(name, words)| (name.to_owned(), text(words))).into();
            let mut events = docker.events(Some(EventsOptionsBuilder::default().filters(&filters).build()));
            loop {
                match events.next().await {
                    Some(Ok(event)) => {
                        if let Some(container) = subject(event) {
                            tell(&container);
                        }
                    }
                    Some(Err(error)) => return Failure::Engine(error).unavailable(),
                    None => return ControllerError::Unavailable("the engine hung up".into()),
                }
            }
        })
    }
}

#[cfg(test)]
#[path = "plain_tests.rs"]
mod tests;
