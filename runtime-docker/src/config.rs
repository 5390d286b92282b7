//! A task's specification in the engine's words. Nothing is dropped silently: what the engine cannot take is refused.

use std::time::Duration;

use bollard::models::{
    ContainerCreateBody, HealthConfig, HostConfig, HostConfigLogConfig, Mount, MountBindOptions,
    MountBindOptionsPropagationEnum, MountTmpfsOptions, MountType, MountVolumeOptions,
    MountVolumeOptionsDriverConfig, PortBinding, PortMap, ResourcesUlimits,
};
use shoal_core::mesh::at_host;
use shoal_core::model::{self, ContainerSpec, MountKind, NodeId, PortConfig, PortMode, Protocol, Task};
use shoal_core::task::{ControllerError, Expansion};

use crate::{labels, networks};

/// Tells the addresses of this host.
pub(crate) type OwnAddresses = dyn Fn() -> std::io::Result<Vec<std::net::IpAddr>> + Send + Sync;

/// What the engine is asked to make for a task.
pub(crate) fn container(
    task: &Task,
    node: NodeId,
    hostname: &str,
    own: &OwnAddresses,
) -> Result<ContainerCreateBody, ControllerError> {
    let expanded = Expansion::new(task, node, hostname).container();
    let spec = expanded.map_err(|error| ControllerError::Task(error.to_string()))?;
    let host_ports: Vec<&PortConfig> = task.ports.iter().filter(|p| p.mode == PortMode::Host).collect();
    Ok(ContainerCreateBody {
        image: Some(spec.image.clone()),
        hostname: text(&spec.hostname),
        user: text(&spec.user),
        working_dir: text(&spec.dir),
        env: list(&spec.env),
        entrypoint: list(&spec.command),
        cmd: list(&spec.args),
        tty: Some(spec.tty),
        open_stdin: Some(spec.open_stdin),
        labels: Some(labels::of(task, node).into_iter().collect()),
        stop_signal: text(&spec.stop_signal),
        stop_timeout: Some(whole_seconds(spec.stop_grace())),
        healthcheck: spec.healthcheck.as_ref().map(health),
        exposed_ports: list(&host_ports.iter().map(|port| port_key(port)).collect::<Vec<_>>()),
        host_config: Some(host(task, &spec, port_bindings(&host_ports, own)?)?),
        networking_config: networks::first(task).map(|(_, config)| config),
        ..ContainerCreateBody::default()
    })
}

fn host(task: &Task, spec: &ContainerSpec, ports: PortMap) -> Result<HostConfig, ControllerError> {
    let (limits, reservations) = (&task.spec.resources.limits, &task.spec.resources.reservations);
    let mounts: Result<Vec<Mount>, ControllerError> = spec.mounts.iter().map(mount).collect();
    Ok(HostConfig {
        nano_cpus: amount("cpu limit", limits.nano_cpus)?,
        memory: amount("memory limit", limits.memory_bytes)?,
        memory_reservation: amount("memory reservation", reservations.memory_bytes)?,
        pids_limit: amount("pids limit", limits.pids)?,
        // Without an init, process 1 ignores every signal that it does not handle, so each stop would end in a kill.
        init: Some(spec.init.unwrap_or(true)),
        readonly_rootfs: Some(spec.read_only),
        group_add: list(&spec.groups),
        mounts: Some(mounts?),
        extra_hosts: list(&extra_hosts(&spec.hosts)?),
        dns: list(&name_servers(task, spec)),
        network_mode: networks::first(task).map(|(name, _)| name),
        dns_search: list(&spec.dns_search),
        dns_options: list(&spec.dns_options),
        sysctls: (!spec.sysctls.is_empty()).then(|| spec.sysctls.clone().into_iter().collect()),
        cap_add: list(&spec.cap_add),
        cap_drop: list(&spec.cap_drop),
        ulimits: Some(spec.ulimits.iter().map(ulimit).collect()),
        log_config: task.spec.log_driver.as_ref().map(|driver| HostConfigLogConfig {
            typ: text(&driver.name),
            config: Some(driver.options.clone().into_iter().collect()),
        }),
        port_bindings: (!ports.is_empty()).then_some(ports),
        ..HostConfig::default()
    })
}

/// Its node's first: it knows the names in the task's networks, and passes on what it does not know.
fn name_servers(task: &Task, spec: &ContainerSpec) -> Vec<String> {
    let own = networks::name_servers(&task.networks).into_iter().map(|ip| ip.to_string());
    own.chain(spec.dns_nameservers.iter().cloned()).collect()
}

fn mount(mount: &model::Mount) -> Result<Mount, ControllerError> {
    let mut out = Mount {
        source: text(&mount.source),
        target: Some(mount.target.clone()),
        read_only: Some(mount.read_only),
        ..Mount::default()
    };
    match mount.kind {
        MountKind::Bind => {
            out.typ = Some(MountType::BIND);
            let propagation = mount.propagation.as_deref().map(propagation).transpose()?;
            out.bind_options =
                propagation.map(|p| MountBindOptions { propagation: Some(p), ..MountBindOptions::default() });
        }
        MountKind::Volume => {
            out.typ = Some(MountType::VOLUME);
            out.volume_options = Some(MountVolumeOptions {
                no_copy: Some(mount.no_copy),
                labels: Some(mount.volume_labels.clone().into_iter().collect()),
                driver_config: mount.volume_driver.as_ref().map(|(name, options)| {
                    MountVolumeOptionsDriverConfig {
                        name: text(name),
                        options: Some(options.clone().into_iter().collect()),
                    }
                }),
                ..MountVolumeOptions::default()
            });
        }
        MountKind::Tmpfs => {
            out.typ = Some(MountType::TMPFS);
            out.tmpfs_options = Some(MountTmpfsOptions {
                size_bytes: amount("tmpfs size", mount.tmpfs_size_bytes)?,
                mode: amount("tmpfs mode", u64::from(mount.tmpfs_mode))?,
                ..MountTmpfsOptions::default()
            });
        }
    }
    Ok(out)
}

fn propagation(word: &str) -> Result<MountBindOptionsPropagationEnum, ControllerError> {
    use MountBindOptionsPropagationEnum as P;
    [P::PRIVATE, P::RPRIVATE, P::SHARED, P::RSHARED, P::SLAVE, P::RSLAVE]
        .into_iter()
        .find(|known| known.to_string() == word)
        .ok_or_else(|| ControllerError::Task(format!("mount: unknown bind propagation {word:?}")))
}

fn health(check: &model::HealthConfig) -> HealthConfig {
    let nanos =
        |time: Duration| (!time.is_zero()).then(|| i64::try_from(time.as_nanos()).unwrap_or(i64::MAX));
    HealthConfig {
        test: list(&check.test),
        interval: nanos(check.interval),
        timeout: nanos(check.timeout),
        start_period: nanos(check.start_period),
        retries: (check.retries > 0).then(|| i64::try_from(check.retries).unwrap_or(i64::MAX)),
        start_interval: None,
    }
}

fn ulimit(limit: &model::Ulimit) -> ResourcesUlimits {
    ResourcesUlimits { name: text(&limit.name), soft: Some(limit.soft), hard: Some(limit.hard) }
}

/// From `IP name…` to one `name:IP` for each name.
fn extra_hosts(lines: &[String]) -> Result<Vec<String>, ControllerError> {
    let mut out = Vec::new();
    for line in lines {
        let mut words = line.split_whitespace();
        let ip = words.next().filter(|ip| ip.parse::<std::net::IpAddr>().is_ok());
        let ip = ip.ok_or_else(|| {
            ControllerError::Task(format!("hosts: {line:?} does not begin with an IP address"))
        })?;
        out.extend(words.map(|name| format!("{name}:{ip}")));
    }
    Ok(out)
}

/// Where each port is bound. One that names addresses is bound at those that this host has, and nowhere if it has none of them.
fn port_bindings(ports: &[&PortConfig], own: &OwnAddresses) -> Result<PortMap, ControllerError> {
    let names_some = ports.iter().any(|port| !port.at.is_empty());
    let own = if names_some { own() } else { Ok(Vec::new()) };
    let own = own.map_err(|error| ControllerError::Unavailable(format!("this host's addresses: {error}")))?;
    let mut bindings = PortMap::new();
    for port in ports {
        // An empty port lets the engine choose.
        let host_port = match port.published_port {
            0 => String::new(),
            number => number.to_string(),
        };
        let addresses = if port.at.is_empty() {
            vec![None]
        } else {
            at_host(&port.at, &own).into_iter().map(|address| Some(address.to_string())).collect()
        };
        let binding = |host_ip| PortBinding { host_ip, host_port: Some(host_port.clone()) };
        let bound = bindings.entry(port_key(port)).or_insert_with(|| Some(Vec::new()));
        bound.get_or_insert_default().extend(addresses.into_iter().map(binding));
    }
    bindings.retain(|_, bound| bound.as_ref().is_some_and(|bound| !bound.is_empty()));
    Ok(bindings)
}

fn port_key(port: &PortConfig) -> String {
    let protocol = match port.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    };
    format!("{}/{protocol}", port.target_port)
}

/// Seconds, rounded up: a grace of half a second must not become none.
pub(crate) fn whole_seconds(time: Duration) -> i64 {
    i64::try_from(time.as_millis().div_ceil(1000)).unwrap_or(i64::MAX)
}

fn amount(what: &str, value: u64) -> Result<Option<i64>, ControllerError> {
    let too_much = |_| ControllerError::Task(format!("{what}: {value} is more than the engine takes"));
    Ok(Some(i64::try_from(value).map_err(too_much)?).filter(|value| *value > 0))
}

fn text(value: &str) -> Option<String> {
    (!value.is_empty()).then(|| value.to_string())
}

fn list(values: &[String]) -> Option<Vec<String>> {
    (!values.is_empty()).then(|| values.to_vec())
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
