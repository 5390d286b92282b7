//! One lab at a time on a machine, whoever asks.

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

const PATH: &str = "/var/tmp/shoal-lab.lock";
/// Longer than a whole run of the tests takes.
const WAIT_MAX: Duration = Duration::from_secs(90 * 60);
const POLL: Duration = Duration::from_millis(500);

/// Held by whoever has a lab up; the kernel gives it back when the process ends, however it ends.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// Wait for it.
    pub(super) fn take() -> Result<Self> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(PATH)
            .with_context(|| format!("opening {PATH}"))?;
        let begun = Instant::now();
        let mut told = false;
        // SAFETY: the descriptor is open for as long as `file` lives.
        while unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } != 0 {
            if begun.elapsed() > WAIT_MAX {
                bail!("another lab has been up for {WAIT_MAX:?} (lock {PATH})");
            }
            if !std::mem::replace(&mut told, true) {
                eprintln!("another lab is up on this machine: waiting for it");
            }
            thread::sleep(POLL);
        }
        Ok(Self { _file: file })
    }
}
