//! Puts what is wished into the kernel, by the host's own tools, and looks whether it is still there.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use shoal_core::model::BRIDGE_PREFIX;

use super::generation;
use super::refused::Refused;
use super::rules::{DEVICE, RULES, Rules, TABLE};
use crate::tools::{lead, run};

/// What is in the kernel, as far as it was put there from here.
#[derive(Debug, Default)]
pub(super) struct Kernel {
    refused: Arc<Refused>,
    /// None if they are not known.
    rules: Option<Rules>,
    /// What the rules of this host were at when ours were written or last found untouched: it grows with every change of any of them.
    generation: Option<u32>,
    /// How `nft` shows our table as it was written, once it was asked: it changes if somebody else changes it.
    shown: Option<String>,
    routes: BTreeSet<(bool, String)>,
    neighbours: BTreeSet<(String, IpAddr)>,
}

fn family(v4: bool) -> &'static str {
    if v4 { "-4" } else { "-6" }
}

impl Kernel {
    /// Nothing was put there yet; told is what its rules refuse.
    pub(super) fn new(refused: Arc<Refused>) -> Self {
        Self { refused, ..Self::default() }
    }

    /// Make the kernel's rules and routes these. With `look`, do not trust that what was put there is still there.
    pub(super) fn put(
        &mut self,
        rules: Rules,
        routes: &BTreeSet<(bool, String)>,
        look: bool,
    ) -> Result<(), String> {
        if look && self.rules.is_some() && !self.are_untouched() {
            self.rules = None;
        }
        if self.rules.as_ref() != Some(&rules) {
            let change = self.rules.take().and_then(|known| rules.change(&known));
            // What somebody else took away cannot be changed: then all of it is written anew.
            if change.is_none_or(|change| run("nft", &["-f", "-"], &change).is_err()) {
                self.refused.across(|| run("nft", &["-f", "-"], &rules.whole()))?;
            }
            self.rules = Some(rules);
            (self.generation, self.shown) = (generation(), None);
        }
        for v4 in [true, false] {
            self.put_routes(routes, v4, look)?;
        }
        Ok(())
    }

    /// Whether our table is as it was written. To show it takes long where there are many services, so that is done only where the
    /// number, which does not tell whose rules were changed, is not enough, and not when a change has just been written.
    fn are_untouched(&mut self) -> bool {
        let now = generation();
        let is_same = now == self.generation;
        match &self.shown {
            Some(shown) if !is_same || now.is_none() => {
                if show().as_ref() != Some(shown) {
                    return false;
                }
                self.generation = now;
            }
            Some(_) => {}
            None if !is_same => return false,
            None => {
                let Some(shown) = show() else { return false };
                self.shown = Some(shown).filter(|_| generation() == now);
            }
        }
        true
    }

    /// Let bridges answer for these addresses, each with its bridge, and for no others.
    pub(super) fn put_neighbours(
        &mut self,
        wanted: &BTreeSet<(String, IpAddr)>,
        look: bool,
    ) -> Result<(), String> {
        if wanted.is_empty() && self.neighbours.is_empty() {
            return Ok(());
        }
        if look {
            let shown = run("ip", &["-6", "neigh", "show", "proxy"], "")?;
            self.neighbours = shown.lines().filter_map(neighbour).collect();
        }
        let line = |what: &str, (bridge, address): &(String, IpAddr)| {
            format!("neigh {what} proxy {address} dev {bridge}\n")
        };
        let gone: String = self.neighbours.difference(wanted).map(|known| line("del", known)).collect();
        let new: String = wanted.difference(&self.neighbours).map(|new| line("add", new)).collect();
        change(family(false), &gone, &new)?;
        self.neighbours.clone_from(wanted);
        Ok(())
    }

    fn put_routes(&mut self, routes: &BTreeSet<(bool, String)>, v4: bool, look: bool) -> Result<(), String> {
        let of = |routes: &BTreeSet<(bool, String)>| -> BTreeSet<String> {
            routes.iter().filter(|(is, _)| *is == v4).map(|(_, route)| route.clone()).collect()
        };
        let (wanted, mut had) = (of(routes), of(&self.routes));
        if wanted == had && (!look || wanted.is_empty()) {
            return Ok(());
        }
        let family = family(v4);
        if look || had.is_empty() {
            lead(family, TABLE, &[])?;
            // Of an earlier life of this program there may be others. A table that never was is no mistake.
            let shown = run("ip", &[family, "route", "show", "table", &TABLE.to_string()], "");
            had = shown.unwrap_or_default().lines().map(ToOwned::to_owned).collect();
        }
        // There may be thousands: each is looked up, not compared with every other.
        let (known, kept) = (names(&had), names(&wanted));
        let gone = had.iter().filter(|route| !kept.contains(&name(route)));
        let gone: String = gone.map(|route| format!("route del {} table {TABLE}\n", target(route))).collect();
        let new = wanted.iter().filter(|route| !known.contains(&name(route)));
        let new: String =
            new.map(|route| format!("route replace {} table {TABLE}\n", said(route, v4))).collect();
        self.routes.retain(|(is, _)| *is != v4);
        change(family, &gone, &new)?;
        self.routes.extend(wanted.into_iter().map(|route| (v4, route)));
        Ok(())
    }

    /// Take away what was put there.
    pub(super) fn clear(&mut self) {
        if self.rules.is_none() && self.routes.is_empty() {
            return;
        }
        let _ = self.refused.across(|| run("nft", &["delete", "table", "inet", RULES], ""));
        let number = TABLE.to_string();
        for v4 in [true, false] {
            let _ = run("ip", &[family(v4), "route", "flush", "table", &number], "");
            let _ = run("ip", &[family(v4), "rule", "del", "pref", &number], "");
        }
        *self = Self::new(Arc::clone(&self.refused));
    }
}

/// Tell `ip` what is gone and what is new. What went with its device is no mistake; what cannot be added is.
fn change(family: &str, gone: &str, new: &str) -> Result<(), String> {
    if !gone.is_empty() {
        let _ = run("ip", &[family, "-force", "-batch", "-"], gone);
    }
    if !new.is_empty() {
        run("ip", &[family, "-batch", "-"], new)?;
    }
    Ok(())
}

fn show() -> Option<String> {
    // Without what is counted: that changes by itself.
    run("nft", &["--stateless", "list", "table", "inet", RULES], "").ok()
}

fn generation() -> Option<u32> {
    let told = generation::of_rules();
    told.inspect_err(|error| tracing::debug!(%error, "the kernel does not tell how often its rules changed"))
        .ok()
}

/// `fd00::3 dev shl-a proxy`, if it is of a bridge of ours.
fn neighbour(line: &str) -> Option<(String, IpAddr)> {
    let address = line.split_whitespace().next()?.parse().ok()?;
    let bridge = device(line).filter(|bridge| bridge.starts_with(BRIDGE_PREFIX))?;
    Some((bridge.to_owned(), address))
}

/// `local 10.0.0.1` or `10.0.0.0/8`: what a route is told from others by.
fn target(route: &str) -> String {
    let words = if route.starts_with("local ") { 2 } else { 1 };
    route.split_whitespace().take(words).collect::<Vec<_>>().join(" ")
}

fn device(route: &str) -> Option<&str> {
    let mut words = route.split_whitespace();
    words.find(|word| *word == "dev").and_then(|_| words.next())
}

/// What is the same of a route however it is shown.
fn name(route: &str) -> (String, Option<&str>) {
    (target(route), device(route))
}

fn names(routes: &BTreeSet<String>) -> BTreeSet<(String, Option<&str>)> {
    routes.iter().map(|route| name(route)).collect()
}

/// The kernel gives routes of IPv6 no scope.
fn said(route: &str, v4: bool) -> String {
    if v4 { route.to_owned() } else { route.replace(" scope link", "").replace(" scope host", "") }
}

/// Let the engine's rules pass what goes between bridges and the tunnel, whatever its policy is: they leave a place for that.
pub(super) fn admit() {
    for tool in ["iptables", "ip6tables"] {
        let bridges = format!("{BRIDGE_PREFIX}+");
        for (from, to) in [(bridges.as_str(), DEVICE), (DEVICE, bridges.as_str())] {
            let rule = ["DOCKER-USER", "-i", from, "-o", to, "-j", "ACCEPT"];
            let with = |what| [&["-w", "5", what][..], &rule].concat();
            if run(tool, &with("-C"), "").is_ok() {
                continue;
            }
            if let Err(why) = run(tool, &with("-I"), "") {
                // An engine without that place has no rules of the family either.
                tracing::debug!(tool, why, "nothing was let pass");
            }
        }
    }
}

/// How a bridge has to be: it answers for addresses that are elsewhere, at once, and sends nobody another way.
pub(super) fn prepare_bridge(bridge: &str, hairpin: bool, ipv6: bool) -> Result<(), String> {
    let conf = format!("/proc/sys/net/ipv4/conf/{bridge}");
    write(&format!("{conf}/proxy_arp"), "1")?;
    write(&format!("{conf}/send_redirects"), "0")?;
    write(&format!("/proc/sys/net/ipv4/neigh/{bridge}/proxy_delay"), "0")?;
    if ipv6 {
        write(&format!("/proc/sys/net/ipv6/conf/{bridge}/proxy_ndp"), "1")?;
        write(&format!("/proc/sys/net/ipv6/neigh/{bridge}/proxy_delay"), "0")?;
    }
    if hairpin {
        // A task that asks itself by a virtual address: the flag goes with each start of its container.
        let shown = run("ip", &["-o", "link", "show", "master", bridge], "")?;
        let ports = shown.lines().filter_map(port).map(|port| format!("link set dev {port} hairpin on\n"));
        let lines: String = ports.collect();
        if !lines.is_empty() {
            // A container that is just gone took its port along.
            let _ = run("bridge", &["-force", "-batch", "-"], &lines);
        }
    }
    Ok(())
}

/// The name in a line of `ip -o link`: `7: veth1a2b@if6: <BROADCAST…`.
fn port(line: &str) -> Option<&str> {
    line.split_whitespace().nth(1)?.split(['@', ':']).next().filter(|name| !name.is_empty())
}

fn write(path: &str, value: &str) -> Result<(), String> {
    if std::fs::read_to_string(path).is_ok_and(|now| now.trim() == value) {
        return Ok(());
    }
    std::fs::write(path, value).map_err(|error| format!("{path}: {error}"))
}

/// Whether this host has the device.
pub(super) fn exists(device: &str) -> bool {
    Path::new("/proc/sys/net/ipv4/conf").join(device).exists()
}

/// Whether bridges pass what they carry through the rules of IP.
pub(super) fn bridge_filter() -> bool {
    let flag = std::fs::read_to_string("/proc/sys/net/bridge/bridge-nf-call-iptables");
    flag.is_ok_and(|flag| flag.trim() == "1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_told_apart_as_the_kernel_shows_them() {
        let same = |one, other| name(one) == name(other);
        assert!(same("10.1.0.3 dev shl-a scope link", "10.1.0.3 dev shl-a scope link "));
        assert!(same("fd00::3 dev shl-a scope link", "fd00::3 dev shl-a metric 1024 pref medium"));
        assert!(same("local 10.1.0.2 dev lo scope host", "local 10.1.0.2 dev lo scope host"));
        assert!(!same("10.1.0.3 dev shl-a scope link", "10.1.0.3 dev shl-b scope link"));
        assert!(!same("10.1.0.3 dev shl-a scope link", "10.1.0.30 dev shl-a scope link"));
    }

    #[test]
    fn neighbours_of_our_bridges_are_read() {
        let ours = Some(("shl-a".to_owned(), "fd00::3".parse().unwrap()));
        assert_eq!(neighbour("fd00::3 dev shl-a proxy"), ours);
        assert_eq!(neighbour("fd00::3 dev eth0 proxy"), None);
        assert_eq!(neighbour(""), None);
    }

    #[test]
    fn ports_of_a_bridge_are_read() {
        assert_eq!(port("7: veth1a2b@if6: <BROADCAST,UP> mtu 1500 master shl-a"), Some("veth1a2b"));
        assert_eq!(port("7: veth1: <UP>"), Some("veth1"));
        assert_eq!(port(""), None);
    }
}
