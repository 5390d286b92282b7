//! Flags that create and update share: each given one sets its value.

use std::collections::BTreeMap;
use std::path::Path;

use clap::ValueEnum;
use serde_json::{Value, json};

use super::super::args::SharedArgs;
use super::super::error::{CliError, Outcome};
use super::super::words;
use super::json::{put, put_some};

const ENV_FILE_BYTES_MAX: u64 = 4 << 20;

fn word<T: ValueEnum>(value: T) -> String {
    value.to_possible_value().map(|v| v.get_name().to_owned()).unwrap_or_default()
}

/// Lay the flags over the specification.
pub(crate) fn apply(spec: &mut Value, flags: &SharedArgs) -> Outcome {
    if let Some(replicas) = flags.replicas {
        if spec.pointer("/Mode/Global").is_some_and(Value::is_object) {
            return Err(CliError::Usage("--replicas fits services of mode replicated only".into()));
        }
        put(spec, "Mode/Replicated/Replicas", replicas);
    }
    container(spec, flags)?;
    health(spec, flags);
    resources(spec, flags);
    restart(spec, flags);
    update_config(spec, flags);
    put_some(spec, "EndpointSpec/Mode", flags.endpoint_mode.map(word));
    put_some(spec, "TaskTemplate/Placement/MaxReplicas", flags.replicas_max_per_node);
    Ok(())
}

fn container(spec: &mut Value, flags: &SharedArgs) -> Outcome {
    let mut set = |name: &str, value: Option<Value>| {
        put_some(spec, &format!("TaskTemplate/ContainerSpec/{name}"), value);
    };
    set("StopSignal", flags.stop_signal.clone().map(Value::from));
    set("StopGracePeriod", flags.stop_grace_period.map(Value::from));
    set("User", flags.user.clone().map(Value::from));
    set("Dir", flags.workdir.clone().map(Value::from));
    set("Hostname", flags.hostname.clone().map(Value::from));
    set("Init", flags.init.map(Value::from));
    set("TTY", flags.tty.map(Value::from));
    set("ReadOnly", flags.read_only.map(Value::from));
    if let Some(command) = &flags.entrypoint {
        set("Command", Some(Value::from(words::shell_words(command).map_err(CliError::Usage)?)));
    }
    Ok(())
}

fn health(spec: &mut Value, flags: &SharedArgs) {
    const AT: &str = "TaskTemplate/ContainerSpec/Healthcheck";
    if flags.no_healthcheck {
        put(spec, AT, json!({"Test": ["NONE"]}));
        return;
    }
    let asked = flags.health_cmd.is_some()
        || flags.health_interval.is_some()
        || flags.health_timeout.is_some()
        || flags.health_retries.is_some()
        || flags.health_start_period.is_some();
    let off = spec.pointer(&format!("/{AT}/Test/0")).and_then(Value::as_str) == Some("NONE");
    if asked && off {
        put(spec, AT, json!({}));
    }
    put_some(spec, &format!("{AT}/Test"), flags.health_cmd.as_ref().map(|c| json!(["CMD-SHELL", c])));
    put_some(spec, &format!("{AT}/Interval"), flags.health_interval);
    put_some(spec, &format!("{AT}/Timeout"), flags.health_timeout);
    put_some(spec, &format!("{AT}/Retries"), flags.health_retries);
    put_some(spec, &format!("{AT}/StartPeriod"), flags.health_start_period);
}

fn resources(spec: &mut Value, flags: &SharedArgs) {
    let mut set = |name: &str, value: Option<i64>| {
        put_some(spec, &format!("TaskTemplate/Resources/{name}"), value);
    };
    set("Limits/NanoCPUs", flags.limit_cpu);
    set("Limits/MemoryBytes", flags.limit_memory);
    set("Limits/Pids", flags.limit_pids);
    set("Reservations/NanoCPUs", flags.reserve_cpu);
    set("Reservations/MemoryBytes", flags.reserve_memory);
}

fn restart(spec: &mut Value, flags: &SharedArgs) {
    const AT: &str = "TaskTemplate/RestartPolicy";
    put_some(spec, &format!("{AT}/Condition"), flags.restart_condition.map(word));
    put_some(spec, &format!("{AT}/Delay"), flags.restart_delay);
    put_some(spec, &format!("{AT}/MaxAttempts"), flags.restart_max_attempts);
    put_some(spec, &format!("{AT}/Window"), flags.restart_window);
}

fn update_config(spec: &mut Value, flags: &SharedArgs) {
    let asked = flags.update_parallelism.is_some()
        || flags.update_delay.is_some()
        || flags.update_monitor.is_some()
        || flags.update_max_failure_ratio.is_some()
        || flags.update_order.is_some()
        || flags.update_failure_action.is_some();
    // The API reads a missing parallelism as 0, all at once; whoever sets another field alone means the default 1.
    if asked && spec.pointer("/UpdateConfig/Parallelism").is_none() {
        put(spec, "UpdateConfig/Parallelism", 1);
    }
    put_some(spec, "UpdateConfig/Parallelism", flags.update_parallelism);
    put_some(spec, "UpdateConfig/Delay", flags.update_delay);
    put_some(spec, "UpdateConfig/Monitor", flags.update_monitor);
    put_some(spec, "UpdateConfig/MaxFailureRatio", flags.update_max_failure_ratio);
    put_some(spec, "UpdateConfig/Order", flags.update_order.map(word));
    put_some(spec, "UpdateConfig/FailureAction", flags.update_failure_action.map(word));
}

/// `K=V` of files and flags; a later one of a key replaces an earlier one, in its place. `K` alone is taken from `here`.
pub(crate) fn environment(
    files: &[String],
    flags: &[String],
    here: &dyn Fn(&str) -> Option<String>,
) -> Outcome<Vec<String>> {
    let mut order: Vec<String> = Vec::new();
    let mut values: BTreeMap<String, String> = BTreeMap::new();
    let mut take = |line: &str| {
        let (key, value) = match line.split_once('=') {
            Some((key, value)) => (key, Some(value.to_owned())),
            None => (line, here(line)),
        };
        if key.is_empty() || key.contains(char::is_whitespace) {
            return Err(CliError::Usage(format!("the variable {key:?} has no proper name: write K=V")));
        }
        if let Some(value) = value
            && values.insert(key.to_owned(), value).is_none()
        {
            order.push(key.to_owned());
        }
        Ok(())
    };
    for file in files {
        for line in read_env_file(Path::new(file))?.lines() {
            let line = line.trim_start();
            if !line.is_empty() && !line.starts_with('#') {
                take(line)?;
            }
        }
    }
    for flag in flags {
        take(flag)?;
    }
    Ok(order.into_iter().map(|key| format!("{key}={}", values[&key])).collect())
}

fn read_env_file(path: &Path) -> Outcome<String> {
    use std::io::Read as _;
    let failed = |e: String| CliError::Usage(format!("cannot read --env-file {}: {e}", path.display()));
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(|e| failed(e.to_string()))?;
    file.take(ENV_FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(|e| failed(e.to_string()))?;
    if text.len() as u64 > ENV_FILE_BYTES_MAX {
        Err(failed("it is larger than 4 MiB".into()))
    } else {
        Ok(text)
    }
}
