//! From a task to a process: what is run, as whom, where, and under which shell.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use shoal_core::model::{NodeId, Task};
use shoal_core::task::Expansion;
use tokio::process::{Child, Command};

use crate::cgroup;
use crate::group::signal_number;
use crate::record::Folder;
use crate::refuse::impossible;
use crate::user::{self, User};

const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Its standard input is the exit file, which it keeps as descriptor 3: so the file needs no path that the task's user may walk.
/// Signals to the group reach the program; the shell only notes them (`trap :` is undone in the program, an ignored signal would
/// be inherited). At last it ends what the program left behind in the group, as a container's end does.
const SHELL: &str = r#"exec 3<&0 </dev/null
trap : 1 2 3 10 12 14 15 28 "$1"
shift
echo "pid $$" >&3
"$@" 3<&-
code=$?
echo "exit $code" >&3
kill -9 0
"#;

/// What is to be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Launch {
    arguments: Vec<String>,
    env: BTreeMap<String, String>,
    dir: PathBuf,
    user: Option<User>,
    stop_signal: i32,
}

impl Launch {
    /// Everything that can be known before the start is checked here.
    pub(crate) fn of(
        task: &Task,
        node: NodeId,
        hostname: &str,
        programs: &BTreeMap<String, Vec<String>>,
    ) -> Result<Self, String> {
        let refused = impossible(task);
        if !refused.is_empty() {
            return Err(format!("not possible without a container engine: {}", refused.join(", ")));
        }
        let expanded = Expansion::new(task, node, hostname).container();
        let spec = expanded.map_err(|error| error.to_string())?;
        let own = programs.get(&spec.image).filter(|_| spec.command.is_empty());
        let arguments = [own.unwrap_or(&spec.command).as_slice(), &spec.args].concat();
        let mut env = BTreeMap::from([("PATH".to_string(), PATH_DEFAULT.to_string())]);
        env.insert("HOSTNAME".into(), hostname.into());
        for line in &spec.env {
            let (key, value) = line.split_once('=').unwrap_or((line, ""));
            env.insert(key.into(), value.into());
        }
        let dir = PathBuf::from(if spec.dir.is_empty() { "/" } else { &spec.dir });
        if !dir.is_dir() {
            return Err(format!("the working folder {:?} is not there", spec.dir));
        }
        let Some(program) = arguments.first() else {
            return Err(format!(
                "no container engine here, so there is nothing to run in {:?}: a command is wanted",
                spec.image
            ));
        };
        if !is_there(program, &env["PATH"], &dir) {
            return Err(format!("the program {program:?} is not on this host"));
        }
        let user = (!spec.user.is_empty()).then(|| user::find(&spec.user)).transpose()?;
        let stop_signal = signal_number(&spec.stop_signal)?;
        Ok(Self { arguments, env, dir, user, stop_signal })
    }

    pub(crate) fn stop_signal(&self) -> i32 {
        self.stop_signal
    }

    /// Start it, in a process group of its own and in these control groups.
    pub(crate) fn spawn(&self, folder: &Folder, task: &Task, cgroups: &[PathBuf]) -> io::Result<Child> {
        let doors = cgroup::doors(cgroups)?;
        let mut command = std::process::Command::new("/bin/sh");
        command
            .args(["-c", SHELL, &task.id.to_string(), &self.stop_signal.to_string()])
            .args(&self.arguments)
            .env_clear()
            .envs(&self.env)
            .current_dir(&self.dir)
            .process_group(0)
            .stdin(Stdio::from(folder.exit_file()?))
            .stdout(folder.output("stdout.log")?)
            .stderr(folder.output("stderr.log")?);
        if let Some(user) = self.user {
            command.gid(user.gid).uid(user.uid);
        }
        let descriptors: Vec<i32> = doors.iter().map(AsRawFd::as_raw_fd).collect();
        // SAFETY: between fork and exec it only writes to descriptors that are open until the spawn is over, and
        // gives the node's own priority back.
        unsafe {
            command.pre_exec(move || {
                libc::setpriority(libc::PRIO_PROCESS, 0, 0);
                descriptors.iter().try_for_each(|door| join(*door))
            });
        }
        Command::from(command).kill_on_drop(false).spawn()
    }
}

/// The calling process joins a control group.
fn join(door: i32) -> io::Result<()> {
    // SAFETY: the descriptor is open, the buffer is one static byte.
    let written = unsafe { libc::write(door, b"0".as_ptr().cast(), 1) };
    if written == 1 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn is_there(program: &str, path: &str, dir: &Path) -> bool {
    if program.contains('/') {
        return dir.join(program).is_file();
    }
    path.split(':').any(|folder| dir.join(folder).join(program).is_file())
}
