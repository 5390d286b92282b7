//! UDP through the mesh: a flow for each client, to one task until it falls silent or the task takes traffic no more.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use quinn::udp::{RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::client::{self, Open, Way};
use super::flows::{Counted, Word};
use super::stats::{PortCounters, add};
use super::table::Spot;
use super::upstream::Upstream;
use super::{Shared, listen};
use crate::line::{Rx, Tx};

/// A flow in which nothing passes for so long has ended.
const IDLE_MAX: Duration = Duration::from_secs(180);
/// A flow whose task takes traffic no more ends once nothing has passed for so long, or after so long at most.
const LEAVING: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));
/// Clients of a port at once; datagrams of others are dropped.
const FLOWS_MAX: usize = 16_384;
/// Datagrams of a client that may wait; further ones are dropped, as UDP allows.
const QUEUE: usize = 64;
const DATAGRAM_BYTES_MAX: usize = 65_535;
const LENGTH_BYTES: usize = 2;

/// The published port itself.
pub(super) struct Socket {
    socket: UdpSocket,
    state: UdpSocketState,
}

impl Socket {
    /// On one address of this host, or on all.
    pub(super) fn bind(at: Option<IpAddr>, port: u16) -> io::Result<Self> {
        let socket: std::net::UdpSocket = listen::on_all(at, |ip, only_v6| {
            let addr = SocketAddr::new(ip, port);
            let socket =
                socket2::Socket::new(socket2::Domain::for_address(addr), socket2::Type::DGRAM, None)?;
            if only_v6 {
                socket.set_only_v6(true)?;
            }
            socket.set_reuse_port(true)?;
            socket.bind(&addr.into())?;
            Ok(socket.into())
        })?;
        let state = UdpSocketState::new((&socket).into())?;
        allow_fragments(&socket);
        Ok(Self { socket: UdpSocket::from_std(socket)?, state })
    }

    /// Datagrams from one client, which came to one address.
    async fn receive(&self, buffer: &mut [u8]) -> io::Result<RecvMeta> {
        let mut meta = [RecvMeta::default()];
        let receive = || {
            let mut slices = [io::IoSliceMut::new(buffer)];
            self.state.recv(UdpSockRef::from(&self.socket), &mut slices, &mut meta)
        };
        self.socket.async_io(Interest::READABLE, receive).await?;
        Ok(meta[0])
    }

    /// Answer a client from the address that it asked.
    async fn send(&self, client: SocketAddr, from: Option<IpAddr>, contents: &[u8]) -> io::Result<()> {
        let transmit =
            Transmit { destination: client, ecn: None, contents, segment_size: None, src_ip: from };
        let send = || self.state.try_send(UdpSockRef::from(&self.socket), &transmit);
        self.socket.async_io(Interest::WRITABLE, send).await
    }
}

/// Answers may be larger than a packet of the way: fragments are better than silence.
fn allow_fragments(socket: &std::net::UdpSocket) {
    use std::os::fd::AsRawFd as _;
    let no = libc::IP_PMTUDISC_DONT;
    let size = libc::socklen_t::try_from(size_of_val(&no)).unwrap_or_default();
    for (level, name) in
        [(libc::IPPROTO_IP, libc::IP_MTU_DISCOVER), (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER)]
    {
        // SAFETY: an open socket, and a valid value with its size. Where the socket is not of that family nothing is set.
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const no).cast(), size) };
    }
}

/// The flows of a port, by client and the address that it asked.
type Flows = Arc<Mutex<BTreeMap<(SocketAddr, Option<IpAddr>), mpsc::Sender<Bytes>>>>;

/// Serve a port until the task that runs this is ended.
pub(super) async fn serve(shared: Arc<Shared>, spot: Spot, counters: Arc<PortCounters>, socket: Socket) {
    let (socket, flows) = (Arc::new(socket), Flows::default());
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    let mut scope = tokio::task::JoinSet::new();
    loop {
        while scope.try_join_next().is_some() {}
        let meta = match socket.receive(&mut buffer).await {
            Ok(meta) => meta,
            Err(error) => {
                tracing::debug!(port = spot.number, %error, "no datagram received");
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
        };
        for datagram in buffer[..meta.len].chunks(meta.stride.max(1)) {
            add(&counters.bytes_in, datagram.len() as u64);
            let key = (meta.addr, meta.dst_ip);
            let mut all = flows.lock().unwrap_or_else(PoisonError::into_inner);
            let datagram = Bytes::copy_from_slice(datagram);
            let Some(datagram) = pass_on(&all, key, datagram, &counters) else { continue };
            if all.len() >= FLOWS_MAX {
                add(&counters.refused, 1);
                continue;
            }
            let (tx, rx) = mpsc::channel(QUEUE);
            let _ = tx.try_send(datagram);
            all.insert(key, tx);
            add(&counters.accepted, 1);
            let client = Client { socket: Arc::clone(&socket), addr: meta.addr, asked: meta.dst_ip, rx };
            let (shared, counters, flows) = (Arc::clone(&shared), Arc::clone(&counters), Arc::clone(&flows));
            scope.spawn(async move {
                flow(&shared, spot, &counters, client, &flows, key).await;
            });
        }
    }
}

/// Hand a datagram to its flow; back if there is none. What its task does not take fast enough is dropped, and counted.
fn pass_on(
    flows: &BTreeMap<(SocketAddr, Option<IpAddr>), mpsc::Sender<Bytes>>,
    key: (SocketAddr, Option<IpAddr>),
    datagram: Bytes,
    counters: &PortCounters,
) -> Option<Bytes> {
    match flows.get(&key).map(|flow| flow.try_send(datagram.clone())) {
        Some(Ok(())) => None,
        Some(Err(mpsc::error::TrySendError::Full(_))) => {
            add(&counters.dropped, 1);
            None
        }
        Some(Err(mpsc::error::TrySendError::Closed(_))) | None => Some(datagram),
    }
}

struct Client {
    socket: Arc<Socket>,
    addr: SocketAddr,
    asked: Option<IpAddr>,
    rx: mpsc::Receiver<Bytes>,
}

async fn flow(
    shared: &Arc<Shared>,
    spot: Spot,
    counters: &PortCounters,
    mut client: Client,
    flows: &Flows,
    key: (SocketAddr, Option<IpAddr>),
) {
    let _open = Open::new(counters);
    let server = SocketAddr::new(client.asked.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), spot.number);
    loop {
        let began = Instant::now();
        let found = client::find::<Box<Upstream>>(shared, spot, counters, client.addr, server).await;
        let Some((way, counted)) = found else {
            add(&counters.refused, 1);
            let length = client.rx.try_recv().map_or(0, |datagram| datagram.len());
            shared.refusals.tell(client.addr, client.asked, spot.number, length);
            break;
        };
        counters.connect.note(began.elapsed());
        match relay(&mut client, way, counted, counters).await {
            Ended::Silent => break,
            // What its client sent meanwhile goes to the next one.
            Ended::Left => add(&counters.moved, 1),
        }
    }
    // No datagram is put into a queue that nobody reads: it is closed under the lock.
    let mut all = flows.lock().unwrap_or_else(PoisonError::into_inner);
    client.rx.close();
    if all.get(&key).is_some_and(mpsc::Sender::is_closed) {
        all.remove(&key);
    }
}

/// Why a flow does not go on with its task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// Nothing passes, or the way is broken.
    Silent,
    /// The task takes traffic no more, and the client goes on.
    Left,
}

/// When a flow ends if nothing more passes.
struct Deadline {
    quiet: Duration,
    passed: Instant,
    at_last: Option<Instant>,
}

impl Deadline {
    fn new() -> Self {
        Self { quiet: IDLE_MAX, passed: Instant::now(), at_last: None }
    }

    fn pass(&mut self) {
        self.passed = Instant::now();
    }

    fn leave(&mut self) {
        self.quiet = LEAVING.0;
        self.at_last.get_or_insert_with(|| Instant::now() + LEAVING.1);
    }

    fn is_leaving(&self) -> bool {
        self.at_last.is_some()
    }

    fn at(&self) -> Instant {
        let quiet = self.passed + self.quiet;
        self.at_last.map_or(quiet, |last| last.min(quiet))
    }

    /// Why the flow ends now that the deadline has come: one that leaves while something passes goes on elsewhere.
    fn ended(&self) -> Ended {
        let is_busy = self.at_last.is_some_and(|last| last < self.passed + self.quiet);
        if is_busy { Ended::Left } else { Ended::Silent }
    }
}

async fn relay(
    client: &mut Client,
    way: Way<Box<Upstream>>,
    mut counted: Counted,
    counters: &PortCounters,
) -> Ended {
    let mut word = counted.word();
    let mut deadline = Deadline::new();
    let mut task = match way {
        Way::Here(upstream) => Task::Here(upstream, vec![0; DATAGRAM_BYTES_MAX]),
        Way::There(tx, rx, first) => Task::There(tx, Datagrams::new(rx, first)),
    };
    loop {
        tokio::select! {
            biased;
            () = std::future::ready(()), if word == Word::Cut => return Ended::Left,
            () = std::future::ready(()), if word == Word::Leave && !deadline.is_leaving() => deadline.leave(),
            news = counted.news() => word = news,
            () = sleep_until(deadline.at()) => return deadline.ended(),
            Some(datagram) = client.rx.recv() => {
                deadline.pass();
                if task.send(datagram).await.is_err() {
                    return Ended::Silent;
                }
            }
            received = task.receive() => {
                // A socket tells here what its peer refused; a stream that broke is over.
                let Ok(Some(datagram)) = received else { return Ended::Silent };
                deadline.pass();
                add(&counters.bytes_out, datagram.len() as u64);
                if client.socket.send(client.addr, client.asked, &datagram).await.is_err() {
                    tracing::debug!(client = %client.addr, "an answer could not be sent");
                }
            }
        }
    }
}

/// The way of datagrams to a task.
enum Task {
    Here(Box<Upstream>, Vec<u8>),
    There(Box<dyn Tx>, Datagrams),
}

impl Task {
    async fn send(&mut self, datagram: Bytes) -> Result<(), ()> {
        match self {
            Self::Here(upstream, _) => {
                upstream.send(&datagram).await;
                Ok(())
            }
            Self::There(tx, _) => tx.write(framed(&datagram)).await.map_err(|_| ()),
        }
    }

    /// The next datagram; none at the end. Nothing is lost if this is dropped while it waits.
    async fn receive(&mut self) -> Result<Option<Bytes>, ()> {
        match self {
            Self::Here(upstream, buffer) => upstream.receive(buffer).await.map(Some).map_err(|_| ()),
            Self::There(_, datagrams) => datagrams.next().await.map_err(|_| ()),
        }
    }
}

/// A datagram on a stream: its length, then its bytes.
fn framed(datagram: &[u8]) -> Bytes {
    let datagram = &datagram[..datagram.len().min(DATAGRAM_BYTES_MAX)];
    let mut bytes = BytesMut::with_capacity(LENGTH_BYTES + datagram.len());
    bytes.put_u16(u16::try_from(datagram.len()).unwrap_or(u16::MAX));
    bytes.extend_from_slice(datagram);
    bytes.freeze()
}

/// Datagrams that come on a stream.
struct Datagrams {
    rx: Box<dyn Rx>,
    buffer: BytesMut,
}

impl Datagrams {
    fn new(rx: Box<dyn Rx>, first: Bytes) -> Self {
        Self { rx, buffer: BytesMut::from(&first[..]) }
    }

    /// The next one; none at the end. Nothing is lost if this is dropped while it waits.
    async fn next(&mut self) -> Result<Option<Bytes>, String> {
        loop {
            if let Some(datagram) = unframed(&mut self.buffer) {
                return Ok(Some(datagram));
            }
            match self.rx.read().await? {
                Some(bytes) => self.buffer.extend_from_slice(&bytes),
                None => return Ok(None),
            }
        }
    }
}

/// Take a datagram from the front, if it is there whole.
fn unframed(buffer: &mut BytesMut) -> Option<Bytes> {
    let head: [u8; LENGTH_BYTES] = buffer.first_chunk().copied()?;
    let length = usize::from(u16::from_be_bytes(head));
    if buffer.len() < LENGTH_BYTES + length {
        return None;
    }
    buffer.advance(LENGTH_BYTES);
    Some(buffer.split_to(length).freeze())
}

/// Between a task of this node and the stream of another node, which has the client.
pub(super) async fn far(
    mut upstream: Box<Upstream>,
    mut tx: Box<dyn Tx>,
    rx: Box<dyn Rx>,
    first: Bytes,
    mut counted: Counted,
) {
    let mut datagrams = Datagrams::new(rx, first);
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        tokio::select! {
            biased;
            () = counted.closed() => return tx.reset(),
            datagram = datagrams.next() => match datagram {
                Ok(Some(datagram)) => upstream.send(&datagram).await,
                // Whoever has the client also knows when the flow ends.
                Ok(None) | Err(_) => return,
            },
            received = upstream.receive(&mut buffer) => match received {
                Ok(datagram) if tx.write(framed(&datagram)).await.is_ok() => {}
                _ => return,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn datagrams_come_out_as_they_went_in(
            datagrams in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..10),
            piece in 1usize..50,
        ) {
            let bytes: Vec<u8> = datagrams.iter().flat_map(|datagram| framed(datagram).to_vec()).collect();
            let (mut buffer, mut out) = (BytesMut::new(), Vec::new());
            for bytes in bytes.chunks(piece) {
                buffer.extend_from_slice(bytes);
                while let Some(datagram) = unframed(&mut buffer) {
                    out.push(datagram.to_vec());
                }
            }
            prop_assert_eq!(out, datagrams);
        }
    }

    #[test]
    fn what_a_flow_does_not_take_is_dropped_and_counted() {
        let counters = PortCounters::default();
        let key = (SocketAddr::from(([192, 0, 2, 1], 7)), None);
        let (tx, mut rx) = mpsc::channel(2);
        let flows = BTreeMap::from([(key, tx)]);
        let pass = |text: &'static str| pass_on(&flows, key, Bytes::from_static(text.as_bytes()), &counters);
        assert_eq!((pass("a"), pass("b"), pass("c"), pass("d")), (None, None, None, None));
        assert_eq!(counters.dropped.load(std::sync::atomic::Ordering::Relaxed), 2);
        assert_eq!((rx.try_recv().unwrap(), pass("e")), (Bytes::from_static(b"a"), None));
        drop(rx);
        // Of a flow that has ended nothing is lost: it is for the next one.
        assert_eq!(pass("f"), Some(Bytes::from_static(b"f")));
        assert_eq!(counters.dropped.load(std::sync::atomic::Ordering::Relaxed), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_flow_ends_when_it_falls_silent_and_sooner_when_its_task_leaves() {
        let mut deadline = Deadline::new();
        assert_eq!(deadline.at() - Instant::now(), IDLE_MAX);
        tokio::time::advance(IDLE_MAX / 2).await;
        deadline.pass();
        assert_eq!(deadline.at() - Instant::now(), IDLE_MAX);
        deadline.leave();
        assert_eq!((deadline.at() - Instant::now(), deadline.ended()), (LEAVING.0, Ended::Silent));
        let last = Instant::now() + LEAVING.1;
        for _ in 0..100 {
            tokio::time::advance(LEAVING.0 / 2).await;
            deadline.pass();
            deadline.leave();
        }
        assert_eq!(
            (deadline.at(), deadline.ended()),
            (last, Ended::Left),
            "what passes still goes on elsewhere"
        );
    }
}
