//! Restarts, updates and placement.

use std::time::Duration;

use shoal_core::model::{
    FailureAction, Placement, Platform, Preference, RestartCondition, RestartPolicy, UpdateConfig,
    UpdateOrder,
};

use super::super::error::HttpError;
use super::super::types::{self, SpreadOver};
use super::{count, duration, filled, nanos, signed, word, word_of};

const CONDITIONS: [(&str, RestartCondition); 3] = [
    ("any", RestartCondition::Any),
    ("on-failure", RestartCondition::OnFailure),
    ("none", RestartCondition::None),
];
const ORDERS: [(&str, UpdateOrder); 2] =
    [("stop-first", UpdateOrder::StopFirst), ("start-first", UpdateOrder::StartFirst)];
const UPDATE_ACTIONS: [(&str, FailureAction); 3] = [
    ("pause", FailureAction::Pause),
    ("continue", FailureAction::Continue),
    ("rollback", FailureAction::Rollback),
];
/// Attributes over which tasks can be spread beside labels.
const SPREAD_ATTRIBUTES: [&str; 4] = ["node.id", "node.hostname", "node.platform.os", "node.platform.arch"];

/// Read a restart policy, checked; what is absent has Docker's default.
pub(super) fn restart(path: &str, json: Option<types::RestartPolicy>) -> Result<RestartPolicy, HttpError> {
    let (json, default) = (json.unwrap_or_default(), RestartPolicy::default());
    Ok(RestartPolicy {
        condition: word(&format!("{path}.Condition"), json.condition.as_deref(), &CONDITIONS)?,
        delay: duration(&format!("{path}.Delay"), json.delay)?.unwrap_or(default.delay),
        max_attempts: count(&format!("{path}.MaxAttempts"), json.max_attempts)?,
        window: duration(&format!("{path}.Window"), json.window)?.unwrap_or(default.window),
    })
}

/// Write a restart policy.
pub(super) fn restart_json(restart: &RestartPolicy) -> types::RestartPolicy {
    types::RestartPolicy {
        condition: word_of(restart.condition, &CONDITIONS),
        delay: Some(nanos(restart.delay)),
        max_attempts: Some(signed(restart.max_attempts)),
        window: filled(&nanos(restart.window)),
    }
}

/// Read an update's settings, checked. A rollback cannot itself be rolled back.
pub(super) fn update(
    path: &str,
    json: types::UpdateConfig,
    is_rollback: bool,
) -> Result<UpdateConfig, HttpError> {
    let actions = if is_rollback { &UPDATE_ACTIONS[..2] } else { &UPDATE_ACTIONS[..] };
    let ratio = json.max_failure_ratio.unwrap_or_default();
    if !(0.0..=1.0).contains(&ratio) {
        return Err(HttpError::field(
            &format!("{path}.MaxFailureRatio"),
            format!("{ratio} is out of range: 0 to 1 is wanted"),
        ));
    }
    let monitor = duration(&format!("{path}.Monitor"), json.monitor)?.filter(|m| *m > Duration::ZERO);
    Ok(UpdateConfig {
        parallelism: count(&format!("{path}.Parallelism"), json.parallelism)?,
        delay: duration(&format!("{path}.Delay"), json.delay)?.unwrap_or_default(),
        failure_action: word(&format!("{path}.FailureAction"), json.failure_action.as_deref(), actions)?,
        monitor: monitor.unwrap_or_else(|| UpdateConfig::default().monitor),
        // Within 0 to a million: checked above.
        max_failure_millionths: (ratio * 1e6).round() as u32,
        order: word(&format!("{path}.Order"), json.order.as_deref(), &ORDERS)?,
    })
}

/// Write an update's settings.
pub(super) fn update_json(update: &UpdateConfig) -> types::UpdateConfig {
    types::UpdateConfig {
        parallelism: Some(signed(update.parallelism)),
        delay: filled(&nanos(update.delay)),
        failure_action: word_of(update.failure_action, &UPDATE_ACTIONS),
        monitor: Some(nanos(update.monitor)),
        max_failure_ratio: Some(f64::from(update.max_failure_millionths) / 1e6),
        order: word_of(update.order, &ORDERS),
    }
}

/// Read a placement, checked.
pub(super) fn placement(path: &str, json: types::Placement) -> Result<Placement, HttpError> {
    let mut placement = Placement {
        max_replicas: count(&format!("{path}.MaxReplicas"), json.max_replicas)?,
        ..Placement::default()
    };
    for (at, text) in json.constraints.unwrap_or_default().iter().enumerate() {
        let constraint = text
            .parse()
            .map_err(|error| HttpError::field(&format!("{path}.Constraints.{at}"), format!("{error}")))?;
        placement.constraints.push(constraint);
    }
    for (at, preference) in json.preferences.unwrap_or_default().into_iter().enumerate() {
        let path = format!("{path}.Preferences.{at}.Spread.SpreadDescriptor");
        let spread = preference.spread.and_then(|s| s.spread_descriptor).unwrap_or_default();
        let is_label = ["node.labels.", "engine.labels."]
            .iter()
            .any(|prefix| spread.strip_prefix(prefix).is_some_and(|key| !key.is_empty()));
        if !is_label && !SPREAD_ATTRIBUTES.contains(&spread.as_str()) {
            return Err(HttpError::field(
                &path,
                format!("{spread:?} is unknown: node.labels.KEY or engine.labels.KEY is wanted"),
            ));
        }
        placement.preferences.push(Preference { spread });
    }
    for platform in json.platforms.unwrap_or_default() {
        placement.platforms.push(Platform {
            os: platform.os.unwrap_or_default(),
            architecture: platform.architecture.unwrap_or_default(),
        });
    }
    Ok(placement)
}

/// Write a placement.
pub(super) fn placement_json(placement: &Placement) -> types::Placement {
    let preference = |p: &Preference| types::Preference {
        spread: Some(SpreadOver { spread_descriptor: Some(p.spread.clone()) }),
    };
    let platform =
        |p: &Platform| types::Platform { architecture: filled(&p.architecture), os: filled(&p.os) };
    types::Placement {
        constraints: filled(&placement.constraints.iter().map(ToString::to_string).collect()),
        preferences: filled(&placement.preferences.iter().map(preference).collect()),
        max_replicas: filled(&signed(placement.max_replicas)),
        platforms: filled(&placement.platforms.iter().map(platform).collect()),
    }
}
