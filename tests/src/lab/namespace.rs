//! A world of its own for a host or for the switch: network, hostname, mounts and processes.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};

use crate::sh;

/// How long a small command inside may take.
const COMMAND_MAX: Duration = Duration::from_secs(30);

/// A resident process that keeps the namespaces, as process 1 of its own: when it ends, the kernel ends every process
/// inside, containers too. It ends when its input does, so that nothing outlives the process that made the lab.
#[derive(Debug)]
pub struct Namespace {
    keeper: Child,
    input: Option<ChildStdin>,
    pid: u32,
}

impl Namespace {
    /// Make one. `script` is run inside, in bash, before this returns.
    ///
    /// # Errors
    /// The namespaces or the script fail.
    pub fn start(hostname: &str, script: &str, log: &Path) -> Result<Self> {
        // Until /proc is mounted anew, it names processes as the world outside sees them.
        let program = format!(
            "set -e; read -r outside _ </proc/self/stat; mount -t proc proc /proc; hostname {hostname}; \
             ip link set lo up; {script}\necho \"$outside\"; while read -r _; do :; done"
        );
        let log_file = std::fs::File::create(log)?;
        let mut keeper = Command::new("unshare")
            .args([
                "--mount",
                "--uts",
                "--net",
                "--pid",
                "--fork",
                "--kill-child",
                "--propagation",
                "private",
            ])
            .args(["bash", "-c", &program])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log_file)
            .spawn()
            .context("starting unshare")?;
        let input = keeper.stdin.take();
        let mut line = String::new();
        if let Some(output) = keeper.stdout.take() {
            BufReader::new(output).read_line(&mut line)?;
        }
        let pid = line.trim().parse().with_context(|| {
            let said = std::fs::read_to_string(log).unwrap_or_default();
            format!("the namespaces of {hostname}: {said}")
        });
        match pid {
            Ok(pid) => Ok(Self { keeper, input, pid }),
            Err(error) => {
                keeper.kill().ok();
                keeper.wait().ok();
                Err(error)
            }
        }
    }

    /// The keeper, as the machine numbers it.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// A command that will run inside.
    pub fn command<I, S>(&self, program: I) -> Command
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let mut command = sh::command("nsenter");
        command
            .args(["--target", &self.pid.to_string(), "--mount", "--uts", "--net", "--pid", "--"])
            .args(program);
        command
    }

    /// Do something in its network. A socket stays in the network where it was made.
    ///
    /// # Errors
    /// The network cannot be entered, or what is done fails.
    pub fn in_network<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let net = std::fs::File::open(format!("/proc/{}/ns/net", self.pid))?;
        thread::scope(|scope| {
            // A thread of its own: its way back would be another thing that can fail.
            let done = scope.spawn(|| {
                // SAFETY: the descriptor is open; only this short-lived thread changes its namespace.
                let entered = unsafe { libc::setns(net.as_raw_fd(), libc::CLONE_NEWNET) } == 0;
                ensure!(entered, "entering the host's network");
                work()
            });
            done.join().map_err(|_| anyhow!("what is done in a host's network panicked"))?
        })
    }

    /// Run a command inside that must end well.
    ///
    /// # Errors
    /// It does not.
    pub fn run(&self, program: &[&str]) -> Result<String> {
        sh::must(&mut self.command(program), COMMAND_MAX)
    }

    /// Run a script inside that must end well.
    ///
    /// # Errors
    /// It does not.
    pub fn script(&self, script: &str) -> Result<String> {
        self.run(&["bash", "-ec", script])
    }

    /// Start a program that stays, its output into `log`, its number (as seen inside) into `pid_file`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn(&self, program: &[String], log: &Path, pid_file: &Path) -> Result<Child> {
        ensure!(!program.is_empty(), "no program");
        std::fs::remove_file(pid_file).ok();
        let output = std::fs::OpenOptions::new().create(true).append(true).open(log)?;
        let mut command = self.command(["bash", "-c", "echo $$ >\"$0\"; exec \"$@\""]);
        command.arg(pid_file).args(program);
        command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("starting {}", program[0]))
    }

    /// Send a signal to the process whose number `pid_file` holds.
    ///
    /// # Errors
    /// There is no such process.
    pub fn signal(&self, signal: &str, pid_file: &Path) -> Result<()> {
        let pid =
            std::fs::read_to_string(pid_file).with_context(|| format!("reading {}", pid_file.display()))?;
        self.run(&["bash", "-c", &format!("kill -{signal} {}", pid.trim())]).map(drop)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(self.input.take());
        if sh::wait(&mut self.keeper, Duration::from_secs(2)).is_none() {
            // With --kill-child the death of unshare is the death of all inside.
            self.keeper.kill().ok();
            self.keeper.wait().ok();
        }
    }
}
