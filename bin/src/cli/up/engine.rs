//! The local Docker engine: is it there, does it have the image, what did we leave on it.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use hyper::Method;
use serde_json::Value;

use super::image::{DIGEST_LABEL, IMAGE, Image, PROGRAM};
use crate::cli::client::{Client, encode, filters};
use crate::cli::error::{CliError, Outcome};
use crate::cli::host::Host;
use crate::cli::output::{items, text};

const SOCKET: &str = "unix:///var/run/docker.sock";
/// The embedded runtime's name.
pub(crate) const PROCESS: &str = "process";
const IMPORT_TIMEOUT: Duration = Duration::from_secs(300);
const NODE_LABEL: &str = "com.docker.swarm.node.id";

/// What runs the containers, and why if it was not asked for.
pub(crate) struct Choice {
    /// As `--engine` takes it.
    pub(crate) engine: String,
    /// Why there is no Docker engine.
    pub(crate) no_engine: Option<String>,
}

/// Take what the user said, or the local engine if it answers, or plain processes.
pub(crate) async fn choose(said: Option<&str>) -> Outcome<Choice> {
    match said {
        Some(PROCESS) => Ok(Choice { engine: PROCESS.into(), no_engine: None }),
        Some(engine) => match ping(engine).await {
            Ok(()) => Ok(Choice { engine: engine.into(), no_engine: None }),
            Err(why) => Err(CliError::Failed(format!(
                "the engine {engine} does not answer: {why}; --engine process goes without"
            ))),
        },
        None => {
            let docker_host = std::env::var("DOCKER_HOST").ok().filter(|host| host.starts_with("unix://"));
            let engine = docker_host.unwrap_or_else(|| SOCKET.to_owned());
            Ok(match ping(&engine).await {
                Ok(()) => Choice { engine, no_engine: None },
                Err(why) => Choice { engine: PROCESS.into(), no_engine: Some(format!("{engine}: {why}")) },
            })
        }
    }
}

/// A client of the engine; none for plain processes.
pub(crate) fn client(engine: &str) -> Option<Client> {
    let path = engine.strip_prefix("unix://")?;
    Some(Client::new(Host::Unix(PathBuf::from(path)), None))
}

async fn ping(engine: &str) -> Result<(), String> {
    let client = client(engine).ok_or("no unix:// address")?.patience(Duration::from_secs(10));
    match client.send(Method::GET, "/_ping", &[], Bytes::new()).await {
        Ok(_) => Ok(()),
        Err(crate::cli::ClientError::Unreachable { why, .. }) => Err(why),
        Err(error) => Err(error.to_string()),
    }
}

/// Whether the engine has this very image.
pub(crate) async fn has_image(engine: &Client, image: &Image) -> bool {
    let found = engine.get(&format!("/images/{IMAGE}/json")).await.unwrap_or_default();
    found.pointer("/Config/Labels").is_some_and(|labels| labels[DIGEST_LABEL] == *image.digest)
}

/// Import the image.
pub(crate) async fn import(engine: &Client, image: Image) -> Outcome {
    let old = engine.get(&format!("/images/{IMAGE}/json")).await.unwrap_or_default();
    let (repo, tag) = IMAGE.split_once(':').unwrap_or((IMAGE, "latest"));
    let mut path = format!("/images/create?fromSrc=-&repo={repo}&tag={tag}");
    let library_path = format!("ENV LD_LIBRARY_PATH={}", image.library_path);
    for change in [
        format!("ENTRYPOINT [\"{PROGRAM}\"]"),
        format!("LABEL {DIGEST_LABEL}={}", image.digest),
        if image.library_path.is_empty() { String::new() } else { library_path },
    ] {
        if !change.is_empty() {
            path.push_str(&format!("&changes={}", encode(&change)));
        }
    }
    let headers = [("content-type", "application/x-tar".to_owned())];
    let answer = engine
        .clone()
        .patience(IMPORT_TIMEOUT)
        .send(Method::POST, &path, &headers, Bytes::from(image.tar))
        .await?;
    // The engine answers 200 before it has read the archive; what went wrong is in the stream.
    for line in answer.body.split(|byte| *byte == b'\n') {
        let progress: Value = serde_json::from_slice(line).unwrap_or_default();
        if let Some(error) = progress["error"].as_str() {
            return Err(CliError::Failed(format!("the engine did not take the demo image: {error}")));
        }
    }
    if let Some(old) = old["Id"].as_str() {
        // Without its name it is of no use; containers that still use it keep it.
        let _ = engine.delete(&format!("/images/{old}")).await;
    }
    Ok(())
}

/// Remove the image unless something uses it.
pub(crate) async fn remove_image(engine: &Client) {
    let _ = engine.delete(&format!("/images/{IMAGE}")).await;
}

/// Remove all containers of these nodes, with their anonymous volumes. Says how many.
pub(crate) async fn remove_containers(engine: &Client, nodes: &[String]) -> Outcome<usize> {
    let mut removed = 0;
    for node in nodes {
        let label = format!("{NODE_LABEL}={node}");
        let found =
            engine.get(&format!("/containers/json?all=true&{}", filters(&[("label", &[&label])]))).await?;
        for container in items(&found) {
            match engine.delete(&format!("/containers/{}?force=true&v=true", text(container, "/Id"))).await {
                Ok(()) => removed += 1,
                Err(error) if error.is_missing() => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(removed)
}
