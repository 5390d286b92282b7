//! The demo service.

use serde_json::{Value, json};

use super::engine::PROCESS;
use super::image::{IMAGE, PROGRAM};
use crate::cli::args::ConvergeArgs;
use crate::cli::client::Client;
use crate::cli::error::{CliError, Outcome};
use crate::cli::output::text;
use crate::cli::progress::{Goal, Watch};

/// The service's name.
pub(crate) const NAME: &str = "demo";
/// The port on which its containers answer.
pub(crate) const PORT: u16 = 8080;
const TIMEOUT_NANOS: i64 = 120_000_000_000;

/// What a plain process of the demo carries in its environment, so that `down` finds it though its node is gone.
pub(crate) fn mark(root: &std::path::Path) -> String {
    format!("SHOAL_DEMO_DIR={}", root.display())
}

/// The service's specification.
pub(crate) fn spec(engine: &str, replicas: u64, program: &str, mark: &str) -> Value {
    let task = format!("{}={{{{.Task.Name}}}}", crate::demo::TASK_VARIABLE);
    let container = if engine == PROCESS {
        // Plain processes share this host's ports, so each takes a free one.
        let args = ["demo-server", "--listen", "127.0.0.1:0"];
        json!({"Image": IMAGE, "Command": [program], "Args": args, "Env": [task, mark]})
    } else {
        let args = ["demo-server", "--listen", &format!("0.0.0.0:{PORT}")];
        json!({"Image": IMAGE, "Command": [PROGRAM], "Args": args, "Env": [task]})
    };
    let mut spec = json!({
        "Name": NAME,
        "TaskTemplate": {"ContainerSpec": container},
        "Mode": {"Replicated": {"Replicas": replicas}},
    });
    // A plain process listens where it finds room, so its port is not known beforehand.
    if engine != PROCESS {
        spec["EndpointSpec"] = json!({"Ports": [{"TargetPort": PORT, "PublishedPort": PORT}]});
    }
    spec
}

/// Create the service unless it is there, and wait until it runs.
pub(crate) async fn deploy(client: &Client, spec: &Value) -> Outcome {
    let id = match client.get(&format!("/services/{NAME}")).await {
        Ok(service) => text(&service, "/ID").to_owned(),
        Err(error) if error.is_missing() => {
            let created = client.post("/services/create", spec).await?;
            text(&created, "/ID").to_owned()
        }
        Err(error) => return Err(error.into()),
    };
    let flags = ConvergeArgs { timeout: Some(TIMEOUT_NANOS), ..ConvergeArgs::default() };
    Watch::new(client, &id, NAME, &flags).until(Goal::Reached).await
}

/// The program that runs as a plain process: this one.
pub(crate) fn program() -> Outcome<String> {
    let own = std::env::current_exe().map_err(CliError::failed)?;
    Ok(own.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_run_the_image_and_plain_processes_this_program() {
        let docker = spec("unix:///var/run/docker.sock", 6, "/bin/shoal", "M=1");
        let process = spec(PROCESS, 6, "/bin/shoal", "M=1");
        let container = |spec: &Value| spec["TaskTemplate"]["ContainerSpec"].clone();
        assert_eq!(container(&docker)["Command"], json!([PROGRAM]));
        assert_eq!(container(&process)["Command"], json!(["/bin/shoal"]));
        assert_eq!(container(&docker)["Env"], json!(["SHOAL_DEMO_TASK={{.Task.Name}}"]));
        assert_eq!(container(&process)["Env"][1], "M=1");
        assert_eq!(docker["Mode"]["Replicated"]["Replicas"], 6);
    }
}
