//! Tasks of Shoal as plain child processes, where no engine is.
//!
//! What runs is the task's command and arguments, directly on the host; the image is not looked at, but for names that
//! the node reserved for programs of its own ([`ProcessController::with_program`]). A task gets a process group of its own, a
//! folder with its records and its output (`stdout.log`, `stderr.log`), its user, folder, environment, stop signal and grace, and limits
//! by cgroups where the host allows that; where it does not, the task runs without and says so. Whatever else a container could have
//! (mounts, other ports, other names for the host, …) is refused by name.
//!
//! The program runs under `/bin/sh`, which notes its exit code in a file: so a restarted node learns how a program ended
//! that is not its child any more. The shell leads the process group, lets signals pass by, and ends what the program left behind.

mod cgroup;
mod controller;
mod group;
mod launch;
mod proc;
mod record;
mod refuse;
mod user;

pub use controller::ProcessController;
