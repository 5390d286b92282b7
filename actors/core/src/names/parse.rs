//! How names are written.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::model::{ID_LEN, Protocol, Slot, TaskId};

/// Longest name that the protocol carries, as text.
const NAME_BYTES_MAX: usize = 255;

/// As names are compared: in small letters, and without the dot at the end. None if it is no name of a thing.
pub(super) fn plain(name: &str) -> Option<String> {
    let name = name.strip_suffix('.').unwrap_or(name);
    (!name.is_empty() && name.len() <= NAME_BYTES_MAX).then(|| name.to_ascii_lowercase())
}

/// The address that a reverse name (`4.3.2.1.in-addr.arpa`) asks for.
pub(super) fn reverse(name: &str) -> Option<IpAddr> {
    if let Some(labels) = name.strip_suffix(".in-addr.arpa") {
        let mut octets = [0; 4];
        let mut labels = labels.split('.');
        for octet in octets.iter_mut().rev() {
            let label = labels.next()?;
            *octet = label.parse().ok()?;
            if octet.to_string() != label {
                return None;
            }
        }
        return labels.next().is_none().then(|| Ipv4Addr::from(octets).into());
    }
    let labels = name.strip_suffix(".ip6.arpa")?;
    let mut bits = 0u128;
    let mut count = 0;
    for label in labels.rsplit('.') {
        let [digit] = label.as_bytes() else { return None };
        bits = bits << 4 | u128::from(char::from(*digit).to_digit(16)?);
        count += 1;
        if count > 32 {
            return None;
        }
    }
    (count == 32).then(|| Ipv6Addr::from(bits).into())
}

/// A port of something: `_http._tcp.web`.
pub(super) struct PortName<'a> {
    /// Its name, or its number.
    pub(super) port: &'a str,
    pub(super) protocol: Protocol,
    /// Whose it is.
    pub(super) of: &'a str,
}

impl<'a> PortName<'a> {
    pub(super) fn of(name: &'a str) -> Option<Self> {
        let (port, rest) = name.strip_prefix('_')?.split_once('.')?;
        let (protocol, of) = rest.strip_prefix('_')?.split_once('.')?;
        let protocol = match protocol {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            "sctp" => Protocol::Sctp,
            _ => return None,
        };
        Some(Self { port, protocol, of })
    }
}

/// The number of a port, as it is written.
pub(super) fn port(text: &str) -> Option<u16> {
    let number: u16 = text.parse().ok()?;
    (number != 0 && number.to_string() == text).then_some(number)
}

/// A task's name: its service's, its slot's, and its id where one of several in the slot is meant.
pub(super) struct TaskName<'a> {
    pub(super) service: &'a str,
    pub(super) slot: Slot,
    pub(super) task: Option<TaskId>,
}

impl<'a> TaskName<'a> {
    /// `web.1`.
    pub(super) fn short(name: &'a str) -> Option<Self> {
        let (service, at) = name.rsplit_once('.')?;
        Some(Self { service, slot: slot(at)?, task: None })
    }

    /// `web.1.<task id>`.
    pub(super) fn long(name: &'a str) -> Option<Self> {
        let (rest, id) = name.rsplit_once('.')?;
        let task = Some(id.parse().ok()?);
        Some(Self { task, ..Self::short(rest)? })
    }
}

fn slot(text: &str) -> Option<Slot> {
    if text.len() == ID_LEN {
        return text.parse().ok().map(Slot::Node);
    }
    let number: u64 = text.parse().ok()?;
    (number.to_string() == text).then_some(Slot::Replica(number))
}

/// The long name of a task.
pub(super) fn task(service: &str, slot: Slot, task: TaskId) -> String {
    match slot {
        Slot::Replica(number) => format!("{service}.{number}.{task}"),
        Slot::Node(node) => format!("{service}.{node}.{task}"),
    }
}
