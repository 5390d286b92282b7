//! What the engine says of a container, in core's words.

use std::net::{IpAddr, Ipv4Addr};

use bollard::models::{
    ContainerInspectResponse, ContainerState, ContainerStateStatusEnum, ContainerSummary,
    ContainerSummaryStateEnum, HealthStatusEnum,
};
use shoal_core::model::{ContainerStatus, TaskId};
use shoal_core::task::{ExitStatus, LocalContainer, RunState};

use crate::labels;

/// From an inspection.
pub(crate) fn of_inspect(container: &ContainerInspectResponse) -> (RunState, ContainerStatus) {
    let empty = ContainerState::default();
    let state = container.state.as_ref().unwrap_or(&empty);
    let run = run_state(state);
    let mut status = ContainerStatus {
        container_id: container.id.clone().unwrap_or_default(),
        pid: state.pid.and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid > 0),
        ..ContainerStatus::default()
    };
    if let RunState::Exited(exit) = &run {
        status.exit_code = Some(exit.code);
        status.oom_killed = exit.oom_killed;
    }
    (run, status)
}

fn run_state(state: &ContainerState) -> RunState {
    use ContainerStateStatusEnum as S;
    match state.status {
        Some(S::RUNNING | S::PAUSED | S::RESTARTING) => RunState::Running { healthy: healthy(state) },
        // A start that failed leaves it "created", with the code that says why.
        Some(S::CREATED) | None => RunState::Created,
        Some(_) => RunState::Exited(ExitStatus {
            code: state.exit_code.unwrap_or(-1),
            oom_killed: state.oom_killed.unwrap_or(false),
            error: state.error.clone().unwrap_or_default(),
        }),
    }
}

fn healthy(state: &ContainerState) -> Option<bool> {
    match state.health.as_ref()?.status? {
        HealthStatusEnum::HEALTHY => Some(true),
        HealthStatusEnum::STARTING | HealthStatusEnum::UNHEALTHY => Some(false),
        HealthStatusEnum::NONE | HealthStatusEnum::EMPTY => None,
    }
}

/// Whether its health check has failed for good.
pub(crate) fn is_unhealthy(container: &ContainerInspectResponse) -> bool {
    let health = container.state.as_ref().and_then(|state| state.health.as_ref());
    health.and_then(|health| health.status) == Some(HealthStatusEnum::UNHEALTHY)
}

/// Where it answers on its host; a container in the host's own network does so at the host's. The first network by name comes
/// first: the engine leads its way out through that one, so what it sends to others is from its address there.
pub(crate) fn addresses(container: &ContainerInspectResponse) -> Vec<IpAddr> {
    let mode = container.host_config.as_ref().and_then(|config| config.network_mode.as_deref());
    if mode == Some("host") {
        return vec![IpAddr::V4(Ipv4Addr::LOCALHOST)];
    }
    let networks = container.network_settings.as_ref().and_then(|settings| settings.networks.as_ref());
    let mut networks: Vec<_> = networks.into_iter().flatten().collect();
    networks.sort_unstable_by_key(|(name, _)| *name);
    let texts = networks
        .into_iter()
        .flat_map(|(_, end)| [end.ip_address.as_deref(), end.global_ipv6_address.as_deref()]);
    let mut found: Vec<IpAddr> = texts.flatten().filter_map(|text| text.parse().ok()).collect();
    found.sort_by_key(IpAddr::is_ipv6);
    found
}

/// From a list, where exit code and health are in the text that people read.
pub(crate) fn of_summary(container: &ContainerSummary) -> Option<LocalContainer> {
    let task_id: TaskId = container.labels.as_ref()?.get(labels::TASK_ID)?.parse().ok()?;
    let words = container.status.as_deref().unwrap_or_default();
    let mut status = ContainerStatus {
        container_id: container.id.clone().unwrap_or_default(),
        ..ContainerStatus::default()
    };
    use ContainerSummaryStateEnum as S;
    let state = match container.state {
        Some(S::RUNNING | S::PAUSED | S::RESTARTING) => RunState::Running { healthy: health_in(words) },
        Some(S::CREATED) | None => RunState::Created,
        Some(_) => {
            let code = exit_code_in(words).unwrap_or(-1);
            status.exit_code = Some(code);
            RunState::Exited(ExitStatus { code, ..ExitStatus::default() })
        }
    };
    Some(LocalContainer { task_id, state, status })
}

/// `Up 3 minutes (healthy)`.
fn health_in(words: &str) -> Option<bool> {
    if words.ends_with("(healthy)") {
        return Some(true);
    }
    (words.ends_with("(unhealthy)") || words.ends_with("(health: starting)")).then_some(false)
}

/// `Exited (137) 2 hours ago`.
fn exit_code_in(words: &str) -> Option<i64> {
    words.split_once('(')?.1.split_once(')')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use bollard::models::{EndpointSettings, NetworkSettings};

    use super::*;

    #[test]
    fn exit_code_and_health_are_read_from_the_words_of_a_list() {
        assert_eq!(exit_code_in("Exited (137) 2 hours ago"), Some(137));
        assert_eq!(exit_code_in("Dead"), None);
        assert_eq!(health_in("Up 3 minutes"), None);
        assert_eq!(health_in("Up 3 minutes (healthy)"), Some(true));
        assert_eq!(health_in("Up 3 seconds (unhealthy)"), Some(false));
        assert_eq!(health_in("Up 1 second (health: starting)"), Some(false));
    }

    #[test]
    fn a_container_answers_in_its_first_network_by_name() {
        let end = |v4: &str, v6: &str| EndpointSettings {
            ip_address: Some(v4.to_owned()),
            global_ipv6_address: Some(v6.to_owned()),
            ..EndpointSettings::default()
        };
        let networks = [("second", end("10.128.0.3", "")), ("first", end("10.128.16.3", "fd00::3"))];
        let networks = networks.map(|(name, end)| (name.to_owned(), end)).into_iter().collect();
        let settings = NetworkSettings { networks: Some(networks), ..NetworkSettings::default() };
        let container = ContainerInspectResponse {
            network_settings: Some(settings),
            ..ContainerInspectResponse::default()
        };
        let found: Vec<_> = addresses(&container).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["10.128.16.3", "10.128.0.3", "fd00::3"]);
    }
}
