//! What becomes of the clients of a published port when its node stops.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use shoal_core::mesh::{Backend, Options, Route, RouteChange};
use shoal_core::model::{NodeId, PortConfig, PortMode, Protocol, Role, ServiceId, Slot, TaskId};
use shoal_core::task::BoxFuture;
use shoal_net::mesh::{Addresses, Config, Proxy};
use support::{Ground, Udp, World};

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
const KEPT: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const ONCE: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
/// The slow task takes so long.
const SLOW: Duration = Duration::from_millis(1_500);
const MOST: Duration = Duration::from_secs(4);

/// All tasks answer at this machine's own address.
struct Here;

impl Addresses for Here {
    fn of(&self, _: TaskId) -> BoxFuture<'_, Result<Vec<IpAddr>, String>> {
        Box::pin(async { Ok(vec![Ipv4Addr::LOCALHOST.into()]) })
    }
}

/// A task that answers each request after a while, and says nothing to what is none. Its port.
fn task(after: Duration) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    answer(listener, after);
    port
}

fn answer(listener: TcpListener, after: Duration) {
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                let mut bytes = [0; 1024];
                while let Ok(count @ 1..) = stream.read(&mut bytes) {
                    let asked = bytes[..count].windows(4).filter(|end| *end == b"\r\n\r\n").count();
                    for _ in 0..asked {
                        thread::sleep(after);
                        stream.write_all(ANSWER).unwrap();
                    }
                    if bytes[..count].windows(5).any(|word| word == b"close") {
                        return;
                    }
                }
            });
        }
    });
}

/// One that is free: it was given to somebody who has let go of it.
fn free_port() -> u16 {
    TcpListener::bind("[::]:0").unwrap().local_addr().unwrap().port()
}

/// A node with one published port, and where that is.
struct Node {
    proxy: Arc<Proxy>,
    at: SocketAddr,
    runtime: tokio::runtime::Runtime,
}

impl Node {
    fn start(task: u16) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let entered = runtime.enter();
        let world = World::new(&(Arc::new(Udp::default()) as Arc<dyn Ground>));
        let (endpoint, peer) = world.node(1, Role::Worker);
        let node = NodeId::from_u128(1);
        let config = Config { node, endpoint, addresses: Arc::new(Here), threads: 2, at: Vec::new() };
        let proxy = Arc::new(Proxy::start(config).unwrap());
        let published = free_port();
        let backend = Backend {
            task: TaskId::from_u128(1),
            node,
            addr: peer.addr.to_string(),
            slot: Slot::Replica(1),
            addresses: Vec::new(),
        };
        let port = PortConfig {
            name: String::new(),
            protocol: Protocol::Tcp,
            target_port: task,
            published_port: published,
            mode: PortMode::Ingress,
            at: Vec::new(),
        };
        let route = Route {
            service: ServiceId::from_u128(1),
            name: "web".into(),
            ports: vec![port],
            options: Options::default(),
            backends: vec![backend],
            networks: Vec::new(),
            others: Vec::new(),
            attached: false,
        };
        proxy.follow(&[RouteChange { before: None, after: Some(Arc::new(route)) }]);
        drop(entered);
        let at = SocketAddr::from((Ipv4Addr::LOCALHOST, published));
        while TcpStream::connect(at).is_err() {
            thread::sleep(Duration::from_millis(5));
        }
        Self { proxy, at, runtime }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.at).unwrap();
        stream.set_read_timeout(Some(MOST * 3)).unwrap();
        stream
    }

    /// Begin the stop; tells how long it took.
    fn close(&self) -> JoinHandle<Duration> {
        let (proxy, handle) = (Arc::clone(&self.proxy), self.runtime.handle().clone());
        thread::spawn(move || {
            let begun = Instant::now();
            handle.block_on(proxy.close(MOST));
            begun.elapsed()
        })
    }
}

fn ask(mut stream: &TcpStream, request: &[u8]) {
    stream.write_all(request).unwrap();
}

fn is_answered(mut stream: &TcpStream) -> bool {
    let mut bytes = vec![0; ANSWER.len()];
    stream.read_exact(&mut bytes).is_ok_and(|()| bytes == ANSWER)
}

/// Whether it ends in peace.
fn ends(mut stream: &TcpStream) -> bool {
    matches!(stream.read(&mut [0]), Ok(0))
}

#[test]
fn a_task_that_has_just_started_is_waited_for_until_it_listens() {
    let port = free_port();
    let node = Node::start(port);
    let clients: Vec<_> = (0..8).map(|_| node.connect()).collect();
    clients.iter().for_each(|client| ask(client, ONCE));
    thread::sleep(Duration::from_millis(500));
    answer(TcpListener::bind(("127.0.0.1", port)).unwrap(), Duration::ZERO);
    assert!(clients.iter().all(|client| is_answered(client) && ends(client)));
    let stats = node.proxy.stats();
    assert_eq!(stats.ports.iter().map(|port| port.refused).sum::<u64>(), 0, "{stats:?}");
}

#[test]
fn a_task_that_never_listens_is_not_waited_for_without_end() {
    let port = free_port();
    let node = Node::start(port);
    let (client, begun) = (node.connect(), Instant::now());
    ask(&client, ONCE);
    let broken = (&client).read(&mut [0]).unwrap_err();
    assert_eq!(broken.kind(), std::io::ErrorKind::ConnectionReset);
    assert!(begun.elapsed() > Duration::from_secs(1) && begun.elapsed() < MOST * 2, "{:?}", begun.elapsed());
}

#[test]
fn a_stop_with_nothing_open_takes_no_time() {
    let node = Node::start(task(Duration::ZERO));
    let once = node.connect();
    ask(&once, ONCE);
    assert!(is_answered(&once) && ends(&once));
    drop(once);
    let took = node.close().join().unwrap();
    assert!(took < MOST / 2, "{took:?}");
    assert!(TcpStream::connect(node.at).is_err(), "the port answers still");
}

#[test]
fn requests_that_were_begun_are_answered_and_kept_connections_end_between_two() {
    let node = Node::start(task(SLOW));
    let idle = node.connect();
    ask(&idle, KEPT);
    assert!(is_answered(&idle));
    let (kept, once, late) = (node.connect(), node.connect(), node.connect());
    ask(&kept, KEPT);
    ask(&once, ONCE);
    thread::sleep(SLOW / 5);
    let stop = node.close();
    // Connected before the stop, it asks after it.
    thread::sleep(SLOW / 5);
    ask(&late, KEPT);
    let begun = Instant::now();
    assert!(ends(&idle), "an idle connection was broken off");
    assert!(begun.elapsed() < SLOW / 2, "an idle connection was held: {:?}", begun.elapsed());
    for (what, stream) in [("kept", &kept), ("once", &once), ("late", &late)] {
        assert!(is_answered(stream), "{what} got no answer");
        assert!(ends(stream), "{what} did not end in peace");
    }
    let took = stop.join().unwrap();
    assert!(took > SLOW / 2 && took < MOST, "{took:?}");
}

#[test]
fn clients_that_come_while_a_port_closes_are_answered_or_refused() {
    let node = Node::start(task(Duration::from_millis(20)));
    let at = node.at;
    let clients: Vec<_> = (0..8)
        .map(|_| {
            thread::spawn(move || {
                let mut answered = 0;
                while let Ok(stream) = TcpStream::connect(at) {
                    ask(&stream, ONCE);
                    assert!(is_answered(&stream) && ends(&stream), "lost after {answered}");
                    answered += 1;
                }
                answered
            })
        })
        .collect();
    thread::sleep(Duration::from_millis(300));
    let took = node.close().join().unwrap();
    for client in clients {
        assert!(client.join().unwrap() > 0);
    }
    assert!(took < MOST, "{took:?}");
}

#[test]
fn what_does_not_end_is_broken_off_in_time() {
    let node = Node::start(task(Duration::ZERO));
    let (silent, other) = (node.connect(), node.connect());
    ask(&other, b"no HTTP at all\r\n");
    thread::sleep(Duration::from_millis(100));
    let stop = node.close();
    let begun = Instant::now();
    assert!(ends(&silent), "who never asked was broken off");
    assert!(begun.elapsed() < MOST / 2, "who never asked was held: {:?}", begun.elapsed());
    let broken = (&other).read(&mut [0]).unwrap_err();
    assert_eq!(broken.kind(), std::io::ErrorKind::ConnectionReset);
    let took = stop.join().unwrap();
    assert!(took >= MOST && took < MOST + Duration::from_secs(2), "{took:?}");
}
