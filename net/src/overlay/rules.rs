//! What the kernel is told, as text for `nft` and `ip`: a pure function of what is here and what is known.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

use shoal_core::model::{BRIDGE_PREFIX, NetworkId, NetworkInfo};
use shoal_core::overlay::OverlayTable;

use super::refused::Why;

/// The device that leads to other nodes.
pub(super) const DEVICE: &str = "shoal0";
/// Our routing table and the priority of the rule that leads to it: after the host's own addresses, before its routes.
pub(super) const TABLE: u32 = 5300;
/// Our table of rules.
pub(super) const RULES: &str = "shoal";

/// What is on this host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Here {
    /// Networks with tasks here.
    pub(super) networks: BTreeMap<NetworkId, Arc<NetworkInfo>>,
    /// Addresses of tasks here, each with its network.
    pub(super) addresses: BTreeMap<IpAddr, NetworkId>,
    /// Whether bridges pass what they carry through the rules of IP.
    pub(super) bridge_filter: bool,
    /// Whether there is a way to other hosts.
    pub(super) device: bool,
}

impl Here {
    fn bridges(&self) -> impl Iterator<Item = (String, &Arc<NetworkInfo>)> {
        self.networks.values().map(|network| (network.bridge(), network))
    }
}

fn list<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}

/// What is said once for each family of addresses.
struct Family {
    v4: bool,
    /// `ip` or `ip6`.
    word: &'static str,
    /// The type of its addresses in sets.
    kind: &'static str,
}

const FAMILIES: [Family; 2] = [
    Family { v4: true, word: "ip", kind: "ipv4_addr" },
    Family { v4: false, word: "ip6", kind: "ipv6_addr" },
];

/// Our table of rules. What follows tasks is kept apart, so that a change of one costs no more than that, however many there are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Rules {
    /// By name: what a set is, and what is in it, each with what it leads to.
    sets: BTreeMap<String, (String, BTreeMap<String, String>)>,
    /// By name: the only rule of a chain.
    chains: BTreeMap<String, String>,
    /// All that is asked first.
    base: String,
}

impl Rules {
    /// The whole table, replacing the one before in one step.
    pub(super) fn whole(&self) -> String {
        let mut text = format!("add table inet {RULES}\ndelete table inet {RULES}\ntable inet {RULES} {{\n");
        for (name, (kind, elements)) in &self.sets {
            let all = list(elements.iter().map(|(key, to)| format!("{key}{to}")));
            let all = if all.is_empty() { String::new() } else { format!("elements = {{ {all} }} ") };
            let _ = writeln!(text, "  {name} {{ type {kind}; {all}}}");
        }
        for (name, rule) in &self.chains {
            let _ = writeln!(text, "  chain {name} {{\n    {rule}\n  }}");
        }
        text + &self.base + "}\n"
    }

    /// What makes these of the ones before, in one step; none if that needs the whole table.
    pub(super) fn change(&self, before: &Self) -> Option<String> {
        if self.base != before.base {
            return None;
        }
        let mut text = String::new();
        for (name, rule) in &self.chains {
            if before.chains.get(name) != Some(rule) {
                let _ = writeln!(text, "add chain inet {RULES} {name}\nflush chain inet {RULES} {name}");
                let _ = writeln!(text, "add rule inet {RULES} {name} {rule}");
            }
        }
        for (name, (_, elements)) in &self.sets {
            // The sets themselves are always the same.
            let had = &before.sets.get(name)?.1;
            // A map or a set is an element's in the same words.
            let name = name.split(' ').next_back().unwrap_or_default();
            let gone: Vec<&String> = had.keys().filter(|key| elements.get(*key) != had.get(*key)).collect();
            let new = elements.iter().filter(|(key, to)| had.get(*key) != Some(to));
            let new: Vec<String> = new.map(|(key, to)| format!("{key}{to}")).collect();
            if !gone.is_empty() {
                let _ = writeln!(text, "delete element inet {RULES} {name} {{ {} }}", list(gone));
            }
            if !new.is_empty() {
                let _ = writeln!(text, "add element inet {RULES} {name} {{ {} }}", list(new));
            }
        }
        for name in before.chains.keys().filter(|name| !self.chains.contains_key(*name)) {
            let _ = writeln!(text, "flush chain inet {RULES} {name}\ndelete chain inet {RULES} {name}");
        }
        Some(text)
    }
}

/// The rules for what is here.
pub(super) fn rules(here: &Here, table: &OverlayTable) -> Rules {
    let mut rules = Rules::default();
    let virtuals: Vec<_> =
        table.virtuals().filter(|(_, behind)| here.networks.contains_key(&behind.network)).collect();
    for family in &FAMILIES {
        let Family { word, kind, v4 } = family;
        let mut leads = BTreeMap::new();
        let mut dead = BTreeMap::new();
        for (address, behind) in virtuals.iter().filter(|(address, _)| address.is_ipv4() == *v4) {
            if behind.backends.is_empty() {
                dead.insert(address.to_string(), String::new());
                continue;
            }
            let name = format!("virtual_{}", address.to_string().replace(['.', ':'], "_"));
            leads.insert(address.to_string(), format!(" : goto {name}"));
            let turns = behind.backends.iter().enumerate().map(|(turn, ip)| format!("{turn} : {ip}"));
            let count = behind.backends.len();
            let rule = format!("dnat {word} to numgen random mod {count} map {{ {} }}", list(turns));
            rules.chains.insert(name, rule);
        }
        let plain = |keys: Vec<String>| keys.into_iter().map(|key| (key, String::new())).collect();
        let own = here.addresses.keys().filter(|ip| ip.is_ipv4() == *v4).map(|ip| format!("{ip} . {ip}"));
        let subnets = |open_only: bool| {
            let networks = here.networks.values().filter(move |network| !open_only || !network.internal);
            let pools = networks.flat_map(|network| &network.pools).map(|pool| pool.subnet);
            pools.filter(|subnet| subnet.addr().is_ipv4() == *v4).map(|subnet| subnet.to_string()).collect()
        };
        let mut set = |name: String, kind: String, elements| drop(rules.sets.insert(name, (kind, elements)));
        set(format!("map {word}_virtual"), format!("{kind} : verdict"), leads);
        set(format!("set {word}_dead"), (*kind).to_owned(), dead);
        set(format!("set {word}_self"), format!("{kind} . {kind}"), plain(own.collect()));
        set(format!("set {word}_all"), format!("{kind}; flags interval"), plain(subnets(false)));
        set(format!("set {word}_open"), format!("{kind}; flags interval"), plain(subnets(true)));
    }
    rules.base = counters() + &before_routing() + &after_routing(here) + &forwarded(here);
    // Whom a virtual address stands for is not the sender's concern.
    let _ = write!(
        rules.base,
        "  chain output {{\n    type filter hook output priority 0; policy accept;\n    oifname \"{BRIDGE_PREFIX}*\" \
         icmp type redirect drop\n    oifname \"{BRIDGE_PREFIX}*\" icmpv6 type nd-redirect drop\n  }}\n"
    );
    rules
}

fn counters() -> String {
    Why::ALL.map(|why| format!("  counter {} {{ packets 0 bytes 0 }}\n", why.counter())).concat()
}

/// The end of a rule that refuses for this reason.
fn refuse(why: Why) -> String {
    format!("counter name \"{}\" drop", why.counter())
}

fn before_routing() -> String {
    let mut text =
        "  chain prerouting {\n    type nat hook prerouting priority -110; policy accept;\n".to_owned();
    for Family { word, .. } in &FAMILIES {
        let _ = writeln!(text, "    iifname \"{BRIDGE_PREFIX}*\" {word} daddr vmap @{word}_virtual");
    }
    text + "  }\n"
}

fn after_routing(here: &Here) -> String {
    let mut text =
        "  chain postrouting {\n    type nat hook postrouting priority 90; policy accept;\n".to_owned();
    for Family { word, v4, .. } in &FAMILIES {
        // A task that asks itself by a virtual address has to see somebody else answer.
        let _ = writeln!(text, "    ct status dnat {word} saddr . {word} daddr @{word}_self masquerade");
        if !here.bridge_filter {
            // Two tasks on one bridge answer each other directly, past the rules: the answer has to come back here.
            for (bridge, network) in here.bridges() {
                for pool in network.pools.iter().filter(|pool| pool.subnet.addr().is_ipv4() == *v4) {
                    let _ = writeln!(
                        text,
                        "    ct status dnat {word} saddr {} oifname \"{bridge}\" masquerade",
                        pool.subnet
                    );
                }
            }
        }
        // Outside nobody knows the way back to a task.
        let _ = writeln!(
            text,
            "    {word} saddr @{word}_open oifname != \"{BRIDGE_PREFIX}*\" oifname != \"{DEVICE}\" masquerade"
        );
    }
    text + "  }\n"
}

fn forwarded(here: &Here) -> String {
    let mut text = String::new();
    let mut dead = String::new();
    for Family { word, .. } in &FAMILIES {
        let _ = writeln!(dead, "    {word} daddr @{word}_dead meta l4proto tcp reject with tcp reset");
        let _ = writeln!(dead, "    {word} daddr @{word}_dead reject");
    }
    // A virtual address that nobody stands behind is this host's own as far as the kernel knows.
    let _ = write!(
        text,
        "  chain input {{\n    type filter hook input priority -10; policy accept;\n{dead}  }}\n  chain forward \
         {{\n    type filter hook forward priority -10; policy accept;\n{dead}"
    );
    let (crossing, foreign) = (refuse(Why::Crossing), refuse(Why::Foreign));
    for (bridge, network) in here.bridges() {
        // Networks are islands: nothing goes from one to another, nor out under a borrowed address.
        let _ = writeln!(
            text,
            "    iifname \"{bridge}\" oifname \"{BRIDGE_PREFIX}*\" oifname != \"{bridge}\" {crossing}"
        );
        for pool in &network.pools {
            let word = if pool.subnet.addr().is_ipv4() { "ip" } else { "ip6" };
            let link_local = if word == "ip6" { " ip6 saddr != fe80::/10" } else { "" };
            let subnet = pool.subnet;
            let _ = writeln!(text, "    iifname \"{bridge}\" {word} saddr != {subnet}{link_local} {foreign}");
        }
    }
    // What nobody inside asked for comes in by a published port or by the tunnel.
    text.push_str("    ct state established,related accept\n    ct status dnat accept\n");
    for Family { word, .. } in &FAMILIES {
        let _ = writeln!(
            text,
            "    iifname != \"{BRIDGE_PREFIX}*\" iifname != \"{DEVICE}\" {word} daddr @{word}_all {}",
            refuse(Why::Entering)
        );
    }
    text + "  }\n"
}

/// Routes of our table, one a line, as `ip route` takes and shows them.
pub(super) fn routes(here: &Here, table: &OverlayTable) -> BTreeSet<(bool, String)> {
    let mut routes = BTreeSet::new();
    for (address, network) in &here.addresses {
        if let Some(network) = here.networks.get(network) {
            routes.insert((address.is_ipv4(), format!("{address} dev {} scope link", network.bridge())));
        }
    }
    for (address, behind) in table.virtuals() {
        if here.networks.contains_key(&behind.network) {
            // The host answers for it, so that what is sent to it comes by the rules.
            routes.insert((address.is_ipv4(), format!("local {address} dev lo scope host")));
        }
    }
    if here.device {
        for pool in here.networks.values().flat_map(|network| &network.pools) {
            routes.insert((pool.subnet.addr().is_ipv4(), format!("{} dev {DEVICE} scope link", pool.subnet)));
        }
    }
    routes
}

/// Addresses of IPv6 that a bridge answers for, each with the bridge: of IPv4 it answers for all that it routes elsewhere.
pub(super) fn neighbours(here: &Here, table: &OverlayTable) -> BTreeSet<(String, IpAddr)> {
    let places = table.reachable().map(|(address, place)| (address, place.network));
    let all = places.chain(table.virtuals().map(|(address, behind)| (address, behind.network)));
    let elsewhere = all.filter(|(address, _)| address.is_ipv6() && !here.addresses.contains_key(address));
    elsewhere.filter_map(|(address, id)| Some((here.networks.get(&id)?.bridge(), address))).collect()
}

#[cfg(test)]
mod tests {
    use shoal_core::model::Pool;

    use super::super::tests::{change, info, ip};
    use super::*;

    fn here(bridge_filter: bool) -> Here {
        let network = info(1);
        Here {
            addresses: BTreeMap::from([(ip("10.1.0.3"), network.id)]),
            networks: BTreeMap::from([(network.id, network)]),
            bridge_filter,
            device: true,
        }
    }

    #[test]
    fn a_virtual_address_leads_to_its_backends_and_one_without_is_refused() {
        let mut table = OverlayTable::default();
        table.follow(&change(1, "10.1.0.2", &["10.1.0.3", "10.1.0.4"]));
        table.follow(&change(2, "10.1.0.9", &[]));
        let text = rules(&here(true), &table).whole();
        assert!(text.contains("dnat ip to numgen random mod 2 map { 0 : 10.1.0.3, 1 : 10.1.0.4 }"), "{text}");
        assert!(text.contains("set ip_dead { type ipv4_addr; elements = { 10.1.0.9 } }"), "{text}");
        assert!(text.contains("elements = { 10.1.0.3 . 10.1.0.3 }"), "{text}");
        assert!(!text.contains("ct status dnat ip saddr 10.1.0.0/16 oifname"), "{text}");
        let text = rules(&here(false), &table).whole();
        assert!(text.contains("ct status dnat ip saddr 10.1.0.0/16 oifname \"shl-"), "{text}");
    }

    #[test]
    fn a_change_says_what_differs_and_no_more() {
        let mut table = OverlayTable::default();
        for (service, address, tasks) in [
            (1, "10.1.0.2", &["10.1.0.3", "10.1.0.4"][..]),
            (2, "10.1.0.9", &[]),
            (3, "10.1.0.7", &["10.1.0.8"]),
        ] {
            table.follow(&change(service, address, tasks));
        }
        let before = rules(&here(true), &table);
        assert_eq!(before.change(&before).as_deref(), Some(""));
        table.follow(&change(1, "10.1.0.2", &["10.1.0.4"]));
        table.follow(&change(2, "10.1.0.9", &["10.1.0.5"]));
        table.follow(&change(3, "10.1.0.7", &[]));
        let after = rules(&here(true), &table);
        let lines = [
            "add chain inet shoal virtual_10_1_0_2",
            "flush chain inet shoal virtual_10_1_0_2",
            "add rule inet shoal virtual_10_1_0_2 dnat ip to numgen random mod 1 map { 0 : 10.1.0.4 }",
            "add chain inet shoal virtual_10_1_0_9",
            "flush chain inet shoal virtual_10_1_0_9",
            "add rule inet shoal virtual_10_1_0_9 dnat ip to numgen random mod 1 map { 0 : 10.1.0.5 }",
            "delete element inet shoal ip_virtual { 10.1.0.7 }",
            "add element inet shoal ip_virtual { 10.1.0.9 : goto virtual_10_1_0_9 }",
            "delete element inet shoal ip_dead { 10.1.0.9 }",
            "add element inet shoal ip_dead { 10.1.0.7 }",
            "flush chain inet shoal virtual_10_1_0_7",
            "delete chain inet shoal virtual_10_1_0_7",
        ];
        let said = after.change(&before).unwrap();
        assert_eq!(said.lines().collect::<Vec<_>>(), lines);
        // Another network changes what is asked first.
        let more = Here { networks: BTreeMap::new(), ..here(true) };
        assert_eq!(rules(&more, &table).change(&after), None);
    }

    #[test]
    fn what_is_refused_is_counted_by_reason() {
        let text = rules(&here(true), &OverlayTable::default()).whole();
        for why in Why::ALL {
            let name = why.counter();
            assert!(text.contains(&format!("  counter {name} {{ packets 0 bytes 0 }}")), "{text}");
            assert!(text.contains(&format!(" counter name \"{name}\" drop")), "{text}");
        }
        let drops = text.lines().filter(|line| line.ends_with(" drop") && !line.contains("redirect"));
        assert!(drops.into_iter().all(|line| line.contains("counter name")), "{text}");
    }

    #[test]
    fn networks_that_are_not_here_leave_no_trace() {
        let mut table = OverlayTable::default();
        table.follow(&change(2, "10.1.0.9", &["10.1.0.8"]));
        let elsewhere = Here { networks: BTreeMap::new(), ..here(true) };
        assert!(!rules(&elsewhere, &table).whole().contains("10.1.0.8"));
        assert_eq!(routes(&elsewhere, &table), BTreeSet::new());
    }

    #[test]
    fn an_internal_network_does_not_get_out() {
        let mut inside = (*info(1)).clone();
        inside.internal = true;
        let here = Here { networks: BTreeMap::from([(inside.id, Arc::new(inside))]), ..here(true) };
        let text = rules(&here, &OverlayTable::default()).whole();
        assert!(text.contains("set ip_open { type ipv4_addr; flags interval; }"), "{text}");
        assert!(text.contains("set ip_all { type ipv4_addr; flags interval; elements = { 10.1.0.0/16 } }"));
    }

    #[test]
    fn routes_lead_to_tasks_here_to_virtual_addresses_and_to_the_rest() {
        let mut table = OverlayTable::default();
        table.follow(&change(1, "10.1.0.2", &["10.1.0.3"]));
        let mut here = here(true);
        let pool = Pool::new("fd00::/64".parse().unwrap(), None).unwrap();
        Arc::make_mut(here.networks.values_mut().next().unwrap()).pools.push(pool);
        let bridge = here.networks.values().next().unwrap().bridge();
        let expected = [
            (false, "fd00::/64 dev shoal0 scope link".to_owned()),
            (true, "10.1.0.0/16 dev shoal0 scope link".to_owned()),
            (true, format!("10.1.0.3 dev {bridge} scope link")),
            (true, "local 10.1.0.2 dev lo scope host".to_owned()),
        ];
        assert_eq!(routes(&here, &table), BTreeSet::from(expected));
    }
}
