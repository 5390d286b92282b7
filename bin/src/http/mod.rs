//! The front door: Docker's HTTP API on unix sockets and on TCP with client certificates.
//!
//! The swarm endpoints (`/swarm`, `/nodes`, `/services`, `/tasks`, and the swarm's part of `/info`, `/_ping`,
//! `/version` and `/events`) are answered here, from [`NodeApi`](shoal_actors::api::NodeApi) alone. Everything
//! else goes to the local Docker engine as it came and comes back as it is, streams and hijacked connections
//! too. What Docker has no word for lives under `/shoal/v1/`.
//!
//! What a client asks for and is not there yet is refused by name; nothing is dropped in silence.

mod body;
mod clock;
mod context;
mod convert;
mod decode;
mod error;
mod fold;
#[cfg(fuzzing)]
pub mod fuzzing;
mod handlers;
mod listen;
mod metrics;
mod names;
mod proxy;
mod query;
mod refusals;
mod route;
mod server;
mod stale;
mod tls;
pub mod types;

#[cfg(test)]
mod tests;

pub use listen::{ApiListener, BindError, ListenAddr, ParseListenError};
pub use metrics::serve_metrics;
pub use proxy::EngineProxy;
pub use refusals::Refusals;
pub use server::{ServeOptions, serve};
pub use tls::{TlsError, TlsFiles};
