//! Lines over QUIC.

use std::future::{Future as _, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use quinn::congestion::BbrConfig;
use quinn::{
    AckFrequencyConfig, AsyncUdpSocket, ClientConfig, Connection, ConnectionError, ServerConfig,
    TransportConfig, VarInt,
};
use quinn_proto::HashedConnectionIdGenerator;
use ring::hmac;
use rustls::pki_types::CertificateDer;
use shoal_core::task::BoxFuture;
use shoal_wire::Protocol;
use tokio::runtime::Handle;

use crate::endpoint::{CallError, RESET_KEY_BYTES};
use crate::identity::{Credentials, Identity};
use crate::line::{Arriving, Carrier, Closed, Dial, Line, Proof, Rx, STREAMS_MAX, Shown, Stream, Tx};
use crate::task::{Scope, ScopedRuntime};
use crate::threads::Threads;
use crate::tls::{self, Clock};

const INITIAL_RTT: Duration = Duration::from_millis(50);
/// Lively connections notice a dead peer after this long; what decides on life and death is elsewhere.
const IDLE_TIMEOUT: Duration = Duration::from_secs(5);
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(1);
/// The accepting end lets the caller decide, within this.
const SERVER_IDLE_TIMEOUT: Duration = Duration::from_secs(20);
const GOSSIP_IDLE_TIMEOUT: Duration = Duration::from_secs(6);
const CLOSE_TIMEOUT: Duration = Duration::from_millis(300);
const UNI_STREAMS_MAX: u32 = 64;
/// So many streams may be open on a new connection, more as they are used: QUIC keeps memory for each that may be, and most
/// connections never have more than a few.
const STREAMS_AT_FIRST: usize = 256;
/// Where bulk passes, so many packets are acknowledged together, or what came within this time: each acknowledgement costs
/// both ends about as much as a packet.
const BULK_ACK_EVERY: u32 = 24;
const BULK_ACK_WITHIN: Duration = Duration::from_millis(2);
/// Taken by one read.
const CHUNKS_MAX: usize = 64;

/// How fast a connection may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Control {
    /// As quinn has it.
    Usual,
    /// BBR, which carries bulk about a third faster. It draws from a generator that cannot be seeded.
    Bulk,
}

fn transport(idle: Duration, keep_alive: Option<Duration>, control: Control) -> Arc<TransportConfig> {
    let mut config = TransportConfig::default();
    if control == Control::Bulk {
        config.congestion_controller_factory(Arc::new(BbrConfig::default()));
        let mut acks = AckFrequencyConfig::default();
        acks.ack_eliciting_threshold(VarInt::from_u32(BULK_ACK_EVERY)).max_ack_delay(Some(BULK_ACK_WITHIN));
        config.ack_frequency_config(Some(acks));
    }
    config
        .max_idle_timeout(idle.try_into().ok())
        .keep_alive_interval(keep_alive)
        .initial_rtt(INITIAL_RTT)
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS_AT_FIRST as u32))
        .max_concurrent_uni_streams(VarInt::from_u32(UNI_STREAMS_MAX));
    Arc::new(config)
}

/// QUIC of an endpoint that knows the connections of its former self when it is asked for them: their ids are
/// made with the same key, or it would take them for noise and say nothing.
fn resetting(key: &[u8; RESET_KEY_BYTES]) -> quinn::EndpointConfig {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    let derived = hmac::sign(&key, b"connection ids");
    let ids = derived.as_ref().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let mut config = quinn::EndpointConfig::new(Arc::new(key));
    config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(ids)));
    config
}

fn client_config(
    crypto: quinn::crypto::rustls::QuicClientConfig,
    protocol: Protocol,
    bulk: Control,
) -> ClientConfig {
    let mut config = ClientConfig::new(Arc::new(crypto));
    config.transport_config(match protocol {
        Protocol::Gossip => transport(GOSSIP_IDLE_TIMEOUT, None, Control::Usual),
        Protocol::Join => transport(IDLE_TIMEOUT, None, Control::Usual),
        Protocol::Raft | Protocol::Control | Protocol::Dispatch => {
            transport(IDLE_TIMEOUT, Some(KEEP_ALIVE), Control::Usual)
        }
        Protocol::Mesh | Protocol::Overlay => transport(IDLE_TIMEOUT, Some(KEEP_ALIVE), bulk),
    });
    config
}

fn closed(error: ConnectionError) -> Closed {
    match error {
        ConnectionError::ApplicationClosed(close) => Closed::Told {
            code: u32::try_from(close.error_code.into_inner()).unwrap_or(u32::MAX),
            why: String::from_utf8_lossy(&close.reason).into_owned(),
        },
        ConnectionError::ConnectionClosed(close) => Closed::Broken(close.to_string()),
        other => Closed::Broken(other.to_string()),
    }
}

/// A QUIC endpoint.
pub(crate) struct Quic {
    endpoint: quinn::Endpoint,
    clock: Clock,
    bulk: Control,
    /// All of QUIC runs there, if it has one of its own.
    thread: Option<Handle>,
}

impl Quic {
    pub(crate) fn bind(
        socket: Arc<dyn AsyncUdpSocket>,
        rng_seed: Option<[u8; 32]>,
        thread: Option<Threads>,
        reset_key: Option<&[u8; RESET_KEY_BYTES]>,
        scope: &Scope,
        clock: Clock,
    ) -> io::Result<Self> {
        let mut quic = reset_key.map_or_else(quinn::EndpointConfig::default, resetting);
        quic.rng_seed(rng_seed);
        let on = thread.as_ref().map(|thread| thread.next().clone());
        let runtime = Arc::new(ScopedRuntime { scope: scope.clone(), thread });
        let endpoint = quinn::Endpoint::new_with_abstract_socket(quic, None, socket, runtime)?;
        // The simulator must be able to repeat what it saw.
        let bulk = if rng_seed.is_some() { Control::Usual } else { Control::Bulk };
        Ok(Self { endpoint, clock, bulk, thread: on })
    }

    async fn connect(&self, dial: Dial) -> Result<Arc<dyn Line>, CallError> {
        let unreachable = |error: &dyn std::fmt::Display| CallError::Unreachable(error.to_string());
        let crypto = match &dial.proof {
            Proof::Certificate(credentials) => tls::client(credentials, dial.protocol, &self.clock),
            Proof::Pinned(pin) => tls::joiner(*pin, &self.clock),
        };
        let config = client_config(crypto.map_err(|error| unreachable(&error))?, dial.protocol, self.bulk);
        let connecting = self.endpoint.connect_with(config, dial.addr, &dial.expected.name());
        let connection = connecting.map_err(|error| unreachable(&error))?.await;
        let connection = connection.map_err(|error| match closed(error) {
            Closed::Told { code, why } => CallError::told(code, why),
            Closed::Broken(why) => CallError::Unreachable(why),
        })?;
        Ok(Arc::new(QuicLine::new(connection)))
    }
}

impl Carrier for Quic {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    fn set_server(&self, credentials: Option<&Arc<Credentials>>) -> Result<(), String> {
        let Some(credentials) = credentials else {
            self.endpoint.set_server_config(None);
            return Ok(());
        };
        let crypto = tls::server(credentials, &self.clock).map_err(|error| error.to_string())?;
        let mut config = ServerConfig::with_crypto(Arc::new(crypto));
        // Which protocol a caller will speak is not known yet.
        config.transport_config(transport(SERVER_IDLE_TIMEOUT, None, self.bulk));
        self.endpoint.set_server_config(Some(config));
        Ok(())
    }

    fn accept(&self) -> BoxFuture<'_, Option<Arriving>> {
        Box::pin(async move {
            let incoming = self.endpoint.accept().await?;
            let arriving: Arriving = Box::pin(async move {
                let connection = incoming.await.map_err(|error| error.to_string())?;
                Ok(Arc::new(QuicLine::new(connection)) as Arc<dyn Line>)
            });
            Some(arriving)
        })
    }

    fn dial(&self, dial: Dial) -> BoxFuture<'_, Result<Arc<dyn Line>, CallError>> {
        Box::pin(self.connect(dial))
    }

    fn thread(&self) -> Option<Handle> {
        self.thread.clone()
    }

    fn open_lines(&self) -> usize {
        self.endpoint.open_connections()
    }

    fn close<'a>(&'a self, code: u32, why: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            self.endpoint.close(VarInt::from_u32(code), why.as_bytes());
            let _ = tokio::time::timeout(CLOSE_TIMEOUT, self.endpoint.wait_idle()).await;
        })
    }
}

/// How many streams may be open once so many of those that are allowed are; none if that is enough as it is. Half are always
/// to be had, so that who opens many one after the other does not wait for word of it.
fn room_for(open: usize, allowed: usize) -> Option<usize> {
    (open * 2 >= allowed && allowed < STREAMS_MAX).then(|| (allowed * 2).min(STREAMS_MAX))
}

/// Held by each half of a stream that the other end opened.
type Half = Arc<()>;

#[derive(Debug)]
struct QuicLine {
    connection: Connection,
    half: Half,
    /// The other end may have so many streams open.
    allowed: Mutex<usize>,
}

impl QuicLine {
    fn new(connection: Connection) -> Self {
        Self { connection, half: Half::default(), allowed: Mutex::new(STREAMS_AT_FIRST) }
    }

    fn make_room(&self) {
        let open = (Arc::strong_count(&self.half) - 1).div_ceil(2);
        let mut allowed = self.allowed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(more) = room_for(open, *allowed) {
            self.connection.set_max_concurrent_bi_streams(VarInt::from_u32(more as u32));
            *allowed = more;
        }
    }
}

fn stream((tx, rx): (quinn::SendStream, quinn::RecvStream), half: Option<&Half>) -> Stream {
    (
        Box::new(QuicTx { stream: tx, _half: half.cloned() }),
        Box::new(QuicRx { stream: rx, _half: half.cloned() }),
    )
}

impl Line for QuicLine {
    fn id(&self) -> usize {
        self.connection.stable_id()
    }

    fn remote(&self) -> SocketAddr {
        self.connection.remote_address()
    }

    fn protocol(&self) -> Option<Protocol> {
        let data =
            self.connection.handshake_data()?.downcast::<quinn::crypto::rustls::HandshakeData>().ok()?;
        Protocol::from_alpn(&data.protocol?)
    }

    fn shown(&self) -> Shown {
        let Some(certificates) = self.connection.peer_identity() else { return Shown::Nothing };
        let first =
            certificates.downcast::<Vec<CertificateDer<'static>>>().ok().and_then(|all| all.first().cloned());
        match first.map(|certificate| Identity::of(&certificate)) {
            Some(Ok(identity)) => Shown::Identity(identity),
            _ => Shown::Nameless,
        }
    }

    fn round_trip(&self) -> Option<Duration> {
        Some(self.connection.rtt())
    }

    fn open(&self) -> BoxFuture<'_, Result<Stream, Closed>> {
        Box::pin(async move { Ok(stream(self.connection.open_bi().await.map_err(closed)?, None)) })
    }

    fn accept(&self) -> BoxFuture<'_, Result<Stream, Closed>> {
        Box::pin(async move {
            let stream = stream(self.connection.accept_bi().await.map_err(closed)?, Some(&self.half));
            self.make_room();
            Ok(stream)
        })
    }

    fn close(&self, code: u32, why: &str) {
        self.connection.close(VarInt::from_u32(code), why.as_bytes());
    }

    fn closed(&self) -> Option<Closed> {
        self.connection.close_reason().map(closed)
    }

    fn heard(&self) -> u64 {
        self.connection.stats().udp_rx.datagrams
    }

    fn quic(&self) -> Option<&Connection> {
        Some(&self.connection)
    }
}

#[derive(Debug)]
struct QuicTx {
    stream: quinn::SendStream,
    _half: Option<Half>,
}

impl Tx for QuicTx {
    fn write(&mut self, bytes: Bytes) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move { self.stream.write_chunk(bytes).await.map_err(|error| error.to_string()) })
    }

    fn finish(&mut self) -> Result<(), String> {
        self.stream.finish().map_err(|error| error.to_string())
    }

    fn reset(&mut self) {
        // Already finished or reset: nothing more to break.
        let _ = self.stream.reset(VarInt::from_u32(0));
    }
}

#[derive(Debug)]
struct QuicRx {
    stream: quinn::RecvStream,
    _half: Option<Half>,
}

impl Rx for QuicRx {
    fn read(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, String>> {
        Box::pin(poll_fn(|cx| {
            // A chunk is what one packet brought. Who reads them one by one pays for each as for a whole buffer.
            let mut chunks = [const { Bytes::new() }; CHUNKS_MAX];
            let read = std::pin::pin!(self.stream.read_chunks(&mut chunks)).poll(cx);
            read.map(|read| match read {
                Ok(Some(count)) => Ok(Some(joined(&chunks[..count]))),
                Ok(None) => Ok(None),
                Err(error) => Err(error.to_string()),
            })
        }))
    }
}

/// All in one piece; copied only if there are several.
fn joined(chunks: &[Bytes]) -> Bytes {
    match chunks {
        [one] => one.clone(),
        several => several.concat().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_made_before_it_is_needed_and_no_more_than_may_be() {
        assert_eq!(room_for(0, STREAMS_AT_FIRST), None);
        assert_eq!(room_for(STREAMS_AT_FIRST / 2 - 1, STREAMS_AT_FIRST), None);
        assert_eq!(room_for(STREAMS_AT_FIRST / 2, STREAMS_AT_FIRST), Some(STREAMS_AT_FIRST * 2));
        assert_eq!(room_for(STREAMS_MAX - 2, STREAMS_MAX - 1), Some(STREAMS_MAX));
        assert_eq!(room_for(STREAMS_MAX, STREAMS_MAX), None);
    }
}
