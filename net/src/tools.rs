//! Runs the host's own tools for its network: `nft`, `ip`, `iptables`.

use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A tool must have done its work within this.
const TOOL_MAX: Duration = Duration::from_secs(10);
const TOOL_POLL: Duration = Duration::from_millis(2);
/// Most of a tool's words that are read.
const WORDS_MAX: u64 = 16 << 20;

/// Run a tool of the host. Returns what it says.
pub(crate) fn run(tool: &str, args: &[&str], input: &str) -> Result<String, String> {
    let child = Command::new(tool)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            format!("the program {tool} is missing on this host: networks need it, install its package")
        }
        _ => format!("{tool}: {error}"),
    })?;
    let input = input.to_owned();
    let pipe = child.stdin.take();
    let writer = std::thread::spawn(move || pipe.map(|mut pipe| pipe.write_all(input.as_bytes())));
    let reader = |pipe: Option<Box<dyn std::io::Read + Send>>| {
        std::thread::spawn(move || {
            let mut text = Vec::new();
            // What cannot be read is judged by the exit code.
            let _ = pipe.map(|pipe| pipe.take(WORDS_MAX).read_to_end(&mut text));
            String::from_utf8_lossy(&text).into_owned()
        })
    };
    let out = reader(child.stdout.take().map(|pipe| Box::new(pipe) as _));
    let err = reader(child.stderr.take().map(|pipe| Box::new(pipe) as _));
    let until = Instant::now() + TOOL_MAX;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break Ok(status),
            Ok(None) if Instant::now() < until => std::thread::sleep(TOOL_POLL),
            Ok(None) => {
                let _ = child.kill();
                let _ = child.wait();
                break Err(format!("{tool} did not end within {} s", TOOL_MAX.as_secs()));
            }
            Err(error) => break Err(format!("{tool}: {error}")),
        }
    };
    let _ = writer.join();
    let (out, err) = (out.join().unwrap_or_default(), err.join().unwrap_or_default());
    let status = status?;
    if status.success() {
        return Ok(out);
    }
    let words: String = err.trim().chars().take(400).collect();
    Err(format!("{tool} {}: {words}", args.join(" ")))
}

/// Have a rule of this number that leads what is selected to the routing table of the same number.
pub(crate) fn lead(family: &str, number: u32, selected: &[&str]) -> Result<(), String> {
    let number = number.to_string();
    if !run("ip", &[family, "rule", "show", "pref", &number], "")?.trim().is_empty() {
        return Ok(());
    }
    let rule = [&[family, "rule", "add", "pref", &number][..], selected, &["lookup", &number]].concat();
    run("ip", &rule, "").map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_that_is_missing_is_named() {
        let why = run("no-such-tool-at-all", &[], "").unwrap_err();
        assert!(why.contains("no-such-tool-at-all is missing on this host"), "{why}");
        assert!(run("sh", &["-c", "echo no >&2; exit 3"], "").unwrap_err().ends_with(": no"));
        assert_eq!(run("cat", &[], "a\nb").unwrap(), "a\nb");
    }
}
