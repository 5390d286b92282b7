//! What makes a node a manager: consensus, the leader's actors, the authority.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use rand::SeedableRng;
use rand_chacha::ChaCha12Rng;
use shoal_core::attach::{self, AskError};
use shoal_core::model::NodeId;
use shoal_core::pace::Pace;
use shoal_core::put_back::{Bug, is_put_back};
use shoal_core::seats::{self, SeatAction};
use shoal_core::store::Command;
use shoal_net::gossip::Membership;
use shoal_net::task::Scope;
use shoal_net::{Endpoint, FrameReceiver, FrameSender};
use shoal_wire::v1::{AttachRequest, AttachResponse, Outcome};
use tokio::sync::watch;

use crate::clock::{Clock, ReignClock};
use crate::deciders::{OrchestratorActor, SchedulerActor};
use crate::directory::Directory;
use crate::dispatcher::{DispatcherActor, DispatcherParts, serve_session};
use crate::identity::Authority;
use crate::leader::{Halt, Lead, LeaderActor, feed};
use crate::metric_definitions::Metrics;
use crate::raft::{Leadership, ProposeError, RaftActor, RaftHandle, Stop};

const SEATS_EVERY: Duration = Duration::from_millis(200);

/// What a manager is made of.
pub(super) struct ManagerParts {
    pub(super) node_id: NodeId,
    pub(super) raft: RaftHandle,
    pub(super) consensus: Addr<RaftActor>,
    pub(super) endpoint: Endpoint,
    pub(super) directory: Directory,
    pub(super) membership: Arc<dyn Membership>,
    pub(super) clock: Clock,
    pub(super) metrics: Arc<Metrics>,
    pub(super) seed: u64,
    pub(super) scope: Scope,
    pub(super) pace: Pace,
}

/// A running manager.
pub(super) struct Manager {
    pub(super) raft: RaftHandle,
    pub(super) authority: Authority,
    clock: Clock,
    consensus: Addr<RaftActor>,
    dispatcher: Addr<DispatcherActor>,
    scheduler: Addr<SchedulerActor>,
    orchestrator: Addr<OrchestratorActor>,
    scope: Scope,
}

impl Manager {
    /// Start the actors; they idle until this manager leads.
    pub(super) fn start(parts: ManagerParts) -> Arc<Self> {
        let ManagerParts {
            node_id,
            raft,
            consensus,
            endpoint,
            directory,
            membership,
            clock,
            metrics,
            seed,
            scope,
            pace,
        } = parts;
        let rng = |purpose: u64| ChaCha12Rng::seed_from_u64(seed ^ (purpose << 56));
        let reign = ReignClock::new(clock.clone());
        let scheduler =
            LeaderActor::new(raft.clone(), reign.reading(), rng(1), metrics.scheduler.clone()).start();
        let orchestrator =
            LeaderActor::new(raft.clone(), reign.reading(), rng(2), metrics.orchestrator.clone()).start();
        let dispatcher = DispatcherActor::new(DispatcherParts {
            raft: raft.clone(),
            clock: reign.reading(),
            membership,
            directory: directory.clone(),
            node_id,
            metrics: metrics.dispatcher.clone(),
            pace,
        })
        .start();
        scope.spawn(feed(raft.events(), scheduler.clone()));
        scope.spawn(feed(raft.events(), orchestrator.clone()));
        scope.spawn(feed(raft.events(), dispatcher.clone()));
        scope.spawn(keep_seats(raft.clone(), reign.reading(), directory.clone(), pace));
        scope.spawn(follow_leadership(
            raft.leadership(),
            reign,
            directory,
            scheduler.clone(),
            orchestrator.clone(),
            dispatcher.clone(),
        ));
        scope.spawn(ban_removed(raft.clone(), endpoint));
        let authority = Authority::new(raft.clone(), clock.clone());
        Arc::new(Self { raft, authority, clock, consensus, dispatcher, scheduler, orchestrator, scope })
    }

    /// Serve a node's session.
    pub(super) async fn serve(&self, node: NodeId, body: Vec<u8>, tx: FrameSender, rx: FrameReceiver) {
        serve_session(Some(self.dispatcher.clone()), node, body, tx, rx).await;
    }

    /// Answer what a node asks about its containers that are no tasks.
    pub(super) async fn attach(&self, node: NodeId, ask: &AttachRequest) -> AttachResponse {
        // A node that was told something here may ask another manager next.
        if let Err(error) = self.raft.read_index().await {
            return Outcome::Unavailable(error.to_string());
        }
        let mut plan = match attach::plan(&self.raft.state(), node, ask) {
            Ok(plan) => plan,
            Err(AskError::Refused(refused)) => return Outcome::Refused(refused),
            Err(error @ (AskError::TooMuch(_) | AskError::NameTaken(_))) => {
                return Outcome::Conflict(error.to_string());
            }
        };
        if !plan.writes.is_empty() {
            let command = Command {
                at: (self.clock)(),
                writes: std::mem::take(&mut plan.writes),
                ..Command::default()
            };
            match self.raft.propose(command).await {
                Ok(_) => {}
                Err(ProposeError::Refused(refused)) => return Outcome::Refused(refused),
                Err(error) => return Outcome::Unavailable(error.to_string()),
            }
        }
        Outcome::Done(plan.answer(&self.raft.state()))
    }

    /// Stop the actors, then consensus.
    pub(super) async fn stop(&self) {
        let _ = futures_util::join!(
            self.scheduler.send(Halt),
            self.orchestrator.send(Halt),
            self.dispatcher.send(Halt)
        );
        let _ = self.consensus.send(Stop).await;
        self.scope.abort();
    }
}

async fn follow_leadership(
    mut leadership: watch::Receiver<Leadership>,
    reign: ReignClock,
    directory: Directory,
    scheduler: Addr<SchedulerActor>,
    orchestrator: Addr<OrchestratorActor>,
    dispatcher: Addr<DispatcherActor>,
) {
    let mut told: Option<u64> = None;
    loop {
        let now = leadership.borrow_and_update().clone();
        directory.set_leader(now.leader);
        let term = now.is_me.then_some(now.term);
        if term != told {
            told = term;
            tracing::info!(?term, leader = ?now.leader, "leadership");
            if term.is_some() {
                reign.begin();
            }

            dispatcher.do_send(Lead(term));
            if term.is_none() && is_put_back(Bug::DeposedGoesOn) {
                continue;
            }
            orchestrator.do_send(Lead(term));
            scheduler.do_send(Lead(term));
        }
        if leadership.changed().await.is_err() {
            return;
        }
    }
}

/// While this manager leads: take the seats of demoted and removed nodes, write down who has one.
async fn keep_seats(raft: RaftHandle, clock: Clock, directory: Directory, pace: Pace) {
    let mut ticker = tokio::time::interval(pace.of(SEATS_EVERY));
    ticker.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticker.tick().await;
        let leadership = raft.leadership().borrow().clone();
        if !leadership.is_me {
            continue;
        }
        let mut voters = raft.voters();
        for (id, addr) in &mut voters {
            if let Some(newer) = directory.addr_of(*id) {
                *addr = newer.to_string();
            }
        }
        let mut writes = Vec::new();
        for action in seats::decide(&raft.state(), &voters) {
            match action {
                SeatAction::Record(write) => writes.push(*write),
                SeatAction::Vacate(node) => {
                    if let Err(error) = raft.leave_seat(node).await {
                        tracing::warn!(%node, %error, "the seat cannot be taken now");
                    }
                }
            }
        }
        if !writes.is_empty() {
            let command = Command { term: Some(leadership.term), at: clock(), expects: Vec::new(), writes };
            if let Err(error) = raft.propose(command).await {
                tracing::debug!(%error, "seats not written down");
            }
        }
    }
}

/// Refuse removed nodes, and close what they have open.
async fn ban_removed(raft: RaftHandle, endpoint: Endpoint) {
    let mut applied = raft.applied();
    let mut known = usize::MAX;
    loop {
        applied.borrow_and_update();
        let state = raft.state();
        if state.removed_nodes().len() != known {
            known = state.removed_nodes().len();
            endpoint.set_banned(state.removed_nodes().map(|(id, _)| id).collect::<BTreeSet<_>>());
        }
        if applied.changed().await.is_err() {
            return;
        }
    }
}
