//! Containers that people make themselves on a simulated host, in networks of the cluster, as `docker run --network` does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shoal_core::attach::PlainContainer;
use shoal_core::model::{Attachment, AttachmentId, NodeId, TaskNetwork};
use shoal_core::task::{BoxFuture, ControllerError, PlainContainers};
use tokio::sync::broadcast;

use crate::containers::Engine;

/// Removals that a node may not have heard of yet; with more it is told that it missed some.
const UNHEARD_MAX: usize = 64;

/// A container, and what its makers were promised.
#[derive(Debug, Clone)]
struct Run {
    container: PlainContainer,
    /// The node that said that its places are known, if it did.
    promised_by: Option<NodeId>,
}

#[derive(Default)]
struct Inner {
    runs: BTreeMap<String, Run>,
    /// For whose places the host is ready, in this life of its node.
    held: BTreeMap<AttachmentId, Vec<TaskNetwork>>,
    made: u64,
}

/// A host's containers that are no tasks. Cheap to clone.
#[derive(Clone)]
pub struct Plain {
    inner: Arc<Mutex<Inner>>,
    /// Tells which is gone, or left a network.
    gone: broadcast::Sender<String>,
}

impl Default for Plain {
    fn default() -> Self {
        Self { inner: Arc::default(), gone: broadcast::channel(UNHEARD_MAX).0 }
    }
}

impl Plain {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A container that has these places is made; its id and its name.
    #[must_use]
    pub fn run(&self, host: usize, id: AttachmentId, networks: BTreeSet<String>) -> (String, String) {
        let mut inner = self.lock();
        inner.made += 1;
        let (container, name) = (format!("h{host}-c{}", inner.made), format!("c{}", inner.made));
        let made =
            PlainContainer { id: container.clone(), name: name.clone(), attachment: Some(id), networks };
        inner.runs.insert(container.clone(), Run { container: made, promised_by: None });
        (container, name)
    }

    /// The node says that the places of a container are known.
    pub fn promised(&self, container: &str, by: NodeId) {
        if let Some(run) = self.lock().runs.get_mut(container) {
            run.promised_by = Some(by);
        }
    }

    /// Somebody removes one of them, or takes it out of one of its networks. Returns which.
    pub fn disturb(&self, number: u64) -> Option<String> {
        let mut inner = self.lock();
        let place = usize::try_from(number).unwrap_or_default() % inner.runs.len().max(1);
        let id = inner.runs.keys().nth(place)?.clone();
        match inner.runs.get_mut(&id) {
            Some(run) if number.is_multiple_of(5) && run.container.networks.len() > 1 => {
                run.container.networks.pop_first();
            }
            _ => drop(inner.runs.remove(&id)),
        }
        // Nobody listens while the node is down.
        let _ = self.gone.send(id.clone());
        Some(id)
    }

    /// The node begins anew: what the host is ready for has to be said again.
    pub fn begin(&self) {
        self.lock().held.clear();
    }

    /// The machine is lost.
    pub fn wipe(&self) {
        let mut inner = self.lock();
        (inner.runs, inner.held) = Default::default();
    }

    /// Whether these are the places of one of the containers here, and the host is ready for them.
    ///
    /// # Errors
    /// What is wrong.
    pub fn matches(&self, attachment: &Attachment) -> Result<(), String> {
        let inner = self.lock();
        let id = attachment.id;
        let run = inner.runs.get(&attachment.container);
        let run = run.ok_or_else(|| format!("the places of {id} belong to no container"))?;
        if let Some(place) =
            attachment.networks.iter().find(|place| !run.container.networks.contains(&*place.network.name))
        {
            return Err(format!("{} left network {}", run.container.id, place.network.name));
        }
        if inner.held.get(&id) != Some(&attachment.networks) {
            return Err(format!("the host is not ready for {}", run.container.id));
        }
        Ok(())
    }

    /// Containers whose places this node said to be known, with the networks that they are in.
    #[must_use]
    pub fn promises(&self, by: NodeId) -> Vec<PlainContainer> {
        let inner = self.lock();
        let promised = inner.runs.values().filter(|run| run.promised_by == Some(by));
        promised.map(|run| run.container.clone()).collect()
    }
}

impl PlainContainers for Engine {
    fn hold<'a>(
        &'a self,
        id: AttachmentId,
        places: &'a [TaskNetwork],
    ) -> BoxFuture<'a, Result<(), ControllerError>> {
        Box::pin(async move {
            self.answer()?;
            self.plain.lock().held.insert(id, places.to_vec());
            Ok(())
        })
    }

    fn let_go(&self, id: AttachmentId) -> BoxFuture<'_, ()> {
        self.plain.lock().held.remove(&id);
        Box::pin(std::future::ready(()))
    }

    fn containers(&self) -> BoxFuture<'_, Result<Vec<PlainContainer>, ControllerError>> {
        Box::pin(async move {
            self.answer()?;
            Ok(self.plain.lock().runs.values().map(|run| run.container.clone()).collect())
        })
    }

    fn watch<'a>(&'a self, tell: &'a (dyn Fn(&str) + Send + Sync)) -> BoxFuture<'a, ControllerError> {
        Box::pin(async move {
            let mut gone = self.plain.gone.subscribe();
            loop {
                if let Err(error) = self.answer() {
                    return error;
                }
                match gone.recv().await {
                    Ok(container) => tell(&container),
                    Err(error) => return ControllerError::Unavailable(error.to_string()),
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use shoal_core::model::{Network, NetworkInfo};

    use super::*;

    fn place(network: &str) -> TaskNetwork {
        let network = Arc::new(NetworkInfo { name: network.into(), ..Network::default().info() });
        TaskNetwork { network, aliases: Vec::new(), addresses: Vec::new() }
    }

    #[test]
    fn places_match_a_container_that_is_in_their_networks_on_a_host_that_is_ready() {
        let (plain, id) = (Plain::default(), AttachmentId::from_u128(1));
        let (container, _) = plain.run(1, id, ["n0".to_owned()].into());
        let mut attachment = Attachment {
            id,
            container: container.clone(),
            networks: vec![place("n0")],
            ..Attachment::default()
        };
        assert!(plain.matches(&attachment).unwrap_err().contains("not ready"));
        plain.lock().held.insert(id, attachment.networks.clone());
        assert_eq!(plain.matches(&attachment), Ok(()));
        attachment.networks.push(place("n1"));
        assert!(plain.matches(&attachment).unwrap_err().contains("left network n1"));
        assert_eq!(plain.disturb(1), Some(container));
        assert!(plain.matches(&attachment).unwrap_err().contains("no container"));
        assert_eq!(plain.disturb(1), None);
    }

    #[test]
    fn what_was_promised_is_remembered_as_long_as_the_container_is_there() {
        let (plain, node) = (Plain::default(), NodeId::from_u128(7));
        let (container, _) = plain.run(1, AttachmentId::from_u128(1), ["n0".to_owned()].into());
        assert!(plain.promises(node).is_empty());
        plain.promised(&container, node);
        assert_eq!(plain.promises(node).len(), 1);
        assert!(plain.promises(NodeId::from_u128(8)).is_empty());
        plain.wipe();
        assert!(plain.promises(node).is_empty());
    }
}
