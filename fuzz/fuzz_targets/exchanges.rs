//! A connection of the mesh, which is followed if it is HTTP.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| shoal_net::fuzzing::exchanges(data));
