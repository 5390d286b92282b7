//! A node's side: getting a certificate with a token, and renewing it.

use std::net::SocketAddr;
use std::time::Duration;

use shoal_core::model::{Availability, NodeId};
use shoal_net::ca::JoinToken;
use shoal_net::identity::{Credentials, NodeKey};
use shoal_net::{Endpoint, Peer};
use shoal_wire::v1::{JoinRefusal, JoinRequest, JoinResponse, Joined, RenewRequest};
use shoal_wire::{Kind, codec};

const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Why no certificate was had.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The token's form is wrong.
    #[error("the join token is malformed: {0}")]
    Token(String),
    /// A manager refused.
    #[error(transparent)]
    Refused(#[from] JoinRefusal),
    /// Nobody could be reached.
    #[error("no manager could be reached: {0}")]
    Unreachable(String),
    /// What came is not what was asked for.
    #[error("the manager's answer is wrong: {0}")]
    Answer(String),
}

/// What a joining node says of itself.
pub struct Joining<'a> {
    /// The id that it wants; random.
    pub node_id: NodeId,
    /// Its address.
    pub addr: &'a str,
    /// Its host.
    pub hostname: &'a str,
    /// Whether it takes tasks.
    pub availability: Availability,
}

/// Join through the first manager that answers. The CA is pinned by the token's digest.
///
/// # Errors
/// As [`JoinError`] says; a refusal by one manager is final, silence is not.
pub async fn join(
    endpoint: &Endpoint,
    remotes: &[SocketAddr],
    token: &str,
    joining: &Joining<'_>,
) -> Result<(Credentials, Joined), JoinError> {
    let pin = token.parse::<JoinToken>().map_err(|error| JoinError::Token(error.to_string()))?.ca_digest();
    let key = NodeKey::generate().map_err(|error| JoinError::Answer(error.to_string()))?;
    let csr_der = key.csr().map_err(|error| JoinError::Answer(error.to_string()))?;
    let request = JoinRequest {
        token: token.to_owned(),
        csr_der,
        node_id: joining.node_id,
        availability: joining.availability,
        addr: joining.addr.to_owned(),
        hostname: joining.hostname.to_owned(),
    };
    let body = codec::encode(&request).map_err(|error| JoinError::Answer(error.to_string()))?;
    let mut failures = Vec::new();
    for remote in remotes {
        match endpoint.join_call(*remote, pin, Kind::Join, body.clone(), ANSWER_TIMEOUT).await {
            Ok(answer) => match decode(&answer)? {
                Err(JoinRefusal::Unavailable(why)) => failures.push(format!("{remote}: {why}")),
                answer => return accept(key, answer?),
            },
            Err(error) => failures.push(format!("{remote}: {error}")),
        }
    }
    Err(JoinError::Unreachable(failures.join("; ")))
}

/// Renew over the certificate in use, with a new key.
///
/// # Errors
/// As [`JoinError`] says.
pub async fn renew(endpoint: &Endpoint, managers: &[Peer]) -> Result<(Credentials, Joined), JoinError> {
    let mut failures = Vec::new();
    for peer in managers {
        let key = NodeKey::generate().map_err(|error| JoinError::Answer(error.to_string()))?;
        let csr_der = key.csr().map_err(|error| JoinError::Answer(error.to_string()))?;
        let body =
            codec::encode(&RenewRequest { csr_der }).map_err(|error| JoinError::Answer(error.to_string()))?;
        match endpoint.call(peer, Kind::Renew, body, ANSWER_TIMEOUT).await {
            Ok(answer) => match decode(&answer)? {
                Err(JoinRefusal::Unavailable(why)) => failures.push(format!("{}: {why}", peer.addr)),
                answer => return accept(key, answer?),
            },
            Err(error) => failures.push(format!("{}: {error}", peer.addr)),
        }
    }
    Err(JoinError::Unreachable(failures.join("; ")))
}

fn decode(answer: &[u8]) -> Result<JoinResponse, JoinError> {
    codec::decode(answer).map_err(|error| JoinError::Answer(error.to_string()))
}

fn accept(key: NodeKey, joined: Joined) -> Result<(Credentials, Joined), JoinError> {
    let credentials = Credentials::new(key, joined.cert_der.clone(), joined.ca_der.clone())
        .map_err(|error| JoinError::Answer(error.to_string()))?;
    let identity = credentials.identity();
    if (identity.node_id, identity.role, identity.cluster_id)
        != (joined.node_id, joined.role, joined.cluster_id)
    {
        return Err(JoinError::Answer("the certificate names another node, role or cluster".into()));
    }
    Ok((credentials, joined))
}
