//! The suite over QUIC on real sockets.
#![allow(missing_docs, clippy::unwrap_used)]

mod suite;
mod support;

use std::sync::Arc;

use support::{Ground, Udp};

fn run<F: Future<Output = ()> + 'static>(case: fn(Arc<dyn Ground>) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(case(Arc::new(Udp::default())));
}

suite::cases!(run);
