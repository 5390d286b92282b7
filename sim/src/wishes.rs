//! What people wish for: clusters with short logs, services with all kinds of conditions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use shoal_core::model::{
    ClusterSpec, ContainerSpec, EndpointSpec, FailureAction, PortConfig, PortMode, RestartPolicy,
    ServiceMode, ServiceSpec, TaskSpec, UpdateConfig, UpdateOrder,
};
use shoal_core::store::State;

use crate::options::Options;

/// Containers of such an image end with an error soon after their start.
pub const CRASHES: &str = "crash:";
/// Replicas of one service at most.
pub const REPLICAS_MAX: u64 = 6;
/// Label of a service that must not grow beyond so many replicas, as then they would fit nowhere.
const MOST: &str = "most";
/// Hosts that every run has.
const HOSTS_MIN: u64 = 3;

/// The settings of a run's cluster. In half of the runs the log is so short that managers begin from snapshots.
#[must_use]
pub fn cluster(options: &Options) -> ClusterSpec {
    let mut rng = ChaCha8Rng::seed_from_u64(options.seed ^ 0xc105);
    let mut spec = ClusterSpec::default();
    spec.ca.node_cert_expiry = options.cert_life;
    if rng.random_bool(0.5) {
        spec.raft.snapshot_interval = rng.random_range(10..60);
        spec.raft.log_entries_for_slow_followers = rng.random_range(0..20);
        spec.task_history_limit = rng.random_range(0..3);
    }
    spec
}

/// The most replicas that this service can have.
#[must_use]
pub fn most(spec: &ServiceSpec) -> u64 {
    spec.labels.get(MOST).and_then(|most| most.parse().ok()).unwrap_or(REPLICAS_MAX)
}

fn limit(spec: &mut ServiceSpec, most: u64) {
    spec.labels.insert(MOST.into(), most.to_string());
    if let ServiceMode::Replicated { replicas } = &mut spec.mode {
        *replicas = (*replicas).min(most);
    }
}

fn reserves(state: &State) -> bool {
    state.services().any(|service| service.spec.task.resources.reservations.nano_cpus > 0)
}

/// A wish for a new service.
#[must_use]
pub fn service(rng: &mut ChaCha8Rng, name: &str, state: &State) -> ServiceSpec {
    let replicas = rng.random_range(1..=REPLICAS_MAX);
    let restart = RestartPolicy { delay: Duration::from_millis(500), ..RestartPolicy::default() };
    let container = ContainerSpec {
        image: "image:1".into(),
        stop_grace_period: Some(Duration::from_secs(1)),
        ..ContainerSpec::default()
    };
    let mut task = TaskSpec { container, restart, ..TaskSpec::default() };
    let mut spec = ServiceSpec {
        name: name.to_owned(),
        labels: BTreeMap::new(),
        mode: ServiceMode::Replicated { replicas },
        task: Arc::default(),
        update: None,
        rollback: None,
        endpoint: EndpointSpec::default(),
    };
    match rng.random_range(0..12) {
        0 => task.placement.constraints.extend("node.hostname!=h1".parse().ok()),
        1 => {
            let host = rng.random_range(1..=HOSTS_MIN);
            task.placement.constraints.extend(format!("node.hostname==h{host}").parse().ok());
        }
        // Two of them fit on a host, and only one such service is there at a time.
        2 if !reserves(state) => {
            task.resources.reservations.nano_cpus = 3_000_000_000;
            task.resources.reservations.memory_bytes = 1 << 30;
            limit(&mut spec, HOSTS_MIN * 2);
        }
        3 => {
            let port = PortConfig {
                target_port: 80,
                published_port: 8_000 + rng.random_range(0..1_000),
                mode: PortMode::Host,
                ..PortConfig::default()
            };
            spec.endpoint.ports.push(port);
            limit(&mut spec, HOSTS_MIN);
        }
        4 => {
            task.placement.max_replicas = 1;
            limit(&mut spec, HOSTS_MIN);
        }
        5 => spec.mode = ServiceMode::Global,
        6 => {
            task.container.image = format!("{CRASHES}1");
            task.restart.max_attempts = rng.random_range(1..3);
        }
        7 => {
            spec.update = Some(UpdateConfig {
                parallelism: 2,
                failure_action: FailureAction::Continue,
                monitor: Duration::from_secs(1),
                order: if rng.random_bool(0.5) { UpdateOrder::StartFirst } else { UpdateOrder::StopFirst },
                ..UpdateConfig::default()
            });
        }
        _ => {}
    }
    spec.task = Arc::new(task);
    spec
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_wish_is_for_more_than_fits() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for _ in 0..200 {
            let spec = service(&mut rng, "s", &State::default());
            let replicas = match spec.mode {
                ServiceMode::Replicated { replicas } => replicas,
                ServiceMode::Global => 0,
            };
            assert!(replicas <= most(&spec));
            assert!(spec.endpoint.ports.is_empty() || most(&spec) == HOSTS_MIN);
        }
    }
}
