//! The full depth's network: UDP datagrams over the simulated wires.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use quinn::udp::{EcnCodepoint, RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::flight::{self, Flights};
use crate::trace::Trace;
use crate::wires::Wires;

/// Packets that wait at a socket at most; more are lost, as in a kernel.
const SOCKET_PACKETS_MAX: usize = 4096;

struct Packet {
    from: SocketAddr,
    bytes: Vec<u8>,
    ecn: Option<EcnCodepoint>,
}

struct Flying {
    sent: Instant,
    to: SocketAddr,
    packet: Packet,
}

#[derive(Default)]
struct Port {
    /// Which binding of this address it is: an earlier one is dead.
    number: u64,
    queue: VecDeque<Packet>,
    wakers: Vec<Waker>,
}

struct Inner {
    flying: Flights<Flying>,
    number: u64,
    ports: BTreeMap<SocketAddr, Port>,
    wires: Wires,
}

/// The network of one simulation.
#[derive(Clone)]
pub struct Network {
    inner: Arc<Mutex<Inner>>,
    news: Arc<Notify>,
    trace: Trace,
}

impl Network {
    /// A network that follows from the seed. Must be made inside the runtime.
    #[must_use]
    pub fn new(seed: u64, trace: Trace) -> Self {
        let inner =
            Inner { flying: Flights::new(), number: 0, ports: BTreeMap::new(), wires: Wires::new(seed) };
        let network = Self { inner: Arc::new(Mutex::new(inner)), news: Arc::default(), trace };
        let pump = network.clone();
        tokio::spawn(async move { flight::pump(&pump.news, || pump.deliver()).await });
        network
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Change or ask the wires.
    pub(crate) fn wires<T>(&self, work: impl FnOnce(&mut Wires) -> T) -> T {
        work(&mut self.lock().wires)
    }

    /// A socket at this address.
    #[must_use]
    pub fn bind(&self, addr: SocketAddr) -> Arc<dyn AsyncUdpSocket> {
        let mut inner = self.lock();
        inner.number += 1;
        let number = inner.number;
        inner.ports.insert(addr, Port { number, ..Port::default() });
        drop(inner);
        Arc::new(Socket { network: self.clone(), addr, number })
    }

    /// Nothing is delivered to this address any more.
    pub fn unbind(&self, addr: SocketAddr) {
        self.lock().ports.remove(&addr);
    }

    fn send(&self, from: SocketAddr, to: SocketAddr, bytes: &[u8], ecn: Option<EcnCodepoint>) {
        let mut inner = self.lock();
        let sent = Instant::now();
        inner.wires.sent += 1;
        let (lost, twice) = inner.wires.mishap();
        for copy in 0..if twice { 2 } else { 1 } {
            let latency = inner.wires.latency(from.ip(), to.ip());
            if lost && copy == 0 {
                inner.wires.lost += 1;
                self.trace.message("packet", from.ip(), to.ip(), bytes, sent, true);
                continue;
            }
            let packet = Packet { from, bytes: bytes.to_vec(), ecn };
            inner.flying.send(sent + latency, Flying { sent, to, packet });
        }
        drop(inner);
        self.news.notify_one();
    }

    /// What has arrived by now. Returns when to look again.
    fn deliver(&self) -> Option<Instant> {
        let now = Instant::now();
        let mut wakers = Vec::new();
        let mut inner = self.lock();
        while let Some(flying) = inner.flying.arrived(now) {
            let (from, to) = (flying.packet.from.ip(), flying.to.ip());
            let there = !inner.wires.cut(from, to)
                && inner.ports.get(&flying.to).is_some_and(|p| p.queue.len() < SOCKET_PACKETS_MAX);
            self.trace.message("packet", from, to, &flying.packet.bytes, flying.sent, !there);
            if !there {
                inner.wires.lost += 1;
                continue;
            }
            if let Some(port) = inner.ports.get_mut(&flying.to) {
                port.queue.push_back(flying.packet);
                wakers.append(&mut port.wakers);
            }
        }
        let next = inner.flying.next_at();
        drop(inner);
        wakers.into_iter().for_each(Waker::wake);
        next
    }
}

struct Socket {
    network: Network,
    addr: SocketAddr,
    number: u64,
}

impl Inner {
    /// The port of this binding, if it was not closed or bound anew.
    fn port(&mut self, addr: SocketAddr, number: u64) -> Option<&mut Port> {
        self.ports.get_mut(&addr).filter(|port| port.number == number)
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Socket({})", self.addr)
    }
}

#[derive(Debug)]
struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        if self.network.lock().port(self.addr, self.number).is_none() {
            return Err(io::ErrorKind::NotConnected.into());
        }
        let segment = transmit.segment_size.unwrap_or_else(|| transmit.contents.len().max(1));
        for bytes in transmit.contents.chunks(segment) {
            self.network.send(self.addr, transmit.destination, bytes, transmit.ecn);
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [io::IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut inner = self.network.lock();
        let Some(port) = inner.port(self.addr, self.number) else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        let Some(packet) = port.queue.pop_front() else {
            if !port.wakers.iter().any(|w| w.will_wake(cx.waker())) {
                port.wakers.push(cx.waker().clone());
            }
            return Poll::Pending;
        };
        let len = packet.bytes.len().min(bufs[0].len());
        bufs[0][..len].copy_from_slice(&packet.bytes[..len]);
        meta[0] =
            RecvMeta { addr: packet.from, len, stride: len, ecn: packet.ecn, dst_ip: Some(self.addr.ip()) };
        Poll::Ready(Ok(1))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.addr)
    }

    fn may_fragment(&self) -> bool {
        false
    }
}
