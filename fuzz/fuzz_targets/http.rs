//! Bodies that a client of the API sends. What is taken must be shown so that it is taken again.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| shoal::http::fuzzing::body(data));
