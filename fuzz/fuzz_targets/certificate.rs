//! A certificate that another node shows.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| shoal_net::fuzzing::certificate(data));
