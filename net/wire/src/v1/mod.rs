//! Version 1 of every message. Enum variants are only ever appended.

mod attach;
mod control;
mod dispatch;
mod join;
mod mesh;

pub use attach::{AttachRequest, AttachResponse};
pub use control::{Outcome, ProposeRequest, ProposeResponse, ReadIndexResponse, SeatRequest, SeatResponse};
pub use dispatch::{Assignments, FromNode, ManagerAddr, SessionReply, SessionRequest, TaskReport, ToNode};
pub use join::{Hello, JoinRefusal, JoinRequest, JoinResponse, Joined, RenewRequest};
pub use mesh::{ConnectRequest, connect_answer};
