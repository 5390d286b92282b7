//! Messages of other managers, and records of consensus on the disk. The first byte chooses.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shoal_actors::raft::fuzzing;

fuzz_target!(|data: &[u8]| {
    let Some((what, rest)) = data.split_first() else { return };
    if what % 2 == 0 { fuzzing::message(rest) } else { fuzzing::record(rest) }
});
