//! What is read from disk: commands in the log, whole states in snapshots. A state that was read stays
//! consistent when commands that were read are applied to it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shoal_core::store::{Command, State};
use shoal_wire::codec;

fuzz_target!(|data: &[u8]| {
    let Some((split, rest)) = data.split_first() else { return };
    let at = usize::from(*split).min(rest.len());
    let (state, command) = rest.split_at(at);
    let mut state = codec::decode::<State>(state).unwrap_or_default();
    if let Ok(command) = codec::decode::<Command>(command) {
        let _ = state.apply(state.applied().saturating_add(1), 1, command);
        let bytes = codec::encode(&state).expect("encodes");
        assert_eq!(codec::decode::<State>(&bytes).expect("reads back"), state);
    }
});
