use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::mesh::{Backend, Options, Route, RouteChange, RouteNetwork};
use crate::model::*;

fn network_id(number: u8) -> NetworkId {
    NetworkId::from_u128(number.into())
}

fn v4(network: u8, host: u8) -> IpAddr {
    Ipv4Addr::new(10, network, 0, host).into()
}

fn v6(network: u8, host: u8) -> IpAddr {
    Ipv6Addr::new(0xfd00, network.into(), 0, 0, 0, 0, 0, host.into()).into()
}

/// Network 1 is `Front`, which has both families, 2 is `back`, 3 is `back.end`; further ones are `n4` and so on.
fn network(number: u8) -> Arc<NetworkInfo> {
    let name = match number {
        1 => "Front".into(),
        2 => "back".into(),
        3 => "back.end".into(),
        _ => format!("n{number}"),
    };
    let pool = |subnet: String, gateway| Pool { subnet: subnet.parse().unwrap(), gateway, range: None };
    let mut pools = vec![pool(format!("10.{number}.0.0/24"), v4(number, 1))];
    if number == 1 {
        pools.push(pool("fd00:1::/64".into(), v6(1, 1)));
    }
    let (internal, attachable) = (false, false);
    Arc::new(NetworkInfo { id: network_id(number), name: name.as_str().into(), internal, attachable, pools })
}

fn both(network: u8, host: u8) -> Vec<IpAddr> {
    if network == 1 { vec![v4(network, host), v6(network, host)] } else { vec![v4(network, host)] }
}

/// A task with this host number in each of the networks.
fn task(id: u8, slot: Slot, networks: &[u8]) -> Backend {
    let addresses = networks.iter().map(|network| (network_id(*network), both(*network, id))).collect();
    Backend {
        task: TaskId::from_u128(id.into()),
        node: NodeId::from_u128(1),
        addr: String::new(),
        slot,
        addresses,
    }
}

/// Networks with the host number of the virtual address there; 0 for none.
fn route(id: u8, name: &str, networks: &[(u8, u8)], aliases: &[&str]) -> Route {
    let place = |(number, host): &(u8, u8)| RouteNetwork {
        network: network(*number),
        aliases: aliases.iter().map(|alias| (*alias).to_owned()).collect(),
        addresses: if *host == 0 { Vec::new() } else { both(*number, *host) },
    };
    Route {
        service: ServiceId::from_u128(id.into()),
        name: name.into(),
        ports: Vec::new(),
        options: Options::default(),
        backends: Vec::new(),
        networks: networks.iter().map(place).collect(),
        others: Vec::new(),
        attached: false,
    }
}

fn table(routes: impl IntoIterator<Item = Route>) -> NameTable {
    let routes = routes.into_iter().map(|route| (route.service, Arc::new(route)));
    NameTable::new(&routes.collect::<BTreeMap<_, _>>())
}

/// `Web` has virtual addresses in both networks, `db` and `cache` are found by their tasks and share an alias, `agent` is global,
/// `idle` has nobody.
fn example() -> NameTable {
    let port = |name: &str, target_port, protocol| PortConfig {
        name: name.into(),
        protocol,
        target_port,
        published_port: target_port + 8000,
        mode: PortMode::Ingress,
        at: Vec::new(),
    };
    let mut web = route(1, "Web", &[(1, 10), (2, 10)], &["www", "web.example.com"]);
    web.ports = vec![port("http", 80, Protocol::Tcp), port("", 53, Protocol::Udp)];
    web.backends = vec![task(21, Slot::Replica(1), &[1, 2]), task(22, Slot::Replica(2), &[1, 2])];
    web.others = vec![task(23, Slot::Replica(2), &[1, 2]), task(24, Slot::Replica(3), &[1, 2])];
    let mut db = route(2, "db", &[(2, 0)], &["Data"]);
    db.backends = vec![task(31, Slot::Replica(1), &[2]), task(32, Slot::Replica(2), &[2])];
    let mut cache = route(3, "cache", &[(2, 0)], &["data"]);
    cache.backends = vec![task(41, Slot::Replica(1), &[2])];
    let mut agent = route(4, "agent", &[(3, 10)], &[]);
    agent.backends = vec![task(51, Slot::Node(NodeId::from_u128(7)), &[3])];
    let mut idle = route(5, "idle", &[(1, 15)], &[]);
    idle.others = vec![task(61, Slot::Replica(1), &[1])];
    table([web, db, cache, agent, idle])
}

fn scope(networks: &[u8]) -> Scope {
    Scope::Networks(networks.iter().map(|number| network_id(*number)).collect())
}

fn addresses<const N: usize>(hosts: [(u8, u8); N]) -> Answer {
    Answer::Addresses(hosts.map(|(network, host)| v4(network, host)).to_vec())
}

fn ask(networks: &[u8], name: &str, kind: QueryKind) -> Answer {
    example().answer(&scope(networks), name, kind, 0)
}

fn a(networks: &[u8], name: &str) -> Answer {
    ask(networks, name, QueryKind::A)
}

fn id(number: u128) -> String {
    TaskId::from_u128(number).to_string()
}

#[test]
fn a_service_is_its_virtual_address_in_the_shared_networks() {
    assert_eq!(a(&[1], "web"), addresses([(1, 10)]));
    assert_eq!(a(&[2], "WEB."), addresses([(2, 10)]));
    assert_eq!(a(&[1, 2], "wEb"), addresses([(1, 10), (2, 10)]));
    assert_eq!(ask(&[1], "web", QueryKind::Aaaa), Answer::Addresses(vec![v6(1, 10)]));
    assert_eq!(ask(&[1], "web", QueryKind::Any), Answer::Addresses(both(1, 10)));
}

#[test]
fn a_service_without_a_virtual_address_is_its_tasks() {
    assert_eq!(a(&[2], "db"), addresses([(2, 31), (2, 32)]));
    assert_eq!(example().answer(&scope(&[2]), "db", QueryKind::A, 1), addresses([(2, 32), (2, 31)]));
}

#[test]
fn a_service_that_nobody_answers_for_has_no_address_and_yet_is_there() {
    for name in ["idle", "tasks.idle", "idle.front", "idle.1"] {
        assert_eq!(a(&[1], name), Answer::Empty, "{name}");
    }
}

#[test]
fn a_name_without_an_address_of_the_family_or_without_the_kind_is_there() {
    for (name, kind) in [
        ("web", QueryKind::Aaaa),
        ("tasks.db", QueryKind::Aaaa),
        ("web", QueryKind::Srv),
        ("web", QueryKind::Ptr),
        ("web", QueryKind::Other),
        ("_http._tcp.web", QueryKind::A),
        ("21.0.2.10.in-addr.arpa", QueryKind::A),
    ] {
        assert_eq!(ask(&[2], name, kind), Answer::Empty, "{name} {kind:?}");
    }
}

#[test]
fn a_services_tasks_are_those_that_take_traffic_by_turns() {
    let table = example();
    let tasks = |turn| table.answer(&scope(&[1]), "tasks.web", QueryKind::A, turn);
    assert_eq!(tasks(0), addresses([(1, 21), (1, 22)]));
    assert_eq!(tasks(1), addresses([(1, 22), (1, 21)]));
    assert_eq!(tasks(u64::MAX - 1), addresses([(1, 21), (1, 22)]));
    assert_eq!(a(&[1], "TASKS.www."), addresses([(1, 21), (1, 22)]));
}

#[test]
fn a_network_may_be_said() {
    assert_eq!(a(&[1, 2], "web.front"), addresses([(1, 10)]));
    assert_eq!(a(&[1, 2], "web.BACK."), addresses([(2, 10)]));
    assert_eq!(a(&[1, 2], "tasks.web.back"), addresses([(2, 21), (2, 22)]));
    assert_eq!(a(&[1, 2], "web.1.back"), addresses([(2, 21)]));
    assert_eq!(a(&[3], "agent.back.end"), addresses([(3, 10)]));
    assert_eq!(a(&[1], "web.back"), Answer::NotOurs);
    assert_eq!(a(&[1, 2], "db.front"), Answer::NotOurs);
}

#[test]
fn a_task_has_names() {
    assert_eq!(a(&[1], "web.1"), addresses([(1, 21)]));
    assert_eq!(a(&[1, 2], "web.2"), addresses([(1, 22), (2, 22)]));
    assert_eq!(a(&[1], &format!("web.2.{}", id(22))), addresses([(1, 22)]));
    assert_eq!(a(&[1], &format!("web.2.{}.front", id(22))), addresses([(1, 22)]));
    let node = NodeId::from_u128(7);
    assert_eq!(a(&[3], &format!("agent.{node}")), addresses([(3, 51)]));
    assert_eq!(a(&[3], &format!("agent.{node}.{}", id(51))), addresses([(3, 51)]));
    // They start, or end.
    assert_eq!(a(&[1], "web.3"), Answer::Empty);
    assert_eq!(a(&[1], &format!("web.2.{}", id(23))), Answer::Empty);
    for name in
        ["web.4", "web.01", "web.+1", "www.1", &format!("web.1.{}", id(22)), &format!("web.{}", id(21))]
    {
        assert_eq!(a(&[1], name), Answer::NotOurs, "{name}");
    }
}

#[test]
fn an_alias_is_all_who_have_it() {
    assert_eq!(a(&[1], "www"), addresses([(1, 10)]));
    assert_eq!(a(&[2], "web.example.com"), addresses([(2, 10)]));
    assert_eq!(a(&[2], "data"), addresses([(2, 31), (2, 32), (2, 41)]));
    assert_eq!(a(&[2], "tasks.data.back"), addresses([(2, 31), (2, 32), (2, 41)]));
    assert_eq!(a(&[1], "data"), Answer::NotOurs);
}

#[test]
fn ports_are_found_by_name_and_number() {
    let place = |task: u8, slot: u8, port, networks: &[u8], said: &str| Place {
        port,
        target: format!("Web.{slot}.{}{said}", id(task.into())),
        addresses: networks.iter().flat_map(|network| both(*network, task)).collect(),
    };
    let srv = |networks: &[u8], name: &str| ask(networks, name, QueryKind::Srv);
    let both_tasks = |port, networks: &[u8], said| {
        Answer::Places(vec![place(21, 1, port, networks, said), place(22, 2, port, networks, said)])
    };
    assert_eq!(srv(&[1], "_http._tcp.web"), both_tasks(80, &[1], ""));
    assert_eq!(srv(&[1, 2], "_80._TCP.web."), both_tasks(80, &[1, 2], ""));
    assert_eq!(srv(&[2], "_53._udp.tasks.web"), both_tasks(53, &[2], ""));
    assert_eq!(srv(&[1, 2], "_http._tcp.www.back"), both_tasks(80, &[2], ".back"));
    assert_eq!(srv(&[1], "_http._tcp.web.2"), Answer::Places(vec![place(22, 2, 80, &[1], "")]));
    let turned = example().answer(&scope(&[1]), "_http._tcp.web", QueryKind::Srv, 1);
    assert_eq!(turned, Answer::Places(vec![place(22, 2, 80, &[1], ""), place(21, 1, 80, &[1], "")]));
    // What is told of is found.
    let Answer::Places(places) = srv(&[1, 2], "_http._tcp.web.back") else { panic!("no places") };
    for place in places {
        assert_eq!(a(&[1, 2], &place.target), Answer::Addresses(place.addresses));
    }
    // Whether a container listens there is for it to say: exposed, published on hosts or not at all.
    assert_eq!(srv(&[1], "_81._tcp.web"), both_tasks(81, &[1], ""));
    assert_eq!(srv(&[1], "_80._sctp.web"), both_tasks(80, &[1], ""));
    let db = |slot: u8| Place {
        port: 5432,
        target: format!("db.{slot}.{}", id(30 + u128::from(slot))),
        addresses: both(2, 30 + slot),
    };
    assert_eq!(srv(&[2], "_5432._tcp.db"), Answer::Places(vec![db(1), db(2)]));
    assert_eq!(srv(&[1], "_80._tcp.idle"), Answer::Empty, "nobody takes its traffic");
    for name in
        ["_http._udp.web", "_._tcp.web", "_0._tcp.web", "_080._tcp.web", "_+80._tcp.web", "_65536._tcp.web"]
    {
        assert_eq!(srv(&[1], name), Answer::NoSuchName, "{name}");
    }
    for name in ["_http._tcp.nobody", "_http._quic.web", "_http.web", "_http._tcp.db"] {
        assert_eq!(srv(&[1], name), Answer::NotOurs, "{name}");
    }
}

#[test]
fn an_address_has_the_name_of_who_has_it() {
    let ptr = |networks: &[u8], name: &str| ask(networks, name, QueryKind::Ptr);
    let names = |name: String| Answer::Names(vec![name]);
    assert_eq!(ptr(&[1], "10.0.1.10.in-addr.arpa."), names("Web.Front".into()));
    assert_eq!(ptr(&[2], "31.0.2.10.IN-ADDR.ARPA"), names(format!("db.1.{}.back", id(31))));
    assert_eq!(ptr(&[1], "24.0.1.10.in-addr.arpa"), names(format!("Web.3.{}.Front", id(24))));
    let node = NodeId::from_u128(7);
    assert_eq!(ptr(&[3], "51.0.3.10.in-addr.arpa"), names(format!("agent.{node}.{}.back.end", id(51))));
    let six = "a.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.0.0.0.0.d.f.ip6.arpa";
    assert_eq!(ptr(&[1], six), names("Web.Front".into()));
    // Nobody's, or of a network that is not seen.
    assert_eq!(ptr(&[1], "99.0.1.10.in-addr.arpa"), Answer::NoSuchName);
    assert_eq!(ptr(&[1], "31.0.2.10.in-addr.arpa"), Answer::NoSuchName);
    for name in [
        "1.1.9.10.in-addr.arpa",
        "0.1.10.in-addr.arpa",
        "1.10.0.1.10.in-addr.arpa",
        "010.0.1.10.in-addr.arpa",
        "256.0.1.10.in-addr.arpa",
        "1.0.0.ip6.arpa",
        "in-addr.arpa",
        ".ip6.arpa",
    ] {
        assert_eq!(ptr(&[1], name), Answer::NotOurs, "{name}");
    }
}

#[test]
fn what_is_in_other_networks_or_nowhere_is_not_ours() {
    for name in
        ["db", "tasks.db", "db.1", "db.back", "example.com", "web.com", "tasks", "", ".", "front", "..", "é"]
    {
        assert_eq!(a(&[1], name), Answer::NotOurs, "{name}");
    }
    assert_eq!(a(&[1], &"web.".repeat(100)), Answer::NotOurs);
}

#[test]
fn a_program_outside_sees_all_networks() {
    let ask = |name: &str| example().answer(&Scope::All, name, QueryKind::A, 0);
    assert_eq!(ask("web"), addresses([(1, 10), (2, 10)]));
    assert_eq!(ask("web.back"), addresses([(2, 10)]));
    assert_eq!(ask("agent"), addresses([(3, 10)]));
    assert_eq!(ask("example.com"), Answer::NotOurs);
}

#[test]
fn a_container_sees_the_networks_of_its_task_and_the_one_that_it_asks_in() {
    let table = example();
    assert_eq!(table.scope(v4(1, 21), network_id(1)), scope(&[1, 2]));
    // One that starts too; nobody's container; a virtual address; an address that it cannot have there.
    assert_eq!(table.scope(v4(1, 24), network_id(1)), scope(&[1, 2]));
    assert_eq!(table.scope(v4(1, 99), network_id(1)), scope(&[1]));
    assert_eq!(table.scope(v4(1, 10), network_id(1)), scope(&[1]));
    assert_eq!(table.scope(v4(2, 21), network_id(9)), scope(&[9]));
}

/// A few services that come, change and go, with few names, so that they meet.
fn any_route() -> impl Strategy<Value = Route> {
    let name = prop::sample::select(vec!["a", "B", "c", "tasks", "n4", "1"]);
    let alias = prop::sample::select(vec!["a", "b", "x.y", "Z", "n5", "a.1"]);
    let networks = prop::collection::btree_map(4u8..7, prop::bool::ANY, 0..3);
    let tasks =
        prop::collection::btree_map(0u8..8, (1u64..4, prop::bool::ANY, prop::option::of(4u8..7)), 0..6);
    let ports = prop::collection::vec((prop::sample::select(vec!["", "http"]), 1u16..4), 0..3);
    (0u8..5, name, prop::collection::vec(alias, 0..3), networks, tasks, ports).prop_map(
        |(id, name, aliases, networks, tasks, ports)| {
            let hosts: Vec<(u8, u8)> =
                networks.iter().map(|(network, virt)| (*network, if *virt { 10 + id } else { 0 })).collect();
            let mut route = route(id, name, &hosts, &aliases);
            for (number, (slot, healthy, but)) in tasks {
                let networks: Vec<u8> =
                    networks.keys().filter(|network| Some(**network) != but).copied().collect();
                let task = task(20 + id * 10 + number, Slot::Replica(slot), &networks);
                if healthy { route.backends.push(task) } else { route.others.push(task) }
            }
            let port = |(name, target_port): (&str, u16)| PortConfig {
                name: name.into(),
                target_port,
                published_port: target_port + 8000,
                ..PortConfig::default()
            };
            route.ports = ports.into_iter().map(port).collect();
            route
        },
    )
}

fn any_change() -> impl Strategy<Value = (u8, Option<Route>)> {
    prop_oneof![
        4 => any_route().prop_map(|route| (u8::try_from(route.service.as_u128()).unwrap(), Some(route))),
        1 => (0u8..5).prop_map(|id| (id, None)),
    ]
}

fn any_name() -> impl Strategy<Value = String> {
    let label = prop::sample::select(vec![
        "a",
        "b",
        "C",
        "tasks",
        "n4",
        "n5",
        "n6",
        "1",
        "2",
        "x.y",
        "z",
        "_http",
        "_tcp",
        "_1",
        "com",
        "",
        "000000000000000000000000k",
        "20.0.4.10.in-addr.arpa",
        "10.0.4.10.in-addr.arpa",
    ]);
    prop_oneof![
        8 => prop::collection::vec(label, 1..5).prop_map(|labels| labels.join(".")),
        1 => any::<String>(),
    ]
}

fn any_kind() -> impl Strategy<Value = QueryKind> {
    prop::sample::select(vec![
        QueryKind::A,
        QueryKind::Aaaa,
        QueryKind::Srv,
        QueryKind::Ptr,
        QueryKind::Any,
        QueryKind::Other,
    ])
}

fn any_scope() -> impl Strategy<Value = Scope> {
    prop_oneof![
        1 => Just(Scope::All),
        4 => prop::collection::vec(4u8..7, 0..3).prop_map(|networks| scope(&networks)),
    ]
}

/// Addresses of who takes traffic, in networks that are seen, and virtual addresses there.
fn tellable(routes: &BTreeMap<ServiceId, Arc<Route>>, scope: &Scope) -> BTreeSet<IpAddr> {
    let seen = |route: &Route| {
        let tasks = route.backends.iter().flat_map(|task| task.addresses.clone());
        let virt = route.networks.iter().map(|place| (place.network.id, place.addresses.clone()));
        let all = tasks.chain(virt).filter(|(network, _)| scope.has(*network));
        all.flat_map(|(_, addresses)| addresses).collect::<Vec<_>>()
    };
    routes.values().flat_map(|route| seen(route)).collect()
}

proptest! {
    /// A table that follows changes is the one that is made anew, and what was copied before stays as it was.
    #[test]
    fn a_table_that_follows_is_as_one_made_anew(changes in prop::collection::vec(any_change(), 1..30)) {
        let (mut routes, mut followed) = (BTreeMap::new(), NameTable::default());
        for (id, after) in changes {
            let (id, after) = (ServiceId::from_u128(id.into()), after.map(Arc::new));
            let (before, copy) = (NameTable::new(&routes), followed.clone());
            let change = RouteChange { before: routes.remove(&id), after: after.clone() };
            routes.extend(after.map(|route| (id, route)));
            followed.apply(&change);
            prop_assert_eq!(&followed, &NameTable::new(&routes));
            prop_assert_eq!(copy, before);
        }
        for id in routes.keys().copied().collect::<Vec<_>>() {
            followed.apply(&RouteChange { before: routes.remove(&id), after: None });
        }
        prop_assert_eq!(followed, NameTable::default());
    }

    /// Nothing is told that must not be seen or takes no traffic; a family is asked for and got; turns and the way a name is
    /// written change nothing but the order.
    #[test]
    fn answers_keep_to_what_is_seen(
        routes in prop::collection::vec(any_route(), 0..6),
        asked in prop::collection::vec((any_scope(), any_name(), any_kind(), any::<u64>()), 1..40),
    ) {
        let routes: BTreeMap<_, _> = routes.into_iter().map(|route| (route.service, Arc::new(route))).collect();
        let table = NameTable::new(&routes);
        for (scope, name, kind, turn) in asked {
            let answer = table.answer(&scope, &name, kind, turn);
            let tellable = tellable(&routes, &scope);
            match &answer {
                Answer::Addresses(found) => {
                    prop_assert!(!found.is_empty());
                    prop_assert!(found.iter().all(|address| tellable.contains(address)), "{} {:?}", name, found);
                    let family = |address: &IpAddr| match kind {
                        QueryKind::A => address.is_ipv4(),
                        QueryKind::Aaaa => address.is_ipv6(),
                        _ => kind == QueryKind::Any,
                    };
                    prop_assert!(found.iter().all(family), "{:?} {:?}", kind, found);
                    let set: BTreeSet<_> = found.iter().collect();
                    prop_assert_eq!(set.len(), found.len());
                    let Answer::Addresses(other) = table.answer(&scope, &name, kind, turn ^ 1) else {
                        return Err(TestCaseError::fail("another turn, another kind of answer"));
                    };
                    prop_assert_eq!(set, other.iter().collect());
                }
                Answer::Places(places) => {
                    prop_assert!(matches!(kind, QueryKind::Srv | QueryKind::Any) && !places.is_empty());
                    for place in places {
                        let told = place.addresses.clone();
                        prop_assert!(told.iter().all(|address| tellable.contains(address)));
                        // The target's own name leads to the same addresses, unless another name hides it.
                        let found = table.answer(&scope, &place.target, QueryKind::Any, 0);
                        prop_assert!(found != Answer::NotOurs, "{} names {}", name, place.target);
                    }
                }
                Answer::Names(names) => {
                    prop_assert!(matches!(kind, QueryKind::Ptr | QueryKind::Any) && !names.is_empty());
                }
                // A name is there or not, whatever is asked of it.
                Answer::NotOurs | Answer::NoSuchName => {
                    let other = table.answer(&scope, &name, QueryKind::Other, turn);
                    prop_assert_eq!(&other, &answer);
                }
                Answer::Empty => {
                    let other = table.answer(&scope, &name, QueryKind::Other, turn);
                    prop_assert_eq!(other, Answer::Empty);
                }
            }
            let shout = table.answer(&scope, &format!("{}.", name.to_ascii_uppercase()), kind, turn);
            if !name.ends_with('.') && !name.is_empty() && name.len() < 255 {
                prop_assert_eq!(shout, answer);
            }
        }
    }

    /// Every service is found under its name by who shares a network, and by nobody else.
    #[test]
    fn a_service_is_found_by_who_shares_a_network(
        routes in prop::collection::vec(any_route(), 0..6),
        scope in any_scope(),
    ) {
        let routes: BTreeMap<_, _> = routes.into_iter().map(|route| (route.service, Arc::new(route))).collect();
        let table = NameTable::new(&routes);
        for route in routes.values() {
            let shared: Vec<_> = route.networks.iter().filter(|place| scope.has(place.network.id)).collect();
            for place in &shared {
                for name in std::iter::once(&route.name).chain(&place.aliases) {
                    let said = format!("tasks.{name}.{}", place.network.name);
                    for name in [name, &format!("tasks.{name}"), &format!("{name}.{}", place.network.name), &said] {
                        prop_assert!(table.answer(&scope, name, QueryKind::A, 0) != Answer::NotOurs, "{}", name);
                    }
                }
                let takes = |task: &&Backend| task.addresses.iter().any(|(id, _)| *id == place.network.id);
                for task in route.backends.iter().filter(takes) {
                    let said = format!("tasks.{}.{}", route.name, place.network.name);
                    let Answer::Addresses(told) = table.answer(&Scope::one(place.network.id), &said, QueryKind::Any, 0) else {
                        // Another service is called so, and hides it.
                        continue;
                    };
                    let own = task.addresses.iter().filter(|(id, _)| *id == place.network.id);
                    let hidden = routes.values().any(|route| route.name == "tasks" || route.name == "1");
                    for address in own.flat_map(|(_, addresses)| addresses) {
                        prop_assert!(hidden || told.contains(address), "{}", said);
                    }
                }
            }
            let elsewhere = Scope::Networks(BTreeSet::new());
            prop_assert_eq!(table.answer(&elsewhere, &route.name, QueryKind::A, 0), Answer::NotOurs);
        }
    }
}

/// A container that is no task, in these networks.
fn attached(id: u8, name: &str, networks: &[u8], aliases: &[&str]) -> Route {
    let places: Vec<(u8, u8)> = networks.iter().map(|network| (*network, 0)).collect();
    Route {
        backends: vec![task(id, Slot::Replica(1), networks)],
        attached: true,
        ..route(id, name, &places, aliases)
    }
}

#[test]
fn a_container_that_is_no_task_is_found_by_its_name_and_aliases_alone() {
    let table = table([attached(71, "Box", &[1, 2], &["crate"])]);
    let a = |name: &str| table.answer(&scope(&[2]), name, QueryKind::A, 0);
    assert_eq!(a("box"), addresses([(2, 71)]));
    assert_eq!(a("crate"), addresses([(2, 71)]));
    assert_eq!(a("box.back"), addresses([(2, 71)]));
    assert_eq!(a("tasks.box"), Answer::NotOurs);
    assert_eq!(a("box.1"), Answer::NotOurs);
    assert_eq!(table.answer(&scope(&[3]), "box", QueryKind::A, 0), Answer::NotOurs);
    let place = Place { port: 80, target: "Box".into(), addresses: both(2, 71) };
    assert_eq!(table.answer(&scope(&[2]), "_80._tcp.crate", QueryKind::Srv, 0), Answer::Places(vec![place]));
    let named = table.answer(&scope(&[2]), "71.0.2.10.in-addr.arpa", QueryKind::Ptr, 0);
    assert_eq!(named, Answer::Names(vec!["Box.back".into()]));
    // It sees names in all networks that it is in.
    assert_eq!(table.scope(v4(2, 71), network_id(2)), scope(&[1, 2]));
}

#[test]
fn a_container_that_is_named_like_a_service_takes_nothing_from_it() {
    let mut web = route(1, "web", &[(2, 10)], &[]);
    web.backends = vec![task(21, Slot::Replica(1), &[2])];
    let table = table([web, attached(71, "web", &[1, 2], &[]), attached(72, "other", &[2], &["web"])]);
    assert_eq!(table.answer(&scope(&[2]), "web", QueryKind::A, 0), addresses([(2, 10)]));
    assert_eq!(table.answer(&scope(&[1]), "web", QueryKind::A, 0), addresses([(1, 71)]));
    assert_eq!(table.answer(&scope(&[2]), "tasks.web", QueryKind::A, 0), addresses([(2, 21)]));
}
