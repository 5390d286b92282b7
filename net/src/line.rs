//! What connections are made of, whatever carries them: QUIC in production, simulated links where thousands of nodes
//! live in one process.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use shoal_core::model::{NodeId, Role, Timestamp};
use shoal_core::task::BoxFuture;
use shoal_wire::Protocol;

use crate::endpoint::CallError;
use crate::identity::{ANY_NODE, Credentials, Identity, node_name, role_name};
use crate::tls;

/// As whom the other end of a line must prove itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Expected {
    /// This node.
    Node(NodeId),
    /// Any node of this role.
    Role(Role),
    /// Any node of the cluster.
    Any,
}

impl Expected {
    /// Its name in certificates.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Node(id) => node_name(*id),
            Self::Role(role) => role_name(*role).to_owned(),
            Self::Any => ANY_NODE.to_owned(),
        }
    }
}

/// What a dialling end shows, and by what it knows the other.
#[derive(Debug, Clone)]
pub enum Proof {
    /// Its certificate; the other's must be of the same root.
    Certificate(Arc<Credentials>),
    /// Nothing; the other's root certificate has this digest.
    Pinned([u8; 32]),
}

/// Streams that an end may have open on a line: one for each connection that it passes on; further ones wait.
pub const STREAMS_MAX: usize = 16_384;

/// Whom to dial, and how.
#[derive(Debug, Clone)]
pub struct Dial {
    /// Where.
    pub addr: SocketAddr,
    /// What will be spoken.
    pub protocol: Protocol,
    /// Who must answer.
    pub expected: Expected,
    /// Who asks.
    pub proof: Proof,
}

/// What the other end showed of itself; if anything, it was verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// No certificate.
    Nothing,
    /// A certificate that names no node, role or cluster.
    Nameless,
    /// Who it is.
    Identity(Identity),
}

/// Why a line is closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Closed {
    /// The other end said so.
    Told {
        /// Its code.
        code: u32,
        /// Its words.
        why: String,
    },
    /// It broke, or this end closed it.
    Broken(String),
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Told { code, why } => write!(f, "closed by peer: {why} (code {code})"),
            Self::Broken(why) => f.write_str(why),
        }
    }
}

/// The sending half of a stream. Dropped, it is finished.
pub trait Tx: fmt::Debug + Send {
    /// Send; waits while the other end does not read.
    fn write(&mut self, bytes: Bytes) -> BoxFuture<'_, Result<(), String>>;
    /// Nothing more will be sent.
    ///
    /// # Errors
    /// If it is closed already.
    fn finish(&mut self) -> Result<(), String>;
    /// Break it off: the other end's reads fail.
    fn reset(&mut self);
}

/// The receiving half of a stream.
pub trait Rx: fmt::Debug + Send {
    /// What has come, in order; none once the other end has finished. Nothing is lost if this is dropped while it waits.
    fn read(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, String>>;
}

/// Both halves of a stream.
pub type Stream = (Box<dyn Tx>, Box<dyn Rx>);

/// A connection to another node. All of its streams end with it.
pub trait Line: fmt::Debug + Send + Sync + 'static {
    /// Another number for each line of a carrier.
    fn id(&self) -> usize;
    /// Where the other end is.
    fn remote(&self) -> SocketAddr;
    /// What is spoken; none if both found nothing in common.
    fn protocol(&self) -> Option<Protocol>;
    /// Who the other end is.
    fn shown(&self) -> Shown;
    /// Open a stream; waits while too many are open.
    fn open(&self) -> BoxFuture<'_, Result<Stream, Closed>>;
    /// The next stream that the other end opens.
    fn accept(&self) -> BoxFuture<'_, Result<Stream, Closed>>;
    /// Close it, and tell the other end why.
    fn close(&self, code: u32, why: &str);
    /// Why it is closed; none while it is open.
    fn closed(&self) -> Option<Closed>;
    /// Counts what came from the other end, of any kind: whether there was a sign of life.
    fn heard(&self) -> u64;
    /// How long a packet takes to the other end and back, where that is measured.
    fn round_trip(&self) -> Option<Duration> {
        None
    }
    /// The QUIC connection below, for gossip's datagrams.
    fn quic(&self) -> Option<&quinn::Connection> {
        None
    }
}

/// A line that was asked for and is not open yet.
pub type Arriving = BoxFuture<'static, Result<Arc<dyn Line>, String>>;

/// Makes lines.
pub trait Carrier: Send + Sync + 'static {
    /// Where it listens.
    ///
    /// # Errors
    /// If the system does not say.
    fn local_addr(&self) -> io::Result<SocketAddr>;
    /// Accept lines with this certificate from now on, or none at all.
    ///
    /// # Errors
    /// If it cannot be used.
    fn set_server(&self, credentials: Option<&Arc<Credentials>>) -> Result<(), String>;
    /// The next line that somebody asks for; none once the carrier is closed.
    fn accept(&self) -> BoxFuture<'_, Option<Arriving>>;
    /// Open a line. The caller bounds the time.
    fn dial(&self, dial: Dial) -> BoxFuture<'_, Result<Arc<dyn Line>, CallError>>;
    /// The thread that moves its bytes, if it has one of its own: who moves many had best be there, too.
    fn thread(&self) -> Option<tokio::runtime::Handle> {
        None
    }
    /// Lines that are open.
    fn open_lines(&self) -> usize;
    /// Close all, tell everybody so, and wait until that has been said.
    fn close<'a>(&'a self, code: u32, why: &'a str) -> BoxFuture<'a, ()>;
}

/// Verify a certificate as the dialling end of a line does, for carriers without TLS.
///
/// # Errors
/// In the verifier's words.
pub fn verify_server(
    proof: &Proof,
    expected: Expected,
    server: &Credentials,
    now: Timestamp,
) -> Result<(), String> {
    tls::verify_server(proof, &expected.name(), &server.chain(), now).map_err(|error| error.to_string())
}

/// Verify a certificate as the accepting end of a line does, for carriers without TLS.
///
/// # Errors
/// In the verifier's words.
pub fn verify_client(server: &Credentials, client: &Credentials, now: Timestamp) -> Result<(), String> {
    tls::verify_client(server, &client.chain(), now).map_err(|error| error.to_string())
}
