//! Which slots a replicated service has: the lowest free numbers when it grows; when it shrinks those go
//! first that do not run, then those on the nodes with the most copies.

use std::collections::BTreeMap;

use crate::model::{NodeId, Slot};

use super::reconcile::Wish;
use super::slot::SlotTasks;

/// What shall become of the slots, and those to be filled anew.
pub(super) fn divide(
    replicas: u64,
    slots: &BTreeMap<Slot, SlotTasks<'_>>,
) -> (BTreeMap<Slot, Wish>, Vec<Slot>) {
    let held: Vec<&SlotTasks<'_>> = slots.values().filter(|slot| slot.is_held()).collect();
    let replicas = usize::try_from(replicas).unwrap_or(usize::MAX);
    let mut wishes: BTreeMap<Slot, Wish> = slots.keys().map(|slot| (*slot, Wish::Remove)).collect();
    let mut fill = Vec::new();
    if held.len() >= replicas {
        for slot in longest_kept(&held).into_iter().take(replicas) {
            wishes.insert(slot, Wish::Keep);
        }
    } else {
        wishes.extend(held.iter().map(|slot| (slot.slot, Wish::Keep)));
        let free = (1..)
            .map(Slot::Replica)
            .filter(|slot| wishes.get(slot) != Some(&Wish::Keep))
            .take(replicas - held.len());
        fill.extend(free);
        for slot in &fill {
            if slots.contains_key(slot) {
                wishes.insert(*slot, Wish::Keep);
            }
        }
    }
    (wishes, fill)
}

/// The slots, those first that are the last to go.
fn longest_kept(held: &[&SlotTasks<'_>]) -> Vec<Slot> {
    let mut slots: Vec<(bool, Slot, Option<NodeId>)> = held
        .iter()
        .map(|slot| (!slot.is_running(), slot.slot, slot.holders().find_map(|task| task.node_id)))
        .collect();
    slots.sort();
    let mut copies: BTreeMap<Option<NodeId>, u64> = BTreeMap::new();
    let mut ranked: Vec<(bool, u64, Slot)> = slots
        .into_iter()
        .map(|(waits, slot, node)| {
            let copy = copies.entry(node).or_default();
            *copy += 1;
            (waits, *copy, slot)
        })
        .collect();
    ranked.sort();
    ranked.into_iter().map(|(_, _, slot)| slot).collect()
}
