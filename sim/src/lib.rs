//! Deterministic simulator of whole Shoal clusters: the actors that ship, under virtual time, in one thread,
//! on a network, on disks and engines that do their worst. All of a run follows from its seed.

pub mod containers;
pub mod disk;
pub mod event;
pub mod fabric;
pub mod faults;
mod flight;
pub mod hooks;
pub mod host;
pub mod judges;
pub mod large;
pub mod light;
pub mod links;
pub mod members;
pub mod mesh;
pub mod options;
pub mod people;
pub mod person;
pub mod picture;
pub mod plain;
pub mod plan;
pub mod reader;
pub mod records;
mod reseat;
pub mod rot;
pub mod run;
mod runs;
#[cfg(test)]
mod sample;
pub mod stranger;
pub mod trace;
pub mod udp;
pub mod wires;
pub mod wishes;
pub mod world;
