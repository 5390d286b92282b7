//! Single values of a service's flags: mounts, ports, preferences.

use serde_json::{Map, Value, json};

use super::super::words;
use super::json::put;
use super::places::HOST_IPS;

/// `SERVICE=REPLICAS`.
pub(crate) fn scale(text: &str) -> Result<(String, u64), String> {
    let parsed = text.rsplit_once('=').and_then(|(name, count)| Some((name, count.parse().ok()?)));
    match parsed {
        Some((name, count)) if !name.is_empty() => Ok((name.to_owned(), count)),
        _ => Err(format!("{text:?} is no scale: write SERVICE=REPLICAS")),
    }
}

/// `spread=KEY`.
pub(crate) fn preference(text: &str) -> Result<Value, String> {
    match text.split_once('=') {
        Some(("spread", key)) if !key.is_empty() => Ok(json!({"Spread": {"SpreadDescriptor": key}})),
        _ => Err(format!("{text:?} is no preference: write spread=node.labels.KEY")),
    }
}

fn protocol(text: &str) -> Result<String, String> {
    match text {
        "tcp" | "udp" | "sctp" => Ok(text.to_owned()),
        _ => Err(format!("{text:?} is no protocol: tcp, udp and sctp are there")),
    }
}

fn port_number(text: &str) -> Result<u16, String> {
    match text.parse::<u16>() {
        Ok(port) if port != 0 => Ok(port),
        _ => Err(format!("{text:?} is no port: write a number from 1 to 65535 (ranges are not supported)")),
    }
}

/// `80` or `80/udp`, to remove a port.
pub(crate) fn target_port(text: &str) -> Result<(u16, String), String> {
    let (port, proto) = text.split_once('/').unwrap_or((text, "tcp"));
    Ok((port_number(port)?, protocol(proto)?))
}

/// An address of hosts, or a range of such; the node judges it in full.
fn host_address(text: &str) -> Result<String, String> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let (address, length) = bare.split_once('/').unwrap_or((bare, "0"));
    if address.parse::<std::net::IpAddr>().is_ok() && length.parse::<u8>().is_ok() {
        return Ok(bare.to_owned());
    }
    Err(format!("{text:?} is no host address: write such as 192.0.2.7, 10.0.0.0/8 or [::1]"))
}

/// The port and the protocol behind it, which is tcp if unsaid; a range of addresses has a slash, too.
fn with_protocol(text: &str) -> Result<(&str, String), String> {
    match text.rsplit_once('/') {
        Some((ports, given)) if !given.contains([':', ']']) => Ok((ports, protocol(given)?)),
        _ => Ok((text, "tcp".to_owned())),
    }
}

/// A port, long (`mode=host,target=80,published=8080,protocol=tcp,host-ip=10.0.0.0/8`) or short (`127.0.0.1:8080:80/tcp`, mode ingress
/// as Docker's). What it says of addresses stands under [`HOST_IPS`].
pub(crate) fn port(text: &str) -> Result<Value, String> {
    let (mut target, mut published, mut proto, mut mode) =
        (None, None, "tcp".to_owned(), "ingress".to_owned());
    let mut addresses = Vec::new();
    if text.contains('=') {
        for field in words::csv(text)? {
            let (key, value) = field.split_once('=').ok_or_else(|| format!("{field:?} lacks a value"))?;
            match key.trim().to_ascii_lowercase().as_str() {
                "target" => target = Some(port_number(value)?),
                "published" => published = Some(port_number(value)?),
                "protocol" => proto = protocol(value)?,
                "host-ip" => addresses.push(host_address(value)?),
                "mode" if matches!(value, "host" | "ingress") => value.clone_into(&mut mode),
                "mode" => return Err(format!("{value:?} is no publish mode: host and ingress are there")),
                other => {
                    return Err(format!(
                        "a port has no field {other:?}: target, published, protocol, mode, host-ip are there"
                    ));
                }
            }
        }
    } else {
        let (ports, given) = with_protocol(text)?;
        proto = given;
        match ports.rsplit_once(':') {
            Some((outside, inside)) => {
                let (address, outside) =
                    outside.rsplit_once(':').map_or((None, outside), |(address, port)| (Some(address), port));
                addresses.extend(address.map(host_address).transpose()?);
                (published, target) = (Some(port_number(outside)?), Some(port_number(inside)?));
            }
            None => target = Some(port_number(ports)?),
        }
    }
    let target = target.ok_or_else(|| format!("{text:?} lacks target=PORT"))?;
    let mut port = json!({"Protocol": proto, "TargetPort": target, "PublishMode": mode});
    if let Some(published) = published {
        put(&mut port, "PublishedPort", published);
    } else if !addresses.is_empty() {
        return Err(format!("{text:?} lacks published=PORT, which a host address needs"));
    }
    if !addresses.is_empty() {
        put(&mut port, HOST_IPS, addresses);
    }
    Ok(port)
}

/// A network, short (`back`) or long (`name=back,alias=db,alias=store`).
pub(crate) fn network(text: &str) -> Result<Value, String> {
    let (mut name, mut aliases) = (String::new(), Vec::new());
    if text.contains('=') {
        for field in words::csv(text)? {
            match field.split_once('=').map(|(key, value)| (key.trim().to_ascii_lowercase(), value)) {
                Some((key, value)) if key == "name" => value.clone_into(&mut name),
                Some((key, value)) if key == "alias" && !value.is_empty() => aliases.push(value.to_owned()),
                _ => {
                    return Err(format!(
                        "a network has no field {field:?}: name=NAME and alias=NAME are there"
                    ));
                }
            }
        }
    } else {
        text.clone_into(&mut name);
    }
    if name.is_empty() {
        return Err(format!("{text:?} names no network: write NAME or name=NAME,alias=NAME"));
    }
    let mut network = json!({"Target": name});
    if !aliases.is_empty() {
        put(&mut network, "Aliases", aliases);
    }
    Ok(network)
}

/// A mount.
pub(crate) fn mount(text: &str) -> Result<Value, String> {
    let mut mount = json!({"Type": "volume"});
    for field in words::csv(text)? {
        let (key, value) = field.split_once('=').map_or((field.as_str(), None), |(k, v)| (k, Some(v)));
        mount_field(&mut mount, &key.trim().to_ascii_lowercase(), value)?;
    }
    let kind = mount["Type"].as_str().unwrap_or_default();
    if mount["Target"].as_str().is_none_or(str::is_empty) {
        return Err(format!("the mount {text:?} lacks target=PATH"));
    }
    if kind == "bind" && mount["Source"].as_str().is_none_or(str::is_empty) {
        return Err(format!("the mount {text:?} lacks source=PATH, which a bind needs"));
    }
    for (options, owner) in [("BindOptions", "bind"), ("VolumeOptions", "volume"), ("TmpfsOptions", "tmpfs")]
    {
        if mount.get(options).is_some() && kind != owner {
            return Err(format!("the mount {text:?} of type {kind} has options of type {owner}"));
        }
    }
    Ok(mount)
}

fn mount_field(mount: &mut Value, key: &str, value: Option<&str>) -> Result<(), String> {
    if let ("readonly" | "ro", value) = (key, value) {
        put(mount, "ReadOnly", flag(key, value)?);
        return Ok(());
    }
    if key == "volume-nocopy" {
        put(mount, "VolumeOptions/NoCopy", flag(key, value)?);
        return Ok(());
    }
    let value = value.ok_or_else(|| format!("the mount's field {key:?} lacks a value"))?;
    match key {
        "type" if matches!(value, "bind" | "volume" | "tmpfs") => put(mount, "Type", value),
        "type" => return Err(format!("{value:?} is no mount type: bind, volume and tmpfs are there")),
        "source" | "src" => put(mount, "Source", value),
        "target" | "dst" | "destination" => put(mount, "Target", value),
        "bind-propagation" => put(mount, "BindOptions/Propagation", value),
        "volume-driver" => put(mount, "VolumeOptions/DriverConfig/Name", value),
        "volume-opt" => put_pair(mount, &["VolumeOptions", "DriverConfig", "Options"], value),
        "volume-label" => put_pair(mount, &["VolumeOptions", "Labels"], value),
        "tmpfs-size" => put(mount, "TmpfsOptions/SizeBytes", words::bytes(value)?),
        "tmpfs-mode" => {
            let mode =
                u32::from_str_radix(value, 8).map_err(|_| format!("{value:?} is no octal file mode"))?;
            put(mount, "TmpfsOptions/Mode", mode);
        }
        _ => return Err(format!("a mount has no field {key:?}")),
    }
    Ok(())
}

fn put_pair(mount: &mut Value, path: &[&str], text: &str) {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    let map: &mut Map<String, Value> = super::json::object(mount, &path.join("/"));
    map.insert(key.to_owned(), Value::from(value));
}

fn flag(key: &str, value: Option<&str>) -> Result<bool, String> {
    match value {
        None | Some("true" | "1") => Ok(true),
        Some("false" | "0") => Ok(false),
        Some(other) => Err(format!("the mount's field {key} is {other:?}: write true or false")),
    }
}
