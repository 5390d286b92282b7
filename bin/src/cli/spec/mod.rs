//! Service specifications in Docker's JSON, made and changed from flags.

mod create;
pub(crate) mod json;
pub(crate) mod places;
mod shared;
mod update;
pub(crate) mod values;

pub(crate) use create::create;
pub(crate) use shared::environment;
pub(crate) use update::update;

#[cfg(test)]
mod tests;
