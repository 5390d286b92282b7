//! Everything between nodes: one UDP port, QUIC with mutual TLS, a connection for each peer and protocol.
//!
//! What the messages mean is not known here; who may send which is, in [`access`].

pub mod access;
mod addresses;
mod bind;
pub mod ca;
mod endpoint;
mod frame;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod gossip;
pub mod identity;
pub mod line;
pub mod mesh;
pub mod names;
pub mod overlay;
mod pool;
mod quic;
mod server;
mod socket;
mod stats;
pub mod task;
mod threads;
mod tls;
mod tools;

pub use addresses::own_addresses;
pub use endpoint::{BindError, CallError, Endpoint, EndpointConfig, Peer, RESET_KEY_BYTES, Wire, bind_udp};
pub use frame::{Frame, FrameError, FrameReceiver, FrameSender};
pub use identity::Identity;
pub use server::{Caller, Handler, Refusal};
pub use shoal_wire::Kind;
pub use stats::Stats;
pub use threads::Threads;
