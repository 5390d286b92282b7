//! Who is down. Three witnesses: the node's own session with the leader, the leader's view by gossip, and
//! whom the other nodes suspect. Only when all are silent is a node down.
//!
//! What the leader cannot know it does not say: while it hears nobody at all it is probably itself cut off
//! (where there are other managers, they depose it), after a starved timer it has not listened, and
//! a new leader gives every node time to come. With one other node only, that node's end
//! and the leader's own isolation look alike; the former is assumed, on the word of session and gossip.

mod detector;
mod suspicion;
#[cfg(test)]
mod tests;

pub use detector::{Detector, DetectorConfig, Evidence, Verdict};
pub use suspicion::{PeerView, Suspects, Witnesses};
