//! Why tasks wait, in words.

use std::sync::Arc;
use std::time::Duration;

use super::cluster::{CPU, NOW, apply, node, placed, service, task};
use crate::model::{Availability, NodeState, TaskSpec, TaskState};
use crate::scheduler::{Filter, Scheduler};
use crate::store::{State, Write};

#[test]
fn the_verdict_on_each_node_has_reasons_with_numbers() {
    let mut spec = TaskSpec::default();
    spec.resources.reservations.nano_cpus = 2 * CPU;
    spec.placement.constraints.push("node.labels.zone==a".parse().expect("a constraint"));
    spec.placement.max_replicas = 1;
    let web = service(1, spec, Some(80));
    let mut heavy = TaskSpec::default();
    heavy.resources.reservations.nano_cpus = 3 * CPU + CPU / 2;
    let other = service(2, heavy, None);
    let mut nodes: Vec<_> = (1..=4).map(node).collect();
    for node in &mut nodes[..3] {
        node.spec.labels.insert("zone".into(), "a".into());
    }
    nodes[3].status.state = NodeState::Down;
    nodes[3].spec.availability = Availability::Drain;
    let mut writes: Vec<Write> = nodes.into_iter().map(|node| Write::NodeCreate(Box::new(node))).collect();
    for service in [&web, &other] {
        writes.push(Write::ServiceCreate(Box::new(service.clone())));
    }
    let tasks = [
        placed(task(1, &other), &other, 1, TaskState::Running),
        placed(task(2, &web), &web, 2, TaskState::Running),
    ];
    writes.extend(tasks.into_iter().map(|task| Write::TaskCreate(Arc::new(task))));
    let mut state = State::default();
    apply(&mut state, writes);

    let verdicts = Scheduler::new(&state).explain(&state, &web.spec.task, &web);
    let words = |at: usize| -> Vec<(Filter, &str)> {
        verdicts[at].refusals.iter().map(|refusal| (refusal.filter, refusal.why.as_str())).collect()
    };
    assert_eq!(words(0), [(Filter::Resources, "needs 2 CPUs, 0.5 free")]);
    assert_eq!(
        words(1),
        [
            (Filter::HostPort, "port 80/tcp is taken by s1.2"),
            (Filter::MaxReplicas, "runs 1 of at most 1 tasks of this service"),
        ]
    );
    assert!(verdicts[2].fits());
    assert_eq!(
        words(3),
        [
            (Filter::Ready, "is down and is drained"),
            (Filter::Constraints, "does not satisfy node.labels.zone==a"),
        ]
    );
}

#[test]
fn a_waiting_task_is_told_why_once_and_a_changed_reason_after_a_while() {
    let mut spec = TaskSpec::default();
    spec.resources.reservations.nano_cpus = 8 * CPU;
    let web = service(1, spec, None);
    let mut state = State::default();
    let mut writes = vec![Write::NodeCreate(Box::new(node(1))), Write::ServiceCreate(Box::new(web.clone()))];
    writes.push(Write::TaskCreate(Arc::new(task(1, &web))));
    apply(&mut state, writes);
    let mut scheduler = Scheduler::new(&state);
    let told = |scheduler: &mut Scheduler, state: &mut State, now| -> Vec<String> {
        let plan = scheduler.decide(state, now);
        let writes: Vec<Write> = plan.steps.into_iter().flat_map(|step| step.writes).collect();
        let applied = apply(state, writes.clone());
        applied.events.iter().for_each(|event| scheduler.observe(state, event));
        let status = |write| match write {
            Write::TaskStatus(_, status) => Some(status.message),
            _ => None,
        };
        writes.into_iter().filter_map(status).collect()
    };
    assert_eq!(
        told(&mut scheduler, &mut state, NOW),
        ["no suitable node (insufficient resources on 1 node)"]
    );
    assert!(told(&mut scheduler, &mut state, NOW).is_empty());
    let applied = apply(&mut state, vec![Write::NodeCreate(Box::new(node(2)))]);
    applied.events.iter().for_each(|event| scheduler.observe(&state, event));
    assert!(told(&mut scheduler, &mut state, NOW).is_empty());
    let later = NOW.plus(Duration::from_secs(5));
    assert_eq!(scheduler.decide(&state, NOW).wake_at, Some(later));
    assert_eq!(
        told(&mut scheduler, &mut state, later),
        ["no suitable node (insufficient resources on 2 nodes)"]
    );
}
