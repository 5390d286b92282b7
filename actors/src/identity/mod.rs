//! Certificates: issued by every manager, renewed by every node.

mod authority;
mod join;

pub use authority::Authority;
pub use join::{JoinError, Joining, join, renew};
