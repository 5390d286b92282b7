//! People who run containers themselves, in networks of the cluster, through the node of their host.

use std::collections::BTreeSet;
use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use shoal_actors::api::NodeApi as _;
use shoal_core::attach::{Ask, Wanted};
use shoal_core::model::AttachmentId;
use tokio::time::timeout;

use crate::event::What;
use crate::people::Around;
use crate::person::{NETWORKS, host_of, pick};

/// A command waits for so long for its node.
const PATIENCE: Duration = Duration::from_secs(20);
/// One in so many commands ends before it has made its container, and one before it has told that it has.
const CUT_OFF: u32 = 12;

impl Around {
    /// A new container on any host that is up, in some networks, if there are such.
    pub(crate) async fn run_container(&self, number: u64) {
        let up: Vec<_> = self.nodes.borrow().values().cloned().collect();
        let Some(node) = pick(&up, number) else { return };
        let host = host_of(node);
        let Some(engine) = self.engines.get(host.wrapping_sub(1)) else { return };
        let mut rng = ChaCha8Rng::seed_from_u64(number);
        let id = AttachmentId::random(&mut rng);
        let names: BTreeSet<String> =
            (0..rng.random_range(1..=3)).map(|_| format!("n{}", rng.random_range(0..NETWORKS))).collect();
        let networks =
            names.iter().map(|network| Wanted { network: network.clone(), aliases: Vec::new() }).collect();
        let cut_off = rng.random_range(0..CUT_OFF);
        let enter = Ask::Enter { id, container: Default::default(), networks };
        let places = timeout(PATIENCE, node.attach(enter)).await;
        let answer = match &places {
            Ok(Ok(places)) if places.is_empty() => "refused: there is no such network".to_owned(),
            Ok(Ok(_)) => "done".to_owned(),
            Ok(Err(error)) => format!("refused: {error}"),
            Err(_) => "unknown".to_owned(),
        };
        self.trace.event(What::Person { host, text: format!("a place for {id} in {names:?}"), answer });
        let Ok(Ok(places)) = places else { return };
        let Some(place) = places.first().filter(|_| cut_off != 0) else { return };
        let entered = place.networks.iter().map(|place| place.network.name.to_string()).collect();
        if engine.is_away() {
            let _ = timeout(PATIENCE, node.attach(Ask::Leave { id, network: None })).await;
            return;
        }
        let container = engine.plain.run(host, id, entered);
        self.trace.note(Some(host), format!("runs {} in {names:?}", container.0));
        let name = container.0.clone();
        if cut_off != 1
            && let Ok(Ok(_)) = timeout(PATIENCE, node.attach(Ask::Made { id, container })).await
            && let Some(by) = node.local().node_id
        {
            engine.plain.promised(&name, by);
        }
    }

    /// One of those containers is removed, or leaves a network, whether the node hears it or not.
    pub(crate) fn disturb_container(&self, number: u64) {
        let Some(engine) = pick(&self.engines, number) else { return };
        if !engine.is_away()
            && let Some(container) = engine.plain.disturb(number / self.engines.len() as u64)
        {
            self.trace.note(Some(engine.host), format!("{container} is removed, or leaves a network"));
        }
    }
}
