//! Signals to a task's process group.

use std::io;

use crate::proc::ProcessId;

/// `SIGTERM`, `TERM` or a number.
pub(crate) fn signal_number(name: &str) -> Result<i32, String> {
    let unknown = || format!("stop signal: {name:?} is not known");
    if name.is_empty() {
        return Ok(libc::SIGTERM);
    }
    if let Ok(number) = name.parse::<i32>() {
        return if (1..=64).contains(&number) { Ok(number) } else { Err(unknown()) };
    }
    let upper = name.to_ascii_uppercase();
    let short = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(offset) = short.strip_prefix("RTMIN+") {
        let number = offset.parse::<i32>().map_err(|_| unknown())?;
        return if (0..=30).contains(&number) { Ok(34 + number) } else { Err(unknown()) };
    }
    Ok(match short {
        "HUP" => libc::SIGHUP,
        "INT" => libc::SIGINT,
        "QUIT" => libc::SIGQUIT,
        "ABRT" => libc::SIGABRT,
        "KILL" => libc::SIGKILL,
        "USR1" => libc::SIGUSR1,
        "USR2" => libc::SIGUSR2,
        "ALRM" => libc::SIGALRM,
        "TERM" => libc::SIGTERM,
        "CONT" => libc::SIGCONT,
        "WINCH" => libc::SIGWINCH,
        "RTMIN" => 34,
        _ => return Err(unknown()),
    })
}

/// Send a signal to the group that the process leads, if it is still the one we started. One that is gone is fine.
pub(crate) fn signal(process: &ProcessId, number: i32) -> io::Result<()> {
    let Some(group) = i32::try_from(process.pid).ok().filter(|pid| *pid > 1) else {
        return Ok(());
    };
    if !process.is_alive() {
        return Ok(());
    }
    // SAFETY: kill takes numbers alone; the group is that of a process which we started and which still runs.
    sent(unsafe { libc::kill(-group, number) })
}

/// Kill single processes, for those that left the group but not the control group.
pub(crate) fn kill_all(pids: &[i32]) {
    for pid in pids.iter().filter(|pid| **pid > 1) {
        // SAFETY: kill takes numbers alone; the pids were just read from a control group of ours.
        let _ = sent(unsafe { libc::kill(*pid, libc::SIGKILL) });
    }
}

fn sent(result: i32) -> io::Result<()> {
    if result == 0 {
        return Ok(());
    }
    match io::Error::last_os_error() {
        error if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        error => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_known_by_name_and_number() {
        for (name, number) in [("", 15), ("SIGTERM", 15), ("term", 15), ("9", 9), ("SIGRTMIN+3", 37)] {
            assert_eq!(signal_number(name), Ok(number), "{name}");
        }
        for name in ["SIGNONE", "0", "65", "-1"] {
            assert!(signal_number(name).is_err(), "{name}");
        }
    }
}
