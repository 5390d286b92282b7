use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use hickory_server::proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_server::proto::rr::{Name, RData, RecordType};
use proptest::prelude::*;
use shoal_core::mesh::{Backend, Options, Route, RouteNetwork};
use shoal_core::model::{
    NetworkId, NetworkInfo, NodeId, Pool, PortConfig, PortMode, Protocol, ServiceId, Slot, TaskId,
};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::time::{Instant, sleep, timeout};

use super::forward::{read_message, write_message};
use super::*;

const PORT: u16 = 20053;
const SOON: Duration = Duration::from_secs(10);

/// Every test has networks of its own, on loopback: number `n` is `127.n.0.0/24`, whose containers begin at `.5`.
fn ip(network: u8, host: u8) -> IpAddr {
    Ipv4Addr::new(127, network, 0, host).into()
}

fn network(number: u8) -> Arc<NetworkInfo> {
    let pool =
        Pool { subnet: format!("127.{number}.0.0/24").parse().unwrap(), gateway: ip(number, 1), range: None };
    Arc::new(NetworkInfo {
        id: NetworkId::from_u128(number.into()),
        name: format!("net{number}").as_str().into(),
        internal: false,
        attachable: false,
        pools: vec![pool],
    })
}

/// A service with tasks in a network.
fn route(number: u8, name: &str, virt: Option<u8>, tasks: u8) -> Route {
    let id = NetworkId::from_u128(number.into());
    let task = |host: u8| Backend {
        task: TaskId::from_u128(host.into()),
        node: NodeId::from_u128(1),
        addr: String::new(),
        slot: Slot::Replica(host.into()),
        addresses: vec![(id, vec![ip(number, host)])],
    };
    Route {
        service: ServiceId::from_u128(u128::from(number) << 8 | name.len() as u128),
        name: name.into(),
        ports: vec![PortConfig {
            name: "http".into(),
            protocol: Protocol::Tcp,
            target_port: 80,
            published_port: 8080,
            mode: PortMode::Ingress,
            at: Vec::new(),
        }],
        options: Options::default(),
        backends: (5..5 + tasks).map(task).collect(),
        networks: vec![RouteNetwork {
            network: network(number),
            aliases: Vec::new(),
            addresses: virt.map(|host| ip(number, host)).into_iter().collect(),
        }],
        others: Vec::new(),
        attached: false,
    }
}

fn table(routes: impl IntoIterator<Item = Route>) -> Arc<NameTable> {
    let routes = routes.into_iter().map(|route| (route.service, Arc::new(route)));
    Arc::new(NameTable::new(&routes.collect::<BTreeMap<_, _>>()))
}

/// `web` has a virtual address and two tasks, `many` is 200 tasks.
fn example(number: u8) -> Arc<NameTable> {
    table([route(number, "web", Some(4), 2), route(number, "many", None, 200)])
}

/// A server at a network's gateway, which hands on to these.
struct Served {
    server: NameServer,
    network: u8,
    dir: TempDir,
}

impl Served {
    async fn new(network: u8, upstreams: &[IpAddr]) -> Self {
        Self::within(network, upstreams, Bounds::default()).await
    }

    async fn within(number: u8, upstreams: &[IpAddr], bounds: Bounds) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("resolv.conf");
        let lines = upstreams.iter().map(|address| format!("nameserver {address}\n"));
        std::fs::write(&path, lines.collect::<String>()).unwrap();
        let config = Config { port: PORT, outside: None, resolv_conf: path, upstream_port: PORT };
        let server = NameServer::start_within(config, bounds).unwrap();
        server.set_addresses(BTreeMap::from([(ip(number, 1), network(number))]));
        server.set_table(example(number));
        let served = Self { server, network: number, dir };
        served.is_up(ip(number, 1)).await;
        served
    }

    /// Wait until an address is listened at.
    async fn is_up(&self, address: IpAddr) {
        let up = async {
            while TcpStream::connect((address, PORT)).await.is_err() {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(SOON, up).await.expect("it listens");
    }

    async fn client(&self) -> Client {
        Client::new(ip(self.network, 5), ip(self.network, 1)).await
    }

    async fn tcp(&self) -> TcpStream {
        connect(ip(self.network, 5), ip(self.network, 1)).await
    }
}

/// A connection of a container.
async fn connect(from: IpAddr, server: IpAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((from, 0).into()).unwrap();
    socket.connect((server, PORT).into()).await.unwrap()
}

/// A container that asks.
struct Client(UdpSocket);

impl Client {
    async fn new(from: IpAddr, server: IpAddr) -> Self {
        let socket = UdpSocket::bind((from, 0)).await.unwrap();
        socket.connect((server, PORT)).await.unwrap();
        Self(socket)
    }

    async fn ask(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        self.0.send(bytes).await.unwrap();
        let mut answer = vec![0; 65_535];
        let length = timeout(SOON, self.0.recv(&mut answer)).await.ok()?.unwrap();
        answer.truncate(length);
        Some(answer)
    }

    async fn answer(&self, name: &str, kind: RecordType) -> Message {
        let bytes = self.ask(&question(7, name, kind)).await.expect("an answer");
        Message::from_vec(&bytes).unwrap()
    }
}

fn asked(id: u16, name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

fn question(id: u16, name: &str, kind: RecordType) -> Vec<u8> {
    asked(id, name, kind).to_vec().unwrap()
}

fn with_room(id: u16, name: &str, room: u16) -> Vec<u8> {
    let mut message = asked(id, name, RecordType::A);
    let mut edns = Edns::new();
    edns.set_max_payload(room);
    message.set_edns(edns);
    message.to_vec().unwrap()
}

fn addresses(message: &Message) -> Vec<IpAddr> {
    let address = |data: &RData| match data {
        RData::A(address) => Some(IpAddr::V4(address.0)),
        RData::AAAA(address) => Some(IpAddr::V6(address.0)),
        _ => None,
    };
    message.answers.iter().filter_map(|record| address(&record.data)).collect()
}

/// What an upstream does with a question.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Upstream {
    /// An answer, after others that are none.
    Answers,
    Truncates,
    Fails,
    Silent,
}

/// The answer of an upstream: bytes that nobody else would write.
fn upstream_answer(question: &[u8], upstream: Upstream) -> Vec<u8> {
    let mut answer = question.to_vec();
    answer[2] |= if upstream == Upstream::Truncates { 0x82 } else { 0x80 };
    answer[3] = if upstream == Upstream::Fails { 0x82 } else { 0x80 };
    answer.extend_from_slice(b"as it is");
    answer
}

async fn upstream(at: IpAddr, upstream: Upstream) {
    let datagrams = UdpSocket::bind((at, PORT)).await.unwrap();
    let connections = TcpListener::bind((at, PORT)).await.unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        loop {
            let (length, from) = datagrams.recv_from(&mut buffer).await.unwrap();
            if upstream == Upstream::Silent {
                continue;
            }
            let answer = upstream_answer(&buffer[..length], upstream);
            let mut other = answer.clone();
            other[0] ^= 1;
            for bytes in [&other[..], b"nonsense", &buffer[..length], &answer] {
                datagrams.send_to(bytes, from).await.unwrap();
            }
        }
    });
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = connections.accept().await.unwrap();
            let Ok(question) = read_message(&mut stream).await else { continue };
            if upstream != Upstream::Silent {
                write_message(&mut stream, &upstream_answer(&question, upstream)).await.unwrap();
            }
        }
    });
}

#[tokio::test]
async fn names_of_the_cluster_are_answered_over_udp_and_tcp() {
    let served = Served::new(10, &[]).await;
    let client = served.client().await;
    let web = client.answer("WeB.", RecordType::A).await;
    assert_eq!(addresses(&web), [ip(10, 4)]);
    assert_eq!((web.metadata.id, web.metadata.response_code), (7, ResponseCode::NoError));
    assert!(web.metadata.authoritative && web.metadata.recursion_available && !web.metadata.truncation);
    assert_eq!(web.queries[0].name().to_ascii(), "WeB.");
    assert!(web.answers.iter().all(|record| record.ttl <= 1));
    let six = client.answer("web.", RecordType::AAAA).await;
    assert!(six.answers.is_empty() && six.metadata.response_code == ResponseCode::NoError);
    let srv = client.answer("_http._tcp.web.net10.", RecordType::SRV).await;
    assert_eq!((srv.answers.len(), srv.additionals.len()), (2, 2));
    let RData::SRV(place) = &srv.answers[0].data else { panic!("no place: {srv:?}") };
    assert_eq!((place.port, &place.target), (80, &srv.additionals[0].name));
    let ptr = client.answer("4.0.10.127.in-addr.arpa.", RecordType::PTR).await;
    assert_eq!(ptr.answers[0].data.to_string(), "web.net10.");
    let nobody = client.answer("250.0.10.127.in-addr.arpa.", RecordType::PTR).await;
    assert_eq!(nobody.metadata.response_code, ResponseCode::NXDomain);

    // One connection, several questions.
    let mut stream = served.tcp().await;
    for id in 1..4 {
        write_message(&mut stream, &question(id, "tasks.web.", RecordType::A)).await.unwrap();
    }
    for id in 1..4 {
        let answer = Message::from_vec(&read_message(&mut stream).await.unwrap()).unwrap();
        let mut found = addresses(&answer);
        found.sort();
        assert_eq!((answer.metadata.id, found), (id, vec![ip(10, 5), ip(10, 6)]));
    }
    let stats = served.server.stats();
    assert_eq!((stats.queries, stats.answered, stats.failures, stats.malformed), (8, 8, 0, 0));
    served.server.set_table(Arc::default());
    assert_eq!(client.answer("web.", RecordType::A).await.metadata.response_code, ResponseCode::ServFail);
}

#[tokio::test]
async fn large_answers_are_cut_to_what_is_wanted_and_whole_over_tcp() {
    let served = Served::new(11, &[]).await;
    let client = served.client().await;
    for (bytes, most) in [
        (question(1, "many.", RecordType::A), 512),
        (with_room(1, "many.", 100), 512),
        (with_room(1, "many.", 900), 900),
        (with_room(1, "many.", 65_000), 1232),
    ] {
        let answer = client.ask(&bytes).await.unwrap();
        assert!(answer.len() <= most && answer.len() > most - 100, "{} of {most}", answer.len());
        let answer = Message::from_vec(&answer).unwrap();
        assert!(answer.metadata.truncation && addresses(&answer).len() > 10);
    }
    let mut stream = served.tcp().await;
    write_message(&mut stream, &question(1, "many.", RecordType::A)).await.unwrap();
    let answer = Message::from_vec(&read_message(&mut stream).await.unwrap()).unwrap();
    assert!(!answer.metadata.truncation);
    assert_eq!(addresses(&answer).len(), 200);
    // Who says how much it takes is told how much is taken here.
    let answer = Message::from_vec(&client.ask(&with_room(1, "web.", 4096)).await.unwrap()).unwrap();
    assert_eq!(answer.edns.unwrap().max_payload(), 1232);
}

#[tokio::test]
async fn what_is_not_ours_is_handed_on_and_comes_back_as_it_is() {
    upstream(ip(12, 200), Upstream::Answers).await;
    let served = Served::new(12, &[ip(12, 200)]).await;
    let client = served.client().await;
    let mut bytes = with_room(99, "example.com.", 4096);
    assert_eq!(client.ask(&bytes).await.unwrap(), upstream_answer(&bytes, Upstream::Answers));
    // In whatever letters.
    bytes[13] = b'E';
    assert_eq!(client.ask(&bytes).await.unwrap(), upstream_answer(&bytes, Upstream::Answers));
    let mut stream = served.tcp().await;
    write_message(&mut stream, &bytes).await.unwrap();
    assert_eq!(read_message(&mut stream).await.unwrap(), upstream_answer(&bytes, Upstream::Answers));
    let stats = served.server.stats();
    assert_eq!((stats.queries, stats.forwarded, stats.upstream_answers, stats.answered), (3, 3, 3, 0));
    assert!(stats.upstream_us > 0 && stats.failures == 0);
}

#[tokio::test]
async fn a_name_server_that_is_silent_or_fails_is_passed_over() {
    upstream(ip(13, 200), Upstream::Silent).await;
    upstream(ip(13, 202), Upstream::Truncates).await;
    let bounds = Bounds { patience: Duration::from_millis(200), ..Bounds::default() };
    // At the second nobody listens.
    let served = Served::within(13, &[ip(13, 200), ip(13, 201), ip(13, 202)], bounds).await;
    let client = served.client().await;
    let bytes = question(5, "example.com.", RecordType::A);
    let begun = Instant::now();
    assert_eq!(client.ask(&bytes).await.unwrap(), upstream_answer(&bytes, Upstream::Truncates));
    assert!(begun.elapsed() >= bounds.patience);
    // The one that answered comes first from now on.
    let begun = Instant::now();
    for _ in 0..5 {
        client.ask(&bytes).await.unwrap();
    }
    assert!(begun.elapsed() < bounds.patience, "{:?}", begun.elapsed());

    upstream(ip(14, 200), Upstream::Fails).await;
    upstream(ip(14, 201), Upstream::Silent).await;
    let served = Served::within(14, &[ip(14, 200), ip(14, 201)], bounds).await;
    let client = served.client().await;
    // Its failure is told if nobody knows better, after the silent one has had its tries.
    let begun = Instant::now();
    assert_eq!(client.ask(&bytes).await.unwrap(), upstream_answer(&bytes, Upstream::Fails));
    assert!(begun.elapsed() >= bounds.patience * 2);
    assert_eq!(served.server.stats().upstream_answers, 1);
}

#[tokio::test]
async fn without_a_name_server_of_the_host_a_question_fails_at_once() {
    // Ourselves alone: that would go round for ever.
    let served = Served::new(15, &[ip(15, 1)]).await;
    let client = served.client().await;
    client.answer("web.", RecordType::A).await;
    let begun = Instant::now();
    let answer = client.answer("example.com.", RecordType::A).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    assert!(begun.elapsed() < Duration::from_millis(200), "{:?}", begun.elapsed());
    let stats = served.server.stats();
    assert_eq!((stats.failures, stats.forwarded), (1, 0));
    // One that is written there later is asked.
    upstream(ip(15, 200), Upstream::Answers).await;
    std::fs::write(served.dir.path().join("resolv.conf"), "nameserver 127.15.0.200\n").unwrap();
    sleep(Duration::from_millis(1100)).await;
    let bytes = question(1, "example.com.", RecordType::A);
    assert_eq!(client.ask(&bytes).await.unwrap(), upstream_answer(&bytes, Upstream::Answers));
}

#[tokio::test]
async fn one_source_cannot_hold_all_that_may_be_handed_on() {
    upstream(ip(16, 200), Upstream::Silent).await;
    let bounds = Bounds { patience: Duration::from_millis(300), forwards: (3, 2), ..Bounds::default() };
    let served = Served::within(16, &[ip(16, 200)], bounds).await;
    let bytes = question(1, "example.com.", RecordType::A);
    let (client, other) = (served.client().await, Client::new(ip(16, 6), ip(16, 1)).await);
    for _ in 0..2 {
        client.0.send(&bytes).await.unwrap();
    }
    let begun = Instant::now();
    let answer = Message::from_vec(&client.ask(&bytes).await.unwrap()).unwrap();
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    assert!(begun.elapsed() < bounds.patience, "{:?}", begun.elapsed());
    // Another has its share, and then all of it is taken. Names of the cluster are answered all the time.
    other.0.send(&bytes).await.unwrap();
    let third = Client::new(ip(16, 7), ip(16, 1)).await;
    assert!(third.ask(&bytes).await.is_some());
    assert_eq!(addresses(&third.answer("web.", RecordType::A).await), [ip(16, 4)]);
    assert!(begun.elapsed() < bounds.patience, "{:?}", begun.elapsed());
    for client in [&client, &client, &other] {
        let mut buffer = [0; 512];
        timeout(SOON, client.0.recv(&mut buffer)).await.unwrap().unwrap();
    }
    assert_eq!(served.server.stats().failures, 5);
}

#[tokio::test]
async fn only_the_networks_own_containers_are_answered() {
    let served = Served::new(17, &[]).await;
    let stranger = Client::new(ip(18, 5), ip(17, 1)).await;
    let answer = stranger.answer("web.", RecordType::A).await;
    assert_eq!((answer.metadata.response_code, answer.answers.len()), (ResponseCode::Refused, 0));
    assert_eq!(served.server.stats().refused, 1);
    // A service of another network is not seen.
    served.server.set_table(table([route(17, "web", Some(4), 1), route(18, "other", Some(4), 1)]));
    let client = served.client().await;
    assert_eq!(client.answer("other.", RecordType::A).await.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(addresses(&client.answer("web.", RecordType::A).await), [ip(17, 4)]);
}

#[tokio::test]
async fn programs_outside_see_all_networks() {
    let config = Config {
        port: PORT,
        outside: Some(ip(19, 53)),
        resolv_conf: "/dev/null".into(),
        ..Config::default()
    };
    let server = NameServer::start(config).unwrap();
    server.set_table(table([route(19, "web", Some(4), 1), route(20, "other", Some(4), 1)]));
    let served = Served { server, network: 19, dir: tempfile::tempdir().unwrap() };
    served.is_up(ip(19, 53)).await;
    let client = Client::new(ip(21, 5), ip(19, 53)).await;
    assert_eq!(addresses(&client.answer("web.", RecordType::A).await), [ip(19, 4)]);
    assert_eq!(addresses(&client.answer("other.net20.", RecordType::A).await), [ip(20, 4)]);
    for (near, address) in [(true, "10.1.2.3"), (false, "9.9.9.9"), (true, "fd00::1"), (false, "2001:db8::1")]
    {
        assert_eq!(is_near(address.parse().unwrap()), near, "{address}");
    }
}

#[tokio::test]
async fn what_is_no_question_is_dropped_and_what_is_not_done_is_said() {
    let served = Served::new(22, &[]).await;
    let client = served.client().await;
    let good = question(1, "web.", RecordType::A);
    let mut answer = good.clone();
    answer[2] |= 0x80;
    let mut two = good.clone();
    two[5] = 2;
    let mut none = good.clone();
    none[5] = 0;
    let mut huge = good.clone();
    huge[6..12].fill(0xff);
    let bad: [&[u8]; 8] = [b"", b"x", &good[..11], &good[..good.len() - 1], &answer, &two, &none, &huge];
    for bytes in bad {
        client.0.send(bytes).await.unwrap();
    }
    // All before this have been looked at.
    assert_eq!(addresses(&client.answer("web.", RecordType::A).await), [ip(22, 4)]);
    assert_eq!(served.server.stats().malformed, 8);

    let mut update = good.clone();
    update[2] = 5 << 3;
    let mut chaos = good.clone();
    let last = chaos.len() - 1;
    chaos[last] = 3;
    let transfer = question(1, "web.", RecordType::AXFR);
    for bytes in [update, chaos, transfer] {
        let reply = client.ask(&bytes).await.unwrap();
        assert_eq!((&reply[..2], reply[2] & 0xf8, reply[3] & 0x0f), (&bytes[..2], 0x80 | bytes[2] & 0x78, 4));
    }
    let mut newer = asked(1, "web.", RecordType::A);
    let mut edns = Edns::new();
    edns.set_version(1);
    newer.set_edns(edns);
    let reply = client.ask(&newer.to_vec().unwrap()).await.unwrap();
    let code = Message::from_vec(&reply).unwrap().metadata.response_code;
    assert_eq!(u16::from(code), u16::from(ResponseCode::BADVERS));
    assert_eq!(served.server.stats().refused, 4);
    // A connection on which there is no question is closed.
    let mut stream = served.tcp().await;
    write_message(&mut stream, b"nonsense").await.unwrap();
    assert!(timeout(SOON, read_message(&mut stream)).await.unwrap().is_err());
}

#[tokio::test]
async fn connections_are_bounded_and_idle_ones_closed() {
    let bounds = Bounds { connections: (3, 2), idle: Duration::from_millis(500), ..Bounds::default() };
    let served = Served::within(23, &[], bounds).await;
    sleep(bounds.idle).await;
    let from = |host| connect(ip(23, host), ip(23, 1));
    let works = async |stream: &mut TcpStream| {
        let asked = write_message(stream, &question(1, "web.", RecordType::A)).await;
        asked.is_ok() && timeout(SOON, read_message(stream)).await.unwrap().is_ok()
    };
    let (mut one, mut two, mut three) = (from(5).await, from(5).await, from(5).await);
    assert!(works(&mut one).await && works(&mut two).await && !works(&mut three).await);
    let (mut four, mut five) = (from(6).await, from(7).await);
    assert!(works(&mut four).await && !works(&mut five).await);
    let closed = timeout(SOON, read_message(&mut one)).await.unwrap();
    assert!(closed.is_err());
    sleep(bounds.idle).await;
    let mut six = from(5).await;
    assert!(works(&mut six).await);
    assert_eq!(served.server.stats().connections_refused, 2);
}

#[tokio::test]
async fn addresses_come_and_go() {
    let served = Served::new(24, &[]).await;
    // One is in use, one is not of this host.
    let taken = UdpSocket::bind((ip(25, 1), PORT)).await.unwrap();
    let elsewhere: IpAddr = [192, 0, 2, 1].into();
    let gateways = [(ip(24, 1), network(24)), (ip(25, 1), network(25)), (elsewhere, network(26))];
    served.server.set_addresses(BTreeMap::from(gateways));
    let errors = || {
        let errors = served.server.stats().addresses.into_iter().filter(|address| !address.error.is_empty());
        errors.map(|address| address.address).collect::<Vec<_>>()
    };
    let fails = async {
        while errors().is_empty() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, fails).await.unwrap();
    assert_eq!(errors(), [ip(25, 1)]);
    drop(taken);
    served.is_up(ip(25, 1)).await;
    assert_eq!(errors(), Vec::<IpAddr>::new());
    served.server.set_table(example(25));
    let client = Client::new(ip(25, 5), ip(25, 1)).await;
    assert_eq!(addresses(&client.answer("web.", RecordType::A).await), [ip(25, 4)]);

    served.server.set_addresses(BTreeMap::from([(ip(25, 1), network(25))]));
    let gone = async {
        while UdpSocket::bind((ip(24, 1), PORT)).await.is_err() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, gone).await.unwrap();
    assert_eq!(addresses(&client.answer("web.", RecordType::A).await), [ip(25, 4)]);
}

#[tokio::test]
async fn a_stopped_server_leaves_nothing_behind() {
    let served = Served::new(27, &[]).await;
    let mut stream = served.tcp().await;
    served.server.stop();
    let _udp = UdpSocket::bind((ip(27, 1), PORT)).await.unwrap();
    assert!(timeout(SOON, read_message(&mut stream)).await.unwrap().is_err());
    assert!(TcpStream::connect((ip(27, 1), PORT)).await.is_err());
    // What is said to it now does nothing.
    served.server.set_addresses(BTreeMap::from([(ip(27, 1), network(27))]));
    served.server.stop();
    assert!(served.server.stats().addresses.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_who_ask_at_once_each_have_their_answer() {
    upstream(ip(28, 200), Upstream::Answers).await;
    let served = Arc::new(Served::new(28, &[ip(28, 200)]).await);
    let ask = |host: u8| {
        let served = Arc::clone(&served);
        async move {
            let client = Client::new(ip(28, host), ip(28, 1)).await;
            for id in 0..100u16 {
                match id % 4 {
                    0 => {
                        let bytes = question(id, "example.com.", RecordType::A);
                        let answer = client.ask(&bytes).await.expect("an answer");
                        assert_eq!(answer, upstream_answer(&bytes, Upstream::Answers));
                    }
                    1 if id % 5 == 0 => {
                        let mut stream = connect(ip(28, host), ip(28, 1)).await;
                        write_message(&mut stream, &question(id, "many.", RecordType::A)).await.unwrap();
                        let answer = Message::from_vec(&read_message(&mut stream).await.unwrap()).unwrap();
                        assert_eq!((answer.metadata.id, addresses(&answer).len()), (id, 200));
                    }
                    _ => {
                        let bytes =
                            client.ask(&question(id, "web.", RecordType::A)).await.expect("an answer");
                        let answer = Message::from_vec(&bytes).unwrap();
                        assert_eq!((answer.metadata.id, addresses(&answer)), (id, vec![ip(28, 4)]));
                    }
                }
                if id % 10 == 0 {
                    served.server.set_table(example(28));
                }
            }
        }
    };
    let all: Vec<_> = (30..60).map(|host| tokio::spawn(ask(host))).collect();
    for one in all {
        one.await.unwrap();
    }
    let stats = served.server.stats();
    assert_eq!((stats.queries, stats.forwarded, stats.failures), (3000, 750, 0));
    assert_eq!(stats.answered, 2250);
}

/// Questions as they come, and what becomes of them when bytes change.
fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
    let name = prop::sample::select(vec![
        "web.",
        "many.",
        "tasks.web.net29.",
        "_http._tcp.web.",
        "4.0.29.127.in-addr.arpa.",
        "example.com.",
        ".",
    ]);
    let kind = prop::sample::select(vec![
        RecordType::A,
        RecordType::AAAA,
        RecordType::SRV,
        RecordType::PTR,
        RecordType::ANY,
        RecordType::TXT,
    ]);
    let good = (any::<u16>(), name, kind).prop_map(|(id, name, kind)| question(id, name, kind));
    let room = any::<u16>().prop_map(|room| with_room(1, "many.", room));
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    let changed = (prop_oneof![good, room], changes, any::<prop::sample::Index>(), any::<bool>());
    prop_oneof![
        1 => prop::collection::vec(any::<u8>(), 0..600),
        4 => changed.prop_map(|(mut bytes, changes, cut, cuts)| {
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            if cuts {
                bytes.truncate(cut.index(bytes.len()));
            }
            bytes
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn whatever_comes_nothing_breaks(bytes in any_bytes()) {
        message::fuzz(&bytes, &example(29));
    }
}
