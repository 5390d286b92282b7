//! Where the traffic of published ports goes: which tasks may take it, and which of them a connection is given to.

mod choose;
mod places;
mod routes;
#[cfg(test)]
mod tests;

pub use choose::{Load, choose};
pub use places::{PLACE_LABEL, at_host, may_meet, place, place_text, read_places};
pub(crate) use routes::seconds;
pub use routes::{
    Backend, Options, OptionsError, Route, RouteChange, RouteNetwork, RouteTable, Routes, takes_traffic,
};
