//! The shape of every decision: what to write, why, and when to look again.

use crate::model::Timestamp;
use crate::store::{Expect, Write};

/// A group of writes that belong together: applied whole or not at all.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Step {
    /// What it relies on.
    pub expects: Vec<Expect>,
    /// What it changes.
    pub writes: Vec<Write>,
}

/// The outcome of a decision.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// Independent steps, in order of urgency. The shell may batch them.
    pub steps: Vec<Step>,
    /// A line for each reason, for people.
    pub reasons: Vec<String>,
    /// When the decision wants to be asked again though nothing changes.
    pub wake_at: Option<Timestamp>,
}

impl Plan {
    /// Whether nothing is to be done now.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Add a step without expectations.
    pub fn write(&mut self, write: Write) {
        self.steps.push(Step { expects: Vec::new(), writes: vec![write] });
    }

    /// Ask again at `at`, or earlier if that was wished already.
    pub fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |known| known.min(at)));
    }

    /// Take over what another decision wants too.
    pub fn absorb(&mut self, other: Self) {
        self.steps.extend(other.steps);
        self.reasons.extend(other.reasons);
        if let Some(at) = other.wake_at {
            self.wake(at);
        }
    }

    /// The reasons as text.
    #[must_use]
    pub fn explain(&self) -> String {
        self.reasons.join("\n")
    }
}
