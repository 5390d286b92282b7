//! What the engine says of its host.

use bollard::models::SystemInfo;
use shoal_core::model::{EngineInfo, NodeDescription, Platform, Resources};

pub(crate) fn of_info(info: SystemInfo) -> NodeDescription {
    let plugins = info.plugins.unwrap_or_default();
    let kinds = [
        ("Authorization", plugins.authorization),
        ("Log", plugins.log),
        ("Network", plugins.network),
        ("Volume", plugins.volume),
    ];
    let mut named: Vec<(String, String)> = kinds
        .into_iter()
        .flat_map(|(kind, names)| names.unwrap_or_default().into_iter().map(move |name| (kind.into(), name)))
        .collect();
    named.sort_unstable();
    let labels = info.labels.unwrap_or_default();
    let labels = labels.iter().map(|label| {
        let (key, value) = label.split_once('=').unwrap_or((label, ""));
        (key.to_string(), value.to_string())
    });
    NodeDescription {
        platform: Platform {
            os: info.os_type.unwrap_or_default(),
            architecture: info.architecture.unwrap_or_default(),
        },
        resources: Resources {
            nano_cpus: positive(info.ncpu) * 1_000_000_000,
            memory_bytes: positive(info.mem_total),
            ..Resources::default()
        },
        engine: EngineInfo {
            version: info.server_version.unwrap_or_default(),
            labels: labels.collect(),
            plugins: named,
        },
        ..NodeDescription::default()
    }
}

fn positive(value: Option<i64>) -> u64 {
    value.and_then(|value| u64::try_from(value).ok()).unwrap_or_default()
}
