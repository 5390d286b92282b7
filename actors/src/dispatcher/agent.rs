//! A node's end of its session: finds the leader, says that the node lives, hands assignments to the
//! task runner and its reports to the leader.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use shoal_core::mesh::Routes;
use shoal_core::model::{NodeDescription, NodeId, Role};
use shoal_core::pace::Pace;
use shoal_net::{CallError, Endpoint, FrameReceiver, FrameSender, Peer};
use shoal_wire::v1::{Assignments, FromNode, SessionReply, SessionRequest, TaskReport, ToNode};
use shoal_wire::{Kind, codec};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};

use crate::directory::Directory;
use crate::mesh::Mesh;
use crate::task_runner::TaskRunnerHandle;

const OPEN_TIMEOUT: Duration = Duration::from_millis(1000);
const RETRY_MIN: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_millis(500);
/// A session in which nothing came for so many heartbeats is over.
const SILENT_BEATS_MAX: u32 = 5;
const SILENCE_MIN: Duration = Duration::from_millis(1500);
/// Reports in one message.
const REPORTS_MAX: usize = 1000;
const DESCRIBE_EVERY: Duration = Duration::from_secs(30);

/// What the leader told, for whoever keeps the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClusterNews {
    /// Managers, wanted role, removed nodes.
    Told {
        /// The role that this node shall have.
        role: Role,
        /// Nodes that are members no longer.
        removed: Vec<NodeId>,
    },
    /// This node was removed.
    Removed,
}

/// Parts of an agent.
pub struct Agent {
    /// This node.
    pub node_id: NodeId,
    /// Its endpoint.
    pub endpoint: Endpoint,
    /// Its address book.
    pub directory: Directory,
    /// Its task runner.
    pub runner: TaskRunnerHandle,
    /// What the node is; changes are passed on.
    pub description: watch::Receiver<NodeDescription>,
    /// Grows with each start.
    pub incarnation: u64,
    /// Whom to tell what the leader says.
    pub news: mpsc::Sender<ClusterNews>,
    /// What takes the routes.
    pub mesh: Option<Arc<dyn Mesh>>,
    /// How long it bears silence.
    pub pace: Pace,
}

/// The agent's state, as seen from outside.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AgentStatus {
    /// The manager of the open session.
    pub leader: Option<NodeId>,
    /// Sessions opened so far.
    pub sessions: u64,
    /// Why there is none.
    pub error: String,
}

/// Watches an agent.
#[derive(Clone)]
pub struct AgentHandle {
    /// Its state.
    pub status: watch::Receiver<AgentStatus>,
}

enum Ended {
    /// Ask this manager next.
    Elsewhere(Option<(NodeId, SocketAddr)>),
    Removed,
    Failed(String),
    Stop,
}

impl Agent {
    /// The agent's loop (to be spawned), and its handle. It ends when `stop` changes.
    pub fn start(self, stop: watch::Receiver<bool>) -> (AgentHandle, impl Future<Output = ()> + Send) {
        let (publish, status) = watch::channel(AgentStatus::default());
        (AgentHandle { status }, self.run(publish, stop))
    }

    async fn run(mut self, publish: watch::Sender<AgentStatus>, mut stop: watch::Receiver<bool>) {
        let mut next: VecDeque<(NodeId, SocketAddr)> = VecDeque::new();
        let mut delay = RETRY_MIN;
        while !*stop.borrow() {
            let target = next.pop_front().or_else(|| {
                next = self.candidates().into();
                next.pop_front()
            });
            let ended = match target {
                Some(target) => self.session(target, &publish, &mut stop).await,
                None => Ended::Failed("no manager is known".into()),
            };
            publish.send_modify(|status| status.leader = None);
            match ended {
                Ended::Stop => return,
                Ended::Removed => {
                    let _ = self.news.send(ClusterNews::Removed).await;
                    return;
                }
                Ended::Elsewhere(Some(target)) => {
                    next.push_front(target);
                    delay = RETRY_MIN;
                }
                Ended::Elsewhere(None) => {}
                Ended::Failed(error) => {
                    tracing::debug!(error, "no session");
                    publish.send_modify(|status| status.error = error);
                }
            }
            tokio::select! {
                biased;
                _ = stop.changed() => return,
                () = tokio::time::sleep(delay) => {}
            }
            delay = (delay * 2).min(self.pace.of(RETRY_MAX));
        }
    }

    /// The last known leader first, then the others.
    fn candidates(&self) -> Vec<(NodeId, SocketAddr)> {
        let mut all = self.directory.candidates();
        let leader = self.directory.leader();
        all.sort_by_key(|(id, _)| (Some(*id) != leader, *id));
        all
    }

    async fn session(
        &mut self,
        (manager, addr): (NodeId, SocketAddr),
        publish: &watch::Sender<AgentStatus>,
        stop: &mut watch::Receiver<bool>,
    ) -> Ended {
        let request = SessionRequest {
            description: self.description.borrow_and_update().clone(),
            incarnation: self.incarnation,
        };
        let Ok(body) = codec::encode(&request) else {
            return Ended::Failed("description cannot be encoded".into());
        };
        let peer = Peer { node_id: Some(manager), addr };
        let (tx, mut rx) = match self.endpoint.open(&peer, Kind::Session, body, OPEN_TIMEOUT).await {
            Ok(stream) => stream,
            // Said by a manager whose certificate was verified.
            Err(CallError::Removed) => return Ended::Removed,
            Err(error) => return Ended::Failed(format!("manager {manager} at {addr}: {error}")),
        };
        let reply = match tokio::time::timeout(OPEN_TIMEOUT, receive(&mut rx)).await {
            Ok(Some(Heard::Told(ToNode::Reply(reply)))) => reply,
            Ok(_) => return Ended::Failed(format!("manager {manager} at {addr} closed the session at once")),
            Err(_) => return Ended::Failed(format!("manager {manager} at {addr} does not answer")),
        };
        match reply {
            SessionReply::Open { session, heartbeat_ms } => {
                tracing::info!(%manager, session, "session open");
                self.directory.set_leader(Some(manager));
                publish.send_modify(|status| {
                    status.leader = Some(manager);
                    status.sessions += 1;
                    status.error.clear();
                });
                let beat = Duration::from_millis(heartbeat_ms.clamp(50, 60_000));
                let ended = self.talk(tx, rx, beat, stop).await;
                self.directory.set_leader(None);
                ended
            }
            SessionReply::Elsewhere(hint) => Ended::Elsewhere(self.follow(hint)),
            SessionReply::Removed => Ended::Removed,
        }
    }

    fn follow(&self, hint: Option<shoal_wire::v1::ManagerAddr>) -> Option<(NodeId, SocketAddr)> {
        let hint = hint?;
        self.directory
            .addr_of(hint.node_id)
            .or_else(|| hint.addr.parse().ok())
            .map(|addr| (hint.node_id, addr))
    }

    async fn talk(
        &mut self,
        mut tx: FrameSender,
        mut rx: FrameReceiver,
        beat: Duration,
        stop: &mut watch::Receiver<bool>,
    ) -> Ended {
        let silence = (beat * SILENT_BEATS_MAX).max(self.pace.of(SILENCE_MIN));
        let mut beats = 0u64;
        let mut ticker = tokio::time::interval(beat);
        ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut describe = tokio::time::interval_at(Instant::now() + DESCRIBE_EVERY, DESCRIBE_EVERY);
        let mut deadline = Instant::now() + silence;
        // Begins with all that was never acknowledged.
        let mut reports = self.runner.reports();
        loop {
            let sent = tokio::select! {
                biased;
                _ = stop.changed() => {
                    let _ = send(&mut tx, &FromNode::Leaving).await;
                    let _ = tx.finish().await;
                    return Ended::Stop;
                }
                message = receive(&mut rx) => {
                    deadline = Instant::now() + silence;
                    match message {
                        Some(Heard::Routes(routes)) => {
                            if let Some(mesh) = &self.mesh {
                                mesh.set_routes(routes);
                            }
                            Ok(())
                        }
                        Some(Heard::Told(message)) => match self.take(message).await {
                            Some(ended) => return ended,
                            None => Ok(()),
                        },
                        None => return Ended::Failed("the session was closed".into()),
                    }
                }
                _ = ticker.tick() => {
                    beats += 1;
                    send(&mut tx, &FromNode::Beat(beats)).await
                }
                batch = reports.next(REPORTS_MAX) => {
                    let statuses = batch.reports.into_iter();
                    let reports = statuses.map(|(task_id, status)| TaskReport { task_id, status }).collect();
                    send(&mut tx, &FromNode::Reports { number: batch.mark, reports }).await
                }
                Ok(()) = self.description.changed() => {
                    let description = self.description.borrow_and_update().clone();
                    send(&mut tx, &FromNode::Described(description)).await
                }
                _ = describe.tick() => {
                    let description = self.description.borrow().clone();
                    send(&mut tx, &FromNode::Described(description)).await
                }
                () = tokio::time::sleep_until(deadline) => return Ended::Failed("the manager fell silent".into()),
            };
            if let Err(error) = sent {
                return Ended::Failed(error);
            }
        }
    }

    async fn take(&mut self, message: ToNode) -> Option<Ended> {
        let taken = match message {
            ToNode::Reply(SessionReply::Removed) => return Some(Ended::Removed),
            ToNode::Reply(_) | ToNode::Beat(_) => Ok(()),
            ToNode::Assignments(Assignments::Complete { tasks, .. }) => self.runner.set_complete(tasks).await,
            ToNode::Assignments(Assignments::Incremental { changed, removed, .. }) => {
                self.runner.change(changed, removed).await
            }
            ToNode::Cluster { managers, role, removed } => {
                self.directory.set_managers(&managers);
                let _ = self.news.send(ClusterNews::Told { role, removed }).await;
                Ok(())
            }
            ToNode::Acknowledged(number) => {
                self.runner.ack(number);
                Ok(())
            }
            ToNode::Closed(hint) => return Some(Ended::Elsewhere(self.follow(hint))),
        };
        taken.err().map(|error| Ended::Failed(error.to_string()))
    }
}

/// What a manager says in a session.
enum Heard {
    Told(ToNode),
    Routes(Routes),
}

async fn receive(rx: &mut FrameReceiver) -> Option<Heard> {
    loop {
        let frame = rx.recv().await.ok().flatten()?;
        let heard = match frame.kind {
            Kind::ToNode => codec::decode(&frame.body).map(Heard::Told),
            Kind::Routes => codec::decode(&frame.body).map(Heard::Routes),
            _ => continue,
        };
        match heard {
            Ok(heard) => return Some(heard),
            Err(error) => {
                tracing::warn!(%error, "malformed frame in a session");
                return None;
            }
        }
    }
}

async fn send(tx: &mut FrameSender, message: &FromNode) -> Result<(), String> {
    let body = codec::encode(message).map_err(|error| error.to_string())?;
    tx.send(Kind::FromNode, body).await.map_err(|error| error.to_string())
}
