//! What a node asks of the managers for the containers of its engine.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::names::{NameTaken, taken};
use crate::model::{Attachment, AttachmentId, NetworkAttachment, NetworkId, NodeId};
use crate::store::{ApplyError, ObjectId, State, Write};

/// Containers of a node in networks at most.
const CONTAINERS_MAX: usize = 4096;
/// Networks of a container at most.
const NETWORKS_MAX: usize = 64;
/// Further names of a container in a network at most.
const ALIASES_MAX: usize = 64;
/// Bytes of a name at most.
const NAME_BYTES_MAX: usize = 255;

/// A network that a container shall be in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// Its name, or its whole id.
    pub network: String,
    /// Further names there, beside the container's.
    pub aliases: Vec<String>,
}

/// What a node asks. It speaks for its own containers alone: whose they are is told by its certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ask {
    /// All places of its containers, as far as they are known to whoever is asked.
    List,
    /// Places in networks. Those that the cluster does not have are passed over.
    Enter {
        /// Which; a container that has places already keeps its id.
        id: AttachmentId,
        /// The engine's id and name of it; the id is empty if it is yet to be made, the name if the engine shall choose one.
        container: (String, String),
        /// The networks.
        networks: Vec<Wanted>,
    },
    /// It is made, or has another name.
    Made {
        /// Which.
        id: AttachmentId,
        /// The engine's id and name of it.
        container: (String, String),
    },
    /// It leaves a network, or is gone.
    Leave {
        /// Which.
        id: AttachmentId,
        /// The network; none means all.
        network: Option<NetworkId>,
    },
}

/// Why nothing is done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// It cannot be.
    #[error(transparent)]
    Refused(#[from] ApplyError),
    /// It is more than is taken.
    #[error("{0}")]
    TooMuch(String),
    /// It would hide a service.
    #[error(transparent)]
    NameTaken(#[from] NameTaken),
}

/// What is to be written, and which places are then told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The writes; none if all is as it was asked.
    pub writes: Vec<Write>,
    /// Whose places the node is told.
    pub told: Vec<AttachmentId>,
}

impl Plan {
    /// What the node is told, once the writes are in the state.
    #[must_use]
    pub fn answer(&self, state: &State) -> Vec<Arc<Attachment>> {
        self.told.iter().filter_map(|id| state.attachment(*id).cloned()).collect()
    }
}

/// What comes of a question.
///
/// # Errors
/// What is wrong with it.
pub fn plan(state: &State, node: NodeId, ask: &Ask) -> Result<Plan, AskError> {
    match ask {
        Ask::List => {
            let all = state.attachments_of_node(node);
            Ok(Plan { writes: Vec::new(), told: all.map(|attachment| attachment.id).collect() })
        }
        Ask::Enter { id, container, networks } => enter(state, node, *id, container, networks),
        Ask::Made { id, container } => {
            let known = own(state, node, *id)?.ok_or(ApplyError::NotFound(ObjectId::Attachment(*id)))?;
            Ok(Plan { writes: made(*id, Some(known), container)?, told: vec![*id] })
        }
        Ask::Leave { id, network } => {
            let known = own(state, node, *id)?;
            let is_in = |known: &Arc<Attachment>| {
                network.is_none_or(|id| known.networks.iter().any(|place| place.network.id == id))
            };
            let leave = Write::Detach { id: *id, network: *network };
            Ok(Plan {
                writes: known.filter(|known| is_in(known)).map(|_| leave).into_iter().collect(),
                told: vec![*id],
            })
        }
    }
}

/// What is known of it, if it is this node's to speak for.
fn own(state: &State, node: NodeId, id: AttachmentId) -> Result<Option<&Arc<Attachment>>, AskError> {
    match state.attachment(id) {
        Some(known) if known.node != node => Err(ApplyError::NotFound(ObjectId::Attachment(id)).into()),
        known => Ok(known),
    }
}

fn enter(
    state: &State,
    node: NodeId,
    id: AttachmentId,
    container: &(String, String),
    wanted: &[Wanted],
) -> Result<Plan, AskError> {
    let mut networks: Vec<NetworkAttachment> = Vec::new();
    for wanted in wanted {
        let found =
            state.network_named(&wanted.network).or_else(|| state.network(wanted.network.parse().ok()?));
        let Some(found) = found else { continue };
        if wanted.aliases.len() > ALIASES_MAX
            || wanted.aliases.iter().any(|alias| alias.len() > NAME_BYTES_MAX)
        {
            let words = format!(
                "network {}: {ALIASES_MAX} aliases of {NAME_BYTES_MAX} bytes at most",
                found.spec.name
            );
            return Err(AskError::TooMuch(words));
        }
        if !found.spec.attachable {
            return Err(ApplyError::NotAttachable(found.spec.name.clone()).into());
        }
        let names = std::iter::once(&container.1).chain(&wanted.aliases).map(String::as_str);
        if let Some(name) = taken(state, found.id, names) {
            return Err(name.into());
        }
        networks.push(NetworkAttachment { network: found.id, aliases: wanted.aliases.clone() });
    }
    if networks.is_empty() {
        return Ok(Plan { writes: Vec::new(), told: Vec::new() });
    }
    let known = match own(state, node, id)? {
        None if !container.0.is_empty() => {
            state.attachments_of_node(node).find(|known| known.container == container.0)
        }
        known => known,
    };
    let id = known.map_or(id, |known| known.id);
    let is_new = |wish: &NetworkAttachment| {
        known.is_none_or(|known| known.networks.iter().all(|place| place.network.id != wish.network))
    };
    networks.retain(is_new);
    if known.map_or(0, |known| known.networks.len()) + networks.len() > NETWORKS_MAX {
        return Err(AskError::TooMuch(format!("a container is in {NETWORKS_MAX} networks at most")));
    }
    if known.is_none() && state.attachments_of_node(node).count() >= CONTAINERS_MAX {
        let words = format!("a node has {CONTAINERS_MAX} containers in the cluster's networks at most");
        return Err(AskError::TooMuch(words));
    }
    let mut writes = Vec::new();
    if !networks.is_empty() {
        writes.push(Write::Attach { id, node, networks });
    }
    if !container.0.is_empty() {
        writes.extend(made(id, known, container)?);
    }
    Ok(Plan { writes, told: vec![id] })
}

fn made(
    id: AttachmentId,
    known: Option<&Arc<Attachment>>,
    (container, name): &(String, String),
) -> Result<Vec<Write>, AskError> {
    if container.len() > NAME_BYTES_MAX || name.len() > NAME_BYTES_MAX {
        return Err(AskError::TooMuch(format!(
            "a container's id and name have {NAME_BYTES_MAX} bytes at most"
        )));
    }
    let is_known = known.is_some_and(|known| known.container == *container && known.name == *name);
    let write = Write::AttachmentContainer { id, container: container.clone(), name: name.clone() };
    Ok(if is_known { Vec::new() } else { vec![write] })
}
