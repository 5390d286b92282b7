//! Traffic of published ports between nodes.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use shoal_core::model::{Protocol, TaskId};

/// Asks a node to connect to one of its tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectRequest {
    /// The task.
    pub task: TaskId,
    /// The port in its container.
    pub port: u16,
    /// What is spoken to it.
    pub protocol: Protocol,
    /// Who asked the mesh.
    pub client: SocketAddr,
    /// The published address that it asked.
    pub server: SocketAddr,
}

/// The first byte of the answer.
pub mod connect_answer {
    /// Connected: from here on the bytes are the connection's.
    pub const CONNECTED: u8 = 0;
    /// The task does not answer, or there is no such task.
    pub const FAILED: u8 = 1;
    /// The task is about to stop and takes nothing new.
    pub const DRAINING: u8 = 2;
}
