//! What runs: `ContainerSpec` and what belongs to it.

use std::fmt;

use serde_json::Value;

use super::{Map, object};

object! {
    /// What runs in a task.
    ContainerSpec {
        image: String,
        labels: Map,
        command: Vec<String>,
        args: Vec<String>,
        hostname: String,
        env: Vec<String>,
        dir: String,
        user: String,
        groups: Vec<String>,
        init: bool,
        stop_signal: String,
        #[serde(rename = "TTY")]
        tty: bool,
        open_stdin: bool,
        read_only: bool,
        mounts: Vec<Mount>,
        stop_grace_period: i64,
        healthcheck: Healthcheck,
        hosts: Vec<String>,
        #[serde(rename = "DNSConfig")]
        dns_config: DnsConfig,
        isolation: String,
        sysctls: Map,
        capability_add: Vec<String>,
        capability_drop: Vec<String>,
        ulimits: Vec<Ulimit>,
        privileges: Value,
        secrets: Value,
        configs: Value,
        oom_score_adj: Value,
    }
}

object! {
    /// A health check.
    Healthcheck {
        test: Vec<String>,
        interval: i64,
        timeout: i64,
        start_period: i64,
        start_interval: Value,
        retries: i64,
    }
}

object! {
    /// Name servers and the like.
    DnsConfig {
        nameservers: Vec<String>,
        search: Vec<String>,
        options: Vec<String>,
    }
}

object! {
    /// A limit of the kernel.
    Ulimit {
        name: String,
        soft: i64,
        hard: i64,
    }
}

object! {
    /// A mount.
    Mount {
        #[serde(rename = "Type")]
        kind: String,
        source: String,
        target: String,
        read_only: bool,
        consistency: String,
        bind_options: BindOptions,
        volume_options: VolumeOptions,
        tmpfs_options: TmpfsOptions,
        image_options: Value,
        cluster_options: Value,
    }
}

object! {
    /// Options of a bind mount.
    BindOptions {
        propagation: String,
        non_recursive: Value,
        create_mountpoint: Value,
        read_only_non_recursive: Value,
        read_only_force_recursive: Value,
    }
}

object! {
    /// Options of a volume.
    VolumeOptions {
        no_copy: bool,
        labels: Map,
        subpath: Value,
        driver_config: Driver,
    }
}

object! {
    /// Options of a tmpfs.
    TmpfsOptions {
        size_bytes: i64,
        mode: u32,
        options: Value,
    }
}

object! {
    /// A driver and its options.
    Driver {
        name: String,
        options: Map,
    }
}

impl fmt::Display for Mount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.target.as_deref().unwrap_or_default())
    }
}
