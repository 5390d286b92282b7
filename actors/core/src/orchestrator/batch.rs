//! Groups writes into steps of bounded size.

use crate::plan::Step;
use crate::store::{Expect, Write};

/// Writes of a step at most.
pub(super) const WRITES_PER_STEP: usize = 256;
/// Writes of a step that relies on tasks which their nodes report on: one report refuses the whole step.
pub(super) const WRITES_PER_SHAKY_STEP: usize = 32;

/// Collects writes that rely on the same thing.
pub(super) struct Batch {
    base: Vec<Expect>,
    most: usize,
    open: Step,
    full: Vec<Step>,
}

impl Batch {
    /// Steps of `most` writes, each of which relies on `base`.
    pub(super) fn new(base: Vec<Expect>, most: usize) -> Self {
        Self { base, most, open: Step::default(), full: Vec::new() }
    }

    /// Add writes that go together, and what they rely on beside the base.
    pub(super) fn add(&mut self, expect: Option<Expect>, writes: Vec<Write>) {
        if !self.open.writes.is_empty() && self.open.writes.len() + writes.len() > self.most {
            self.full.push(std::mem::take(&mut self.open));
        }
        if self.open.writes.is_empty() {
            self.open.expects.clone_from(&self.base);
        }
        self.open.expects.extend(expect);
        self.open.writes.extend(writes);
    }

    /// The steps.
    pub(super) fn finish(mut self) -> Vec<Step> {
        if !self.open.writes.is_empty() {
            self.full.push(self.open);
        }
        self.full
    }
}
