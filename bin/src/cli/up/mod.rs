//! `shoal up` and `shoal down`: a cluster of three nodes on this machine, with a demo service.
//!
//! Both may be run again at any time: each looks at what is there and does what is missing.

mod cluster;
mod daemon;
mod demo;
mod down;
mod engine;
mod image;
mod layout;
mod start;
mod tar;

pub(crate) use down::down;
pub(crate) use start::up;
