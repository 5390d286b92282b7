//! The replicated state: what it holds, how a command changes it, what can be asked of it.

mod addresses;
mod apply;
mod command;
mod ports;
mod query;
mod state;
#[cfg(test)]
pub(crate) mod tests;

pub use apply::{Applied, ApplyError};
pub use command::{Command, Expect, ObjectId, Write};
pub use ports::DYNAMIC_PORTS;
pub use state::{Event, EventKind, State};
