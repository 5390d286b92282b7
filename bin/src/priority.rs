//! The node goes before what it runs: a host whose containers take every processor must still say that it lives,
//! or its tasks would be moved to hosts that then fare no better.

/// As other daemons that a host stands on; the process runtime starts its tasks without it.
const NICE: libc::c_int = -10;

/// Ask the kernel for it. Threads that start later inherit it; without the right to ask, all stays as it is.
pub fn raise() {
    // SAFETY: takes numbers alone; 0 is the calling thread.
    if unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) } != 0 {
        let error = std::io::Error::last_os_error();
        tracing::debug!(%error, "the node runs with no more priority than what it starts");
    }
}
