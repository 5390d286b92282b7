//! A message to the name server, which knows one service.
#![no_main]

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use shoal_core::mesh::{Backend, Options, Route, RouteNetwork};
use shoal_core::model::{
    NetworkId, NetworkInfo, NodeId, Pool, PortConfig, PortMode, Protocol, ServiceId, Slot, TaskId,
};
use shoal_core::names::NameTable;

static TABLE: LazyLock<NameTable> = LazyLock::new(|| {
    let address = |text: &str| text.parse::<IpAddr>().expect("an address");
    let (id, service) = (NetworkId::from_u128(1), ServiceId::from_u128(1));
    let pool = Pool { subnet: "10.0.0.0/24".parse().expect("a range"), gateway: address("10.0.0.1"), range: None };
    let (internal, attachable) = (false, false);
    let network = NetworkInfo { id, name: "net".into(), internal, attachable, pools: vec![pool] };
    let backend = Backend {
        task: TaskId::from_u128(1),
        node: NodeId::from_u128(1),
        addr: String::new(),
        slot: Slot::Replica(1),
        addresses: vec![(id, vec![address("10.0.0.3"), address("fd00::3")])],
    };
    let port = PortConfig {
        name: "http".into(),
        protocol: Protocol::Tcp,
        target_port: 80,
        published_port: 80,
        mode: PortMode::Ingress,
        at: Vec::new(),
    };
    let place = RouteNetwork {
        network: Arc::new(network),
        aliases: vec!["www.example.com".into()],
        addresses: vec![address("10.0.0.2"), address("fd00::2")],
    };
    let route = Route {
        service,
        name: "web".into(),
        ports: vec![port],
        options: Options::default(),
        backends: vec![backend],
        networks: vec![place],
        others: Vec::new(),
        attached: false,
    };
    NameTable::new(&BTreeMap::from([(service, Arc::new(route))]))
});

fuzz_target!(|data: &[u8]| shoal_net::fuzzing::names(data, &TABLE));
