//! Judges: each watches one kind of promise and says what was broken.

mod deaths;
mod engines;
mod healed;
mod leaders;
mod states;

pub use deaths::Deaths;
pub use engines::Engines;
pub use healed::healed;
pub use leaders::Leaders;
pub use states::States;
