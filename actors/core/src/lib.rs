//! Every decision of Shoal. Nothing here knows a clock, a thread, a socket or a disk: state and the
//! time come in as arguments, plans go out as data.

pub mod attach;
pub mod check;
pub mod dispatcher;
pub mod liveness;
pub mod mesh;
pub mod model;
pub mod names;
pub mod orchestrator;
pub mod overlay;
pub mod pace;
pub mod plan;
pub mod put_back;
pub mod scheduler;
pub mod seats;
pub mod store;
pub mod task;
