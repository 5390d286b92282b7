//! The demo service.

use std::time::Duration;

use bytes::Bytes;
use hyper::Method;
use serde_json::{Value, json};

use super::engine::PROCESS;
use super::image::{IMAGE, PROGRAM};
use crate::cli::args::ConvergeArgs;
use crate::cli::client::Client;
use crate::cli::error::{CliError, Outcome};
use crate::cli::host::Host;
use crate::cli::output::text;
use crate::cli::progress::{Goal, Watch};

/// The service's name.
pub(crate) const NAME: &str = "demo";
/// The port on which its containers answer.
pub(crate) const PORT: u16 = 8080;
/// The demo answers at once, unless its tasks come just now.
const ANSWER_MAX: Duration = Duration::from_secs(5);
const LINE_CHARS_MAX: usize = 80;
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

/// What a node answers at the demo's port, in one line: the name of a task of any node, or why there is none.
pub(crate) async fn answer(at: &str) -> String {
    let client = Client::new(Host::Plain(at.to_owned()), None).patience(ANSWER_MAX);
    match client.send(Method::GET, "/", &[], Bytes::new()).await {
        Ok(answer) => line(&answer.body),
        Err(error) => format!("({error})"),
    }
}

/// The first line of a page, as a terminal may show it.
fn line(page: &[u8]) -> String {
    let text = String::from_utf8_lossy(page);
    let first = text.lines().next().unwrap_or_default();
    first.chars().filter(|c| !c.is_control()).take(LINE_CHARS_MAX).collect()
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

    #[tokio::test]
    async fn a_nodes_answer_is_one_line_and_a_silent_one_says_why() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let at = listener.local_addr().expect("address").to_string();
        let serve = async {
            use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
            let (mut stream, _) = listener.accept().await.expect("a client");
            let _ = stream.read(&mut [0; 1024]).await;
            let page = b"HTTP/1.1 200 OK\r\ncontent-length: 13\r\n\r\ndemo.3.x\nmore";
            stream.write_all(page).await.expect("written");
        };
        let (said, ()) = tokio::join!(answer(&at), serve);
        assert_eq!(said, "demo.3.x");
        drop(listener);
        let said = answer(&at).await;
        assert!(said.starts_with('(') && said.contains(&at), "{said}");
        assert_eq!(line(b"a\x1b[31mb\xff\nc"), "a[31mb\u{fffd}");
    }
}
