//! Services.

use std::sync::Arc;

use shoal_core::mesh;
use shoal_core::model::{
    LogDriver, Service, ServiceMode, ServiceSpec, TaskSpec, UpdateConfig, UpdateState, UpdateStatus,
};

use shoal_core::orchestrator::progress_deadline;
use shoal_core::store::State;

use super::super::clock;
use super::super::decode::refuse;
use super::super::error::HttpError;
use super::super::types::{self, Driver, Empty, Endpoint, Replicated, ServiceStatus, version};
use super::container::{container, container_json};
use super::network::{attachments, target_json, virtual_ips};
use super::policy::{placement, placement_json, restart, restart_json, update, update_json};
use super::ports::{endpoint, endpoint_json, port_json};
use super::resources::{resources, resources_json};
use super::{count, filled, nanos, signed, validate};

/// Read a service's specification, checked. An empty name is left for the caller to fill; networks are those of the state.
///
/// # Errors
/// 400 that names the field and the remedy; 404 if a network is not there.
pub(in crate::http) fn service_spec(
    json: types::ServiceSpec,
    state: &State,
) -> Result<ServiceSpec, HttpError> {
    let name = json.name.unwrap_or_default();
    if !name.is_empty() {
        validate::name("Spec.Name", &name)?;
    }
    let mode = mode("Spec.Mode", json.mode.unwrap_or_default())?;
    let task = json.task_template.ok_or_else(|| {
        HttpError::field("Spec.TaskTemplate", "it is missing: a ContainerSpec with an Image is wanted")
    })?;
    let mut task = task_spec("Spec.TaskTemplate", task, state)?;
    if task.networks.is_empty() {
        // The older place of the same: it counts where the newer one says nothing.
        task.networks = attachments("Spec.Networks", json.networks, state)?;
    }
    if mode == ServiceMode::Global && task.placement.max_replicas > 0 {
        return Err(HttpError::field(
            "Spec.TaskTemplate.Placement.MaxReplicas",
            "it is for replicated services: a global one has one task on each node anyway",
        ));
    }
    let labels = json.labels.unwrap_or_default();
    let wrong =
        |error: mesh::OptionsError| HttpError::field(&format!("Spec.Labels.{}", error.label), error.problem);
    mesh::Options::of_labels(&labels).map_err(wrong)?;
    progress_deadline(&labels).map_err(wrong)?;
    let mut endpoint = endpoint("Spec.EndpointSpec", json.endpoint_spec.unwrap_or_default())?;
    mesh::read_places(&labels, &mut endpoint.ports).map_err(wrong)?;
    Ok(ServiceSpec {
        name,
        labels,
        mode,
        task: Arc::new(task),
        update: json.update_config.map(|c| update("Spec.UpdateConfig", c, false)).transpose()?,
        rollback: json.rollback_config.map(|c| update("Spec.RollbackConfig", c, true)).transpose()?,
        endpoint,
    })
}

fn mode(path: &str, json: types::ServiceMode) -> Result<ServiceMode, HttpError> {
    // A job with no numbers is still a job: what counts is that it is there.
    for (field, value) in [("ReplicatedJob", &json.replicated_job), ("GlobalJob", &json.global_job)] {
        if value.as_ref().is_some_and(|v| !v.is_null()) {
            return Err(HttpError::field(
                &format!("{path}.{field}"),
                "jobs are not supported yet: use replicated or global with RestartPolicy.Condition none",
            ));
        }
    }
    match (json.replicated, json.global) {
        (Some(_), Some(_)) => Err(HttpError::field(path, "must specify only one of Replicated and Global")),
        (None, Some(Empty {})) => Ok(ServiceMode::Global),
        (replicated, None) => Ok(ServiceMode::Replicated {
            replicas: match replicated.and_then(|r| r.replicas) {
                Some(replicas) => count(&format!("{path}.Replicated.Replicas"), Some(replicas))?,
                None => 1,
            },
        }),
    }
}

fn task_spec(path: &str, json: types::TaskSpec, state: &State) -> Result<TaskSpec, HttpError> {
    let at = |field: &str| format!("{path}.{field}");
    refuse(&at("PluginSpec"), json.plugin_spec.as_ref(), "plugins as services are not supported")?;
    refuse(
        &at("NetworkAttachmentSpec"),
        json.network_attachment_spec.as_ref(),
        "attachments are not supported yet",
    )?;
    if let Some(runtime) = json.runtime.as_deref().filter(|r| !matches!(*r, "" | "container")) {
        return Err(HttpError::field(
            &at("Runtime"),
            format!("{runtime:?} is not supported: container is wanted"),
        ));
    }
    let spec = json.container_spec.ok_or_else(|| {
        HttpError::field(&at("ContainerSpec"), "it is missing: one with an Image is wanted")
    })?;
    Ok(TaskSpec {
        container: container(&at("ContainerSpec"), spec)?,
        resources: resources(&at("Resources"), json.resources)?,
        restart: restart(&at("RestartPolicy"), json.restart_policy)?,
        placement: placement(&at("Placement"), json.placement.unwrap_or_default())?,
        log_driver: log_driver(&at("LogDriver"), json.log_driver.unwrap_or_default())?,
        networks: attachments(&at("Networks"), json.networks, state)?,
        force_update: count(&at("ForceUpdate"), json.force_update)?,
    })
}

/// Read where output goes; nothing said means the engine's default.
pub(super) fn log_driver(path: &str, json: Driver) -> Result<Option<LogDriver>, HttpError> {
    let (name, options) = (json.name.unwrap_or_default(), json.options.unwrap_or_default());
    match (name.is_empty(), options.is_empty()) {
        (true, true) => Ok(None),
        (true, false) => Err(HttpError::field(&format!("{path}.Name"), "options need a driver: name one")),
        (false, _) => Ok(Some(LogDriver { name, options })),
    }
}

/// Write a service's specification.
pub(in crate::http) fn spec_json(spec: &ServiceSpec) -> types::ServiceSpec {
    let mode = match spec.mode {
        ServiceMode::Replicated { replicas } => types::ServiceMode {
            replicated: Some(Replicated { replicas: Some(signed(replicas)) }),
            ..types::ServiceMode::default()
        },
        ServiceMode::Global => types::ServiceMode { global: Some(Empty {}), ..types::ServiceMode::default() },
    };
    types::ServiceSpec {
        name: Some(spec.name.clone()),
        labels: Some(spec.labels.clone()),
        task_template: Some(task_spec_json(&spec.task)),
        mode: Some(mode),
        update_config: spec.update.as_ref().map(update_json),
        rollback_config: spec.rollback.as_ref().map(update_json),
        networks: None,
        endpoint_spec: Some(endpoint_json(&spec.endpoint)),
    }
}

/// Write a task's specification.
pub(super) fn task_spec_json(task: &TaskSpec) -> types::TaskSpec {
    types::TaskSpec {
        container_spec: Some(container_json(&task.container)),
        resources: resources_json(&task.resources),
        restart_policy: Some(restart_json(&task.restart)),
        placement: Some(placement_json(&task.placement)),
        log_driver: task
            .log_driver
            .as_ref()
            .map(|d| Driver { name: Some(d.name.clone()), options: filled(&d.options) }),
        networks: filled(&task.networks.iter().map(target_json).collect()),
        force_update: Some(signed(task.force_update)),
        runtime: Some("container".to_owned()),
        ..types::TaskSpec::default()
    }
}

/// Write a service, with its addresses in the networks of the state.
pub(in crate::http) fn service_json(
    service: &Service,
    state: &State,
    status: Option<ServiceStatus>,
) -> types::Service {
    let endpoint = &service.spec.endpoint;
    types::Service {
        id: Some(service.id.to_string()),
        version: version(service.meta.spec_version),
        created_at: Some(clock::text(service.meta.created_at)),
        updated_at: Some(clock::text(service.meta.updated_at)),
        spec: Some(spec_json(&service.spec)),
        previous_spec: service.previous_spec.as_ref().map(spec_json),
        endpoint: Some(Endpoint {
            spec: Some(endpoint_json(endpoint)),
            ports: filled(&endpoint.ports.iter().map(port_json).collect()),
            virtual_ips: filled(&virtual_ips(service, state)),
        }),
        update_status: service.update.as_ref().map(update_status_json),
        service_status: status,
    }
}

fn update_status_json(update: &UpdateStatus) -> types::UpdateStatus {
    types::UpdateStatus {
        state: Some(update_state_word(update).to_owned()),
        started_at: Some(clock::text(update.started_at)),
        completed_at: update.completed_at.map(clock::text),
        message: Some(update.message.clone()),
    }
}

/// The word for an update's state; a rollback has words of its own.
pub(in crate::http) fn update_state_word(update: &UpdateStatus) -> &'static str {
    let back = update.message.starts_with("rollback");
    match (update.state, back) {
        (UpdateState::Updating, false) => "updating",
        (UpdateState::Paused, false) => "paused",
        (UpdateState::Completed, false) => "completed",
        (UpdateState::Updating, true) => "rollback_started",
        (UpdateState::Paused, true) => "rollback_paused",
        (UpdateState::Completed, true) => "rollback_completed",
    }
}

/// Fill in what applies where nothing was said.
pub(in crate::http) fn insert_defaults(service: &mut types::Service) {
    let Some(spec) = &mut service.spec else { return };
    spec.update_config.get_or_insert_with(|| update_json(&UpdateConfig::default()));
    spec.rollback_config.get_or_insert_with(|| update_json(&UpdateConfig::default()));
    if let Some(container) = spec.task_template.as_mut().and_then(|t| t.container_spec.as_mut()) {
        let grace = shoal_core::model::ContainerSpec::default().stop_grace();
        container.stop_grace_period.get_or_insert_with(|| nanos(grace));
    }
}
