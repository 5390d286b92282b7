//! Every message that comes from another node. The first byte chooses the type.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde::de::DeserializeOwned;
use shoal_wire::{codec, v1};

fn read<T: DeserializeOwned + serde::Serialize>(bytes: &[u8]) {
    if let Ok(value) = codec::decode::<T>(bytes) {
        // What was read can be written, and reads back.
        let again = codec::encode(&value).expect("encodes");
        codec::decode::<T>(&again).expect("reads back");
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((kind, body)) = data.split_first() else { return };
    match kind % 10 {
        0 => read::<v1::Hello>(body),
        1 => read::<v1::JoinRequest>(body),
        2 => read::<v1::JoinResponse>(body),
        3 => read::<v1::RenewRequest>(body),
        4 => read::<v1::ProposeRequest>(body),
        5 => read::<v1::ProposeResponse>(body),
        6 => read::<v1::SeatRequest>(body),
        7 => read::<v1::SessionRequest>(body),
        8 => read::<v1::ToNode>(body),
        _ => read::<v1::FromNode>(body),
    }
});
