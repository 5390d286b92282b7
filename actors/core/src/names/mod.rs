//! What a name means inside the cluster: services, tasks and addresses, as whoever asks may see them.
//!
//! A name is known in a network. Who asks is in some networks, and knows nothing of what is in others: there a name is not
//! ours, and whoever else serves names is asked.

mod answer;
mod parse;
mod table;
#[cfg(test)]
mod tests;

pub use answer::{Answer, Place, QueryKind};
pub use table::{NameTable, Scope};
