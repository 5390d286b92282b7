//! Wire and persisted types of Shoal: protocols and their versions, message kinds, codec, limits.
//! No IO here.
//!
//! The model's structs travel as they are in `v1`; the golden bytes in the tests notice when one of
//! them changes, and then `v1` keeps a copy of the old shape with conversions.

pub mod codec;
mod protocol;
pub mod v1;

pub use protocol::{Kind, Protocol};
