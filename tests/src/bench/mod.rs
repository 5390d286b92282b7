//! What the benchmark takes: figures of Shoal beside those of the peer, from the same lab in the same run.

mod figures;
mod table;

pub use self::figures::{FIGURES, Figure, Settings};
pub use self::table::{Row, Table, spread};
