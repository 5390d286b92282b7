//! Containers.

use std::collections::BTreeSet;
use std::time::Duration;

use shoal_core::model::{ContainerSpec, HealthConfig, Ulimit};

use super::super::decode::refuse;
use super::super::error::HttpError;
use super::super::types::{self, DnsConfig, Healthcheck};
use super::mount::{mount, mount_json};
use super::{count, duration, filled, nanos, signed, validate};

/// The shortest interval of a health check that an engine takes.
const HEALTH_INTERVAL_MIN: Duration = Duration::from_millis(1);

/// Read what runs, checked.
pub(super) fn container(path: &str, json: types::ContainerSpec) -> Result<ContainerSpec, HttpError> {
    let at = |field: &str| format!("{path}.{field}");
    for (field, value, remedy) in [
        (
            "Privileges",
            &json.privileges,
            "SELinux, seccomp, AppArmor and the like are not supported yet: leave it out",
        ),
        ("Secrets", &json.secrets, "secrets are not supported yet: use a bind mount or the environment"),
        ("Configs", &json.configs, "configs are not supported yet: use a bind mount or the environment"),
        ("OomScoreAdj", &json.oom_score_adj, "not supported: leave it out"),
    ] {
        refuse(&at(field), value.as_ref(), remedy)?;
    }
    if let Some(isolation) = json.isolation.as_deref().filter(|i| !matches!(*i, "" | "default")) {
        return Err(HttpError::field(
            &at("Isolation"),
            format!("{isolation:?} is for Windows: leave it out"),
        ));
    }
    let image = json.image.unwrap_or_default();
    validate::image(&at("Image"), &image)?;
    let env = json.env.unwrap_or_default();
    if let Some(bad) = env.iter().position(|e| e.is_empty() || e.starts_with('=') || e.contains('\0')) {
        return Err(HttpError::field(&at(&format!("Env.{bad}")), "KEY=VALUE is wanted"));
    }
    let mut targets = BTreeSet::new();
    let mut mounts = Vec::new();
    for (number, one) in json.mounts.unwrap_or_default().into_iter().enumerate() {
        let path = at(&format!("Mounts.{number}"));
        let one = mount(&path, one)?;
        if !targets.insert(one.target.clone()) {
            return Err(HttpError::field(
                &format!("{path}.Target"),
                format!("duplicate mount point {}: mount each once", one.target),
            ));
        }
        mounts.push(one);
    }
    let dns = json.dns_config.unwrap_or_default();
    Ok(ContainerSpec {
        image,
        labels: json.labels.unwrap_or_default(),
        command: json.command.unwrap_or_default(),
        args: json.args.unwrap_or_default(),
        hostname: json.hostname.unwrap_or_default(),
        env,
        dir: json.dir.unwrap_or_default(),
        user: json.user.unwrap_or_default(),
        groups: json.groups.unwrap_or_default(),
        init: json.init,
        tty: json.tty.unwrap_or_default(),
        open_stdin: json.open_stdin.unwrap_or_default(),
        read_only: json.read_only.unwrap_or_default(),
        stop_signal: json.stop_signal.unwrap_or_default(),
        stop_grace_period: duration(&at("StopGracePeriod"), json.stop_grace_period)?,
        mounts,
        hosts: hosts(&at("Hosts"), json.hosts.unwrap_or_default())?,
        dns_nameservers: nameservers(&at("DNSConfig.Nameservers"), dns.nameservers.unwrap_or_default())?,
        dns_search: dns.search.unwrap_or_default(),
        dns_options: dns.options.unwrap_or_default(),
        healthcheck: health(&at("Healthcheck"), json.healthcheck.unwrap_or_default())?,
        sysctls: json.sysctls.unwrap_or_default(),
        cap_add: json.capability_add.unwrap_or_default(),
        cap_drop: json.capability_drop.unwrap_or_default(),
        ulimits: ulimits(&at("Ulimits"), json.ulimits.unwrap_or_default())?,
        registry_auth: None,
    })
}

fn hosts(path: &str, hosts: Vec<String>) -> Result<Vec<String>, HttpError> {
    for (at, line) in hosts.iter().enumerate() {
        let mut parts = line.split_whitespace();
        let addr = parts.next().and_then(|ip| ip.parse::<std::net::IpAddr>().ok());
        if addr.is_none() || parts.next().is_none() {
            return Err(HttpError::field(
                &format!("{path}.{at}"),
                format!("invalid entry {line:?}: IP_ADDRESS HOST_NAME is wanted"),
            ));
        }
    }
    Ok(hosts)
}

fn nameservers(path: &str, servers: Vec<String>) -> Result<Vec<String>, HttpError> {
    match servers.iter().position(|s| s.parse::<std::net::IpAddr>().is_err()) {
        Some(at) => Err(HttpError::field(
            &format!("{path}.{at}"),
            format!("{:?} is no address: the address of a name server is wanted", servers[at]),
        )),
        None => Ok(servers),
    }
}

fn ulimits(path: &str, limits: Vec<types::Ulimit>) -> Result<Vec<Ulimit>, HttpError> {
    let mut read: Vec<Ulimit> = Vec::new();
    for (at, limit) in limits.into_iter().enumerate() {
        let limit = Ulimit {
            name: limit.name.unwrap_or_default(),
            soft: limit.soft.unwrap_or_default(),
            hard: limit.hard.unwrap_or_default(),
        };
        let problem = if limit.name.is_empty() {
            Some("a name such as nofile is wanted")
        } else if limit.hard >= 0 && (limit.soft > limit.hard || limit.soft < 0) {
            Some("the soft limit is above the hard one: lower it")
        } else if read.iter().any(|known| known.name == limit.name) {
            Some("the limit is there twice: say it once")
        } else {
            None
        };
        if let Some(problem) = problem {
            return Err(HttpError::field(&format!("{path}.{at}"), problem));
        }
        read.push(limit);
    }
    Ok(read)
}

fn health(path: &str, json: Healthcheck) -> Result<Option<HealthConfig>, HttpError> {
    refuse(
        &format!("{path}.StartInterval"),
        json.start_interval.as_ref(),
        "not supported yet: leave it out",
    )?;
    let time = |field: &str, value| {
        let path = format!("{path}.{field}");
        let time = duration(&path, value)?.unwrap_or_default();
        if time > Duration::ZERO && time < HEALTH_INTERVAL_MIN {
            return Err(HttpError::field(
                &path,
                "less than 1 ms: give nanoseconds, or 0 for the image's own",
            ));
        }
        Ok(time)
    };
    let read = HealthConfig {
        interval: time("Interval", json.interval)?,
        timeout: time("Timeout", json.timeout)?,
        start_period: time("StartPeriod", json.start_period)?,
        retries: count(&format!("{path}.Retries"), json.retries)?,
        test: json.test.unwrap_or_default(),
    };
    match read.test.first().map(String::as_str) {
        None | Some("NONE" | "CMD" | "CMD-SHELL" | "") => {}
        Some(other) => {
            return Err(HttpError::field(
                &format!("{path}.Test.0"),
                format!("{other:?} is unknown: NONE, CMD or CMD-SHELL is wanted"),
            ));
        }
    }
    Ok(filled(&read))
}

/// Write what runs. Credentials are never written.
pub(super) fn container_json(container: &ContainerSpec) -> types::ContainerSpec {
    let dns = DnsConfig {
        nameservers: filled(&container.dns_nameservers),
        search: filled(&container.dns_search),
        options: filled(&container.dns_options),
    };
    let ulimit = |u: &Ulimit| types::Ulimit { name: filled(&u.name), soft: Some(u.soft), hard: Some(u.hard) };
    types::ContainerSpec {
        image: Some(container.image.clone()),
        labels: filled(&container.labels),
        command: filled(&container.command),
        args: filled(&container.args),
        hostname: filled(&container.hostname),
        env: filled(&container.env),
        dir: filled(&container.dir),
        user: filled(&container.user),
        groups: filled(&container.groups),
        init: container.init,
        stop_signal: filled(&container.stop_signal),
        tty: filled(&container.tty),
        open_stdin: filled(&container.open_stdin),
        read_only: filled(&container.read_only),
        mounts: filled(&container.mounts.iter().map(mount_json).collect()),
        stop_grace_period: container.stop_grace_period.map(nanos),
        healthcheck: container.healthcheck.as_ref().map(health_json),
        hosts: filled(&container.hosts),
        dns_config: Some(dns),
        isolation: Some("default".to_owned()),
        sysctls: filled(&container.sysctls),
        capability_add: filled(&container.cap_add),
        capability_drop: filled(&container.cap_drop),
        ulimits: filled(&container.ulimits.iter().map(ulimit).collect()),
        ..types::ContainerSpec::default()
    }
}

fn health_json(health: &HealthConfig) -> Healthcheck {
    Healthcheck {
        test: filled(&health.test),
        interval: filled(&nanos(health.interval)),
        timeout: filled(&nanos(health.timeout)),
        start_period: filled(&nanos(health.start_period)),
        start_interval: None,
        retries: filled(&signed(health.retries)),
    }
}
