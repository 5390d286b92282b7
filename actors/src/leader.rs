//! The shell around every decision that only the leader takes: it watches the state, asks, proposes,
//! arms the timer. What is decided lives in shoal-core.

use std::collections::VecDeque;
use std::time::Duration;

use actix::prelude::*;
use futures_util::StreamExt as _;
use rand::RngCore;
use rand_chacha::ChaCha12Rng;
use shoal_core::model::Timestamp;
use shoal_core::plan::{Plan, Step};
use shoal_core::put_back::{Bug, is_put_back};
use shoal_core::store::{Command, Event, State};
use tokio::sync::broadcast;

use crate::clock::Clock;
use crate::metric_definitions::LeaderMetrics;
use crate::raft::RaftHandle;

/// Steps without expectations are put together up to so many writes.
const COMMAND_WRITES_MAX: usize = 512;
/// Commands in flight at once.
const COMMANDS_IN_FLIGHT_MAX: usize = 64;
/// After a failed proposal the decision is taken anew, from a fresh state, after this long.
const RETRY_AFTER: Duration = Duration::from_millis(50);
const RETRY_AFTER_MAX: Duration = Duration::from_secs(2);
/// The longest sleep: a decision is looked at again now and then even if nothing seems to happen.
const WAKE_AFTER_MAX: Duration = Duration::from_secs(30);

/// A decision of the leader.
pub trait Decider: Sized + Unpin + 'static {
    /// Its name in logs and metrics.
    const NAME: &'static str;
    /// Everything it needs to remember, from the state alone, in a reign that began at that time.
    fn from_state(state: &State, since: Timestamp) -> Self;
    /// A change was committed.
    fn observe(&mut self, state: &State, event: &Event);
    /// What shall be done now.
    fn decide(&mut self, state: &State, now: Timestamp, rng: &mut dyn RngCore) -> Plan;
}

struct Leading<D> {
    term: u64,
    since: Timestamp,
    decider: D,
    busy: bool,
    timer: Option<SpawnHandle>,
    /// The proposals under way.
    proposing: Option<SpawnHandle>,
    failures: u32,
    generation: u64,
}

/// The actor around a [`Decider`]. Idle until it is told to lead.
pub struct LeaderActor<D: Decider> {
    raft: RaftHandle,
    clock: Clock,
    rng: ChaCha12Rng,
    metrics: LeaderMetrics,
    leading: Option<Leading<D>>,
    generation: u64,
}

impl<D: Decider> LeaderActor<D> {
    /// An idle actor.
    #[must_use]
    pub fn new(raft: RaftHandle, clock: Clock, rng: ChaCha12Rng, metrics: LeaderMetrics) -> Self {
        Self { raft, clock, rng, metrics, leading: None, generation: 0 }
    }

    fn rebuild(&mut self) {
        if let Some(leading) = &mut self.leading {
            leading.decider = D::from_state(&self.raft.state(), leading.since);
        }
    }

    fn poke(&mut self, ctx: &mut Context<Self>) {
        let Some(leading) = &mut self.leading else { return };
        if leading.busy {
            return;
        }
        if let Some(timer) = leading.timer.take() {
            ctx.cancel_future(timer);
        }
        let now = (self.clock)();
        let state = self.raft.state();
        let began = tokio::time::Instant::now();
        let plan = leading.decider.decide(&state, now, &mut self.rng);
        self.metrics.decided(began.elapsed(), &plan);
        for reason in &plan.reasons {
            tracing::debug!(decider = D::NAME, reason, "decided");
        }
        if plan.is_empty() {
            let after = plan.wake_at.map_or(WAKE_AFTER_MAX, |at| at.since(now)).min(WAKE_AFTER_MAX);
            leading.timer = Some(ctx.run_later(after.max(Duration::from_millis(1)), |actor, ctx| {
                if let Some(leading) = &mut actor.leading {
                    leading.timer = None;
                }
                actor.poke(ctx);
            }));
            return;
        }
        leading.busy = !is_put_back(Bug::DecidesWhileProposing);
        let generation = leading.generation;
        let commands = commands(plan.steps, leading.term, now);
        let raft = self.raft.clone();
        let work = async move { propose_all(&raft, commands).await };
        let proposing = ctx.spawn(
            work.into_actor(self).map(move |failed, actor, ctx| actor.proposed(generation, failed, ctx)),
        );
        if let Some(leading) = &mut self.leading {
            leading.proposing = Some(proposing);
        }
    }

    fn proposed(&mut self, generation: u64, failed: Option<String>, ctx: &mut Context<Self>) {
        let Some(leading) = self.leading.as_mut().filter(|l| l.generation == generation) else { return };
        let Some(error) = failed else {
            leading.busy = false;
            leading.failures = 0;
            return self.poke(ctx);
        };
        // Stays busy until then: nothing is decided on a table that may be ahead of the state, or behind it.
        leading.failures = leading.failures.saturating_add(1);
        let after = RETRY_AFTER.saturating_mul(1 << leading.failures.min(6)).min(RETRY_AFTER_MAX);
        tracing::debug!(decider = D::NAME, error, ?after, "proposal failed; deciding anew");
        self.metrics.failed();
        ctx.run_later(after, move |actor, ctx| actor.catch_up(generation, ctx));
    }

    /// Decide anew once nothing is under way any more. What was proposed before without an answer, by this reign or by an
    /// earlier one of the same term, may still be committed: decided on a state without it, the same would be decided
    /// twice. It is in the log before the empty command that is proposed now, or it never will be.
    fn catch_up(&mut self, generation: u64, ctx: &mut Context<Self>) {
        let Some(leading) = self.leading.as_ref().filter(|l| l.generation == generation) else { return };
        let barrier = Command { term: Some(leading.term), at: (self.clock)(), ..Command::default() };
        let raft = self.raft.clone();
        let work = async move { raft.propose(barrier).await };
        let proposing = ctx.spawn(work.into_actor(self).map(move |result, actor, ctx| {
            let Some(leading) = actor.leading.as_mut().filter(|l| l.generation == generation) else { return };
            if let Err(error) = result {
                return actor.proposed(generation, Some(error.to_string()), ctx);
            }
            leading.busy = false;
            if !is_put_back(Bug::RefusalForgotten) {
                actor.rebuild();
            }
            actor.poke(ctx);
        }));
        if let Some(leading) = &mut self.leading {
            leading.proposing = Some(proposing);
        }
    }

    /// Whatever this reign still does ends with it.
    fn abdicate(&mut self, ctx: &mut Context<Self>) {
        let Some(old) = self.leading.take() else { return };
        let proposing = old.proposing.filter(|_| !is_put_back(Bug::StaleTermTaken));
        for handle in [old.timer, proposing].into_iter().flatten() {
            ctx.cancel_future(handle);
        }
    }
}

/// Puts steps without expectations together; a step with expectations is a command of its own, so that
/// one outdated step does not take others with it.
fn commands(steps: Vec<Step>, term: u64, at: Timestamp) -> VecDeque<Command> {
    let mut commands: VecDeque<Command> = VecDeque::new();
    let mut open: Option<Command> = None;
    let term = (!is_put_back(Bug::DeposedGoesOn)).then_some(term);
    let fresh = || Command { term, at, ..Command::default() };
    for step in steps {
        if step.expects.is_empty() {
            let command = open.get_or_insert_with(fresh);
            command.writes.extend(step.writes);
            if command.writes.len() >= COMMAND_WRITES_MAX {
                commands.extend(open.take());
            }
        } else {
            commands.extend(open.take());
            commands.push_back(Command { expects: step.expects, writes: step.writes, ..fresh() });
        }
    }
    commands.extend(open);
    commands
}

async fn propose_all(raft: &RaftHandle, commands: VecDeque<Command>) -> Option<String> {
    let results = futures_util::stream::iter(commands)
        .map(|command| raft.propose(command))
        .buffered(COMMANDS_IN_FLIGHT_MAX)
        .filter_map(|result| std::future::ready(result.err()));
    let mut results = std::pin::pin!(results);
    let mut failed = None;
    while let Some(error) = results.next().await {
        failed.get_or_insert_with(|| error.to_string());
    }
    failed
}

impl<D: Decider> Actor for LeaderActor<D> {
    type Context = Context<Self>;
}

/// This node leads in this term, or (`None`) no longer.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct Lead(pub Option<u64>);

impl<D: Decider> Handler<Lead> for LeaderActor<D> {
    type Result = ();

    fn handle(&mut self, Lead(term): Lead, ctx: &mut Context<Self>) {
        self.abdicate(ctx);
        let Some(term) = term else { return };
        tracing::info!(decider = D::NAME, term, "leads");
        self.generation += 1;
        let since = (self.clock)();
        self.leading = Some(Leading {
            term,
            since,
            decider: D::from_state(&self.raft.state(), since),
            busy: true,
            timer: None,
            proposing: None,
            failures: 0,
            generation: self.generation,
        });
        self.catch_up(self.generation, ctx);
    }
}

/// Stop for good.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct Halt;

impl<D: Decider> Handler<Halt> for LeaderActor<D> {
    type Result = ();

    fn handle(&mut self, _: Halt, ctx: &mut Context<Self>) {
        self.abdicate(ctx);
        ctx.stop();
    }
}

/// What was committed.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub enum Committed {
    /// These changes.
    Events(std::sync::Arc<[Event]>),
    /// Changes were missed: read the state anew.
    Missed,
}

impl<D: Decider> Handler<Committed> for LeaderActor<D> {
    type Result = ();

    fn handle(&mut self, committed: Committed, ctx: &mut Context<Self>) {
        let Some(leading) = &mut self.leading else { return };
        match committed {
            Committed::Events(events) => {
                let state = self.raft.state();
                for event in events.iter() {
                    leading.decider.observe(&state, event);
                }
            }
            Committed::Missed => self.rebuild(),
        }
        self.poke(ctx);
    }
}

/// Hands what is committed to an actor, until it or raft is gone.
pub async fn feed<A>(mut events: broadcast::Receiver<std::sync::Arc<[Event]>>, actor: Addr<A>)
where
    A: Actor<Context = Context<A>> + Handler<Committed>,
{
    loop {
        let message = match events.recv().await {
            // An empty batch marks a snapshot that was installed.
            Ok(batch) if batch.is_empty() => Committed::Missed,
            Ok(batch) => Committed::Events(batch),
            Err(broadcast::error::RecvError::Lagged(_)) => Committed::Missed,
            Err(broadcast::error::RecvError::Closed) => return,
        };
        if actor.send(message).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use shoal_core::model::TaskId;
    use shoal_core::store::{Expect, ObjectId, Write};

    use super::*;

    #[test]
    fn steps_with_expectations_stay_alone() {
        let free = || Step { expects: vec![], writes: vec![Write::TaskRemove(TaskId::from_u128(1))] };
        let tied = Step { expects: vec![Expect::Exists(ObjectId::Cluster)], ..free() };
        let commands = commands(vec![free(), free(), tied, free()], 3, Timestamp(1));
        assert_eq!(
            commands.iter().map(|c| (c.expects.len(), c.writes.len())).collect::<Vec<_>>(),
            [(0, 2), (1, 1), (0, 1)]
        );
        assert!(commands.iter().all(|c| c.term == Some(3)));
    }
}
