//! Judges: each watches one kind of promise and says what was broken.

mod bounded;
mod deaths;
mod duties;
mod engines;
mod healed;
mod leaders;
mod leftovers;
mod logs;
mod policies;
mod reign;
mod sight;
mod slots;
mod states;
mod verdicts;
mod waiting;
mod watch;

pub use bounded::Bounded;
pub use deaths::Deaths;
pub use engines::Engines;
pub use healed::healed;
pub use leaders::Leaders;
pub use logs::Logs;
pub use sight::{Sight, host_number};
pub use states::States;
pub use watch::Watch;
