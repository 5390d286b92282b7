//! How messages get to other managers.

use std::time::Duration;

use futures_util::future::BoxFuture;
use shoal_core::model::NodeId;
use shoal_wire::Kind;

/// Why a call brought no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// The message certainly did not arrive.
    #[error("{0}")]
    Unreachable(String),
    /// No answer in time; the message may have arrived.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The connection broke; the message may have arrived.
    #[error("{0}")]
    Failed(String),
    /// The other manager refused the message.
    #[error("refused: {0}")]
    Refused(String),
}

/// Calls other managers: one message there, one back.
pub trait RaftTransport: Send + Sync + 'static {
    /// Send a message to the node at this address, which must prove to be that node, and bring its answer.
    fn send(
        &self,
        target: NodeId,
        addr: String,
        kind: Kind,
        body: Vec<u8>,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Vec<u8>, TransportError>>;
}
