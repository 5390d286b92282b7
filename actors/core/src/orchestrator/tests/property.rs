//! Whatever users, nodes and leaders do: the judge never complains, and in the end all is as asked for.

use proptest::prelude::*;
use rand::Rng;

use super::*;
use crate::model::{FailureAction, UpdateOrder};

const SERVICES: u128 = 3;
const NODES: u128 = 4;

/// One thing that happens.
#[derive(Debug, Clone)]
enum Act {
    Create {
        service: u128,
        global: bool,
        replicas: u64,
        restart: u8,
    },
    Scale {
        service: u128,
        replicas: u64,
    },
    Image {
        service: u128,
        version: u8,
    },
    Config {
        service: u128,
        parallelism: u64,
        start_first: bool,
        action: u8,
        delay: u64,
    },
    Constrain {
        service: u128,
        zone: Option<u8>,
    },
    Remove {
        service: u128,
    },
    Availability {
        node: u128,
        to: u8,
    },
    Zone {
        node: u128,
        zone: u8,
    },
    Lose {
        node: u128,
    },
    Hide {
        node: u128,
    },
    Return {
        node: u128,
    },
    RemoveNode {
        node: u128,
    },
    AddNode {
        node: u128,
    },
    Memory {
        node: u128,
        gigabytes: u64,
    },
    End {
        pick: u64,
        how: u8,
    },
    Break {
        version: u8,
        broken: bool,
    },
    History {
        limit: u64,
    },
    Elect,
    Orchestrate,
    /// A plan is made, something else happens first, then its steps are tried.
    Late {
        pick: u64,
        skip: bool,
    },
    Schedule,
    RunNodes,
    Settle,
    Pass {
        seconds: u64,
    },
}

fn act() -> impl Strategy<Value = Act> {
    let service = 1..=SERVICES;
    let node = 1..=NODES;
    prop_oneof![
        3 => (service.clone(), any::<bool>(), 0..6u64, 0..6u8).prop_map(|(service, global, replicas, restart)| {
            Act::Create { service, global, replicas, restart }
        }),
        3 => (service.clone(), 0..8u64).prop_map(|(service, replicas)| Act::Scale { service, replicas }),
        3 => (service.clone(), 0..4u8).prop_map(|(service, version)| Act::Image { service, version }),
        2 => (service.clone(), 0..4u64, any::<bool>(), 0..3u8, 0..3u64).prop_map(
            |(service, parallelism, start_first, action, delay)| {
                Act::Config { service, parallelism, start_first, action, delay }
            }
        ),
        2 => (service.clone(), proptest::option::of(0..3u8))
            .prop_map(|(service, zone)| Act::Constrain { service, zone }),
        1 => service.prop_map(|service| Act::Remove { service }),
        2 => (node.clone(), 0..3u8).prop_map(|(node, to)| Act::Availability { node, to }),
        2 => (node.clone(), 0..3u8).prop_map(|(node, zone)| Act::Zone { node, zone }),
        2 => node.clone().prop_map(|node| Act::Lose { node }),
        1 => node.clone().prop_map(|node| Act::Hide { node }),
        3 => node.clone().prop_map(|node| Act::Return { node }),
        1 => node.clone().prop_map(|node| Act::RemoveNode { node }),
        1 => node.clone().prop_map(|node| Act::AddNode { node }),
        1 => (node, 0..9u64).prop_map(|(node, gigabytes)| Act::Memory { node, gigabytes }),
        4 => (any::<u64>(), 0..4u8).prop_map(|(pick, how)| Act::End { pick, how }),
        1 => (0..4u8, any::<bool>()).prop_map(|(version, broken)| Act::Break { version, broken }),
        1 => (0..4u64).prop_map(|limit| Act::History { limit }),
        2 => Just(Act::Elect),
        3 => Just(Act::Orchestrate),
        3 => (any::<u64>(), any::<bool>()).prop_map(|(pick, skip)| Act::Late { pick, skip }),
        3 => Just(Act::Schedule),
        4 => Just(Act::RunNodes),
        2 => Just(Act::Settle),
        2 => (0..40u64).prop_map(|seconds| Act::Pass { seconds }),
    ]
}

fn image(version: u8) -> String {
    format!("v{version}")
}

fn restart_policy(kind: u8) -> RestartPolicy {
    let (condition, max_attempts) = match kind {
        0 => (RestartCondition::None, 0),
        1 => (RestartCondition::OnFailure, 0),
        2 => (RestartCondition::Any, 2),
        _ => (RestartCondition::Any, 0),
    };
    RestartPolicy {
        condition,
        max_attempts,
        delay: Duration::from_secs(if matches!(kind, 0 | 2) { 0 } else { 3 }),
        window: Duration::from_secs(if kind == 2 { 30 } else { 0 }),
    }
}

impl World {
    fn has(&self, service: u128) -> bool {
        self.state.service(ServiceId::from_u128(service)).is_some()
    }

    fn do_to_service(&mut self, act: &Act) {
        match *act {
            Act::Create { service, global, replicas, restart } if !self.has(service) => {
                let mode = if global { ServiceMode::Global } else { ServiceMode::Replicated { replicas } };
                let mut task = TaskSpec { restart: restart_policy(restart), ..spec("v0") };
                task.resources.reservations.memory_bytes = (service as u64 - 1) << 28;
                // A service that is created again is another one, though its name is the same.
                let id = ServiceId::from_u128(service);
                if self.state.tasks_of_service(id).next().is_none() {
                    self.create(id, mode, task);
                }
            }
            Act::Scale { service, replicas } if self.has(service) => {
                let id = ServiceId::from_u128(service);
                let mode = self.state.service(id).unwrap().spec.mode.clone();
                if mode != ServiceMode::Global {
                    self.scale(id, replicas);
                }
            }
            Act::Image { service, version } if self.has(service) => {
                self.change_task(ServiceId::from_u128(service), |task| task.container.image = image(version));
            }
            Act::Config { service, parallelism, start_first, action, delay } if self.has(service) => {
                let config = UpdateConfig {
                    parallelism,
                    order: if start_first { UpdateOrder::StartFirst } else { UpdateOrder::StopFirst },
                    failure_action: match action {
                        0 => FailureAction::Pause,
                        1 => FailureAction::Continue,
                        _ => FailureAction::Rollback,
                    },
                    delay: Duration::from_secs(delay),
                    ..UpdateConfig::default()
                };
                self.change(ServiceId::from_u128(service), |spec| spec.update = Some(config));
            }
            Act::Constrain { service, zone } if self.has(service) => {
                self.change_task(ServiceId::from_u128(service), |task| {
                    task.placement.constraints.clear();
                    task.placement
                        .constraints
                        .extend(zone.map(|zone| format!("node.labels.zone!={zone}").parse().unwrap()));
                });
            }
            Act::Remove { service } if self.has(service) => {
                self.write(Write::ServiceRemove(ServiceId::from_u128(service)));
            }
            _ => {}
        }
    }

    fn do_to_node(&mut self, act: &Act) {
        let (Act::Availability { node, .. }
        | Act::Zone { node, .. }
        | Act::Lose { node }
        | Act::Hide { node }
        | Act::Return { node }
        | Act::RemoveNode { node }
        | Act::AddNode { node }
        | Act::Memory { node, .. }) = *act
        else {
            return;
        };
        let id = n(node);
        if self.state.node(id).is_none() {
            // A removed node comes back as another one.
            if matches!(act, Act::AddNode { .. }) && self.state.nodes().len() < NODES as usize {
                let fresh = 100 + self.state.applied();
                self.add_node(u128::from(fresh));
            }
            return;
        }
        match *act {
            Act::Availability { to, .. } => self.availability(
                id,
                [Availability::Active, Availability::Pause, Availability::Drain][usize::from(to)],
            ),
            Act::Zone { zone, .. } => self.label(id, "zone", &zone.to_string()),
            Act::Lose { .. } => {
                self.cut_off.insert(id);
                self.node_state(id, NodeState::Down);
            }
            Act::Hide { .. } => self.node_state(id, NodeState::Disconnected),
            Act::Return { .. } => {
                self.cut_off.remove(&id);
                self.node_state(id, NodeState::Ready);
            }
            Act::RemoveNode { .. } => {
                // It is told so, and gives up all that it has.
                self.containers.retain(|_, at| *at != id);
                self.write(Write::NodeRemove(id));
            }
            Act::Memory { gigabytes, .. } => {
                let mut description = self.state.node(id).unwrap().description.clone().unwrap();
                description.resources.memory_bytes = gigabytes << 30;
                self.write(Write::NodeDescription(id, description));
            }
            _ => {}
        }
    }

    fn end_some(&mut self, pick: u64, how: u8) {
        let running: Vec<TaskId> = self
            .state
            .tasks()
            .filter(|task| task.status.state == TaskState::Running && task.desired <= TaskState::Running)
            .filter(|task| task.node_id.is_some_and(|node| !self.cut_off.contains(&node)))
            .map(|task| task.id)
            .collect();
        if !running.is_empty() {
            let state = [TaskState::Failed, TaskState::Complete, TaskState::Shutdown, TaskState::Rejected];
            let id = running[(pick % running.len() as u64) as usize];
            self.containers.remove(&id);
            self.report(id, state[usize::from(how)]);
        }
    }

    fn happens(&mut self, act: &Act) {
        self.pass(Duration::from_millis(100));
        self.do_to_service(act);
        self.do_to_node(act);
        match *act {
            Act::End { pick, how } => self.end_some(pick, how),
            Act::Break { version, broken } => {
                if broken {
                    self.broken.insert(image(version));
                } else {
                    self.broken.remove(&image(version));
                }
            }
            Act::History { limit } => self.set_history(limit),
            Act::Elect => self.elect(),
            Act::Orchestrate => {
                self.orchestrate();
            }
            Act::Late { pick, skip } => {
                let plan = self.decide();
                self.end_some(pick, 0);
                self.run_nodes();
                for (number, step) in plan.steps.into_iter().enumerate() {
                    if !(skip && number % 2 == 0) {
                        let _refused = self.try_commit(step.expects, step.writes);
                    }
                }
            }
            Act::Schedule => {
                self.schedule();
            }
            Act::RunNodes => {
                self.run_nodes();
            }
            Act::Settle => self.settle_within(Duration::from_secs(20)),
            Act::Pass { seconds } => self.pass(Duration::from_secs(seconds)),
            _ => {}
        }
    }

    fn set_history(&mut self, limit: u64) {
        let mut cluster = self.state.cluster().map(|cluster| cluster.as_ref().clone()).unwrap_or_else(|| {
            crate::model::Cluster {
                meta: Meta::default(),
                id: Default::default(),
                spec: Default::default(),
                root_ca: Default::default(),
                tokens: Default::default(),
            }
        });
        cluster.spec.task_history_limit = limit;
        self.write(Write::Cluster(Box::new(cluster)));
    }

    /// Faults stop: every node is well, images work, and users ask for nothing impossible.
    fn heal(&mut self) {
        self.broken.clear();
        self.cut_off.clear();
        if self.state.nodes().len() == 0 {
            self.add_node(u128::from(100 + self.state.applied()));
        }
        let nodes: Vec<NodeId> = self.state.nodes().map(|node| node.id).collect();
        for id in nodes {
            self.node_state(id, NodeState::Ready);
            self.availability(id, Availability::Active);
            self.label(id, "zone", "none");
            let mut description = self.state.node(id).unwrap().description.clone().unwrap();
            description.resources.memory_bytes = 64 << 30;
            self.write(Write::NodeDescription(id, description));
        }
    }

    fn check_containers(&self) {
        for task in self.state.tasks().filter(|task| task.status.state == TaskState::Running) {
            assert!(self.containers.contains_key(&task.id), "{} does not run", task.id);
        }
        for (id, node) in &self.containers {
            let task = self.state.task(*id);
            assert!(
                task.is_some_and(|task| task.status.state == TaskState::Running),
                "{id} runs on {node}, and the state says {task:?}"
            );
        }
        for service in self.state.services() {
            if let ServiceMode::Replicated { replicas } = service.spec.mode {
                let run = self
                    .containers
                    .keys()
                    .filter(|id| self.state.task(**id).is_some_and(|task| task.service_id == service.id))
                    .count();
                assert!(run as u64 <= replicas, "{run} of {replicas} run");
            }
        }
    }
}

fn live_through(seed: u64, acts: &[Act]) -> World {
    let mut world = World::new(NODES);
    world.rng = ChaCha8Rng::seed_from_u64(seed);
    for act in acts {
        world.happens(act);
    }
    world
}

/// As many as take a few seconds; more when `PROPTEST_CASES` says so.
fn lives() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(64);
    ProptestConfig { cases, max_shrink_iters: 2000, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(lives())]

    #[test]
    fn all_is_as_asked_for_once_faults_stop(seed: u64, acts in proptest::collection::vec(act(), 1..80)) {
        let mut world = live_through(seed, &acts);
        world.heal();
        world.settle();
        world.assert_converged();
        world.check_containers();
        let limit = super::super::history_limit(&world.state) as usize;
        for service in world.state.services() {
            let slots = super::super::slot::slots_of(&world.state, service.id);
            for slot in slots.values() {
                prop_assert!(slot.tasks.len() <= limit.max(2) + 2, "{:#?}", slot.tasks);
            }
        }
        world.elect();
        let plan = world.decide();
        prop_assert!(plan.is_empty(), "a new leader finds nothing to do: {:#?}", plan);
    }

    #[test]
    fn the_same_past_leads_to_the_same_plan(seed: u64, acts in proptest::collection::vec(act(), 1..40)) {
        let mut one = live_through(seed, &acts);
        let mut two = live_through(seed, &acts);
        prop_assert_eq!(&one.state, &two.state);
        prop_assert_eq!(one.decide(), two.decide());
    }

    #[test]
    fn a_new_leader_decides_as_the_old_one_would(seed: u64, acts in proptest::collection::vec(act(), 1..40)) {
        let mut old = live_through(seed, &acts);
        let mut new = live_through(seed, &acts);
        let same: u64 = old.rng.random();
        old.rng = ChaCha8Rng::seed_from_u64(same);
        new.rng = ChaCha8Rng::seed_from_u64(same);
        new.elect();
        let (old, new) = (old.decide(), new.decide());
        prop_assert_eq!((old.steps, old.reasons), (new.steps, new.reasons));
        // The old one may look too early at what has gone on since it last looked, but never too late.
        prop_assert!(new.wake_at.is_none_or(|new| old.wake_at.is_some_and(|old| old <= new)));
    }
}
