//! The daemon on a host: starting, stopping and killing it.

use std::net::TcpStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::host::Host;
use crate::http::{self, Answer, Api};
use crate::{sh, wait};

/// Port of all traffic between nodes.
pub const NODE_PORT: u16 = 2377;
const METRICS_PORT: u16 = 9323;
const START_MAX: Duration = Duration::from_secs(10);
/// As long as the systemd unit gives it.
const STOP_MAX: Duration = Duration::from_secs(30);

/// Where the built programs are: `SHOAL_BIN_DIR`, or beside this one.
///
/// # Errors
/// They are not there.
pub fn binary(name: &str) -> Result<PathBuf> {
    let folders = match std::env::var_os("SHOAL_BIN_DIR") {
        Some(folder) => vec![PathBuf::from(folder)],
        None => {
            let myself = std::env::current_exe()?;
            myself.ancestors().skip(1).take(2).map(PathBuf::from).collect()
        }
    };
    folders.iter().map(|folder| folder.join(name)).find(|file| file.is_file()).ok_or_else(|| {
        anyhow!("no {name} in {folders:?}: build it (cargo build -p shoal), or set SHOAL_BIN_DIR")
    })
}

impl Host {
    /// Socket of the node's API.
    pub fn node_socket(&self) -> PathBuf {
        self.dir().join("shoal.sock")
    }

    /// The node's data folder.
    pub fn node_data(&self) -> PathBuf {
        self.dir().join("node")
    }

    /// The node's log.
    pub fn node_log(&self) -> PathBuf {
        self.dir().join("node.log")
    }

    fn node_pid_file(&self) -> PathBuf {
        self.dir().join("node.pid")
    }

    /// Start the node with the lab's flags and these, and wait until its API answers.
    ///
    /// # Errors
    /// It ends, or does not answer in time.
    pub fn start_node(&mut self, more: &[&str]) -> Result<Duration> {
        ensure!(self.node.is_none(), "the node of h{} runs already", self.number());
        let begun = Instant::now();
        let mut program = vec![binary("node")?.display().to_string()];
        // Everybody's address of the same kind as its own.
        let anybody = if self.address().contains(':') { "[::]" } else { "0.0.0.0" };
        let flags = [
            ("--data-dir", self.node_data().display().to_string()),
            ("--listen", format!("{anybody}:{NODE_PORT}")),
            ("--advertise", self.address_with(NODE_PORT)),
            ("--api", format!("unix://{}", self.node_socket().display())),
            ("--engine", format!("unix://{}", self.engine_socket().display())),
            ("--metrics", self.metrics_address()),
            ("--log-format", "json".to_owned()),
        ];
        program.extend(flags.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]));
        program.extend(more.iter().map(|&flag| flag.to_owned()));
        self.node = Some(self.inside().spawn(&program, &self.node_log(), &self.node_pid_file())?);
        self.await_node()?;
        Ok(begun.elapsed())
    }

    fn await_node(&mut self) -> Result<()> {
        let (number, log) = (self.number(), self.node_log());
        let api = Api::new(&self.node_socket(), Duration::from_secs(5));
        let child = &mut self.node;
        let (answer, _) =
            wait::until(&format!("the node of h{number}"), START_MAX, Duration::from_millis(10), || {
                if let Some(Ok(Some(status))) = child.as_mut().map(std::process::Child::try_wait) {
                    return Ok(Err(status));
                }
                let answer = api.call("GET", "/_ping", None)?;
                ensure!(answer.status == 200, "_ping answered {}", answer.status);
                Ok(Ok(()))
            })
            .with_context(|| format!("see {}", log.display()))?;
        if let Err(status) = answer {
            self.node = None;
            bail!("the node of h{number} ended ({status}); see {}", log.display());
        }
        Ok(())
    }

    /// kill -9 of the node.
    ///
    /// # Errors
    /// It does not run.
    pub fn kill_node(&mut self) -> Result<()> {
        let mut child = self.node.take().with_context(|| format!("no node on h{}", self.number()))?;
        if let Some(status) = child.try_wait()? {
            bail!("the node of h{} had ended by itself ({status})", self.number());
        }
        self.inside().signal("KILL", &self.node_pid_file())?;
        ensure!(sh::wait(&mut child, Duration::from_secs(10)).is_some(), "the node outlived kill -9");
        Ok(())
    }

    /// Stop the node in its tracks, as a starved machine does, or let it go on.
    ///
    /// # Errors
    /// It does not run.
    pub fn freeze_node(&self, freeze: bool) -> Result<()> {
        self.inside().signal(if freeze { "STOP" } else { "CONT" }, &self.node_pid_file())
    }

    /// Stop the node cleanly; how long it took.
    ///
    /// # Errors
    /// It does not run, does not end in time, or ends with another code than 0.
    pub fn stop_node(&mut self) -> Result<Duration> {
        let mut child = self.node.take().with_context(|| format!("no node on h{}", self.number()))?;
        let begun = Instant::now();
        self.inside().signal("TERM", &self.node_pid_file())?;
        let Some(status) = sh::wait(&mut child, STOP_MAX) else {
            self.inside().signal("KILL", &self.node_pid_file())?;
            bail!("the node of h{} did not stop within {STOP_MAX:?} of SIGTERM", self.number());
        };
        ensure!(status.success(), "stopped, the node of h{} ended with {status}", self.number());
        Ok(begun.elapsed())
    }

    /// Whether the node is there, as far as the lab started and killed it.
    pub fn has_node(&self) -> bool {
        self.node.is_some()
    }

    /// Resident memory of the node, in bytes.
    ///
    /// # Errors
    /// It does not run.
    pub fn node_memory(&self) -> Result<u64> {
        self.memory(&self.node_pid_file())
    }

    /// Resident memory of the engine's daemon, in bytes.
    ///
    /// # Errors
    /// It does not run.
    pub fn engine_memory(&self) -> Result<u64> {
        self.memory(&self.dir().join("engine.pid"))
    }

    fn memory(&self, pid_file: &std::path::Path) -> Result<u64> {
        let pid = std::fs::read_to_string(pid_file)?;
        let status = self.inside().run(&["cat", &format!("/proc/{}/status", pid.trim())])?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kilobytes: u64 = line.trim().trim_end_matches(" kB").trim().parse()?;
        Ok(kilobytes * 1024)
    }

    /// Give the node a data folder that holds no more than so many bytes. Before its start.
    ///
    /// # Errors
    /// The mount fails.
    pub fn limit_node_data(&self, bytes: u64) -> Result<()> {
        ensure!(self.node.is_none(), "the node of h{} runs", self.number());
        let folder = self.node_data().display().to_string();
        self.inside()
            .script(&format!("mkdir -p {folder}; mount -t tmpfs -o size={bytes} none {folder}"))
            .map(drop)
    }

    /// Forget the node's data, and any limit on it.
    pub(super) fn wipe_node(&self) -> Result<()> {
        let folder = self.node_data().display().to_string();
        self.inside().script(&format!("umount {folder} 2>/dev/null || true; rm -rf {folder}")).map(drop)
    }

    /// What the node tells Prometheus.
    ///
    /// # Errors
    /// It does not answer.
    pub fn metrics(&self) -> Result<Answer> {
        self.http(&self.metrics_address(), "/metrics")
    }

    /// Where the node tells it.
    pub fn metrics_address(&self) -> String {
        self.address_with(METRICS_PORT)
    }

    /// Read a page over TCP, from this host.
    ///
    /// # Errors
    /// Nobody answers.
    pub fn http(&self, to: &str, path: &str) -> Result<Answer> {
        self.inside().in_network(|| {
            let limit = Duration::from_secs(5);
            let stream = TcpStream::connect_timeout(&to.parse()?, limit)?;
            http::exchange(
                stream,
                |stream, left| stream.set_read_timeout(Some(left)),
                limit,
                "GET",
                path,
                None,
            )
        })
    }
}
