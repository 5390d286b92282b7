//! A cluster on a lab, of Shoal or of the peer, seen through the commands and calls that everybody may use.

mod nodes;
mod tasks;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};

pub use self::nodes::{Node, Role};
pub use self::tasks::bare;
use crate::http::Api;
use crate::lab::{self, DOCKER_MAX, Lab, binary};
use crate::sh;

/// How long a call may take that is not expected to wait.
pub const CALL_MAX: Duration = Duration::from_secs(20);
/// How often slow things are looked at.
pub const POLL: Duration = Duration::from_millis(50);

/// Whose cluster it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// Ours.
    Shoal,
    /// The engines' own.
    Swarm,
}

/// A cluster on a lab.
#[derive(Debug)]
pub struct Cluster<'lab> {
    /// Its hosts.
    pub lab: &'lab mut Lab,
    peer: Peer,
}

impl<'lab> Cluster<'lab> {
    /// On hosts that are in no cluster yet.
    pub fn new(lab: &'lab mut Lab, peer: Peer) -> Self {
        Self { lab, peer }
    }

    /// Form one: hosts 1 to `managers` are managers, the next `workers` ones workers.
    ///
    /// # Errors
    /// A node does not start or join.
    pub fn form(lab: &'lab mut Lab, peer: Peer, managers: usize, workers: usize) -> Result<Self> {
        let mut cluster = Self::new(lab, peer);
        for host in 1..=managers + workers {
            cluster.start(host)?;
        }
        cluster.init(1)?;
        for host in 2..=managers + workers {
            let role = if host <= managers { Role::Manager } else { Role::Worker };
            cluster.join(host, role, 1)?;
        }
        cluster.await_ready(1, managers + workers)?;
        Ok(cluster)
    }

    /// Whose it is.
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// Start the daemon of a host that is not in the cluster; the peer's is the engine, which runs already.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(&mut self, host: usize) -> Result<()> {
        match self.peer {
            Peer::Swarm => Ok(()),
            Peer::Shoal => self.lab.host_mut(host).start_node(&[]).map(drop),
        }
    }

    /// kill -9 of a host's daemon.
    ///
    /// # Errors
    /// It does not run.
    pub fn kill(&mut self, host: usize) -> Result<()> {
        match self.peer {
            Peer::Swarm => self.lab.kill_engine(host),
            Peer::Shoal => self.lab.host_mut(host).kill_node(),
        }
    }

    /// Start again what was killed or stopped.
    ///
    /// # Errors
    /// It does not start.
    pub fn restart(&mut self, host: usize) -> Result<()> {
        match self.peer {
            Peer::Swarm => self.lab.start_engine(host),
            Peer::Shoal => self.lab.host_mut(host).start_node(&[]).map(drop),
        }
    }

    /// Socket of a host's API.
    pub fn socket(&self, host: usize) -> PathBuf {
        match self.peer {
            Peer::Swarm => self.lab.host(host).engine_socket(),
            Peer::Shoal => self.lab.host(host).node_socket(),
        }
    }

    /// A host's API.
    pub fn api(&self, host: usize) -> Api {
        self.api_within(host, CALL_MAX)
    }

    /// A host's API, calls taking no longer than `limit`.
    pub fn api_within(&self, host: usize, limit: Duration) -> Api {
        Api::new(&self.socket(host), limit)
    }

    /// The `docker` command against a host's API, however it ends.
    ///
    /// # Errors
    /// It cannot be run, or takes too long.
    pub fn try_docker(&self, host: usize, args: &[&str]) -> Result<sh::Output> {
        sh::run(lab::docker(&self.socket(host)).args(args), DOCKER_MAX)
    }

    /// The `docker` command, which must end well; what it wrote.
    ///
    /// # Errors
    /// It does not.
    pub fn docker(&self, host: usize, args: &[&str]) -> Result<String> {
        let output = self.try_docker(host, args)?;
        ensure!(
            output.ok(),
            "on h{host}, docker {} ended with {:?}: {}",
            args.join(" "),
            output.code,
            output.text()
        );
        Ok(output.stdout.trim().to_owned())
    }

    /// The `docker` command, which must fail; what it said.
    ///
    /// # Errors
    /// It succeeds.
    pub fn docker_fails(&self, host: usize, args: &[&str]) -> Result<String> {
        let output = self.try_docker(host, args)?;
        ensure!(
            !output.ok(),
            "on h{host}, docker {} was to fail and said: {}",
            args.join(" "),
            output.text()
        );
        Ok(output.text())
    }

    /// The `shoal` command against a host's API, however it ends.
    ///
    /// # Errors
    /// It cannot be run, or takes too long.
    pub fn try_shoal(&self, host: usize, args: &[&str]) -> Result<sh::Output> {
        let socket = format!("unix://{}", self.socket(host).display());
        let mut command = sh::command(binary("shoal")?);
        sh::run(command.args(["--host", &socket]).args(args), DOCKER_MAX)
    }

    /// The `shoal` command, which must end well; what it wrote.
    ///
    /// # Errors
    /// It does not.
    pub fn shoal(&self, host: usize, args: &[&str]) -> Result<String> {
        let output = self.try_shoal(host, args)?;
        ensure!(
            output.ok(),
            "on h{host}, shoal {} ended with {:?}: {}",
            args.join(" "),
            output.code,
            output.text()
        );
        Ok(output.stdout.trim().to_owned())
    }
}
