//! chitchat's transport: a datagram where the message fits, a stream of its own where not. Sending never
//! waits for a dial.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chitchat::transport::{Socket, Transport};
use chitchat::{ChitchatMessage, Deserializable as _, Serializable as _};
use quinn::Connection;
use shoal_wire::Protocol;
use tokio::sync::mpsc;

use crate::endpoint::{Endpoint, Inner, Peer};
use crate::line::Line;
use crate::server::canonical;
use crate::stats::count;

/// Messages that wait for a dial; older ones are dropped, newer gossip says more.
const WAITING_MAX: usize = 4;
/// Received messages that wait for chitchat.
const RECEIVED_MAX: usize = 1024;
/// chitchat's own bound is a datagram of 64 KiB.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
const STREAM_TIMEOUT: Duration = Duration::from_secs(3);
const STREAMS_AT_ONCE_MAX: usize = 32;

/// An accepted gossip connection.
pub(crate) struct Inbound {
    pub(crate) connection: Connection,
    pub(crate) addr: SocketAddr,
}

#[derive(Default)]
struct Link {
    connection: Option<Connection>,
    dialling: bool,
    waiting: VecDeque<Bytes>,
}

pub(super) struct Hub {
    inner: Arc<Inner>,
    links: Mutex<BTreeMap<SocketAddr, Link>>,
    received: mpsc::Sender<(SocketAddr, Bytes)>,
}

impl Inner {
    /// Hand an accepted gossip connection to gossip, if it runs.
    pub(crate) fn gossip_accepted(&self, line: &dyn Line, addr: SocketAddr) {
        let Some(connection) = line.quic().cloned() else { return };
        let inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(inbox) = inbox {
            // Full: the peer's messages are lost, as on a busy wire.
            let _ = inbox.try_send(Inbound { connection, addr });
        }
    }
}

impl Hub {
    pub(super) fn start(endpoint: &Endpoint) -> (Arc<Self>, mpsc::Receiver<(SocketAddr, Bytes)>) {
        let (received, queue) = mpsc::channel(RECEIVED_MAX);
        let (inbox, mut accepted) = mpsc::channel::<Inbound>(256);
        *endpoint.0.inbox.lock().unwrap_or_else(PoisonError::into_inner) = Some(inbox);
        let hub = Arc::new(Self { inner: endpoint.0.clone(), links: Mutex::default(), received });
        let weak = Arc::downgrade(&hub);
        endpoint.0.scope.spawn(async move {
            while let Some(Inbound { connection, addr }) = accepted.recv().await {
                let Some(hub) = weak.upgrade() else { return };
                hub.adopt(connection, addr);
            }
        });
        (hub, queue)
    }

    fn links(&self) -> std::sync::MutexGuard<'_, BTreeMap<SocketAddr, Link>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Use a connection for sending, and read from it until it closes.
    fn adopt(self: &Arc<Self>, connection: Connection, addr: SocketAddr) {
        let waiting = {
            let mut links = self.links();
            let link = links.entry(addr).or_default();
            link.connection = Some(connection.clone());
            link.dialling = false;
            std::mem::take(&mut link.waiting)
        };
        for message in waiting {
            self.push(&connection, message);
        }
        let hub = self.clone();
        self.inner.scope.spawn(async move {
            hub.read(&connection, addr).await;
            let mut links = hub.links();
            if links
                .get(&addr)
                .and_then(|l| l.connection.as_ref())
                .is_some_and(|c| c.stable_id() == connection.stable_id())
            {
                links.remove(&addr);
            }
        });
    }

    async fn read(&self, connection: &Connection, addr: SocketAddr) {
        let streams = Arc::new(tokio::sync::Semaphore::new(STREAMS_AT_ONCE_MAX));
        loop {
            tokio::select! {
                biased;
                datagram = connection.read_datagram() => match datagram {
                    Ok(bytes) => self.deliver(addr, bytes),
                    Err(_) => return,
                },
                stream = connection.accept_uni() => {
                    let Ok(mut stream) = stream else { return };
                    let Ok(permit) = streams.clone().try_acquire_owned() else { continue };
                    let received = self.received.clone();
                    let inner = self.inner.clone();
                    self.inner.scope.spawn(async move {
                        let whole = tokio::time::timeout(STREAM_TIMEOUT, stream.read_to_end(MESSAGE_BYTES_MAX)).await;
                        if let Ok(Ok(bytes)) = whole {
                            count(&inner.counters.gossip_received_total);
                            let _ = received.try_send((addr, bytes.into()));
                        }
                        drop(permit);
                    });
                }
            }
        }
    }

    fn deliver(&self, addr: SocketAddr, bytes: Bytes) {
        count(&self.inner.counters.gossip_received_total);
        if self.received.try_send((addr, bytes)).is_err() {
            count(&self.inner.counters.gossip_dropped_total);
        }
    }

    fn push(&self, connection: &Connection, message: Bytes) {
        count(&self.inner.counters.gossip_sent_total);
        if connection.max_datagram_size().is_some_and(|most| message.len() <= most) {
            let _ = connection.send_datagram(message);
            return;
        }
        let connection = connection.clone();
        self.inner.scope.spawn(async move {
            let send = async {
                let Ok(mut stream) = connection.open_uni().await else { return };
                if stream.write_all(&message).await.is_ok() {
                    let _ = stream.finish();
                }
            };
            let _ = tokio::time::timeout(STREAM_TIMEOUT, send).await;
        });
    }

    fn send(self: &Arc<Self>, to: SocketAddr, message: Bytes) {
        let to = canonical(to);
        let mut links = self.links();
        let link = links.entry(to).or_default();
        if let Some(connection) = link.connection.clone().filter(|c| c.close_reason().is_none()) {
            drop(links);
            return self.push(&connection, message);
        }
        link.connection = None;
        if link.waiting.len() >= WAITING_MAX {
            link.waiting.pop_front();
            self.inner.counters.gossip_dropped_total.fetch_add(1, Ordering::Relaxed);
        }
        link.waiting.push_back(message);
        if link.dialling {
            return;
        }
        link.dialling = true;
        drop(links);
        let hub = self.clone();
        self.inner.scope.spawn(async move { hub.dial(to).await });
    }

    async fn dial(self: &Arc<Self>, to: SocketAddr) {
        match self.inner.connection(&Peer { node_id: None, addr: to }, Protocol::Gossip).await {
            Ok(line) => match line.quic() {
                Some(connection) => self.adopt(connection.clone(), to),
                None => drop(self.links().remove(&to)),
            },
            Err(error) => {
                tracing::trace!(%to, %error, "gossip finds nobody");
                self.links().remove(&to);
            }
        }
    }
}

/// chitchat opens its transport once.
pub(super) struct HubTransport(Mutex<Option<HubSocket>>);

impl HubTransport {
    pub(super) fn new(hub: Arc<Hub>, queue: mpsc::Receiver<(SocketAddr, Bytes)>) -> Self {
        Self(Mutex::new(Some(HubSocket { hub, queue })))
    }
}

/// Its open end.
struct HubSocket {
    hub: Arc<Hub>,
    queue: mpsc::Receiver<(SocketAddr, Bytes)>,
}

#[async_trait]
impl Transport for HubTransport {
    async fn open(&self, _: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        let taken = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        Ok(Box::new(taken.ok_or_else(|| anyhow::anyhow!("gossip's transport is open already"))?))
    }
}

#[async_trait]
impl Socket for HubSocket {
    async fn send(&mut self, to: SocketAddr, message: ChitchatMessage) -> anyhow::Result<()> {
        self.hub.send(to, message.serialize_to_vec().into());
        Ok(())
    }

    async fn recv(&mut self) -> anyhow::Result<(SocketAddr, ChitchatMessage)> {
        loop {
            let received = self.queue.recv().await;
            let (addr, bytes) = received.ok_or_else(|| anyhow::anyhow!("gossip has stopped"))?;
            match ChitchatMessage::deserialize(&mut &bytes[..]) {
                Ok(message) => return Ok((addr, message)),
                Err(error) => tracing::debug!(%addr, %error, "malformed gossip"),
            }
        }
    }
}
