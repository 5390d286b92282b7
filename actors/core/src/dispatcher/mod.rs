//! Between the leader and every node: whose session counts, which tasks a node is told of, and which of its
//! reports are believed. Rules alone; the dispatcher's actor sends and receives.

mod assignments;
mod reports;
mod session;

#[cfg(test)]
mod tests;

pub use assignments::{AssignmentSet, Assignments, INCREMENT_MAX, is_assigned_to_node};
pub use reports::{Refusal, Reports, TEXT_BYTES_MAX};
pub use session::{Opened, SessionError, SessionId, Sessions};
