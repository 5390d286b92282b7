//! Properties and stories of the scheduler.

mod cluster;
mod incremental;
mod placement;
mod reference;
mod words;

// The reference is shared with the benchmark, which sees these modules under another path.
use crate::model;
