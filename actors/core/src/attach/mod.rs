//! Containers that users make on a node, in networks that span nodes: what a node may ask for them, and which of them are
//! gone. Rules alone: the node's engine has the containers, the managers have their places.

mod ask;
mod keeper;
mod names;
#[cfg(test)]
mod tests;

pub use ask::{Ask, AskError, Plan, Wanted, plan};
pub use keeper::{CREATION_MAX, Keeper, PlainContainer, Step};
pub use names::{Hidden, NameTaken, hidden};
