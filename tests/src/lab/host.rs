//! One host: its own network, name, mounts and processes, and its own Docker engine.

use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::namespace::Namespace;
use super::network;
use crate::http::Api;
use crate::{sh, wait};

const ENGINE_START_MAX: Duration = Duration::from_secs(60);
/// An engine that does not answer a small question within this is not well.
const CALL_MAX: Duration = Duration::from_secs(20);

/// A host of a lab.
#[derive(Debug)]
pub struct Host {
    number: usize,
    dir: PathBuf,
    group: String,
    address: String,
    inside: Namespace,
    engine: Option<Child>,
    pub(super) node: Option<Child>,
}

impl Host {
    /// A host without a network cable and without an engine yet.
    pub(super) fn start(lab: &Path, group: &str, number: usize) -> Result<Self> {
        let dir = lab.join(format!("h{number}"));
        std::fs::create_dir_all(&dir)?;
        // /run/docker is private, lest the engines meet there; DNS fails at once rather than after a time-out.
        let script = format!(
            "mkdir -p /run/docker; mount -t tmpfs none /run/docker; mount --bind {} /etc/resolv.conf",
            lab.join("resolv.conf").display()
        );
        let inside = Namespace::start(&format!("h{number}"), &script, &dir.join("host.log"))?;
        Ok(Self {
            number,
            dir,
            group: group.to_owned(),
            address: network::address(number),
            inside,
            engine: None,
            node: None,
        })
    }

    /// Its number, from 1.
    pub fn number(&self) -> usize {
        self.number
    }

    /// Its folder, seen from inside and outside.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its address on the lab's wire.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Its address with a port, as it is written.
    pub fn address_with(&self, port: u16) -> String {
        if self.address.contains(':') {
            format!("[{}]:{port}", self.address)
        } else {
            format!("{}:{port}", self.address)
        }
    }

    /// Move it to another address, or let it be called by its other one. What runs on it is not told.
    ///
    /// # Errors
    /// The network tools fail.
    pub fn readdress(&mut self, to: &str) -> Result<()> {
        if !to.contains(':') {
            self.inside.script(&format!(
                "ip -4 addr flush dev eth0; ip addr add {to}/24 dev eth0; ip route replace default via {}",
                network::address(254)
            ))?;
        }
        self.address = to.to_owned();
        Ok(())
    }

    /// Its world.
    pub fn inside(&self) -> &Namespace {
        &self.inside
    }

    /// Socket of its engine.
    pub fn engine_socket(&self) -> PathBuf {
        self.dir.join("docker.sock")
    }

    /// Calls to its engine, past whatever cluster it is in.
    pub fn engine(&self) -> Api {
        Api::new(&self.engine_socket(), CALL_MAX)
    }

    /// Start its engine, and do not wait for it.
    pub(super) fn spawn_engine(&mut self) -> Result<()> {
        ensure!(self.engine.is_none(), "the engine of h{} runs already", self.number);
        let at = |name: &str| self.dir.join(name).display().to_string();
        // A killed engine leaves its own note of its number, and would refuse to start beside it.
        std::fs::remove_file(self.dir.join("docker.pid")).ok();
        let program = [
            "dockerd",
            "--config-file",
            &self.dir.with_file_name("daemon.json").display().to_string(),
            "--storage-driver",
            "overlay2",
            "--data-root",
            &at("engine"),
            "--exec-root",
            &at("exec"),
            "--pidfile",
            &at("docker.pid"),
            "--host",
            &format!("unix://{}", at("docker.sock")),
            "--cgroup-parent",
            &format!("/{}/h{}", self.group, self.number),
            "--bip",
            &format!("172.20.{}.1/24", self.number),
        ]
        .map(str::to_owned);
        let child =
            self.inside.spawn(&program, &self.dir.join("dockerd.log"), &self.dir.join("engine.pid"))?;
        self.engine = Some(child);
        Ok(())
    }

    /// Wait until its engine answers.
    pub(super) fn await_engine(&mut self) -> Result<()> {
        let api = self.engine();
        let log = self.dir.join("dockerd.log");
        let (number, child) = (self.number, &mut self.engine);
        wait::until(&format!("the engine of h{number}"), ENGINE_START_MAX, Duration::from_millis(30), || {
            if let Some(Ok(Some(status))) = child.as_mut().map(Child::try_wait) {
                return Ok(Err(status));
            }
            api.get("/version").map(|_| Ok(()))
        })
        .with_context(|| format!("see {}", log.display()))
        .and_then(|(answer, _)| {
            answer.or_else(|status| bail!("dockerd ended ({status}); see {}", log.display()))
        })
    }

    /// kill -9 of its engine.
    pub(super) fn kill_engine(&mut self) -> Result<()> {
        self.inside.signal("KILL", &self.dir.join("engine.pid"))?;
        if let Some(mut child) = self.engine.take() {
            ensure!(sh::wait(&mut child, Duration::from_secs(10)).is_some(), "the engine outlived kill -9");
        }
        Ok(())
    }

    /// Stop its engine in its tracks (it hangs, its sockets stay open), or let it go on.
    ///
    /// # Errors
    /// It does not run.
    pub fn hang_engine(&self, hang: bool) -> Result<()> {
        self.inside.signal(if hang { "STOP" } else { "CONT" }, &self.dir.join("engine.pid"))
    }

    /// Whether its engine runs, as far as the lab started and killed it.
    pub fn has_engine(&self) -> bool {
        self.engine.is_some()
    }

    /// Remove every container of its engine.
    pub(super) fn remove_containers(&self) -> Result<()> {
        for container in self.containers("all=1")? {
            self.engine().call("DELETE", &format!("/containers/{container}?force=1&v=1"), None)?;
        }
        Ok(())
    }

    /// The bridges of networks that span hosts, and what led to and from them.
    pub(super) fn remove_networks(&self) -> Result<()> {
        let list = self.engine().get("/networks")?;
        for network in list.as_array().into_iter().flatten() {
            if let (Some(_), Some(id)) =
                (network["Labels"]["shoal.network.id"].as_str(), network["Id"].as_str())
            {
                self.engine().call("DELETE", &format!("/networks/{id}"), None)?;
            }
        }
        for command in [
            &["nft", "delete", "table", "inet", "shoal"][..],
            &["ip", "rule", "del", "pref", "5300"],
            &["ip", "-6", "rule", "del", "pref", "5300"],
            &["ip", "route", "flush", "table", "5300"],
            &["ip", "-6", "route", "flush", "table", "5300"],
        ] {
            // Most often there is nothing of the kind.
            sh::run(&mut self.inside().command(command), CALL_MAX)?;
        }
        Ok(())
    }

    fn containers(&self, query: &str) -> Result<Vec<String>> {
        let list = self.engine().get(&format!("/containers/json?{query}"))?;
        let list = list.as_array().context("no list of containers")?;
        Ok(list.iter().filter_map(|container| container["Id"].as_str().map(str::to_owned)).collect())
    }
}
