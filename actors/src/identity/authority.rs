//! A manager's answer to nodes that ask for a certificate.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use shoal_core::model::{Cluster, Node, NodeDescription, NodeId, NodeSpec, NodeState, NodeStatus, Role};
use shoal_core::put_back::{Bug, is_put_back};
use shoal_core::store::{ApplyError, Command, Expect, ObjectId, State, Write};
use shoal_net::Caller;
use shoal_net::ca::{self, CertificateAuthority};
use shoal_wire::v1::{JoinRefusal, JoinRequest, JoinResponse, Joined, ManagerAddr, RenewRequest};
use tokio::time::Instant;

use crate::clock::Clock;
use crate::raft::{ProposeError, RaftHandle};

/// Wrong tokens that are looked at in [`FAILURES_WINDOW`]; past that all is refused for a while. The secret
/// has 128 bits: this only keeps the log and the processor calm.
const FAILURES_MAX: usize = 100;
const FAILURES_WINDOW: Duration = Duration::from_secs(10);
const CSR_BYTES_MAX: usize = 8 << 10;
const TEXT_BYTES_MAX: usize = 256;

/// Issues certificates in the name of the cluster.
pub struct Authority {
    raft: RaftHandle,
    clock: Clock,
    failures: Mutex<VecDeque<Instant>>,
}

impl Authority {
    /// The authority over this manager's state.
    #[must_use]
    pub fn new(raft: RaftHandle, clock: Clock) -> Self {
        Self { raft, clock, failures: Mutex::default() }
    }

    /// A node asks to join.
    ///
    /// # Errors
    /// Why it may not.
    pub async fn join(&self, request: JoinRequest) -> JoinResponse {
        if !self.may_try() {
            return Err(JoinRefusal::TooMany);
        }
        check_size("csr", request.csr_der.len(), CSR_BYTES_MAX)?;
        check_size("addr", request.addr.len(), TEXT_BYTES_MAX)?;
        check_size("hostname", request.hostname.len(), TEXT_BYTES_MAX)?;
        // A token may have been rotated a moment ago at another manager.
        let fresh = self.raft.read_index().await;
        let state = self.raft.state();
        let cluster = state.cluster().ok_or_else(|| JoinRefusal::Unavailable("no cluster".into()))?;
        let Some(role) = role_of(cluster, &request.token) else {
            self.failed();
            return Err(JoinRefusal::BadToken);
        };
        fresh.map_err(|error| JoinRefusal::Unavailable(error.to_string()))?;
        let joined = self.sign(&state, cluster, request.node_id, role, &request.csr_der)?;
        self.admit(&request, role).await?;
        tracing::info!(node = %request.node_id, %role, addr = request.addr, hostname = request.hostname, "node joins");
        Ok(joined)
    }

    async fn admit(&self, request: &JoinRequest, role: Role) -> Result<(), JoinRefusal> {
        let now = (self.clock)();
        let id = request.node_id;
        let node = Node {
            id,
            spec: NodeSpec { role, availability: request.availability, ..NodeSpec::default() },
            status: NodeStatus { state: NodeState::Unknown, message: "joined".into(), since: now },
            role,
            // So that people can tell what it is even if it is never heard of.
            description: Some(NodeDescription {
                hostname: request.hostname.clone(),
                addr: request.addr.clone(),
                ..NodeDescription::default()
            }),
            ..Node::default()
        };
        let command = Command {
            at: now,
            expects: vec![Expect::Absent(ObjectId::Node(id))],
            writes: vec![Write::NodeCreate(Box::new(node))],
            ..Command::default()
        };
        match self.raft.propose(command).await {
            Ok(_) => Ok(()),
            // The answer to an earlier attempt was lost: the same node, never heard of since.
            Err(ProposeError::Refused(ApplyError::Exists(_))) => {
                let state = self.raft.state();
                let fresh =
                    state.node(id).is_some_and(|n| n.status.state == NodeState::Unknown && n.role == role);
                if fresh { Ok(()) } else { Err(JoinRefusal::Taken(id)) }
            }
            Err(ProposeError::Refused(ApplyError::NodeRemoved(id))) => Err(JoinRefusal::Removed(id)),
            Err(error) => Err(JoinRefusal::Unavailable(error.to_string())),
        }
    }

    /// A node renews its certificate, for the role that the cluster wants it to have now.
    ///
    /// # Errors
    /// Why it may not.
    pub async fn renew(&self, caller: &Caller, request: RenewRequest) -> JoinResponse {
        check_size("csr", request.csr_der.len(), CSR_BYTES_MAX)?;
        let identity = caller
            .identity
            .as_ref()
            .ok_or_else(|| JoinRefusal::Unavailable("a certificate is needed".into()))?;
        let id = identity.node_id;
        self.raft.read_index().await.map_err(|error| JoinRefusal::Unavailable(error.to_string()))?;
        let state = self.raft.state();
        let cluster = state.cluster().ok_or_else(|| JoinRefusal::Unavailable("no cluster".into()))?;
        let node = state.node(id).ok_or(JoinRefusal::Removed(id))?;
        let role = if is_put_back(Bug::RoleNeverChanges) { identity.role } else { node.spec.role };
        if role == Role::Worker && (identity.role == Role::Manager || node.role == Role::Manager) {
            // With this certificate it forgets the log: no manager may count on its vote then, nor be about to.
            let gone = self.raft.leave_seat(id).await;
            gone.map_err(|error| {
                JoinRefusal::Unavailable(format!("the node still has its seat among the managers: {error}"))
            })?;
        }
        let joined = self.sign(&state, cluster, id, role, &request.csr_der)?;
        if node.role != role {
            let expects = vec![Expect::SpecVersion(ObjectId::Node(id), node.meta.spec_version)];
            let command = Command {
                at: (self.clock)(),
                expects,
                writes: vec![Write::NodeRole(id, role)],
                ..Command::default()
            };
            self.raft.propose(command).await.map_err(|error| JoinRefusal::Unavailable(error.to_string()))?;
        }
        tracing::info!(node = %id, %role, "certificate renewed");
        Ok(joined)
    }

    fn sign(
        &self,
        state: &State,
        cluster: &Cluster,
        node_id: NodeId,
        role: Role,
        csr_der: &[u8],
    ) -> Result<Joined, JoinRefusal> {
        let bad = |error: ca::CaError| JoinRefusal::BadCsr(error.to_string());
        let authority = CertificateAuthority::load(&cluster.root_ca).map_err(bad)?;
        let now = (self.clock)();
        let until = now.plus(cluster.spec.ca.node_cert_expiry);
        let identity = shoal_net::Identity { node_id, role, cluster_id: cluster.id, as_of: state.applied() };
        let cert_der = authority.sign(csr_der, &identity, now, until).map_err(bad)?;
        let managers = state
            .nodes()
            .filter_map(|n| Some(ManagerAddr { node_id: n.id, addr: n.manager.as_ref()?.addr.clone() }))
            .collect();
        let ca_der = cluster.root_ca.cert_der.clone();
        Ok(Joined { cluster_id: cluster.id, node_id, role, cert_der, ca_der, managers })
    }

    fn may_try(&self) -> bool {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        while failures.front().is_some_and(|at| at.elapsed() > FAILURES_WINDOW) {
            failures.pop_front();
        }
        failures.len() < FAILURES_MAX
    }

    fn failed(&self) {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).push_back(Instant::now());
    }
}

fn role_of(cluster: &Cluster, token: &str) -> Option<Role> {
    let worker = ca::tokens_equal(token, &cluster.tokens.worker);
    let manager = ca::tokens_equal(token, &cluster.tokens.manager);
    match (worker, manager) {
        (_, true) => Some(Role::Manager),
        (true, false) => Some(Role::Worker),
        (false, false) if is_put_back(Bug::OldTokenAccepted) => {
            let root = |token: &str| token.rsplit_once('-').map(|(root, _)| root.to_owned());
            (root(token) == root(&cluster.tokens.worker)).then_some(Role::Worker)
        }
        (false, false) => None,
    }
}

fn check_size(what: &str, len: usize, most: usize) -> Result<(), JoinRefusal> {
    if len > most {
        Err(JoinRefusal::BadCsr(format!("{what} has {len} bytes, at most {most} are taken")))
    } else {
        Ok(())
    }
}
