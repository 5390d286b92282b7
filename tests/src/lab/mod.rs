//! Several hosts on one Linux machine, each with its own real Docker engine.
//!
//! Needs root, iproute2, nftables, docker.io and busybox-static ([`crate::requirements`]). A host is a set of namespaces under a
//! keeper process; when the keeper ends, so does everything on that host. Nothing of a lab is visible in the machine's own
//! network. One lab at a time is up on a machine.

mod host;
mod image;
mod leftovers;
mod lock;
mod namespace;
mod network;
mod node;

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};

pub use self::host::Host;
pub use self::image::NAMES as IMAGES;
pub use self::namespace::Namespace;
pub use self::network::{address, address_v6};
pub use self::node::{NODE_PORT, binary};
use crate::{requirements, sh};

/// How long one `docker` command may take, unless said otherwise.
pub const DOCKER_MAX: Duration = Duration::from_secs(60);

/// A lab that is up. Dropped, it is gone.
#[derive(Debug)]
pub struct Lab {
    dir: PathBuf,
    group: String,
    // Before the switch: dropped in this order.
    hosts: Vec<Host>,
    switch: network::Switch,
    _lock: lock::Lock,
}

impl Lab {
    /// Start `count` hosts with an engine and the test images each.
    ///
    /// # Errors
    /// The machine lacks something, or an engine does not start.
    pub fn up(count: usize) -> Result<Self> {
        if let Some(missing) = requirements::missing() {
            return Err(anyhow!("needs {missing}"));
        }
        let lock = lock::Lock::take()?;
        let base = std::env::var_os("SHOAL_LAB_DIR").map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from);
        leftovers::clean(&base);
        let group = format!("{}{}", leftovers::PREFIX, lab_id());
        let dir = base.join(&group);
        std::fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        std::fs::write(dir.join("resolv.conf"), "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")?;
        std::fs::write(dir.join("daemon.json"), "{}\n")?;
        let switch = network::Switch::start(&dir)?;
        let mut lab = Self { dir, group, hosts: Vec::new(), switch, _lock: lock };
        for number in 1..=count {
            let host = Host::start(&lab.dir, &lab.group, number)?;
            lab.switch.connect(number, host.inside())?;
            lab.hosts.push(host);
        }
        lab.start_engines()?;
        Ok(lab)
    }

    fn start_engines(&mut self) -> Result<()> {
        for host in &mut self.hosts {
            host.spawn_engine()?;
        }
        let tar = image::write(&self.dir)?;
        for host in &mut self.hosts {
            host.await_engine()?;
        }
        for host in &self.hosts {
            let engine = host.engine_socket();
            let docker = |args: &[&str]| sh::must(docker(&engine).args(args), DOCKER_MAX);
            docker(&["import", &tar.display().to_string(), image::NAMES[0]])?;
            for name in &image::NAMES[1..] {
                docker(&["tag", image::NAMES[0], name])?;
            }
        }
        Ok(())
    }

    /// Folder of the lab: `h1`, `h2` … with the logs inside.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// How many hosts there are.
    pub fn size(&self) -> usize {
        self.hosts.len()
    }

    /// All hosts.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// A host by its number, from 1.
    ///
    /// # Panics
    /// There is no such host: the test is wrong.
    pub fn host(&self, number: usize) -> &Host {
        &self.hosts[number - 1]
    }

    /// A host by its number, to change.
    ///
    /// # Panics
    /// There is no such host: the test is wrong.
    pub fn host_mut(&mut self, number: usize) -> &mut Host {
        &mut self.hosts[number - 1]
    }

    /// The `docker` command against a host's engine.
    ///
    /// # Errors
    /// It cannot be run, or takes too long.
    pub fn docker(&self, number: usize, args: &[&str]) -> Result<sh::Output> {
        sh::run(docker(&self.host(number).engine_socket()).args(args), DOCKER_MAX)
    }

    /// Pull a host's cable.
    ///
    /// # Errors
    /// The network tools fail.
    pub fn cut(&self, number: usize) -> Result<()> {
        self.switch.cable(number, false)
    }

    /// Plug it in again.
    ///
    /// # Errors
    /// The network tools fail.
    pub fn heal(&self, number: usize) -> Result<()> {
        self.switch.cable(number, true)
    }

    /// Let nothing pass between groups of hosts.
    ///
    /// # Errors
    /// The network tools fail.
    pub fn split(&self, groups: &[&[usize]]) -> Result<()> {
        self.switch.split(groups)
    }

    /// Let nothing pass between two hosts.
    ///
    /// # Errors
    /// The network tools fail.
    pub fn block(&self, one: usize, other: usize) -> Result<()> {
        self.switch.block(one, other)
    }

    /// Lose so many of a hundred packets.
    ///
    /// # Errors
    /// The network tools fail.
    pub fn lossy(&self, percent: u8) -> Result<()> {
        self.switch.lossy(percent)
    }

    /// Undo splits and losses.
    ///
    /// # Errors
    /// The network tools fail.
    pub fn mend(&self) -> Result<()> {
        self.switch.mend()
    }

    /// kill -9 of a host's engine.
    ///
    /// # Errors
    /// It does not run.
    pub fn kill_engine(&mut self, number: usize) -> Result<()> {
        self.host_mut(number).kill_engine()
    }

    /// Start a host's engine again, and wait for it.
    ///
    /// # Errors
    /// It does not start.
    pub fn start_engine(&mut self, number: usize) -> Result<()> {
        let host = self.host_mut(number);
        host.spawn_engine()?;
        host.await_engine()
    }

    /// As new: network whole, engines up and empty and in no swarm, no nodes. Much faster than another lab.
    ///
    /// # Errors
    /// Something resists; take the lab down then.
    pub fn reset(&mut self) -> Result<()> {
        self.mend()?;
        for number in 1..=self.size() {
            self.heal(number)?;
            let host = self.host_mut(number);
            host.readdress(&address(number))?;
            if host.has_node() {
                // It may have ended by itself, which is the scenario's to judge, not ours.
                host.kill_node().ok();
            }
            host.wipe_node()?;
            std::fs::remove_file(host.node_log()).ok();
            if !host.has_engine() {
                self.start_engine(number)?;
            }
        }
        std::thread::scope(|scope| {
            let resets: Vec<_> = self.hosts.iter().map(|host| scope.spawn(|| reset_engine(host))).collect();
            resets.into_iter().try_for_each(|reset| reset.join().map_err(|_| anyhow!("a reset panicked"))?)
        })
    }

    /// Nodes that ended though nobody stopped or killed them, and how.
    pub fn ended_nodes(&mut self) -> Vec<String> {
        let ended = |host: &mut Host| {
            let status = host.node.as_mut()?.try_wait().ok()??;
            Some(format!("the node of h{} ended by itself ({status})", host.number()))
        };
        self.hosts.iter_mut().filter_map(ended).collect()
    }

    /// Keep a copy of all logs, as a failed scenario's evidence.
    ///
    /// # Errors
    /// They cannot be copied.
    pub fn keep_logs(&self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder)?;
        for host in &self.hosts {
            for log in ["node.log", "dockerd.log", "host.log"] {
                let from = host.dir().join(log);
                if from.exists() {
                    std::fs::copy(&from, folder.join(format!("h{}-{log}", host.number())))?;
                }
            }
        }
        Ok(())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.hosts.clear();
        leftovers::remove(&self.dir, &self.group);
    }
}

/// Leave a swarm, if it is in one, and remove all containers.
fn reset_engine(host: &Host) -> Result<()> {
    let info = host.engine().get("/info")?;
    if info["Swarm"]["LocalNodeState"] != "inactive" {
        host.engine().call("POST", "/swarm/leave?force=1", None)?;
    }
    host.remove_containers()?;
    host.remove_networks()?;
    ensure!(
        host.engine().get("/info")?["Swarm"]["LocalNodeState"] == "inactive",
        "h{} is in a swarm",
        host.number()
    );
    Ok(())
}

/// The `docker` command against a socket.
pub fn docker(socket: &Path) -> Command {
    let mut command = Command::new("docker");
    command.arg("--host").arg(format!("unix://{}", socket.display()));
    command
}

/// A name for the labs of this checkout, the same in every run.
fn lab_id() -> String {
    let mut hasher = DefaultHasher::new();
    env!("CARGO_MANIFEST_DIR").hash(&mut hasher);
    format!("{:04x}", hasher.finish() & 0xffff)
}
