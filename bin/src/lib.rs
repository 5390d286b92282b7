//! The daemon `node` and the command line `shoal`.

pub mod cli;
pub mod config;
pub mod daemon;
pub mod demo;
pub mod http;
pub mod logs;
pub mod priority;
