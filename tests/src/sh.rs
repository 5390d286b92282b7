//! Commands of the machine, each with a limit on how long it may take.

use std::ffi::OsStr;
use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How often a running command is looked at.
const POLL: Duration = Duration::from_millis(3);

/// What a command left behind.
#[derive(Debug, Clone)]
pub struct Output {
    /// Its exit code; none if a signal ended it.
    pub code: Option<i32>,
    /// What it wrote.
    pub stdout: String,
    /// What it wrote to the other stream.
    pub stderr: String,
    /// How long it took.
    pub took: Duration,
}

impl Output {
    /// Whether it ended well.
    pub fn ok(&self) -> bool {
        self.code == Some(0)
    }

    /// Both streams, for messages.
    pub fn text(&self) -> String {
        format!("{}{}", self.stdout, self.stderr).trim().to_owned()
    }
}

/// A command without this program's own settings: `node` and `shoal` would take them for theirs.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SHOAL_")) {
        command.env_remove(name);
    }
    command
}

/// Run a command to its end, however it ends.
///
/// # Errors
/// It cannot be started, or is still running after `limit` (it is killed then).
pub fn run(command: &mut Command, limit: Duration) -> Result<Output> {
    let name = format!("{command:?}");
    let begun = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {name}"))?;
    let stdout = drain(child.stdout.take());
    let stderr = drain(child.stderr.take());
    let status = wait(&mut child, limit);
    if status.is_none() {
        child.kill().ok();
        child.wait().ok();
        bail!("still running after {limit:?}: {name}");
    }
    Ok(Output {
        code: status.and_then(|status| status.code()),
        stdout: collect(stdout),
        stderr: collect(stderr),
        took: begun.elapsed(),
    })
}

/// Run a command that must end well, and take what it wrote.
///
/// # Errors
/// As [`run`], or it ended with another code than 0.
pub fn must(command: &mut Command, limit: Duration) -> Result<String> {
    let name = format!("{command:?}");
    let output = run(command, limit)?;
    if !output.ok() {
        bail!("{name} ended with {:?}: {}", output.code, output.text());
    }
    Ok(output.stdout)
}

/// Wait for a child at most so long.
pub fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + limit;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if Instant::now() < deadline => thread::sleep(POLL),
            _ => return None,
        }
    }
}

/// Read a stream to its end beside the command, lest a full pipe stops it.
fn drain<R: Read + Send + 'static>(stream: Option<R>) -> Option<thread::JoinHandle<Vec<u8>>> {
    stream.map(|mut stream| {
        thread::spawn(move || {
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).ok();
            bytes
        })
    })
}

fn collect(reader: Option<thread::JoinHandle<Vec<u8>>>) -> String {
    let bytes = reader.and_then(|reader| reader.join().ok()).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_that_does_not_end_is_killed_and_named() {
        let failure = run(Command::new("sleep").arg("30"), Duration::from_millis(50)).unwrap_err();
        assert!(failure.to_string().contains("sleep"), "{failure}");
    }

    #[test]
    fn exit_code_and_both_streams_are_kept() {
        let output =
            run(Command::new("sh").args(["-c", "echo out; echo err >&2; exit 3"]), Duration::from_secs(5))
                .unwrap();
        assert_eq!(
            (output.code, output.stdout.as_str(), output.stderr.as_str()),
            (Some(3), "out\n", "err\n")
        );
        assert!(must(Command::new("sh").args(["-c", "exit 3"]), Duration::from_secs(5)).is_err());
    }
}
