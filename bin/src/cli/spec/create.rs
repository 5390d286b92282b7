//! A new service's specification.

use serde_json::{Value, json};

use super::super::args::CreateArgs;
use super::super::error::Outcome;
use super::json::{edit_list, edit_map, put, put_some};
use super::{places, shared};
use crate::cli::args::Mode;

/// The body of `POST /services/create`. Only what was asked for is written; the node lays it over its defaults.
pub(crate) fn create(flags: &CreateArgs, env: Vec<String>) -> Outcome<Value> {
    let mut spec = json!({"TaskTemplate": {"ContainerSpec": {"Image": flags.image()}}});
    put_some(&mut spec, "Name", flags.name.clone());
    match flags.mode {
        Mode::Replicated => put(&mut spec, "Mode", json!({"Replicated": {}})),
        Mode::Global => put(&mut spec, "Mode", json!({"Global": {}})),
    }
    let mut list = |path: &str, add: Vec<Value>| edit_list(&mut spec, path, |list| list.extend(add));
    let texts = |texts: &[String]| texts.iter().map(|t| Value::from(t.as_str())).collect::<Vec<_>>();
    list("TaskTemplate/ContainerSpec/Args", texts(flags.args()));
    list("TaskTemplate/ContainerSpec/Env", texts(&env));
    list("TaskTemplate/ContainerSpec/Groups", texts(&flags.group));
    list("TaskTemplate/ContainerSpec/Mounts", flags.mount.clone());
    list("TaskTemplate/Placement/Constraints", texts(&flags.constraint));
    list("TaskTemplate/Placement/Preferences", flags.placement_pref.clone());
    list("EndpointSpec/Ports", flags.publish.clone());
    list("TaskTemplate/Networks", flags.network.clone());
    edit_map(&mut spec, "Labels", &flags.label, &[]);
    edit_map(&mut spec, "TaskTemplate/ContainerSpec/Labels", &flags.container_label, &[]);
    places::into_labels(&mut spec, &[]);
    shared::apply(&mut spec, &flags.shared)?;
    Ok(spec)
}
