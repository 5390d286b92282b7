//! Takes what other nodes send to the actor that answers it. Who may send what was decided before, in
//! shoal-net's table.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use shoal_core::model::{Node, NodeId, Role};
use shoal_core::task::BoxFuture;
use shoal_net::{CallError, Caller, Endpoint, FrameReceiver, FrameSender, Handler, Peer, Refusal};
use shoal_wire::v1::{AttachRequest, JoinRefusal, JoinRequest, JoinResponse, RenewRequest};
use shoal_wire::{Kind, Protocol, codec};

use super::member::Member;
use crate::directory::Directory;
use crate::dispatcher::serve_session;
use crate::raft::{RaftTransport, TransportError};

/// The node's end of all calls.
pub(super) struct Router {
    member: Mutex<Weak<Member>>,
}

impl Router {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { member: Mutex::new(Weak::new()) })
    }

    pub(super) fn set(&self, member: Option<&Arc<Member>>) {
        *self.member.lock().unwrap_or_else(PoisonError::into_inner) =
            member.map_or_else(Weak::new, Arc::downgrade);
    }

    fn member(&self) -> Option<Arc<Member>> {
        self.member.lock().unwrap_or_else(PoisonError::into_inner).upgrade()
    }
}

/// Whether a node is a worker by a word that is newer than its certificate, which was made from the state at `as_of`.
///
/// A certificate lives longer than a demotion: what counts is the role that the cluster gave. But a manager that is
/// catching up has an old state, in which the leader may be a worker yet: a certificate made since then proves the
/// promotion.
fn demoted_since(node: &Node, as_of: u64) -> bool {
    node.spec.role != Role::Manager && node.meta.spec_version > as_of
}

fn refuse(why: impl Into<String>) -> Refusal {
    Refusal::new(why)
}

impl Handler for Router {
    fn call(&self, from: Caller, kind: Kind, body: Vec<u8>) -> BoxFuture<'static, Result<Vec<u8>, Refusal>> {
        let member = self.member();
        Box::pin(async move {
            let manager = member.as_ref().and_then(|m| m.manager());
            match (kind, kind.protocol()) {
                (Kind::Join | Kind::Renew, _) => {
                    let response: JoinResponse = match manager {
                        None => Err(JoinRefusal::Unavailable("this node is not a manager".into())),
                        Some(manager) if kind == Kind::Join => match codec::decode::<JoinRequest>(&body) {
                            Ok(request) => manager.authority.join(request).await,
                            Err(error) => Err(JoinRefusal::BadCsr(error.to_string())),
                        },
                        Some(manager) => match codec::decode::<RenewRequest>(&body) {
                            Ok(request) => manager.authority.renew(&from, request).await,
                            Err(error) => Err(JoinRefusal::BadCsr(error.to_string())),
                        },
                    };
                    codec::encode(&response).map_err(|error| refuse(error.to_string()))
                }
                (Kind::Attach, _) => {
                    let manager = manager.ok_or_else(|| refuse("this node is not a manager"))?;
                    let identity = from.identity.ok_or_else(|| refuse("a certificate is needed"))?;
                    let ask =
                        codec::decode::<AttachRequest>(&body).map_err(|error| refuse(error.to_string()))?;
                    let response = manager.attach(identity.node_id, &ask).await;
                    codec::encode(&response).map_err(|error| refuse(error.to_string()))
                }
                (_, Protocol::Raft | Protocol::Control) => {
                    let manager = manager.ok_or_else(|| refuse("this node is not a manager"))?;
                    let identity = from.identity.ok_or_else(|| refuse("a certificate is needed"))?;
                    let leaving = kind == Kind::LeaveSeat;
                    if !leaving
                        && manager
                            .raft
                            .state()
                            .node(identity.node_id)
                            .is_some_and(|node| demoted_since(node, identity.as_of))
                        && !manager.raft.voters().contains_key(&identity.node_id)
                    {
                        return Err(refuse("this node is a manager no longer"));
                    }
                    manager.raft.handle(identity.node_id, kind, body).await.map_err(refuse)
                }
                _ => Err(refuse(format!("{kind:?} is not a call"))),
            }
        })
    }

    fn stream(
        &self,
        from: Caller,
        kind: Kind,
        body: Vec<u8>,
        tx: FrameSender,
        rx: FrameReceiver,
    ) -> BoxFuture<'static, ()> {
        let member = self.member();
        Box::pin(async move {
            let Some(identity) = from.identity else { return };
            if matches!(kind, Kind::Connect | Kind::Packets) {
                let mesh = member.and_then(|member| member.mesh.clone());
                if let Some(mesh) = mesh {
                    mesh.serve(identity.node_id, kind, body, tx, rx).await;
                }
                return;
            }
            if kind != Kind::Session {
                return;
            }
            match member.and_then(|m| m.manager()) {
                Some(manager) => manager.serve(identity.node_id, body, tx, rx).await,
                None => serve_session(None, identity.node_id, body, tx, rx).await,
            }
        })
    }
}

/// Raft's messages over the endpoint.
pub(super) struct RaftOverEndpoint {
    endpoint: Endpoint,
    directory: Directory,
}

impl RaftOverEndpoint {
    pub(super) fn new(endpoint: Endpoint, directory: Directory) -> Self {
        Self { endpoint, directory }
    }
}

impl RaftTransport for RaftOverEndpoint {
    fn send(
        &self,
        target: NodeId,
        addr: String,
        kind: Kind,
        body: Vec<u8>,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Vec<u8>, TransportError>> {
        let (endpoint, directory) = (self.endpoint.clone(), self.directory.clone());
        Box::pin(async move {
            let addr = directory.addr_of(target).or_else(|| addr.parse().ok());
            let addr =
                addr.ok_or_else(|| TransportError::Unreachable(format!("no address of manager {target}")))?;
            let peer = Peer { node_id: Some(target), addr };
            endpoint.call(&peer, kind, body, timeout).await.map_err(transport_error)
        })
    }
}

fn transport_error(error: CallError) -> TransportError {
    match error {
        CallError::Unreachable(why) => TransportError::Unreachable(why),
        CallError::Timeout(after) => TransportError::Timeout(after),
        CallError::Lost(why) => TransportError::Failed(why),
        CallError::Refused(why) | CallError::NotAllowed(why) => TransportError::Refused(why),
        CallError::Removed => TransportError::Refused(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_state_says_nothing_against_a_newer_certificate() {
        let mut node = Node::default();
        node.spec.role = Role::Worker;
        node.meta.spec_version = 100;
        // Demoted at 100: the certificate of before counts no more, one made after the next promotion does.
        assert!(demoted_since(&node, 99));
        assert!(!demoted_since(&node, 150));
        node.spec.role = Role::Manager;
        assert!(!demoted_since(&node, 99));
    }
}
