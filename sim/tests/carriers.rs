//! The suite that QUIC passes on real sockets, over all that stands in for them here.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "../../net/tests/suite/mod.rs"]
mod suite;
#[path = "../../net/tests/support/mod.rs"]
mod support;

use std::any::Any;
use std::net::SocketAddr;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use shoal_core::model::Timestamp;
use shoal_core::pace::Pace;
use shoal_core::task::BoxFuture;
use shoal_net::Wire;
use shoal_sim::fabric::{Depth, Fabric};
use shoal_sim::hooks;
use shoal_sim::host::address;
use shoal_sim::trace::Trace;
use support::{Ground, Join, NOW};

/// Each case is run so often, each time with other latencies.
const SEEDS: u64 = 5;

struct Simulated {
    fabric: Fabric,
    hosts: AtomicUsize,
}

impl Simulated {
    fn next(&self) -> SocketAddr {
        address(self.hosts.fetch_add(1, Ordering::Relaxed))
    }
}

impl Ground for Simulated {
    fn wire(&self, at: Option<SocketAddr>) -> Wire {
        let at = at.unwrap_or_else(|| self.next());
        self.fabric.bind(at, Arc::new(|| Timestamp(NOW)), [1; 32])
    }

    fn killed(&self, at: SocketAddr, held: Box<dyn Any>) -> BoxFuture<'_, ()> {
        self.fabric.unbind(at);
        drop(held);
        Box::pin(async {})
    }

    fn hole(&self) -> SocketAddr {
        self.next()
    }

    fn membership(&self) -> Option<Join> {
        let Fabric::Fast(_, members) = self.fabric.clone() else { return None };
        Some(Arc::new(move |config| members.join(&config)))
    }
}

fn run<F: Future<Output = ()> + 'static>(depth: Depth, case: fn(Arc<dyn Ground>) -> F) {
    for seed in 1..=SEEDS {
        let ran = hooks::pinned(seed, move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
            runtime.unwrap().block_on(async {
                hooks::begin_clock();
                let fabric = Fabric::new(depth, seed, Pace::USUAL, Trace::new(false));
                case(Arc::new(Simulated { fabric, hosts: AtomicUsize::new(1) })).await;
            });
        });
        if let Err(panic) = ran {
            eprintln!("with seed {seed}");
            resume_unwind(panic);
        }
    }
}

mod fast {
    use super::*;

    fn run<F: Future<Output = ()> + 'static>(case: fn(Arc<dyn Ground>) -> F) {
        super::run(Depth::Fast, case);
    }

    suite::cases!(run);
}

mod full {
    use super::*;

    fn run<F: Future<Output = ()> + 'static>(case: fn(Arc<dyn Ground>) -> F) {
        super::run(Depth::Full, case);
    }

    suite::cases!(run);
}
