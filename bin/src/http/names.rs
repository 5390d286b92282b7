//! Names for services that were given none.

use rand::RngCore;

const MANNERS: [&str; 32] = [
    "agile", "amber", "azure", "bold", "brisk", "calm", "clear", "coral", "deft", "drifting", "early",
    "eager", "fleet", "gentle", "gleaming", "hardy", "keen", "lively", "lucid", "mellow", "nimble", "pearly",
    "placid", "quick", "quiet", "roaming", "silver", "sleek", "steady", "sunlit", "swift", "tidal",
];
const SWIMMERS: [&str; 32] = [
    "anchovy", "bass", "bream", "capelin", "carp", "char", "cod", "dace", "dory", "eel", "goby", "grayling",
    "grouper", "haddock", "hake", "herring", "lamprey", "ling", "mackerel", "minnow", "mullet", "perch",
    "pike", "plaice", "pollack", "roach", "salmon", "smelt", "sole", "sprat", "tench", "trout",
];

/// A name such as `brisk_herring`; from the third try on with a number, so that there is always a free one.
pub(super) fn invent(rng: &mut dyn RngCore, attempt: u32) -> String {
    let mut pick = |from: &[&'static str]| from[rng.next_u32() as usize % from.len()];
    let (manner, swimmer) = (pick(&MANNERS), pick(&SWIMMERS));
    if attempt < 3 { format!("{manner}_{swimmer}") } else { format!("{manner}_{swimmer}{}", rng.next_u32()) }
}
