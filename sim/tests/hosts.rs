//! One host whose disk misbehaves.
#![allow(missing_docs, clippy::unwrap_used)]

use std::time::Duration;

use shoal_actors::api::{Freshness, InitOptions, NodeApi as _};
use shoal_core::model::{Availability, ClusterSpec};
use shoal_core::pace::Pace;
use shoal_sim::disk::SimDisk;
use shoal_sim::fabric::{Depth, Fabric};
use shoal_sim::hooks;
use shoal_sim::host::Host;
use shoal_sim::trace::Trace;
use tokio::time::sleep;

const MINUTE: Duration = Duration::from_secs(60);
const KEY: &str = "identity/node.key";

#[test]
fn a_certificate_that_found_no_room_is_written_once_there_is_some() {
    let lived = hooks::pinned(1, move || {
        hooks::in_virtual_time(async move {
            let trace = Trace::new(false);
            let fabric = Fabric::new(Depth::Fast, 1, Pace::USUAL, trace.clone());
            let sync = (Duration::from_micros(50), Duration::from_micros(200));
            let mut host = Host::new(1, 1, sync, fabric, trace);
            // Its own, for consensus must go on.
            let disk = SimDisk::new(1, sync);
            host.files = disk.clone();
            host.start().await.unwrap();
            let mut spec = ClusterSpec::default();
            spec.ca.node_cert_expiry = 60 * MINUTE;
            let availability = Availability::Active;
            let init = InitOptions { advertise: None, spec, availability, force_new_cluster: false };
            host.node().unwrap().init(init).await.unwrap();
            let first = disk.copy()[KEY].clone();

            disk.set_full(true);
            sleep(55 * MINUTE).await;
            assert_eq!(disk.copy()[KEY], first, "it was full");
            disk.set_full(false);
            sleep(MINUTE).await;
            assert_ne!(disk.copy()[KEY], first, "the certificate was renewed, and is not written yet");

            host.kill().await;
            sleep(10 * MINUTE).await;
            host.start().await.unwrap();
            sleep(MINUTE).await;
            let (_, freshness) = host.node().unwrap().read().await.unwrap();
            assert_eq!(freshness, Freshness::Fresh);
            host.stop().await.unwrap();
        });
    });
    assert!(lived.is_ok());
}
