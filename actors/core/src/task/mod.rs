//! A task on its node: the steps that it takes, and the trait that a container runtime implements.

pub mod conformance;
mod controller;
mod fsm;
mod local;
mod plain;
mod template;

pub use controller::{
    BoxFuture, Controller, ControllerError, ExitStatus, LocalContainer, Progress, RunState,
};
pub use fsm::{Action, Next, interrupts, reworded, step};
pub use local::{Container, Health, Local, Outcome, RETRY_DELAY_MAX, retry_delay};
pub use plain::PlainContainers;
pub use template::{Expansion, TEMPLATE_BYTES_MAX, TemplateError};
