//! Containers of a node that are no tasks, in networks.

use std::sync::Arc;

use shoal_core::model::Attachment;

use super::Outcome;

/// What a node asks. Whose containers it speaks for is told by its certificate alone.
pub use shoal_core::attach::Ask as AttachRequest;

/// The places that were asked for, as they are now.
pub type AttachResponse = Outcome<Vec<Arc<Attachment>>>;
