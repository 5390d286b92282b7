//! The nodes' processes: started apart from this one, and stopped only if they are surely ours.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::layout::ProcessId;
use crate::cli::error::{CliError, Outcome};

const POLL: Duration = Duration::from_millis(20);
const LOG_TAIL_BYTES: usize = 4096;
const LOG_TAIL_LINES: usize = 8;

/// The `node` beside this executable.
pub(crate) fn node_binary() -> Outcome<PathBuf> {
    let own = std::env::current_exe().map_err(CliError::failed)?;
    let node = own.with_file_name("node");
    if node.is_file() {
        return Ok(node);
    }
    Err(CliError::Failed(format!(
        "the daemon {} is missing: build both with `cargo build --release`",
        node.display()
    )))
}

/// Start a program in a session of its own, its output appended to a log; it outlives this process.
pub(crate) fn spawn(program: &Path, args: &[String], log: &Path) -> Outcome<ProcessId> {
    let failed = |what: &str, e: std::io::Error| CliError::Failed(format!("cannot {what}: {e}"));
    let out = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(log)
        .map_err(|e| failed(&format!("open {}", log.display()), e))?;
    let err = out.try_clone().map_err(|e| failed("share the log", e))?;
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(out).stderr(err).current_dir("/");
    for (name, _) in std::env::vars_os() {
        // The daemon refuses variables that it does not know, and its settings are all flags here.
        if name.to_string_lossy().starts_with("SHOAL_") {
            command.env_remove(name);
        }
    }
    // SAFETY: between fork and exec only setsid is called, which is async-signal-safe.
    unsafe {
        command.pre_exec(|| if libc::setsid() < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) });
    }
    let child = command.spawn().map_err(|e| failed(&format!("start {}", program.display()), e))?;
    let pid = i32::try_from(child.id()).map_err(CliError::failed)?;
    let started = stat(pid).map(|stat| stat.start_ticks);
    let start_ticks = started
        .ok_or_else(|| CliError::failed(format!("process {pid} ended at once; see {}", log.display())))?;
    Ok(ProcessId { pid, start_ticks })
}

/// What the kernel says of a process.
struct Stat {
    state: char,
    start_ticks: u64,
}

fn stat(pid: i32) -> Option<Stat> {
    parse_stat(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The name, in brackets, may hold anything; the fields after the last bracket are numbered from 3.
fn parse_stat(text: &str) -> Option<Stat> {
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let start_ticks = fields.nth(18)?.parse().ok()?;
    Some(Stat { state, start_ticks })
}

/// Whether the process still runs, and is not another that got its id.
pub(crate) fn is_running(process: ProcessId) -> bool {
    stat(process.pid)
        .is_some_and(|stat| stat.start_ticks == process.start_ticks && !matches!(stat.state, 'Z' | 'X'))
}

fn is_node(process: ProcessId) -> bool {
    let exe = std::fs::read_link(format!("/proc/{}/exe", process.pid));
    // A rebuilt binary's old process says `node (deleted)`.
    exe.is_ok_and(|exe| {
        exe.file_name().is_some_and(|name| name.to_string_lossy().trim_end_matches(" (deleted)") == "node")
    })
}

fn signal(process: ProcessId, signal: libc::c_int) {
    if is_running(process) {
        // SAFETY: kill touches no memory of ours. The id was just checked by its start time.
        unsafe { libc::kill(process.pid, signal) };
    }
}

/// Ask daemons to stop, all at once, and wait; what has not ended by then is killed. Says how many were killed.
pub(crate) async fn stop(processes: &[ProcessId], grace: Duration) -> usize {
    let ours: Vec<ProcessId> = processes.iter().copied().filter(|p| is_running(*p) && is_node(*p)).collect();
    stop_all(&ours, grace).await
}

async fn stop_all(ours: &[ProcessId], grace: Duration) -> usize {
    ours.iter().for_each(|process| signal(*process, libc::SIGTERM));
    let asked = Instant::now();
    while ours.iter().any(|process| is_running(*process)) && asked.elapsed() < grace {
        sleep(POLL).await;
    }
    let late: Vec<ProcessId> = ours.iter().copied().filter(|process| is_running(*process)).collect();
    late.iter().for_each(|process| signal(*process, libc::SIGKILL));
    let killed = Instant::now();
    while late.iter().any(|process| is_running(*process)) && killed.elapsed() < Duration::from_secs(5) {
        sleep(POLL).await;
    }
    late.len()
}

/// Stop plain processes that carry `NAME=VALUE` in their environment.
pub(crate) async fn stop_marked(mark: &str, grace: Duration) -> usize {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let own = std::process::id();
    let marked: Vec<ProcessId> = pids
        .filter(|pid| u32::try_from(*pid).is_ok_and(|pid| pid != own) && has_variable(*pid, mark))
        .filter_map(|pid| Some(ProcessId { pid, start_ticks: stat(pid)?.start_ticks }))
        .collect();
    stop_all(&marked, grace).await;
    marked.len()
}

fn has_variable(pid: i32, mark: &str) -> bool {
    let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environ.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
}

/// The last lines of a log, for an error.
pub(crate) fn log_tail(path: &Path) -> String {
    let bytes = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(LOG_TAIL_BYTES)..]).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].iter().map(|line| format!("  | {line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_confuse_the_start_time() {
        let text = "7 (a) R 1 (x)) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4242 1 1";
        let stat = parse_stat(text).expect("parses");
        assert_eq!((stat.state, stat.start_ticks), ('S', 4242));
        assert!(parse_stat("nonsense").is_none());
    }

    #[test]
    fn another_process_with_the_same_id_is_not_ours() {
        let pid = i32::try_from(std::process::id()).expect("pid");
        let start_ticks = stat(pid).expect("own").start_ticks;
        assert!(is_running(ProcessId { pid, start_ticks }));
        assert!(!is_running(ProcessId { pid, start_ticks: start_ticks + 1 }));
        assert!(!is_node(ProcessId { pid, start_ticks }));
    }

    #[tokio::test]
    async fn marked_processes_are_found_by_their_environment_and_stopped() {
        let mark = format!("SHOAL_DEMO_TEST={}", std::process::id());
        let (name, value) = mark.split_once('=').expect("pair");
        let mut child = Command::new("sleep").arg("60").env(name, value).spawn().expect("sleep");
        let waiter = std::thread::spawn(move || child.wait());
        // Between fork and exec the child still has our environment.
        let mut stopped = 0;
        for _ in 0..100 {
            stopped = stop_marked(&mark, Duration::from_secs(5)).await;
            if stopped > 0 {
                break;
            }
            sleep(POLL).await;
        }
        assert_eq!(stopped, 1);
        assert!(!waiter.join().expect("thread").expect("waited").success());
    }

    #[tokio::test]
    async fn a_started_program_logs_and_stops() {
        let dir = tempfile::tempdir().expect("tempdir");
        let log = dir.path().join("log");
        let args = ["-c".to_owned(), "echo hello; exec sleep 60".to_owned()];
        let process = spawn(Path::new("/bin/sh"), &args, &log).expect("starts");
        assert!(is_running(process));
        for _ in 0..200 {
            if log_tail(&log).contains("hello") {
                break;
            }
            sleep(POLL).await;
        }
        assert_eq!(log_tail(&log), "  | hello\n");
        // Its executable is not called node, so `stop` must leave it alone.
        assert_eq!(stop(&[process], Duration::from_millis(50)).await, 0);
        assert!(is_running(process));
        stop_all(&[process], Duration::from_secs(5)).await;
        assert!(!is_running(process));
    }
}
