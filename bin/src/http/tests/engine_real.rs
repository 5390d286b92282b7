//! Through the front door to this machine's own engine: attach, exec, import, logs. Skipped by name without one.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use super::fake::Fake;
use super::harness::Server;

const ENGINE: &str = "/var/run/docker.sock";

fn docker(server: &Server, args: &[&str]) -> Command {
    let mut command = Command::new("docker");
    command
        .args(args)
        .env("DOCKER_HOST", format!("unix://{}", server.socket().display()))
        .env("DOCKER_CONFIG", server.folder.path());
    command
}

/// Run with some input, off the test's own threads.
async fn run(mut command: Command, input: &'static [u8]) -> Output {
    let running = tokio::task::spawn_blocking(move || {
        use std::io::Write;
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let writer = std::thread::spawn(move || stdin.write_all(input));
        let output = child.wait_with_output().unwrap();
        let _ = writer.join();
        output
    });
    tokio::time::timeout(Duration::from_secs(120), running).await.expect("docker hangs").unwrap()
}

async fn ok(server: &Server, args: &[&str], input: &'static [u8]) -> Vec<u8> {
    let output = run(docker(server, args), input).await;
    assert!(output.status.success(), "docker {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// An image of a static busybox, made without a registry.
async fn import_image(server: &Server, tag: &str) -> bool {
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|p| Path::new(p).exists());
    let Some(busybox) = busybox else { return false };
    let root = server.folder.path().join("root");
    std::fs::create_dir_all(root.join("bin")).unwrap();
    std::fs::copy(busybox, root.join("bin/busybox")).unwrap();
    for name in ["sh", "cat", "sleep", "echo", "wc"] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(name)).unwrap();
    }
    let tar = server.folder.path().join("root.tar");
    let made = Command::new("tar")
        .args(["-C", &root.to_string_lossy(), "-cf", &tar.to_string_lossy(), "."])
        .status();
    assert!(made.unwrap().success());
    ok(server, &["import", &tar.to_string_lossy(), tag], b"").await;
    true
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_real_engine_is_served_through_the_front_door() {
    let name = "the_real_engine_is_served_through_the_front_door";
    if super::docker_client::docker_missing(name) {
        return;
    }
    if std::os::unix::net::UnixStream::connect(ENGINE).is_err() {
        eprintln!("{name}: skipped, because no Docker engine answers at {ENGINE}");
        return;
    }
    let server = Server::start(&Fake::manager(), Some(Path::new(ENGINE))).await;
    let version = ok(&server, &["version", "-f", "{{range .Server.Components}}{{.Name}} {{end}}"], b"").await;
    assert!(String::from_utf8_lossy(&version).contains("Shoal"));
    let state = ok(&server, &["info", "-f", "{{.Swarm.LocalNodeState}} {{.Driver}}"], b"").await;
    assert!(String::from_utf8_lossy(&state).starts_with("active "));
    let id = std::process::id();
    let (image, container) = (format!("shoal-front-door-test:{id}"), format!("shoal-front-door-test-{id}"));
    if !import_image(&server, &image).await {
        eprintln!("{name}: the rest skipped, because there is no static busybox here");
        return;
    }
    static INPUT: [u8; 200_000] = [b'x'; 200_000];
    // The whole input goes in, its end arrives, and the whole output comes back.
    let echoed = ok(&server, &["run", "--rm", "-i", "--network", "none", &image, "/bin/cat"], &INPUT).await;
    assert_eq!(echoed.len(), INPUT.len());
    let sleeping =
        ["run", "-d", "--init", "--network", "none", "--name", &container, &image, "/bin/sleep", "600"];
    ok(&server, &sleeping, b"").await;
    let counted = ok(&server, &["exec", "-i", &container, "/bin/wc", "-c"], &INPUT).await;
    let failed = run(docker(&server, &["exec", &container, "/bin/sh", "-c", "exit 3"]), b"").await;
    let listed = ok(&server, &["ps", "-q", "--filter", &format!("name={container}")], b"").await;
    let logs = ok(&server, &["logs", &container], b"").await;
    ok(&server, &["rm", "-f", &container], b"").await;
    let context = server.folder.path().join("context");
    std::fs::create_dir_all(&context).unwrap();
    std::fs::write(context.join("Dockerfile"), format!("FROM {image}\nCOPY Dockerfile /copied\nENV A=1\n"))
        .unwrap();
    let built = format!("{image}-built");
    let mut build = docker(&server, &["build", "-q", "-t", &built, &context.to_string_lossy()]);
    build.env("DOCKER_BUILDKIT", "0");
    let build = run(build, b"").await;
    ok(&server, &["image", "rm", "-f", &image, &built], b"").await;
    assert_eq!(String::from_utf8_lossy(&counted).trim(), "200000");
    assert_eq!(failed.status.code(), Some(3));
    assert!(!listed.is_empty() && logs.is_empty());
    assert!(build.status.success(), "{}", String::from_utf8_lossy(&build.stderr));
}
