//! Watching a service until the cluster is as asked: `view` judges, `draw` shows, `watch` waits.

mod draw;
mod view;
mod watch;

pub(crate) use watch::{Goal, Watch};
