//! What the tests on a real engine share: an image made from this machine's busybox, tasks, a socket that can be cut.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use shoal_core::model::{
    ContainerSpec, Meta, NodeId, ServiceId, Slot, Task, TaskId, TaskSpec, TaskState, TaskStatus,
};
use shoal_core::task::Progress;
use shoal_runtime_docker::DockerController;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::AbortHandle;

/// Path of the engine's socket; another engine than the machine's own can be named.
pub(crate) fn socket() -> String {
    std::env::var("SHOAL_TEST_ENGINE").unwrap_or_else(|_| "/var/run/docker.sock".into())
}

/// The plain client on that engine.
pub(crate) fn docker(args: &[&str]) -> Command {
    let mut command = Command::new("docker");
    command.arg("-H").arg(format!("unix://{}", socket())).args(args);
    command
}

/// An image with busybox alone; removed with its last user.
pub(crate) struct Image(pub(crate) String);

impl Drop for Image {
    fn drop(&mut self) {
        let _ = docker(&["rmi", "-f", &self.0]).stdout(Stdio::null()).status();
    }
}

/// The image, or nothing (and a line that says so) where there is no engine to test on.
pub(crate) fn image(test: &str) -> Option<Arc<Image>> {
    static SHARED: Mutex<Weak<Image>> = Mutex::new(Weak::new());
    let socket = socket();
    if !Path::new(&socket).exists() || !Path::new("/bin/busybox").exists() {
        println!("SKIPPED {test}: no {socket} or no static /bin/busybox here");
        return None;
    }
    let mut shared = SHARED.lock().unwrap();
    if let Some(image) = shared.upgrade() {
        return Some(image);
    }
    let name = format!("shoaltest-runtime-{}:1", std::process::id());
    let script = format!("tar -C / -c bin/busybox | docker -H unix://{socket} import - {name}");
    let status = Command::new("sh").args(["-c", &script]).stdout(Stdio::null()).status().unwrap();
    assert!(status.success(), "docker import");
    let image = Arc::new(Image(name));
    *shared = Arc::downgrade(&image);
    Some(image)
}

fn unique() -> u128 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static COUNT: AtomicU64 = AtomicU64::new(1);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap();
    let random = u128::from_str_radix(&boot.trim().replace('-', ""), 16).unwrap();
    (random & !0xffff_ffff) | u128::from(count << 12)
}

/// A node of its own for each test, and its controller on `socket`.
pub(crate) fn controller(socket: &str) -> DockerController {
    DockerController::connect(socket, NodeId::from_u128(unique()), "thishost")
}

pub(crate) fn task(container: ContainerSpec) -> Task {
    Task {
        meta: Meta::default(),
        id: TaskId::from_u128(unique()),
        service_id: ServiceId::from_u128(3),
        service_name: "shoaltest".into(),
        slot: Slot::Replica(1),
        node_id: None,
        spec: Arc::new(TaskSpec { container, ..TaskSpec::default() }),
        spec_version: 1,
        ports: Vec::new(),
        networks: Vec::new(),
        desired: TaskState::Running,
        start_after: None,
        status: TaskStatus::default(),
    }
}

pub(crate) fn program(image: &Image, args: &[&str]) -> ContainerSpec {
    ContainerSpec {
        image: image.0.clone(),
        command: vec!["/bin/busybox".into()],
        args: args.iter().map(ToString::to_string).collect(),
        stop_grace_period: Some(Duration::from_secs(1)),
        ..ContainerSpec::default()
    }
}

pub(crate) fn silent() -> Progress {
    Arc::new(|_| {})
}

/// A socket before the engine's that can be cut, made to hang, and mended.
pub(crate) struct Cable {
    pub(crate) path: PathBuf,
    folder: tempfile::TempDir,
    work: Option<AbortHandle>,
}

impl Cable {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { path: folder.path().join("engine.sock"), folder, work: None }
    }

    pub(crate) fn socket(&self) -> &str {
        self.path.to_str().unwrap()
    }

    /// Connections in use break too.
    pub(crate) fn cut(&mut self) {
        if let Some(work) = self.work.take() {
            work.abort();
        }
        let _ = std::fs::remove_file(&self.path);
    }

    pub(crate) fn mend(&mut self) {
        self.cut();
        let listener = UnixListener::bind(&self.path).unwrap();
        let work = tokio::spawn(async move {
            let mut pipes = tokio::task::JoinSet::new();
            loop {
                let (mut near, _) = listener.accept().await.unwrap();
                pipes.spawn(async move {
                    let mut far = UnixStream::connect(socket()).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                });
            }
        });
        self.work = Some(work.abort_handle());
    }

    /// Takes connections and never answers.
    pub(crate) fn hang(&mut self) {
        self.cut();
        let listener = UnixListener::bind(&self.path).unwrap();
        let work = tokio::spawn(async move {
            let mut held = Vec::new();
            loop {
                held.push(listener.accept().await.unwrap());
            }
        });
        self.work = Some(work.abort_handle());
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        self.cut();
    }
}
