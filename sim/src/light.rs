//! Light nodes: workers of which only the session is real. They do at once what they are told, and say so; thousands of
//! them fit in a process. They take no part in gossip: their session is the only witness of their life.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use shoal_core::model::{
    ClusterId, EngineInfo, NodeDescription, NodeId, Platform, Resources, Role, Task, TaskId, TaskState,
    TaskStatus, Timestamp,
};
use shoal_core::task::BoxFuture;
use shoal_net::ca::CertificateAuthority;
use shoal_net::identity::{Credentials, NodeKey};
use shoal_net::task::Scope;
use shoal_net::{
    Caller, Endpoint, EndpointConfig, FrameReceiver, FrameSender, Handler, Identity, Kind, Peer, Refusal,
    Wire,
};
use shoal_wire::codec;
use shoal_wire::v1::{Assignments, FromNode, SessionReply, SessionRequest, TaskReport, ToNode};
use tokio::time::{Instant, MissedTickBehavior, sleep, timeout};

use crate::host::{address, clock};
use crate::links::Links;

const OPEN_MAX: Duration = Duration::from_secs(1);
const RETRY: Duration = Duration::from_millis(200);
/// A container of theirs takes so long to start.
const START: Duration = Duration::from_millis(300);
const REPORTS_MAX: usize = 1_000;

/// Nobody calls a worker.
struct Nobody;

impl Handler for Nobody {
    fn call(&self, _: Caller, _: Kind, _: Vec<u8>) -> BoxFuture<'static, Result<Vec<u8>, Refusal>> {
        Box::pin(std::future::ready(Err(Refusal::new("a light node answers nothing"))))
    }

    fn stream(
        &self,
        _: Caller,
        _: Kind,
        _: Vec<u8>,
        _: FrameSender,
        _: FrameReceiver,
    ) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// A light node.
pub struct Light {
    /// Its host.
    pub number: usize,
    /// Its id.
    pub id: NodeId,
    scope: Scope,
}

/// What a light node is made with.
pub struct Around<'a> {
    /// The wires.
    pub links: &'a Links,
    /// The cluster.
    pub cluster: ClusterId,
    /// Its authority.
    pub authority: &'a CertificateAuthority,
    /// The managers.
    pub managers: &'a [(NodeId, SocketAddr)],
}

/// What a light node says of itself.
#[must_use]
pub fn description(number: usize) -> NodeDescription {
    NodeDescription {
        hostname: format!("h{number}"),
        addr: address(number).to_string(),
        platform: Platform { os: "linux".into(), architecture: "x86_64".into() },
        resources: Resources { nano_cpus: 64_000_000_000, memory_bytes: 256 << 30, ..Resources::default() },
        engine: EngineInfo { version: "light".into(), ..EngineInfo::default() },
    }
}

impl Light {
    /// Give it a certificate, and let it look for its leader. That it is a member is left to the caller.
    ///
    /// # Errors
    /// If the certificate cannot be made.
    pub fn start(around: &Around<'_>, number: usize, id: NodeId) -> anyhow::Result<Self> {
        let (now, scope) = (clock()(), Scope::new());
        let key = NodeKey::generate()?;
        let identity = Identity { node_id: id, role: Role::Worker, cluster_id: around.cluster, as_of: 1 };
        let until = now.plus(Duration::from_secs(90 * 24 * 3_600));
        let certificate = around.authority.sign(&key.csr()?, &identity, now, until)?;
        let root = around.authority.to_root_ca().cert_der;
        let credentials = Arc::new(Credentials::new(key, certificate, root)?);
        let config = EndpointConfig {
            wire: Wire::Other(around.links.bind(address(number), clock())),
            reset_key: None,
            scope: scope.clone(),
            clock: clock(),
        };
        let endpoint = Endpoint::bind(config, Arc::new(Nobody)).context("a light node's endpoint")?;
        endpoint.set_credentials(Some(credentials));
        scope.spawn(live(endpoint, number, around.managers.to_vec()));
        Ok(Self { number, id, scope })
    }

    /// The machine is gone, and says nothing.
    pub fn kill(self, links: &Links) {
        links.unbind(address(self.number));
        self.scope.abort();
    }
}

async fn live(endpoint: Endpoint, number: usize, managers: Vec<(NodeId, SocketAddr)>) {
    // Not all at the same moment.
    sleep(Duration::from_micros(number as u64 * 137)).await;
    let mut tasks: BTreeMap<TaskId, TaskState> = BTreeMap::new();
    let (mut at, mut next) = (number, None);
    loop {
        let (id, addr) = next.take().unwrap_or_else(|| {
            at += 1;
            managers[at % managers.len()]
        });
        let peer = Peer { node_id: Some(id), addr };
        next = session(&endpoint, &peer, number, &mut tasks).await;
        if next.is_none() {
            sleep(RETRY).await;
        }
    }
}

/// One session, to its end. Who else leads, if that was said.
async fn session(
    endpoint: &Endpoint,
    peer: &Peer,
    number: usize,
    tasks: &mut BTreeMap<TaskId, TaskState>,
) -> Option<(NodeId, SocketAddr)> {
    let request = SessionRequest { description: description(number), incarnation: 1 };
    let body = codec::encode(&request).ok()?;
    let (mut tx, mut rx) = endpoint.open(peer, Kind::Session, body, OPEN_MAX).await.ok()?;
    let beat = match timeout(OPEN_MAX, receive(&mut rx)).await.ok()?? {
        ToNode::Reply(SessionReply::Open { heartbeat_ms, .. }) => Duration::from_millis(heartbeat_ms),
        ToNode::Reply(SessionReply::Elsewhere(Some(hint))) => {
            return Some((hint.node_id, hint.addr.parse().ok()?));
        }
        _ => return None,
    };
    let mut ticker = tokio::time::interval(beat);
    ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut beats, mut sent) = (0, 0);
    let mut due: Vec<(Instant, TaskReport)> = Vec::new();
    loop {
        let ready = due.first().map(|(at, _)| *at);
        let message = tokio::select! {
            biased;
            message = timeout(beat * 5, receive(&mut rx)) => match message.ok()?? {
                ToNode::Assignments(assignments) => {
                    take(assignments, tasks, &mut due);
                    continue;
                }
                ToNode::Closed(hint) => {
                    let hint = hint?;
                    return Some((hint.node_id, hint.addr.parse().ok()?));
                }
                ToNode::Reply(_) => return None,
                _ => continue,
            },
            () = tokio::time::sleep_until(ready.unwrap_or_else(Instant::now)), if ready.is_some() => {
                sent += 1;
                let now = Instant::now();
                let count = due.iter().take(REPORTS_MAX).take_while(|(at, _)| *at <= now).count();
                let reports = due.drain(..count).map(|(_, report)| report).collect();
                FromNode::Reports { number: sent, reports }
            }
            _ = ticker.tick() => {
                beats += 1;
                FromNode::Beat(beats)
            }
        };
        tx.send(Kind::FromNode, codec::encode(&message).ok()?).await.ok()?;
    }
}

/// What is asked is done, after a while.
fn take(
    assignments: Assignments,
    tasks: &mut BTreeMap<TaskId, TaskState>,
    due: &mut Vec<(Instant, TaskReport)>,
) {
    let (changed, removed): (Vec<Arc<Task>>, Vec<TaskId>) = match assignments {
        Assignments::Complete { tasks: all, .. } => {
            tasks.retain(|id, _| all.iter().any(|task| task.id == *id));
            (all, Vec::new())
        }
        Assignments::Incremental { changed, removed, .. } => (changed, removed),
    };
    tasks.retain(|id, _| !removed.contains(id));
    let at = Instant::now() + START;
    for task in changed {
        let state = match task.desired {
            TaskState::Running => TaskState::Running,
            TaskState::Shutdown | TaskState::Remove => TaskState::Shutdown,
            _ => continue,
        };
        if tasks.insert(task.id, state) != Some(state) {
            let status = TaskStatus { state, at: Timestamp(clock()().0), ..TaskStatus::default() };
            due.push((at, TaskReport { task_id: task.id, status }));
        }
    }
}

async fn receive(rx: &mut FrameReceiver) -> Option<ToNode> {
    loop {
        let frame = rx.recv().await.ok().flatten()?;
        // Of routes they know nothing: they carry no traffic.
        if frame.kind == Kind::ToNode {
            return codec::decode(&frame.body).ok();
        }
    }
}
