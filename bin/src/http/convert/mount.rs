//! Mounts.

use shoal_core::model::{Mount, MountKind};

use super::super::decode::refuse;
use super::super::error::HttpError;
use super::super::types::{self, BindOptions, Driver, TmpfsOptions, VolumeOptions};
use super::{count, filled, signed, word, word_of};

const KINDS: [(&str, MountKind); 3] =
    [("volume", MountKind::Volume), ("bind", MountKind::Bind), ("tmpfs", MountKind::Tmpfs)];
const PROPAGATIONS: [&str; 6] = ["rprivate", "private", "rshared", "shared", "rslave", "slave"];

/// Read a mount, checked.
pub(super) fn mount(path: &str, json: types::Mount) -> Result<Mount, HttpError> {
    let at = |field: &str| format!("{path}.{field}");
    refuse(&at("ImageOptions"), json.image_options.as_ref(), "image mounts are not supported")?;
    refuse(&at("ClusterOptions"), json.cluster_options.as_ref(), "cluster volumes are not supported")?;
    if let Some(consistency @ ("cached" | "delegated")) = json.consistency.as_deref() {
        return Err(HttpError::field(&at("Consistency"), format!("{consistency:?} has no meaning here")));
    }
    word(&at("Consistency"), json.consistency.as_deref(), &[("default", ()), ("consistent", ())])?;
    let kind = word(&at("Type"), json.kind.as_deref(), &KINDS)?;
    let mut mount = Mount {
        kind,
        source: json.source.unwrap_or_default(),
        target: json.target.unwrap_or_default(),
        read_only: json.read_only.unwrap_or_default(),
        propagation: None,
        no_copy: false,
        volume_labels: Default::default(),
        volume_driver: None,
        tmpfs_size_bytes: 0,
        tmpfs_mode: 0,
    };
    check_places(path, &mount)?;
    let stray = |field: &str, given: bool, wanted: MountKind| {
        if given && kind != wanted {
            let wanted = word_of(wanted, &KINDS).unwrap_or_default();
            return Err(HttpError::field(&at(field), format!("is for mounts of type {wanted} only")));
        }
        Ok(())
    };
    stray(
        "BindOptions",
        json.bind_options.as_ref().is_some_and(|o| *o != Default::default()),
        MountKind::Bind,
    )?;
    stray(
        "VolumeOptions",
        json.volume_options.as_ref().is_some_and(|o| *o != Default::default()),
        MountKind::Volume,
    )?;
    stray(
        "TmpfsOptions",
        json.tmpfs_options.as_ref().is_some_and(|o| *o != Default::default()),
        MountKind::Tmpfs,
    )?;
    bind(&at("BindOptions"), json.bind_options.unwrap_or_default(), &mut mount)?;
    volume(&at("VolumeOptions"), json.volume_options.unwrap_or_default(), &mut mount)?;
    tmpfs(&at("TmpfsOptions"), json.tmpfs_options.unwrap_or_default(), &mut mount)?;
    Ok(mount)
}

fn check_places(path: &str, mount: &Mount) -> Result<(), HttpError> {
    let at = |field: &str| format!("{path}.{field}");
    let templated = mount.source.contains("{{");
    if !mount.target.starts_with('/') {
        return Err(HttpError::field(
            &at("Target"),
            format!("invalid mount target {:?}: an absolute path in the container is wanted", mount.target),
        ));
    }
    match mount.kind {
        MountKind::Bind if !mount.source.starts_with('/') && !templated => Err(HttpError::field(
            &at("Source"),
            format!("invalid bind mount source {:?}: an absolute path of the host is wanted", mount.source),
        )),
        MountKind::Volume if mount.source.starts_with('/') => Err(HttpError::field(
            &at("Source"),
            format!("invalid volume name {:?}: for a path of the host use Type bind", mount.source),
        )),
        MountKind::Tmpfs if !mount.source.is_empty() => {
            Err(HttpError::field(&at("Source"), "a tmpfs has no source: leave it out"))
        }
        _ => Ok(()),
    }
}

fn bind(path: &str, json: BindOptions, mount: &mut Mount) -> Result<(), HttpError> {
    for (field, value) in [
        ("NonRecursive", &json.non_recursive),
        ("CreateMountpoint", &json.create_mountpoint),
        ("ReadOnlyNonRecursive", &json.read_only_non_recursive),
        ("ReadOnlyForceRecursive", &json.read_only_force_recursive),
    ] {
        refuse(&format!("{path}.{field}"), value.as_ref(), "not supported: leave it out")?;
    }
    mount.propagation = json.propagation.filter(|p| !p.is_empty());
    match &mount.propagation {
        Some(given) if !PROPAGATIONS.contains(&given.as_str()) => Err(HttpError::field(
            &format!("{path}.Propagation"),
            format!("{given:?} is unknown: {} is wanted", PROPAGATIONS.join(", ")),
        )),
        _ => Ok(()),
    }
}

fn volume(path: &str, json: VolumeOptions, mount: &mut Mount) -> Result<(), HttpError> {
    refuse(&format!("{path}.Subpath"), json.subpath.as_ref(), "not supported: mount the whole volume")?;
    mount.no_copy = json.no_copy.unwrap_or_default();
    mount.volume_labels = json.labels.unwrap_or_default();
    let driver = json.driver_config.unwrap_or_default();
    let (name, options) = (driver.name.unwrap_or_default(), driver.options.unwrap_or_default());
    if !name.is_empty() || !options.is_empty() {
        mount.volume_driver = Some((name, options));
    }
    Ok(())
}

fn tmpfs(path: &str, json: TmpfsOptions, mount: &mut Mount) -> Result<(), HttpError> {
    refuse(&format!("{path}.Options"), json.options.as_ref(), "not supported: leave it out")?;
    mount.tmpfs_size_bytes = count(&format!("{path}.SizeBytes"), json.size_bytes)?;
    mount.tmpfs_mode = json.mode.unwrap_or_default();
    Ok(())
}

/// Write a mount.
pub(super) fn mount_json(mount: &Mount) -> types::Mount {
    let bind = BindOptions { propagation: mount.propagation.clone(), ..BindOptions::default() };
    let volume = VolumeOptions {
        no_copy: filled(&mount.no_copy),
        labels: filled(&mount.volume_labels),
        subpath: None,
        driver_config: mount
            .volume_driver
            .as_ref()
            .map(|(name, options)| Driver { name: filled(name), options: filled(options) }),
    };
    let tmpfs = TmpfsOptions {
        size_bytes: filled(&signed(mount.tmpfs_size_bytes)),
        mode: filled(&mount.tmpfs_mode),
        options: None,
    };
    types::Mount {
        kind: word_of(mount.kind, &KINDS),
        source: filled(&mount.source),
        target: filled(&mount.target),
        read_only: filled(&mount.read_only),
        bind_options: filled(&bind),
        volume_options: filled(&volume),
        tmpfs_options: filled(&tmpfs),
        ..types::Mount::default()
    }
}
