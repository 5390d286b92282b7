//! What nodes are, as bits: for each constraint or list of platforms in use, which nodes satisfy
//! it. Kept up to date node by node, so that a filter over all nodes is an AND of words.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use super::bits::Bits;
use crate::model::constraint::{Attribute, Constraint, normal_arch};
use crate::model::{Node, Platform};

/// Masks kept at most; all are dropped when there are more, and made again as they are needed.
const MASKS_MAX: usize = 1024;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Constraint(Attribute, bool, String),
    Platforms(Vec<(String, String)>),
}

#[derive(Debug, Clone)]
enum Predicate {
    Constraint(Constraint),
    Platforms(Vec<Platform>),
}

impl Predicate {
    fn holds(&self, node: &Node) -> bool {
        match self {
            Self::Constraint(constraint) => constraint.matches(node),
            Self::Platforms(platforms) => platform_fits(platforms, node),
        }
    }
}

/// Masks by what they stand for.
#[derive(Debug, Clone, Default)]
pub(super) struct Masks {
    masks: BTreeMap<Key, (Predicate, Bits)>,
}

impl Masks {
    /// A node changed, is new, or is gone.
    pub(super) fn update(&mut self, slot: u32, node: Option<&Node>) {
        for (predicate, bits) in self.masks.values_mut() {
            bits.set(slot, node.is_some_and(|node| predicate.holds(node)));
        }
    }

    /// The nodes that satisfy the constraint.
    pub(super) fn constraint(&mut self, nodes: &[Option<Arc<Node>>], constraint: &Constraint) -> &Bits {
        let key = Key::Constraint(constraint.attribute.clone(), constraint.equal, constraint.value.clone());
        self.mask(nodes, key, || Predicate::Constraint(constraint.clone()))
    }

    /// The nodes that are of one of these platforms.
    pub(super) fn platforms(&mut self, nodes: &[Option<Arc<Node>>], platforms: &[Platform]) -> &Bits {
        let key = Key::Platforms(platforms.iter().map(|p| (p.os.clone(), p.architecture.clone())).collect());
        self.mask(nodes, key, || Predicate::Platforms(platforms.to_vec()))
    }

    fn mask(
        &mut self,
        nodes: &[Option<Arc<Node>>],
        key: Key,
        predicate: impl FnOnce() -> Predicate,
    ) -> &Bits {
        if self.masks.len() >= MASKS_MAX && !self.masks.contains_key(&key) {
            self.masks.clear();
        }
        let (_, bits) = self.masks.entry(key).or_insert_with(|| {
            let predicate = predicate();
            let mut bits = Bits::default();
            bits.grow(nodes.len());
            for (slot, node) in (0u32..).zip(nodes) {
                if node.as_ref().is_some_and(|node| predicate.holds(node)) {
                    bits.set(slot, true);
                }
            }
            (predicate, bits)
        });
        bits
    }
}

/// Whether the node is of one of these platforms; an empty list or field matches all.
pub(super) fn platform_fits(platforms: &[Platform], node: &Node) -> bool {
    let (os, arch) = platform_of(node);
    let same = |wanted: &str, actual: &str| wanted.is_empty() || wanted.eq_ignore_ascii_case(actual);
    platforms.is_empty()
        || platforms
            .iter()
            .any(|wanted| same(&wanted.os, os) && same(normal_arch(&wanted.architecture), normal_arch(arch)))
}

/// Operating system and architecture of a node, empty before its first session.
pub(super) fn platform_of(node: &Node) -> (&str, &str) {
    node.description.as_ref().map_or(("", ""), |d| (d.platform.os.as_str(), d.platform.architecture.as_str()))
}

/// The value by which a node is spread; none where it lacks the label.
pub(super) fn value_of(attribute: &Attribute, node: &Node) -> Option<String> {
    let description = node.description.as_ref();
    match attribute {
        Attribute::NodeId => Some(node.id.to_string()),
        Attribute::Hostname => description.map(|d| d.hostname.clone()),
        Attribute::Role => Some(node.role.to_string()),
        Attribute::Ip => {
            description.and_then(|d| d.addr.parse::<SocketAddr>().ok()).map(|addr| addr.ip().to_string())
        }
        Attribute::PlatformOs => description.map(|d| d.platform.os.clone()),
        Attribute::PlatformArch => description.map(|d| normal_arch(&d.platform.architecture).to_owned()),
        Attribute::NodeLabel(key) => node.spec.labels.get(key).cloned(),
        Attribute::EngineLabel(key) => description.and_then(|d| d.engine.labels.get(key)).cloned(),
    }
}
