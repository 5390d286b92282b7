//! Whether restarts and updates keep to their service's word, from one state to the next.

use std::collections::BTreeMap;
use std::sync::Arc;

use shoal_core::model::{
    Availability, NodeId, NodeState, PortMode, Service, ServiceId, Task, TaskState, UpdateConfig, UpdateOrder,
};
use shoal_core::store::State;

/// States come one by one, or nothing is said of what was in between.
#[derive(Default)]
pub(super) struct Policies {
    last: Option<State>,
    /// At which index a node was last seen to take no tasks.
    away: BTreeMap<NodeId, u64>,
}

/// What is decided is committed within so many entries: a node that was away may be back by then.
const DECIDED_WITHIN: u64 = 8;

fn ended_by_itself(task: &Task) -> bool {
    matches!(task.status.state, TaskState::Complete | TaskState::Failed | TaskState::Rejected)
}

/// Whether a task is told to stop by then.
fn stops(after: &State, task: &Task) -> bool {
    after.task(task.id).is_some_and(|now| now.desired > TaskState::Running)
}

/// The task that `new` follows because it ended by itself.
fn followed<'a>(before: &'a State, after: &State, new: &Task) -> Option<&'a Task> {
    let mut of_slot = before.tasks_of_service(new.service_id).filter(|task| task.slot == new.slot);
    let old = of_slot.find(|old| {
        old.desired <= TaskState::Running && (after.task(old.id).is_none() || stops(after, old))
    })?;
    let here = old.node_id.and_then(|id| before.node(id)).is_some_and(|node| {
        node.status.state != NodeState::Down && node.spec.availability != Availability::Drain
    });
    (ended_by_itself(old) && here && old.spec == new.spec).then_some(old.as_ref())
}

impl Policies {
    /// Look at a state.
    pub(super) fn look(&mut self, state: &State) -> Vec<String> {
        if self.last.as_ref().is_some_and(|last| last.applied() == state.applied()) {
            return Vec::new();
        }
        let away = state.nodes().filter(|node| !node.is_schedulable());
        self.away.extend(away.map(|node| (node.id, state.applied())));
        let before = self.last.replace(state.clone()).unwrap_or_default();
        if before.applied() > state.applied() {
            self.last = Some(before);
            return Vec::new();
        }
        if before.applied() + 1 != state.applied() {
            return Vec::new();
        }
        let mut found = Vec::new();
        let mut updated: BTreeMap<ServiceId, u64> = BTreeMap::new();
        for new in state.tasks().filter(|task| before.task(task.id).is_none()) {
            let Some(service) = state.service(new.service_id) else { continue };
            if let Some(old) = followed(&before, state, new) {
                // It was decided by what the service was: the same entry may take its update back.
                let decided_by = before.service(new.service_id).unwrap_or(service);
                found.extend(restarted(&before, decided_by, old, new));
                continue;
            }
            let Some(old) = self.good_one_replaced_by(&before, state, new) else { continue };
            if is_alike(old, new) {
                found.push(format!(
                    "task {} takes the place of {}, which runs and is no other",
                    new.id, old.id
                ));
            }
            *updated.entry(service.id).or_default() += 1;
        }
        for (id, count) in updated {
            let Some(service) = state.service(id) else { continue };
            let parallelism = rollout(service).parallelism;
            let busy = on_their_way(&before, state, service);
            if parallelism > 0 && count + busy > parallelism {
                found.push(format!(
                    "{count} tasks of service {id} are updated while {busy} are not there yet, \
                     {parallelism} may be at once"
                ));
            }
        }
        found.extend(self.given_up(&before, state));
        found
    }

    /// Whether a task of before is on a node that is well, and fits there.
    fn is_well(&self, before: &State, after: &State, task: &Task) -> bool {
        task.runs_well()
            && task.desired == TaskState::Running
            && task.node_id.and_then(|id| before.node(id)).is_some_and(|node| {
                let back = self.away.get(&node.id).is_none_or(|at| at + DECIDED_WITHIN < after.applied());
                let fits =
                    |task: &Task| task.spec.placement.constraints.iter().all(|wanted| wanted.matches(node));
                let wanted = after.service(task.service_id).map(|service| &service.spec.task.placement);
                let fits_still =
                    wanted.is_none_or(|wanted| wanted.constraints.iter().all(|it| it.matches(node)));
                node.is_schedulable() && back && fits(task) && fits_still
            })
    }

    /// Tasks that ran well and are told to stop though what shall take their place comes first, and is not there.
    fn given_up(&self, before: &State, after: &State) -> Vec<String> {
        let stopped = before.tasks().filter(|old| stops(after, old) && self.is_well(before, after, old));
        let alone = stopped.filter(|old| {
            let Some(service) = after.service(old.service_id) else { return false };
            let has_port = service.spec.endpoint.ports_in(PortMode::Host).next().is_some();
            let first = rollout(service).order == UpdateOrder::StartFirst && !has_port;
            let others = |state: &State| -> Vec<Arc<Task>> {
                let of_slot = state.tasks_of_service(old.service_id).filter(|task| task.slot == old.slot);
                of_slot
                    .filter(|task| task.id != old.id && task.desired <= TaskState::Running)
                    .cloned()
                    .collect()
            };
            let is_updated = others(after).iter().any(|task| task.spec_version > old.spec_version);
            let runs = |task: &Arc<Task>| task.status.state == TaskState::Running;
            first && is_updated && !others(before).iter().any(runs) && !others(after).iter().any(runs)
        });
        alone
            .map(|old| format!("task {} is stopped, and what comes first does not run yet", old.id))
            .collect()
    }

    /// The task that ran well, was only outdated and is told to stop, whose place another takes.
    fn good_one_replaced_by<'a>(
        &self,
        before: &'a State,
        after: &State,
        new: &Task,
    ) -> Option<&'a Arc<Task>> {
        before.tasks_of_service(new.service_id).filter(|old| old.slot == new.slot).find(|old| {
            stops(after, old) && old.spec_version < new.spec_version && self.is_well(before, after, old)
        })
    }
}

/// How a service's changes roll out, or how they are taken back.
fn rollout(service: &Service) -> UpdateConfig {
    let is_back = service.update.as_ref().is_some_and(|update| update.message.starts_with("rollback"));
    let config = if is_back { &service.spec.rollback } else { &service.spec.update };
    config.clone().unwrap_or_default()
}

/// Whether nothing differs that a container would have to be made anew for.
fn is_alike(old: &Task, new: &Task) -> bool {
    let (a, b) = (&old.spec, &new.spec);
    a.container == b.container
        && a.resources == b.resources
        && a.networks == b.networks
        && a.log_driver == b.log_driver
        && a.force_update == b.force_update
        && old.ports.len() == new.ports.len()
}

/// Slots that stay, whose new task takes the place of one from before the change, and has not come to run yet.
fn on_their_way(state: &State, after: &State, service: &Service) -> u64 {
    let is_newest = |task: &Task| task.spec_version >= service.task_spec_version;
    let waits = state.tasks_of_service(service.id).filter(|task| {
        let of_slot = || state.tasks_of_service(service.id).filter(|other| other.slot == task.slot);
        let takes_part = of_slot().any(|other| !is_newest(other));
        // One that failed on the way is not waited for, nor one that is going to.
        let has_failed = |task: &Task| task.status.state.is_terminal() || task.is_sick();
        let fails = of_slot().any(|other| is_newest(other) && has_failed(other));
        let is_coming = task.desired <= TaskState::Running && task.status.state < TaskState::Running;
        let stays = after.task(task.id).is_some_and(|now| now.desired <= TaskState::Running);
        is_newest(task) && is_coming && stays && takes_part && !fails
    });
    waits.count() as u64
}

fn restarted(before: &State, service: &Service, old: &Task, new: &Task) -> Vec<String> {
    let policy = &service.spec.task.restart;
    let mut found = Vec::new();
    let waits = new.start_after.is_some_and(|at| at.since(new.meta.created_at) >= policy.delay);
    if !policy.delay.is_zero() && !waits {
        found.push(format!("task {} follows {} without the delay of {:?}", new.id, old.id, policy.delay));
    }
    // That one ended may have been told only after this was decided.
    let was_known = |task: &Task| task.meta.revision + DECIDED_WITHIN <= before.applied();
    // Who says the same again after something else begins anew.
    let is_current = |task: &Task| task.spec_version >= service.task_spec_version;
    let attempts = before.tasks_of_service(service.id).filter(|task| {
        let replaced = task.slot == new.slot && task.desired == TaskState::Shutdown;
        let known = replaced && ended_by_itself(task) && was_known(task);
        known && task.spec == new.spec && is_current(task) == is_current(new)
    });
    let attempt = attempts.count() as u64 + 1;
    if policy.max_attempts > 0 && policy.window.is_zero() && attempt > policy.max_attempts {
        found.push(format!("task {} is attempt {attempt}, {} are allowed", new.id, policy.max_attempts));
    }
    found
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use shoal_core::model::{
        EndpointSpec, Node, NodeId, RestartPolicy, ServiceMode, ServiceSpec, TaskId, TaskSpec, TaskStatus,
        Timestamp,
    };
    use shoal_core::store::{Command, Write};

    use super::*;
    use crate::sample;

    const S: ServiceId = ServiceId::from_u128(1);

    fn apply(state: &mut State, writes: Vec<Write>) {
        let index = state.applied() + 1;
        let command = Command { at: Timestamp(1_000), writes, ..Command::default() };
        state.apply(index, 1, command).expect("legal");
    }

    fn task(state: &State, number: u128, start_after: Option<Timestamp>) -> Write {
        let service = state.service(S).expect("made");
        Write::TaskCreate(Arc::new(Task {
            service_id: S,
            spec: Arc::clone(&service.spec.task),
            spec_version: service.meta.spec_version,
            start_after,
            status: TaskStatus { state: TaskState::Failed, ..TaskStatus::default() },
            ..sample::task(number)
        }))
    }

    /// A service with one task, whose restarts are judged as they come.
    fn restarting() -> (State, Policies, ServiceSpec) {
        let mut state = State::default();
        let restart =
            RestartPolicy { delay: Duration::from_secs(1), max_attempts: 1, ..RestartPolicy::default() };
        let spec = ServiceSpec {
            name: "s".into(),
            labels: BTreeMap::new(),
            mode: ServiceMode::Replicated { replicas: 1 },
            task: Arc::new(TaskSpec { restart, ..TaskSpec::default() }),
            update: None,
            rollback: None,
            endpoint: EndpointSpec::default(),
        };
        let service = Service::new(S, spec.clone());
        let node = Node { id: NodeId::from_u128(1), ..Node::default() };
        apply(&mut state, vec![Write::NodeCreate(Box::new(node)), Write::ServiceCreate(Box::new(service))]);
        let first = task(&state, 1, None);
        apply(&mut state, vec![first]);
        let mut policies = Policies::default();
        assert!(policies.look(&state).is_empty());
        (state, policies, spec)
    }

    /// The task of this number takes the place of the one before.
    fn successor(state: &State, number: u128, at: Option<Timestamp>) -> Vec<Write> {
        let stop = Write::TaskDesired(TaskId::from_u128(number - 1), TaskState::Shutdown);
        vec![stop, task(state, number, at)]
    }

    /// Until all that was said is known.
    fn wait(state: &mut State, policies: &mut Policies) {
        (0..DECIDED_WITHIN).for_each(|_| apply(state, Vec::new()));
        assert!(policies.look(state).is_empty());
    }

    fn follow(
        state: &mut State,
        policies: &mut Policies,
        number: u128,
        at: Option<Timestamp>,
    ) -> Vec<String> {
        wait(state, policies);
        let writes = successor(state, number, at);
        apply(state, writes);
        policies.look(state)
    }

    #[test]
    fn a_restart_without_delay_or_too_many_of_them_are_found() {
        let (mut state, mut policies, _) = restarting();
        assert!(follow(&mut state, &mut policies, 2, Some(Timestamp(2_000))).is_empty());
        let found = follow(&mut state, &mut policies, 3, None);
        assert_eq!(found.len(), 2, "{found:?}");
    }

    #[test]
    fn an_end_that_was_told_while_it_was_decided_is_no_attempt_yet() {
        let (mut state, mut policies, _) = restarting();
        assert!(follow(&mut state, &mut policies, 2, Some(Timestamp(2_000))).is_empty());
        let first = Arc::clone(state.task(TaskId::from_u128(1)).expect("made"));
        let status = TaskStatus { message: "failed".into(), ..first.status.clone() };
        apply(&mut state, vec![Write::TaskStatus(first.id, status)]);
        assert!(policies.look(&state).is_empty());
        let third = successor(&state, 3, Some(Timestamp(2_000)));
        apply(&mut state, third);
        assert!(policies.look(&state).is_empty());
    }

    #[test]
    fn attempts_begin_anew_when_the_same_is_asked_for_again() {
        let (mut state, mut policies, spec) = restarting();
        assert!(follow(&mut state, &mut policies, 2, Some(Timestamp(2_000))).is_empty());
        let mut other = spec.clone();
        Arc::make_mut(&mut other.task).container.image = "other".into();
        for spec in [other, spec] {
            apply(&mut state, vec![Write::ServiceSpec(S, spec)]);
            assert!(policies.look(&state).is_empty());
        }
        let found = follow(&mut state, &mut policies, 3, Some(Timestamp(2_000)));
        assert!(found.is_empty(), "{found:?}");
    }

    #[test]
    fn an_attempt_counts_by_what_the_service_was_when_it_was_decided() {
        let (mut state, mut policies, spec) = restarting();
        let mut other = spec.clone();
        Arc::make_mut(&mut other.task).container.image = "other".into();
        for spec in [other.clone(), spec] {
            apply(&mut state, vec![Write::ServiceSpec(S, spec)]);
            policies.look(&state);
        }
        let second = successor(&state, 2, Some(Timestamp(2_000)));
        apply(&mut state, second);
        policies.look(&state);
        wait(&mut state, &mut policies);
        // The third is made as the service was, and the same entry makes it another.
        let mut third = successor(&state, 3, Some(Timestamp(2_000)));
        third.push(Write::ServiceSpec(S, other));
        apply(&mut state, third);
        let found = policies.look(&state);
        assert!(found.is_empty(), "{found:?}");
    }
}
