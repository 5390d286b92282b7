//! The leader's decisions, hooked into their shell.

use rand::RngCore;
use shoal_core::model::Timestamp;
use shoal_core::orchestrator::Orchestrator;
use shoal_core::plan::Plan;
use shoal_core::scheduler::Scheduler;
use shoal_core::store::{Event, State};

use crate::leader::{Decider, LeaderActor};

/// Places tasks on nodes.
pub type SchedulerActor = LeaderActor<Scheduler>;
/// Makes and ends tasks, as the services ask for.
pub type OrchestratorActor = LeaderActor<Orchestrator>;

impl Decider for Scheduler {
    const NAME: &'static str = "scheduler";

    fn from_state(state: &State, _: Timestamp) -> Self {
        Self::new(state)
    }

    fn observe(&mut self, state: &State, event: &Event) {
        Self::observe(self, state, event);
    }

    fn decide(&mut self, state: &State, now: Timestamp, _: &mut dyn RngCore) -> Plan {
        Self::decide(self, state, now)
    }
}

impl Decider for Orchestrator {
    const NAME: &'static str = "orchestrator";

    fn from_state(state: &State, since: Timestamp) -> Self {
        Self::new(state, since)
    }

    fn observe(&mut self, state: &State, event: &Event) {
        Self::observe(self, state, event);
    }

    fn decide(&mut self, state: &State, now: Timestamp, rng: &mut dyn RngCore) -> Plan {
        Self::decide(self, state, now, rng)
    }
}
