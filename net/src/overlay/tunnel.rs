//! The way between hosts: packets from the kernel's device to streams to other nodes, and back.
//!
//! A packet may be as long as 64 KiB: the kernel neither cuts it nor sums it up before it is on the far host's bridge. Each
//! flow keeps to one of a few streams, so that its packets stay in order and no flow waits for all others.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use shoal_core::model::NodeId;
use shoal_core::overlay::{Dropped, OverlayTable};
use shoal_wire::Kind;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tun_rs::AsyncDevice;

use super::packet::{LENGTH, PACKET_MAX, VIRTIO_HEADER, ends};
use crate::line::{Rx, Tx};
use crate::stats::{add, count};
use crate::{Endpoint, FrameReceiver, FrameSender, Peer};

/// Streams to each node.
const STREAMS: usize = 8;
/// Batches that wait for a stream; further packets are dropped, as any network does.
const WAITING_MAX: usize = 64;
/// A batch holds about so many bytes at most.
const BATCH_BYTES: usize = 256 << 10;
/// Packets taken from the device before others have a turn.
const BATCH_PACKETS: usize = 256;
const CONNECT_MAX: Duration = Duration::from_millis(1_500);
/// Between two tries to reach a node, growing.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// A stream that nothing uses is closed.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// Figures of the way to one node.
#[derive(Debug, Default)]
pub(super) struct PeerCounters {
    pub(super) packets_out: AtomicU64,
    pub(super) bytes_out: AtomicU64,
    pub(super) packets_in: AtomicU64,
    pub(super) bytes_in: AtomicU64,
    /// Packets that found the way full or the node silent.
    pub(super) lost: AtomicU64,
}

/// Figures of all.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) peers: Mutex<BTreeMap<NodeId, Arc<PeerCounters>>>,
    pub(super) dropped: [AtomicU64; Dropped::ALL.len()],
    pub(super) malformed: AtomicU64,
}

impl Counters {
    pub(super) fn peer(&self, node: NodeId) -> Arc<PeerCounters> {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(peers.entry(node).or_default())
    }

    fn drop(&self, why: Dropped) {
        count(&self.dropped[why as usize]);
    }
}

/// What both directions share.
pub(super) struct Shared {
    pub(super) here: NodeId,
    pub(super) endpoint: Endpoint,
    pub(super) table: RwLock<Arc<OverlayTable>>,
    pub(super) counters: Counters,
    /// Once there is one.
    pub(super) device: RwLock<Option<Arc<AsyncDevice>>>,
    peers: Mutex<BTreeMap<NodeId, Arc<PeerWay>>>,
}

/// The way to a node.
struct PeerWay {
    addr: Mutex<SocketAddr>,
    streams: Vec<mpsc::Sender<(u64, Bytes)>>,
    counters: Arc<PeerCounters>,
}

impl Shared {
    pub(super) fn new(here: NodeId, endpoint: Endpoint) -> Self {
        Self {
            here,
            endpoint,
            table: RwLock::default(),
            counters: Counters::default(),
            device: RwLock::new(None),
            peers: Mutex::default(),
        }
    }

    pub(super) fn table(&self) -> Arc<OverlayTable> {
        self.table.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn peers(&self) -> MutexGuard<'_, BTreeMap<NodeId, Arc<PeerWay>>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn peer(self: &Arc<Self>, node: NodeId, addr: SocketAddr) -> Arc<PeerWay> {
        let mut peers = self.peers();
        let way = peers.entry(node).or_insert_with(|| {
            let counters = self.counters.peer(node);
            let (senders, receivers): (Vec<_>, Vec<_>) =
                (0..STREAMS).map(|_| mpsc::channel(WAITING_MAX)).unzip();
            let way = Arc::new(PeerWay { addr: Mutex::new(addr), streams: senders, counters });
            for receiver in receivers {
                let sending = send(Arc::downgrade(self), node, Arc::downgrade(&way), receiver);
                Handle::current().spawn(sending);
            }
            way
        });
        *way.addr.lock().unwrap_or_else(PoisonError::into_inner) = addr;
        Arc::clone(way)
    }

    /// Forget the ways to nodes that have no place in the table.
    pub(super) fn prune(&self, table: &OverlayTable) {
        let nodes = table.reachable().map(|(_, place)| place.node);
        let nodes: std::collections::BTreeSet<NodeId> = nodes.collect();
        self.peers().retain(|node, _| nodes.contains(node));
        let mut counters = self.counters.peers.lock().unwrap_or_else(PoisonError::into_inner);
        counters.retain(|node, _| nodes.contains(node));
    }
}

/// Take packets from the device until it fails.
pub(super) async fn outward(shared: Arc<Shared>, device: Arc<AsyncDevice>) -> std::io::Error {
    let mut buffer = vec![0; PACKET_MAX];
    let mut batches: Vec<Batch> = Vec::new();
    loop {
        let mut length = match device.recv(&mut buffer).await {
            Ok(length) => length,
            Err(error) => return error,
        };
        let table = shared.table();
        for _ in 0..BATCH_PACKETS {
            if let Some(packet) = buffer.get(..length) {
                pack(&shared, &table, packet, &mut batches);
            }
            match device.try_recv(&mut buffer) {
                Ok(next) => length = next,
                // Nothing more for now; a failure comes again with the next wait.
                Err(_) => break,
            }
        }
        for batch in batches.drain(..) {
            batch.pass();
        }
        tokio::task::yield_now().await;
    }
}

/// Packets for one stream.
struct Batch {
    way: Arc<PeerWay>,
    node: NodeId,
    stream: usize,
    packets: u64,
    bytes: BytesMut,
}

impl Batch {
    fn pass(self) {
        let Self { way, stream, packets, bytes, .. } = self;
        let (length, bytes) = (bytes.len() as u64, bytes.freeze());
        match way.streams[stream].try_send((packets, bytes)) {
            Ok(()) => {
                add(&way.counters.packets_out, packets);
                add(&way.counters.bytes_out, length);
            }
            Err(_) => add(&way.counters.lost, packets),
        }
    }
}

fn pack(shared: &Arc<Shared>, table: &OverlayTable, packet: &[u8], batches: &mut Vec<Batch>) {
    let Some(ends) = ends(packet) else { return count(&shared.counters.malformed) };
    let place = match table.outward(shared.here, ends.from, ends.to) {
        Ok(place) => place,
        Err(why) => return shared.counters.drop(why),
    };
    let stream = ends.flow as usize % STREAMS;
    let open = batches.iter().position(|batch| batch.node == place.node && batch.stream == stream);
    let at = open.filter(|at| batches[*at].bytes.len() + packet.len() < BATCH_BYTES);
    let at = match (at, open) {
        (Some(at), _) => at,
        (None, full) => {
            let Ok(addr) = place.addr.parse() else { return shared.counters.drop(Dropped::Nobody) };
            if let Some(full) = full {
                batches.swap_remove(full).pass();
            }
            let way = shared.peer(place.node, addr);
            batches.push(Batch { way, node: place.node, stream, packets: 0, bytes: BytesMut::new() });
            batches.len() - 1
        }
    };
    let batch = &mut batches[at];
    // No packet is longer than the buffer that it was read into.
    let length = u32::try_from(packet.len()).unwrap_or_default();
    batch.bytes.extend_from_slice(&length.to_be_bytes());
    batch.bytes.extend_from_slice(packet);
    batch.packets += 1;
}

/// Send what comes for one stream to a node, opening it as it is needed.
async fn send(
    shared: std::sync::Weak<Shared>,
    node: NodeId,
    way: std::sync::Weak<PeerWay>,
    mut batches: mpsc::Receiver<(u64, Bytes)>,
) {
    let mut stream: Option<(Box<dyn Tx>, Box<dyn Rx>)> = None;
    let mut retry = RETRY.0;
    loop {
        let (packets, bytes) = match timeout(IDLE_MAX, batches.recv()).await {
            Ok(Some(batch)) => batch,
            Ok(None) => return,
            Err(_) => {
                stream = None;
                continue;
            }
        };
        let (Some(shared), Some(way)) = (shared.upgrade(), way.upgrade()) else { return };
        if stream.is_none() {
            let addr = *way.addr.lock().unwrap_or_else(PoisonError::into_inner);
            let peer = Peer { node_id: Some(node), addr };
            match shared.endpoint.open_raw(&peer, Kind::Packets, Vec::new(), CONNECT_MAX).await {
                Ok((tx, rx, _)) => {
                    retry = RETRY.0;
                    stream = Some((tx, rx));
                }
                Err(error) => {
                    tracing::debug!(%node, %error, "no way to a node for packets");
                    add(&way.counters.lost, packets);
                    // What waits behind is old by then: it goes with it.
                    tokio::time::sleep(retry).await;
                    retry = (retry * 2).min(RETRY.1);
                    while let Ok((packets, _)) = batches.try_recv() {
                        add(&way.counters.lost, packets);
                    }
                    continue;
                }
            }
        }
        if let Some((tx, _)) = &mut stream
            && let Err(why) = tx.write(bytes).await
        {
            tracing::debug!(%node, why, "the way to a node broke");
            add(&way.counters.lost, packets);
            stream = None;
        }
    }
}

/// Pass on what another node sends, until it ends.
pub(super) async fn inward(shared: Arc<Shared>, from: NodeId, tx: FrameSender, rx: FrameReceiver) {
    let (_, mut tx) = tx.into_raw();
    let counters = shared.counters.peer(from);
    let (first, mut rx) = rx.into_raw();
    let mut packets = Packets::default();
    let mut read = Ok(Some(first));
    while let Ok(Some(bytes)) = read {
        let mut bytes = &bytes[..];
        while let Some(packet) = packets.next(&mut bytes) {
            let Ok(packet) = packet else {
                tracing::warn!(node = %from, "what a node sent is no packet");
                count(&shared.counters.malformed);
                return tx.reset();
            };
            pass(&shared, &counters, from, packet).await;
        }
        read = rx.read().await;
    }
}

/// Takes packets out of bytes as they come. One that came whole is not copied.
#[derive(Debug, Default)]
struct Packets {
    /// A packet of which a part has come, with its length.
    begun: Vec<u8>,
    /// The packet in `begun` was taken.
    taken: bool,
}

impl Packets {
    /// The next packet, if it is there whole; what is not is kept. Takes from the front of `bytes`.
    fn next<'p, 'b: 'p>(&'p mut self, bytes: &mut &'b [u8]) -> Option<Result<&'p [u8], ()>> {
        if std::mem::take(&mut self.taken) {
            self.begun.clear();
        }
        if self.begun.is_empty()
            && let Some(length) = length(bytes)
        {
            let Ok(length) = length else { return Some(Err(())) };
            if let Some((packet, rest)) = bytes.split_at_checked(LENGTH + length) {
                *bytes = rest;
                return Some(Ok(&packet[LENGTH..]));
            }
        }
        while let missing @ 1.. = self.missing().ok()? {
            let (part, rest) = bytes.split_at_checked(missing.min(bytes.len()))?;
            if part.is_empty() {
                return None;
            }
            self.begun.extend_from_slice(part);
            *bytes = rest;
            if self.missing().is_err() {
                return Some(Err(()));
            }
        }
        self.taken = true;
        Some(Ok(&self.begun[LENGTH..]))
    }

    /// How much of the packet, or of its length, is to come.
    fn missing(&self) -> Result<usize, ()> {
        match length(&self.begun) {
            None => Ok(LENGTH - self.begun.len()),
            Some(length) => Ok(LENGTH + length? - self.begun.len()),
        }
    }
}

/// The length of the packet that these bytes begin with, once it is there.
fn length(bytes: &[u8]) -> Option<Result<usize, ()>> {
    let length = u32::from_be_bytes(*bytes.first_chunk::<LENGTH>()?) as usize;
    Some(if (VIRTIO_HEADER..=PACKET_MAX).contains(&length) { Ok(length) } else { Err(()) })
}

async fn pass(shared: &Shared, counters: &PeerCounters, from: NodeId, packet: &[u8]) {
    let Some(ends) = ends(packet) else { return count(&shared.counters.malformed) };
    if let Err(why) = shared.table().inward(shared.here, from, ends.from, ends.to) {
        return shared.counters.drop(why);
    }
    let device = shared.device.read().unwrap_or_else(PoisonError::into_inner).clone();
    let Some(device) = device else { return shared.counters.drop(Dropped::Elsewhere) };
    match device.send(packet).await {
        Ok(_) => {
            count(&counters.packets_in);
            add(&counters.bytes_in, packet.len() as u64);
        }
        // The kernel refuses what contradicts itself.
        Err(_) => count(&shared.counters.malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_come_whole_and_in_order_however_they_were_cut() {
        let packets: Vec<Vec<u8>> =
            [10, 60, 11, 5000, 1500].iter().map(|length| (0..*length).map(|at| at as u8).collect()).collect();
        let sent: Vec<u8> = packets
            .iter()
            .flat_map(|packet| [&(packet.len() as u32).to_be_bytes()[..], packet].concat())
            .collect();
        for cut in [1, 2, 3, 5, 14, 64, 65, 1000, 5100, sent.len()] {
            let (mut taker, mut taken) = (Packets::default(), Vec::new());
            for mut bytes in sent.chunks(cut) {
                while let Some(packet) = taker.next(&mut bytes) {
                    taken.push(packet.unwrap().to_vec());
                }
                assert!(bytes.is_empty(), "what is no whole packet is kept");
            }
            assert!(taken == packets, "cut at {cut}");
        }
    }

    #[test]
    fn what_is_longer_or_shorter_than_any_packet_is_refused() {
        for length in [0, 9, PACKET_MAX as u32 + 1, u32::MAX] {
            for cut in [1, 4, 100] {
                let sent = [&length.to_be_bytes()[..], &[0; 96]].concat();
                let mut taker = Packets::default();
                let mut refused = false;
                for mut bytes in sent.chunks(cut) {
                    refused |= taker.next(&mut bytes) == Some(Err(()));
                }
                assert!(refused, "{length}, cut at {cut}");
            }
        }
    }
}
