//! Services and their tasks, as the cluster and the engines tell.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{Cluster, POLL};
use crate::{engine, wait};

/// An address as it is told of tasks and services, without the length of its prefix.
///
/// # Errors
/// It is none.
pub fn bare(address: &Value) -> Result<&str> {
    let address = address.as_str().context("no address")?;
    Ok(address.split('/').next().unwrap_or_default())
}

impl Cluster<'_> {
    /// The first virtual address of a service.
    ///
    /// # Errors
    /// It has none.
    pub fn virtual_address(&self, service: &str) -> Result<String> {
        let found = self.api(1).get(&format!("/services/{service}"))?;
        Ok(bare(&found["Endpoint"]["VirtualIPs"][0]["Addr"])?.to_owned())
    }

    /// Create a service of sleeping tasks, and do not wait for it.
    ///
    /// # Errors
    /// It is refused.
    pub fn create(&self, at: usize, name: &str, replicas: usize, more: &[&str]) -> Result<String> {
        let replicas = replicas.to_string();
        let mut args = vec!["service", "create", "--detach", "--no-resolve-image", "--name", name];
        args.extend(["--replicas", &replicas, "--stop-grace-period", "1s"]);
        args.extend(more);
        args.extend(["busybox:latest", "sleep", "1d"]);
        self.docker(at, &args)
    }

    /// How many tasks of a service run on each host, as the engines say. A host without an engine has none.
    ///
    /// # Errors
    /// An engine does not answer.
    pub fn running(&self, service: &str) -> Result<BTreeMap<usize, usize>> {
        let mut counts = BTreeMap::new();
        for host in self.lab.hosts().iter().filter(|host| host.has_engine()) {
            let containers = engine::running(&host.engine())?;
            let count = containers.iter().filter(|container| container.service == service).count();
            if count > 0 {
                counts.insert(host.number(), count);
            }
        }
        Ok(counts)
    }

    /// Wait until exactly so many tasks of a service run, on hosts other than `not_on`.
    ///
    /// # Errors
    /// They do not in time: the message says where which number runs, and what the tasks say of themselves.
    pub fn await_running(
        &self,
        service: &str,
        count: usize,
        not_on: &[usize],
        limit: Duration,
    ) -> Result<Duration> {
        let what = format!("{count} running tasks of {service}");
        let result = wait::until(&what, limit, POLL, || {
            let mut running = self.running(service)?;
            running.retain(|host, _| !not_on.contains(host));
            wait::seen(running.values().sum::<usize>() == count, || format!("{running:?}"))
        });
        let ((), took) = result.with_context(|| self.why(service))?;
        Ok(took)
    }

    /// Wait until a host runs no task of a service.
    ///
    /// # Errors
    /// It still does when the time is over.
    pub fn await_none_on(&self, service: &str, host: usize, limit: Duration) -> Result<Duration> {
        let result = wait::until(&format!("no {service} on h{host}"), limit, POLL, || {
            let running = self.running(service)?;
            wait::seen(!running.contains_key(&host), || format!("{running:?}"))
        });
        let ((), took) = result.with_context(|| self.why(service))?;
        Ok(took)
    }

    /// The tasks of a service, newest last.
    ///
    /// # Errors
    /// The manager does not answer.
    pub fn tasks(&self, at: usize, service: &str) -> Result<Vec<Value>> {
        let filter = crate::http::encode(&json!({"service": [service]}).to_string());
        let list = self.api(at).get(&format!("/tasks?filters={filter}"))?;
        list.as_array().cloned().context("no list of tasks")
    }

    /// What the tasks of a service say, for a message about a failure.
    fn why(&self, service: &str) -> String {
        let Some(at) = (1..=self.lab.size()).find(|&host| self.nodes(host).is_ok()) else {
            return "no manager answers".to_owned();
        };
        let args = [
            "service",
            "ps",
            "--no-trunc",
            "--format",
            "{{.Name}} {{.Node}} {{.CurrentState}} {{.Error}}",
            service,
        ];
        match self.try_docker(at, &args) {
            Ok(output) => format!("service ps {service} on h{at}:\n{}", output.text()),
            Err(error) => format!("service ps {service} on h{at}: {error:#}"),
        }
    }
}
