//! Joining and renewing.

use std::fmt;

use serde::{Deserialize, Serialize};
use shoal_core::model::{ClusterId, NodeId, Role};

use super::ManagerAddr;

/// The first message on every connection, both ways. In TLS 1.3 a client's `connect` can succeed before
/// the server has looked at its certificate: only the answer to this tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Who speaks; none without a certificate.
    pub node_id: Option<NodeId>,
    /// Newest minor version that it speaks.
    pub minor: u16,
}

/// Asks for a certificate with a token.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRequest {
    /// The whole join token.
    pub token: String,
    /// Certificate signing request, DER.
    pub csr_der: Vec<u8>,
    /// Makes a repeated request (an answer was lost) give the same node.
    pub node_id: NodeId,
    /// Whether it shall take tasks at once: see `Availability`.
    pub availability: shoal_core::model::Availability,
    /// Address at which it listens.
    pub addr: String,
    /// Name of its host, for messages.
    pub hostname: String,
}

impl fmt::Debug for JoinRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinRequest(node {}, {}, {})", self.node_id, self.addr, self.hostname)
    }
}

/// Asks for a new certificate over the old one, for the role that the cluster wants the node to have now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewRequest {
    /// Certificate signing request, DER.
    pub csr_der: Vec<u8>,
}

/// A certificate and what else a node needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    /// Cluster.
    pub cluster_id: ClusterId,
    /// The node's id.
    pub node_id: NodeId,
    /// Its role.
    pub role: Role,
    /// Its certificate, DER.
    pub cert_der: Vec<u8>,
    /// The root certificate, DER.
    pub ca_der: Vec<u8>,
    /// Managers to connect to.
    pub managers: Vec<ManagerAddr>,
}

/// Why none was issued.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum JoinRefusal {
    /// Token wrong or rotated away.
    #[error(
        "the join token is not valid (rotated, or for another cluster): ask a manager for `swarm join-token`"
    )]
    BadToken,
    /// CSR malformed.
    #[error("the certificate signing request is malformed: {0}")]
    BadCsr(String),
    /// Node was removed.
    #[error("node {0} was removed from this cluster: leave, then join again with a token")]
    Removed(NodeId),
    /// Try another manager, or later.
    #[error("cannot issue a certificate now: {0}")]
    Unavailable(String),
    /// The node id in the request belongs to another node.
    #[error("node {0} is a member already")]
    Taken(NodeId),
    /// Too many attempts.
    #[error("too many attempts: wait a little")]
    TooMany,
}

/// Answer to both requests.
pub type JoinResponse = Result<Joined, JoinRefusal>;
