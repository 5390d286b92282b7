//! Where on a host a published port is listened on.
//!
//! A service names addresses or ranges of them, the same for all nodes: each node listens at those of its own addresses that lie in
//! one, and one that has none does not listen. Docker's specification of a service has no room for that, so a label says it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::OptionsError;
use crate::model::{PortConfig, Protocol};

/// How the labels begin that say where a port is listened on; the port follows, and `/udp` or `/tcp` if only that one is meant.
pub const PLACE_LABEL: &str = "shoal.publish.";
/// Addresses and ranges of one port at most.
const PLACES_MAX: usize = 16;

/// Read an address or a range, as users write it; the unspecified address of a family is all of that.
///
/// # Errors
/// What is wrong with it.
pub fn place(text: &str) -> Result<IpNet, String> {
    let wrong = || format!("{text:?} is no address: such as 192.0.2.7, 10.0.0.0/8 or ::1 is wanted");
    let net = match text.parse::<IpAddr>() {
        Ok(address) if address.is_unspecified() => IpNet::new(address, 0).map_err(|_| wrong())?,
        Ok(address) => IpNet::from(address),
        Err(_) => text.parse::<IpNet>().map_err(|_| wrong())?.trunc(),
    };
    let address = net.network();
    let (is_mapped, is_near) = match address {
        IpAddr::V4(v4) => (false, v4.is_broadcast()),
        IpAddr::V6(v6) => (v6.to_ipv4_mapped().is_some(), v6.is_unicast_link_local()),
    };
    if is_mapped {
        return Err(format!("{text:?} is an address of IPv4 written as one of IPv6: write it as 192.0.2.7"));
    }
    if is_near || address.is_multicast() {
        return Err(format!("{text:?} is no address that a port can be listened on"));
    }
    Ok(net)
}

/// Write an address or a range, as users do.
#[must_use]
pub fn place_text(place: &IpNet) -> String {
    let is_single = place.prefix_len() == place.max_prefix_len();
    if is_single { place.addr().to_string() } else { place.to_string() }
}

/// The port that a label's name means, and its protocol if it says one.
fn port_of(name: &str) -> Option<(u16, Option<Protocol>)> {
    let (number, protocol) = match name.split_once('/') {
        None => (name, None),
        Some((number, "tcp")) => (number, Some(Protocol::Tcp)),
        Some((number, "udp")) => (number, Some(Protocol::Udp)),
        Some((number, "sctp")) => (number, Some(Protocol::Sctp)),
        Some(_) => return None,
    };
    let is_number = !number.starts_with('0') && number.bytes().all(|b| b.is_ascii_digit());
    let number = number.parse().ok().filter(|_| is_number)?;
    Some((number, protocol))
}

/// Give each port the places that the labels of its service say. A label that names a protocol outweighs one that does not.
///
/// # Errors
/// The label that cannot be read or names no port, and what is wanted.
pub fn read_places(labels: &BTreeMap<String, String>, ports: &mut [PortConfig]) -> Result<(), OptionsError> {
    let ours =
        labels.iter().filter_map(|(label, text)| Some((label, label.strip_prefix(PLACE_LABEL)?, text)));
    for (label, name, text) in ours {
        let wrong = |problem: String| OptionsError { label: label.clone(), problem };
        let (number, protocol) = port_of(name).ok_or_else(|| {
            wrong(format!("{name:?} is no port: such as {PLACE_LABEL}8080 or {PLACE_LABEL}53/udp is wanted"))
        })?;
        let mut places = Vec::new();
        for text in text.split(',').map(str::trim) {
            places.push(place(text).map_err(wrong)?);
        }
        if places.len() > PLACES_MAX {
            return Err(wrong(format!("{} addresses are named: {PLACES_MAX} at most", places.len())));
        }
        places.sort_unstable();
        places.dedup();
        let is_meant = |port: &&mut PortConfig| {
            port.published_port == number && protocol.is_none_or(|protocol| protocol == port.protocol)
        };
        let mut found = false;
        for port in ports.iter_mut().filter(is_meant) {
            port.at.clone_from(&places);
            found = true;
        }
        if !found {
            return Err(wrong(format!("port {name} is not published: publish it, or remove the label")));
        }
    }
    Ok(())
}

/// Whether some host may have an address that lies in both; no places are all places.
#[must_use]
pub fn may_meet(a: &[IpNet], b: &[IpNet]) -> bool {
    let overlap = |a: &IpNet, b: &IpNet| a.contains(&b.network()) || b.contains(&a.network());
    a.is_empty() || b.is_empty() || a.iter().any(|a| b.iter().any(|b| overlap(a, b)))
}

/// The addresses of a host that lie in these places, of which there is one at least; `own` are those that it has. All of a family
/// are its unspecified address.
#[must_use]
pub fn at_host(places: &[IpNet], own: &[IpAddr]) -> Vec<IpAddr> {
    let mut found: Vec<IpAddr> = Vec::new();
    let (whole, parts): (Vec<&IpNet>, Vec<&IpNet>) = places.iter().partition(|place| place.prefix_len() == 0);
    let is_covered = |address: &IpAddr| whole.iter().any(|place| place.contains(address));
    found.extend(whole.iter().map(|place| place.network()));
    for place in parts {
        let is_single = place.prefix_len() == place.max_prefix_len();
        if is_single && place.addr().is_loopback() {
            // Each host has all of 127.0.0.0/8, whatever its interface says.
            found.push(place.addr());
        }
        found.extend(own.iter().filter(|address| place.contains(*address)));
    }
    found.retain(|address| address.is_unspecified() || !is_covered(address));
    found.sort_unstable();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| place(text).unwrap()).collect()
    }

    fn addresses(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn port(number: u16, protocol: Protocol) -> PortConfig {
        PortConfig { target_port: 80, published_port: number, protocol, ..PortConfig::default() }
    }

    fn read(labels: &[(&str, &str)], ports: &mut [PortConfig]) -> Result<(), OptionsError> {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        read_places(&labels, ports)
    }

    #[test]
    fn labels_say_where_a_port_is_and_the_one_with_the_protocol_outweighs() {
        let mut ports = [port(53, Protocol::Tcp), port(53, Protocol::Udp), port(80, Protocol::Tcp)];
        let labels =
            [("shoal.publish.53", "10.1.2.3/8, ::1"), ("shoal.publish.53/udp", "127.0.0.1"), ("a", "b")];
        read(&labels, &mut ports).unwrap();
        assert_eq!(ports[0].at, nets(&["10.0.0.0/8", "::1"]));
        assert_eq!(ports[1].at, nets(&["127.0.0.1"]));
        assert!(ports[2].at.is_empty());
    }

    #[test]
    fn labels_that_cannot_be_read_are_refused_by_name() {
        let many = vec!["10.0.0.1"; 17].join(",");
        for (label, value, words) in [
            ("shoal.publish.81", "127.0.0.1", "port 81 is not published"),
            ("shoal.publish.80/udp", "127.0.0.1", "port 80/udp is not published"),
            ("shoal.publish.80/icmp", "127.0.0.1", "is no port"),
            ("shoal.publish.", "127.0.0.1", "is no port"),
            ("shoal.publish.+80", "127.0.0.1", "is no port"),
            ("shoal.publish.080", "127.0.0.1", "is no port"),
            ("shoal.publish.0", "127.0.0.1", "is no port"),
            ("shoal.publish.80", "", "is no address"),
            ("shoal.publish.80", "eth0", "is no address"),
            ("shoal.publish.80", "10.0.0.0/33", "is no address"),
            ("shoal.publish.80", "224.0.0.1", "can be listened on"),
            ("shoal.publish.80", "fe80::1", "can be listened on"),
            ("shoal.publish.80", "::ffff:10.0.0.1", "written as one of IPv6"),
            ("shoal.publish.80", many.as_str(), "16 at most"),
        ] {
            let error = read(&[(label, value)], &mut [port(80, Protocol::Tcp)]).unwrap_err();
            assert_eq!(error.label, label);
            assert!(error.problem.contains(words), "{label}={value}: {error}");
        }
    }

    #[test]
    fn places_meet_where_a_host_may_have_an_address_in_both() {
        for (a, b, expected) in [
            (vec![], vec![], true),
            (vec![], vec!["127.0.0.1"], true),
            (vec!["127.0.0.1"], vec!["127.0.0.1"], true),
            (vec!["127.0.0.1"], vec!["10.0.0.0/8"], false),
            (vec!["10.1.0.0/16"], vec!["10.0.0.0/8"], true),
            (vec!["10.1.0.0/16"], vec!["10.2.0.0/16", "::/0"], false),
            (vec!["0.0.0.0"], vec!["192.0.2.1"], true),
            (vec!["0.0.0.0"], vec!["::"], false),
            (vec!["::"], vec!["::1"], true),
        ] {
            assert_eq!(may_meet(&nets(&a), &nets(&b)), expected, "{a:?} {b:?}");
        }
    }

    #[test]
    fn a_host_listens_at_its_own_addresses_alone() {
        let own = addresses(&["127.0.0.1", "10.0.0.7", "10.9.0.7", "192.0.2.7", "::1", "2001:db8::7"]);
        for (places, expected) in [
            (vec!["192.0.2.8"], vec![]),
            (vec!["192.0.2.7"], vec!["192.0.2.7"]),
            (vec!["10.0.0.0/8"], vec!["10.0.0.7", "10.9.0.7"]),
            (vec!["10.0.0.0/8", "10.0.0.7"], vec!["10.0.0.7", "10.9.0.7"]),
            (vec!["127.0.0.2", "::1"], vec!["127.0.0.2", "::1"]),
            (vec!["0.0.0.0", "127.0.0.1"], vec!["0.0.0.0"]),
            (vec!["::", "127.0.0.1"], vec!["127.0.0.1", "::"]),
        ] {
            assert_eq!(at_host(&nets(&places), &own), addresses(&expected), "{places:?}");
        }
    }

    proptest! {
        /// What a host listens at for one port lies in its places, and never in those of a port that it does not meet.
        #[test]
        fn ports_that_do_not_meet_share_no_address(
            a in prop::collection::vec((any::<[u8; 4]>(), 0u8..=32), 1..4),
            b in prop::collection::vec((any::<[u8; 4]>(), 0u8..=32), 1..4),
            own in prop::collection::vec(any::<[u8; 4]>(), 0..8),
        ) {
            let nets = |all: &[([u8; 4], u8)]| -> Vec<IpNet> {
                all.iter().map(|(octets, length)| IpNet::new(IpAddr::from(*octets), *length).unwrap().trunc()).collect()
            };
            let own: Vec<IpAddr> = own.into_iter().map(IpAddr::from).collect();
            let (a, b) = (nets(&a), nets(&b));
            let (at_a, at_b) = (at_host(&a, &own), at_host(&b, &own));
            prop_assert!(at_a.iter().all(|address| a.iter().any(|net| net.contains(address))));
            prop_assert!(may_meet(&a, &b) || !at_a.iter().any(|address| at_b.contains(address)));
        }

        #[test]
        fn reading_never_panics(name: String, text: String) {
            let _ = read(&[(&format!("{PLACE_LABEL}{name}"), &text)], &mut [port(80, Protocol::Tcp)]);
        }
    }
}
