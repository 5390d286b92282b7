//! Deterministic simulator of whole Shoal clusters: the actors that ship, under virtual time, in one thread,
//! on a network, on disks and engines that do their worst. All of a run follows from its seed.

pub mod containers;
pub mod disk;
pub mod faults;
pub mod hooks;
pub mod host;
pub mod judges;
pub mod options;
pub mod person;
pub mod reader;
pub mod rot;
pub mod run;
pub mod stranger;
pub mod trace;
pub mod udp;
pub mod wishes;
