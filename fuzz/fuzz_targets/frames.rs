//! Bytes of a stream between nodes, before anybody knows what they mean.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| shoal_net::fuzzing::frames(data));
