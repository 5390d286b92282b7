//! The front door from outside: a fake node behind it, real sockets before it.

mod containers;
mod conversions;
mod docker_client;
mod engine_real;
mod fake;
mod golden;
mod harness;
mod networks;
mod proxying;
mod rules;
mod stop_and_limits;
mod streams;
mod tls;
