//! Which places belong to containers that are gone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::model::{Attachment, AttachmentId, NetworkId};

/// A container has so long to be made, or to enter a network, once its place there is committed.
pub const CREATION_MAX: Duration = Duration::from_secs(60);

/// A container of the engine that may be in networks of the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlainContainer {
    /// The engine's id.
    pub id: String,
    /// Its name there.
    pub name: String,
    /// What its label says.
    pub attachment: Option<AttachmentId>,
    /// Names of the networks that it is in.
    pub networks: BTreeSet<String>,
}

/// Something that the managers have to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The container is made, or has another name: the engine's id and name.
    Made(AttachmentId, (String, String)),
    /// It left a network.
    Left(AttachmentId, NetworkId),
    /// It is gone.
    Gone(AttachmentId),
}

/// Compares the places that the managers have with the containers that there are. It remembers since when each has been
/// missing: one that is not made yet is not gone.
#[derive(Debug, Clone, Default)]
pub struct Keeper {
    missing: BTreeMap<(AttachmentId, Option<NetworkId>), Duration>,
}

impl Keeper {
    /// What has to be told. The places must have been read *before* the containers; `now` is of any clock that does not jump.
    pub fn look(
        &mut self,
        places: &[Arc<Attachment>],
        containers: &[PlainContainer],
        now: Duration,
    ) -> Vec<Step> {
        let mut missing = BTreeMap::new();
        let mut steps = Vec::new();
        let mut is_due = |what: (AttachmentId, Option<NetworkId>)| {
            let since = self.missing.get(&what).copied().unwrap_or(now);
            missing.insert(what, since);
            now.saturating_sub(since) >= CREATION_MAX
        };
        for attachment in places {
            let id = attachment.id;
            let is_it = |container: &&PlainContainer| {
                // A label is a user's word: it counts until the managers know better.
                let made = !attachment.container.is_empty();
                if made { container.id == attachment.container } else { container.attachment == Some(id) }
            };
            let Some(container) = containers.iter().find(is_it) else {
                if !attachment.container.is_empty() || is_due((id, None)) {
                    steps.push(Step::Gone(id));
                }
                continue;
            };
            if (&container.id, &container.name) != (&attachment.container, &attachment.name) {
                steps.push(Step::Made(id, (container.id.clone(), container.name.clone())));
            }
            for place in &attachment.networks {
                let network = &place.network;
                if !container.networks.contains(&*network.name) && is_due((id, Some(network.id))) {
                    steps.push(Step::Left(id, network.id));
                }
            }
        }
        self.missing = missing;
        steps
    }

    /// When it has to look again at the latest for what it waits for.
    #[must_use]
    pub fn next(&self, now: Duration) -> Option<Duration> {
        let since = self.missing.values().min()?;
        Some((*since + CREATION_MAX).saturating_sub(now))
    }
}
