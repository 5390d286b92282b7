//! The tree of a list of spread preferences: a level for each preference, a branch for each value.
//! Kept up to date node by node, like the masks.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::attributes::value_of;
use crate::model::Node;
use crate::model::constraint::Attribute;

/// Trees kept at most; all are dropped when there are more.
const TREES_MAX: usize = 64;
/// Stands for no branch.
const NONE: u32 = u32::MAX;
/// Branches without nodes are kept up to this many more than there are nodes.
const BRANCHES_SPARE: usize = 4096;

/// Which branch each node hangs on.
#[derive(Debug, Clone)]
pub(super) struct Tree {
    levels: Vec<Attribute>,
    /// The leaf of each node by dense index; `u32::MAX` where there is no node.
    pub(super) leaf_of: Vec<u32>,
    /// The parent of each branch; the root (0) is its own. A parent precedes its children.
    pub(super) parents: Vec<u32>,
    /// How many nodes hang on each leaf.
    pub(super) sizes: Vec<u32>,
    /// Whether nodes hang on the branch itself.
    pub(super) is_leaf: Vec<bool>,
    names: BTreeMap<(u32, Option<String>), u32>,
}

impl Tree {
    fn new(levels: Vec<Attribute>, nodes: &[Option<Arc<Node>>]) -> Self {
        let root_is_leaf = levels.is_empty();
        let mut tree = Self {
            levels,
            leaf_of: Vec::with_capacity(nodes.len()),
            parents: vec![0],
            sizes: vec![0],
            is_leaf: vec![root_is_leaf],
            names: BTreeMap::new(),
        };
        for (slot, node) in (0u32..).zip(nodes) {
            if let Some(node) = node {
                tree.update(slot, node);
            }
        }
        tree.grow(nodes.len());
        tree
    }

    fn grow(&mut self, len: usize) {
        if self.leaf_of.len() < len {
            self.leaf_of.resize(len, NONE);
        }
    }

    fn update(&mut self, slot: u32, node: &Node) {
        self.grow(slot as usize + 1);
        let mut branch = 0;
        for (depth, attribute) in self.levels.iter().enumerate() {
            let leaf = depth + 1 == self.levels.len();
            branch = *self.names.entry((branch, value_of(attribute, node))).or_insert_with(|| {
                self.parents.push(branch);
                self.is_leaf.push(leaf);
                self.sizes.push(0);
                u32::try_from(self.parents.len() - 1).unwrap_or(u32::MAX)
            });
        }
        self.remove(slot);
        self.leaf_of[slot as usize] = branch;
        self.sizes[branch as usize] += 1;
    }

    fn remove(&mut self, slot: u32) {
        if let Some(leaf) = self.leaf_of.get_mut(slot as usize)
            && let Some(size) = self.sizes.get_mut(*leaf as usize)
        {
            *size -= 1;
            *leaf = NONE;
        }
    }
}

/// Trees by their preferences.
#[derive(Debug, Clone, Default)]
pub(super) struct Trees {
    trees: BTreeMap<Vec<Attribute>, Tree>,
}

impl Trees {
    /// A node changed or is new.
    pub(super) fn update(&mut self, slot: u32, node: &Node) {
        for tree in self.trees.values_mut() {
            tree.update(slot, node);
        }
        self.trees.retain(|levels, tree| {
            tree.parents.len() <= (levels.len() + 1) * tree.leaf_of.len() + BRANCHES_SPARE
        });
    }

    /// A node is gone.
    pub(super) fn remove(&mut self, slot: u32) {
        self.trees.values_mut().for_each(|tree| tree.remove(slot));
    }

    /// The tree of these preferences; without any, all nodes hang on the root.
    pub(super) fn tree(&mut self, nodes: &[Option<Arc<Node>>], levels: &[Attribute]) -> &Tree {
        if self.trees.len() >= TREES_MAX && !self.trees.contains_key(levels) {
            self.trees.clear();
        }
        self.trees.entry(levels.to_vec()).or_insert_with(|| Tree::new(levels.to_vec(), nodes))
    }
}
