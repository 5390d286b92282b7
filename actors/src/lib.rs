//! Thin actix actors around the decisions of shoal-core. Every node hosts Raft, Scheduler, Orchestrator,
//! Dispatcher, TaskRunner, Membership and Identity.

pub mod api;
pub mod clock;
pub mod deciders;
pub mod directory;
pub mod disk;
pub mod dispatcher;
pub mod identity;
pub mod leader;
pub mod mesh;
pub mod metric_definitions;
pub mod node;
pub mod raft;
pub mod task_runner;
mod witness;
