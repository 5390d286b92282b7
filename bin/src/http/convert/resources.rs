//! Limits and reservations.

use std::collections::BTreeMap;

use shoal_core::model::{self, ResourceRequirements};

use super::super::decode::refuse;
use super::super::error::HttpError;
use super::super::types::{GenericResource, GenericResourceSpec, Limits, Reservations, Resources};
use super::{count, filled, signed};

/// The smallest amount of processor that an engine takes: a thousandth.
const NANO_CPUS_MIN: u64 = 1_000_000;
/// The smallest amount of memory that an engine takes.
const MEMORY_BYTES_MIN: u64 = 4 << 20;

/// Read resources, checked.
pub(super) fn resources(path: &str, json: Option<Resources>) -> Result<ResourceRequirements, HttpError> {
    let json = json.unwrap_or_default();
    refuse(
        &format!("{path}.MemorySwappiness"),
        json.memory_swappiness.as_ref().filter(|value| value.as_i64() != Some(-1)),
        "not supported: leave it out",
    )?;
    refuse(&format!("{path}.SwapBytes"), json.swap_bytes.as_ref(), "not supported: leave it out")?;
    let limits = limits(&format!("{path}.Limits"), json.limits.unwrap_or_default())?;
    let reservations = reservations(&format!("{path}.Reservations"), json.reservations.unwrap_or_default())?;
    for (what, limit, reserved) in [
        ("NanoCPUs", limits.nano_cpus, reservations.nano_cpus),
        ("MemoryBytes", limits.memory_bytes, reservations.memory_bytes),
    ] {
        if limit > 0 && reserved > limit {
            return Err(HttpError::field(
                &format!("{path}.Reservations.{what}"),
                format!("the reservation {reserved} is above the limit {limit}: lower it or raise the limit"),
            ));
        }
    }
    Ok(ResourceRequirements { limits, reservations })
}

fn amounts(path: &str, cpus: Option<i64>, memory: Option<i64>) -> Result<model::Resources, HttpError> {
    let nano_cpus = count(&format!("{path}.NanoCPUs"), cpus)?;
    if nano_cpus > 0 && nano_cpus < NANO_CPUS_MIN {
        return Err(HttpError::field(
            &format!("{path}.NanoCPUs"),
            format!("invalid cpu value {nano_cpus}: must be at least {NANO_CPUS_MIN} (0.001 of a processor)"),
        ));
    }
    let memory_bytes = count(&format!("{path}.MemoryBytes"), memory)?;
    if memory_bytes > 0 && memory_bytes < MEMORY_BYTES_MIN {
        return Err(HttpError::field(
            &format!("{path}.MemoryBytes"),
            format!("invalid memory value {memory_bytes}: must be at least 4MiB"),
        ));
    }
    Ok(model::Resources { nano_cpus, memory_bytes, ..model::Resources::default() })
}

fn limits(path: &str, json: Limits) -> Result<model::Resources, HttpError> {
    if json.generic_resources.is_some_and(|list| !list.is_empty()) {
        return Err(HttpError::field(
            &format!("{path}.GenericResources"),
            "generic resources can be reserved, not limited: use Reservations",
        ));
    }
    let mut limits = amounts(path, json.nano_cpus, json.memory_bytes)?;
    limits.pids = count(&format!("{path}.Pids"), json.pids)?;
    Ok(limits)
}

fn reservations(path: &str, json: Reservations) -> Result<model::Resources, HttpError> {
    let mut reserved = amounts(path, json.nano_cpus, json.memory_bytes)?;
    for (at, resource) in json.generic_resources.unwrap_or_default().into_iter().enumerate() {
        let path = format!("{path}.GenericResources.{at}");
        refuse(
            &format!("{path}.NamedResourceSpec"),
            resource.named_resource_spec.as_ref(),
            "a named resource cannot be reserved: say how many with DiscreteResourceSpec",
        )?;
        let Some(spec) = resource.discrete_resource_spec else { continue };
        let kind = spec.kind.unwrap_or_default();
        if kind.is_empty() {
            return Err(HttpError::field(&format!("{path}.DiscreteResourceSpec.Kind"), "a kind is wanted"));
        }
        let number = count(&format!("{path}.DiscreteResourceSpec.Value"), spec.value)?;
        if reserved.generic.insert(kind.clone(), number).is_some() {
            return Err(HttpError::field(&path, format!("the kind {kind:?} is there twice: say it once")));
        }
    }
    Ok(reserved)
}

/// Write resources.
pub(super) fn resources_json(resources: &ResourceRequirements) -> Option<Resources> {
    let (limits, reserved) = (&resources.limits, &resources.reservations);
    let limits = Limits {
        nano_cpus: filled(&signed(limits.nano_cpus)),
        memory_bytes: filled(&signed(limits.memory_bytes)),
        pids: filled(&signed(limits.pids)),
        generic_resources: None,
    };
    let reservations = Reservations {
        nano_cpus: filled(&signed(reserved.nano_cpus)),
        memory_bytes: filled(&signed(reserved.memory_bytes)),
        generic_resources: generic_json(&reserved.generic),
    };
    Some(Resources { limits: Some(limits), reservations: Some(reservations), ..Resources::default() })
}

/// Write generic resources.
pub(super) fn generic_json(generic: &BTreeMap<String, u64>) -> Option<Vec<GenericResource>> {
    let list: Vec<_> = generic
        .iter()
        .map(|(kind, number)| GenericResource {
            discrete_resource_spec: Some(GenericResourceSpec {
                kind: Some(kind.clone()),
                value: Some(signed(*number)),
            }),
            named_resource_spec: None,
        })
        .collect();
    filled(&list)
}
