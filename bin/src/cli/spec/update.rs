//! A changed service's specification.

use serde_json::Value;

use super::super::args::UpdateArgs;
use super::super::error::{CliError, Outcome};
use super::super::words;
use super::json::{edit_list, edit_map, put, put_some};
use super::{places, shared};

/// Lay the flags over the specification that the node told us.
pub(crate) fn update(spec: &mut Value, flags: &UpdateArgs, env_add: &[String]) -> Outcome {
    put_some(spec, "TaskTemplate/ContainerSpec/Image", flags.image.clone());
    if let Some(args) = &flags.args {
        let args = words::shell_words(args).map_err(CliError::Usage)?;
        put(spec, "TaskTemplate/ContainerSpec/Args", args);
    }
    if flags.force {
        let count = spec.pointer("/TaskTemplate/ForceUpdate").and_then(Value::as_u64).unwrap_or_default();
        put(spec, "TaskTemplate/ForceUpdate", count + 1);
    }
    edit_map(spec, "Labels", &flags.label_add, &flags.label_rm);
    edit_map(
        spec,
        "TaskTemplate/ContainerSpec/Labels",
        &flags.container_label_add,
        &flags.container_label_rm,
    );
    edit_list(spec, "TaskTemplate/ContainerSpec/Env", |list| {
        list.retain(|line| !flags.env_rm.iter().any(|key| variable(line) == key));
        replace(list, env_add.iter().map(|t| Value::from(t.as_str())), |a, b| variable(a) == variable(b));
    });
    edit_texts(spec, "TaskTemplate/ContainerSpec/Groups", &flags.group_add, &flags.group_rm);
    edit_texts(spec, "TaskTemplate/Placement/Constraints", &flags.constraint_add, &flags.constraint_rm);
    edit_list(spec, "TaskTemplate/Placement/Preferences", |list| {
        list.retain(|kept| !flags.placement_pref_rm.contains(kept));
        replace(list, flags.placement_pref_add.iter().cloned(), |a, b| a == b);
    });
    edit_list(spec, "TaskTemplate/ContainerSpec/Mounts", |list| {
        list.retain(|kept| !flags.mount_rm.iter().any(|target| kept["Target"] == **target));
        replace(list, flags.mount_add.iter().cloned(), |a, b| a["Target"] == b["Target"]);
    });
    edit_list(spec, "TaskTemplate/Networks", |list| {
        list.retain(|kept| !flags.network_rm.iter().any(|network| kept["Target"] == **network));
        replace(list, flags.network_add.iter().cloned(), |a, b| a["Target"] == b["Target"]);
    });
    let removes =
        |port: &Value| flags.publish_rm.iter().any(|rm| target(port) == (u64::from(rm.0), rm.1.as_str()));
    let replaces = |port: &Value| flags.publish_add.iter().any(|new| target(new) == target(port));
    let mut changed = places::ports(spec);
    changed.retain(|port| removes(port) || replaces(port));
    edit_list(spec, "EndpointSpec/Ports", |list| {
        list.retain(|kept| !removes(kept));
        replace(list, flags.publish_add.iter().cloned(), |a, b| target(a) == target(b));
    });
    places::into_labels(spec, &changed);
    shared::apply(spec, &flags.shared)
}

fn variable(line: &Value) -> &str {
    line.as_str().unwrap_or_default().split('=').next().unwrap_or_default()
}

fn target(port: &Value) -> (u64, &str) {
    (port["TargetPort"].as_u64().unwrap_or_default(), port["Protocol"].as_str().unwrap_or("tcp"))
}

fn edit_texts(spec: &mut Value, path: &str, add: &[String], remove: &[String]) {
    edit_list(spec, path, |list| {
        list.retain(|kept| !remove.iter().any(|text| *kept == **text));
        replace(list, add.iter().map(|t| Value::from(t.as_str())), |a, b| a == b);
    });
}

/// Put each new item in the place of the one it replaces, or at the end.
fn replace(list: &mut Vec<Value>, new: impl Iterator<Item = Value>, same: impl Fn(&Value, &Value) -> bool) {
    for item in new {
        match list.iter_mut().find(|old| same(old, &item)) {
            Some(old) => *old = item,
            None => list.push(item),
        }
    }
}
