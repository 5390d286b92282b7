//! The place where a node's actors start: work from any task is brought there.

use std::future::Future;
use std::pin::Pin;

use tokio::sync::mpsc;

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Changes of a membership that wait to be begun, at most. Each holds the node's lifecycle lock while it runs,
/// so there are never many.
const WAITING_MAX: usize = 64;

/// Where the node was started. Actors must start there, whichever task asks for them.
pub(super) struct Home(mpsc::Sender<Work>);

impl Home {
    /// The place of the caller.
    pub(super) fn here() -> Self {
        let (sender, mut work) = mpsc::channel::<Work>(WAITING_MAX);
        actix_rt::spawn(async move {
            while let Some(work) = work.recv().await {
                actix_rt::spawn(work);
            }
        });
        Self(sender)
    }

    /// Run this there. False if there is no room for it, or the place is gone.
    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) -> bool {
        self.0.try_send(Box::pin(work)).is_ok()
    }
}
