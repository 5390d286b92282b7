//! A host that comes and goes: it tries a token that was taken back, joins with a good one, tries what only managers
//! may, and is removed. Each time it is a new machine.

use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use shoal_actors::api::{Freshness, JoinOptions, LocalState, NodeApi as _};
use shoal_actors::node::Node;
use shoal_core::model::{Availability, Cluster, NodeId};
use shoal_core::store::{Command, Expect, ObjectId, Write};
use shoal_net::ca::JoinToken;
use shoal_net::{Kind, Peer};
use shoal_wire::codec;
use shoal_wire::v1::SessionRequest;
use tokio::time::{Instant, sleep, timeout};

use crate::disk::Files;
use crate::fabric::Fabric;
use crate::host::{Host, address, clock};
use crate::judges::host_number;
use crate::trace::Trace;
use crate::world::Nodes;

/// A call of it that takes longer hangs.
const CALL_MAX: Duration = Duration::from_secs(30);
/// A proposal that was given up may be committed until then.
const LATE: Duration = Duration::from_secs(10);
/// Whoever was removed has learned it, and its containers are gone, within this time.
const GONE_WITHIN: Duration = Duration::from_secs(60);
/// So often it tries to come again, one time after the other before it is told of its removal, and waits so long.
const RETURNS: usize = 3;
const RETURN_MAX: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// The host, and what it found out.
pub struct Stranger {
    rng: ChaCha8Rng,
    number: usize,
    seed: u64,
    hosts: usize,
    fabric: Fabric,
    trace: Trace,
    sync: (Duration, Duration),
    /// What was broken.
    pub found: Vec<String>,
}

impl Stranger {
    /// It comes to the cluster of this run.
    #[must_use]
    pub fn new(
        (number, seed): (usize, u64),
        options: &crate::options::Options,
        fabric: &Fabric,
        trace: &Trace,
    ) -> Self {
        Self {
            rng: ChaCha8Rng::seed_from_u64(seed),
            number,
            seed,
            hosts: options.hosts,
            fabric: fabric.clone(),
            trace: trace.clone(),
            sync: options.sync,
            found: Vec::new(),
        }
    }

    /// Come and go. Nothing of it is left then.
    pub async fn visit(&mut self, nodes: &Nodes) {
        if let Err(error) = self.come(nodes).await {
            self.found.push(format!("{error:#}"));
        }
        self.trace.note(None, "the stranger is gone");
    }

    async fn come(&mut self, nodes: &Nodes) -> anyhow::Result<()> {
        let Some((cluster, old)) = self.rotate(nodes).await else { return Ok(()) };
        let (fabric, trace) = (self.fabric.clone(), self.trace.clone());
        let mut host = Host::new(self.number, self.seed, self.sync, fabric, trace);
        host.start().await?;
        let Some(node) = host.node().cloned() else { return Ok(()) };
        if self.join(&node, &old).await.is_some() {
            self.found.push("a join token that was rotated still lets in".into());
        }
        if let Some(id) = self.join(&node, &cluster.tokens.worker).await {
            sleep(Duration::from_millis(self.rng.random_range(500..5_000))).await;
            self.trespass(&node, nodes).await;
            let mut certificate = host.files.copy();
            certificate.retain(|name, _| name.starts_with("identity/"));
            self.remove(Some(id), nodes).await;
            self.must_go(&host, &node).await;
            drop(node);
            host.stop().await?;
            host.wipe();
            self.return_with(certificate, &mut host, id, nodes).await?;
        } else {
            sleep(self.at_pace(LATE)).await;
            self.remove(None, nodes).await;
        }
        host.stop().await?;
        host.wipe();
        Ok(())
    }

    fn at_pace(&self, usual: Duration) -> Duration {
        self.fabric.pace().of(usual)
    }

    fn manager(&mut self, nodes: &Nodes) -> Option<(usize, Node)> {
        let nodes = nodes.borrow();
        let managers: Vec<_> = nodes.iter().filter(|(_, node)| node.raft().is_some()).collect();
        let at = self.rng.random_range(0..managers.len().max(1));
        managers.get(at).map(|(host, node)| (**host, (*node).clone()))
    }

    /// Rotate the worker's token. The cluster as it is then, and the token that is good no more.
    async fn rotate(&mut self, nodes: &Nodes) -> Option<(Cluster, String)> {
        let (_, node) = self.manager(nodes)?;
        let mut cluster = Cluster::clone(node.state().ok()?.cluster()?);
        let token = JoinToken::generate(&cluster.root_ca.cert_der).ok()?.to_string();
        let old = std::mem::replace(&mut cluster.tokens.worker, token);
        let expects = vec![Expect::SpecVersion(ObjectId::Cluster, cluster.meta.spec_version)];
        let writes = vec![Write::Cluster(Box::new(cluster.clone()))];
        let command = Command { at: clock()(), expects, writes, ..Command::default() };
        timeout(self.at_pace(CALL_MAX), node.propose(command)).await.ok()?.ok()?;
        self.trace.note(None, "the worker's token was rotated");
        Some((cluster, old))
    }

    async fn join(&self, node: &Node, token: &str) -> Option<NodeId> {
        let join = JoinOptions {
            remotes: (1..=self.hosts).map(|host| address(host).to_string()).collect(),
            token: token.to_owned(),
            advertise: None,
            availability: Availability::Active,
        };
        let joined = timeout(self.at_pace(CALL_MAX), node.join(join)).await.ok()?.ok();
        self.trace.note(None, format!("the stranger joins: {}", joined.is_some()));
        joined
    }

    /// A worker asks what only managers may.
    async fn trespass(&mut self, node: &Node, nodes: &Nodes) {
        let Some((host, manager)) = self.manager(nodes) else { return };
        let peer = Peer { node_id: manager.local().node_id, addr: address(host) };
        let answer = node.endpoint().call(&peer, Kind::ReadIndex, Vec::new(), Duration::from_secs(3)).await;
        if answer.is_ok() {
            self.found.push(format!("h{host} answers a worker what it must answer managers alone"));
        }
    }

    /// Remove it (or whatever came of it) until a majority knows of nothing but the usual hosts.
    async fn remove(&mut self, id: Option<NodeId>, nodes: &Nodes) {
        let give_up = Instant::now() + self.at_pace(GONE_WITHIN) * 3;
        while Instant::now() < give_up {
            sleep(self.at_pace(LOOK_EVERY)).await;
            let Some((_, manager)) = self.manager(nodes) else { continue };
            let Ok((state, Freshness::Fresh)) = manager.read().await else { continue };
            let is_usual = |node: &shoal_core::model::Node| {
                Some(node.id) != id && host_number(node.hostname()).is_some_and(|host| host <= self.hosts)
            };
            let writes: Vec<_> =
                state.nodes().filter(|node| !is_usual(node)).map(|node| Write::NodeRemove(node.id)).collect();
            if writes.is_empty() {
                return;
            }
            let command = Command { at: clock()(), writes, ..Command::default() };
            let _ = timeout(self.at_pace(CALL_MAX), manager.propose(command)).await;
        }
        self.found.push("the stranger cannot be removed".into());
    }

    /// It comes again with the certificate that it had, and knows nothing else: no manager that knows of its removal may
    /// have anything to do with it for long.
    async fn return_with(
        &mut self,
        certificate: Files,
        host: &mut Host,
        id: NodeId,
        nodes: &Nodes,
    ) -> anyhow::Result<()> {
        certificate.into_iter().for_each(|file| host.files.restore(file));
        host.start().await?;
        let Some(node) = host.node().cloned() else { return Ok(()) };
        let description = node.local().description.unwrap_or_default();
        let body = codec::encode(&SessionRequest { description, incarnation: 0 })?;
        let mut let_in = 0;
        for _ in 0..RETURNS {
            let Some((number, manager)) = self.manager(nodes) else { break };
            if !manager.state().is_ok_and(|state| state.is_removed(id)) {
                break;
            }
            let peer = Peer { node_id: manager.local().node_id, addr: address(number) };
            if node.endpoint().open(&peer, Kind::Session, body.clone(), RETURN_MAX).await.is_ok() {
                let_in += 1;
            }
        }
        if let_in == RETURNS {
            self.found.push("a node that was removed is let in with the certificate that it had".into());
        }
        Ok(())
    }

    /// It learns that it was removed, and stops what it runs.
    async fn must_go(&mut self, host: &Host, node: &Node) {
        let give_up = Instant::now() + self.at_pace(GONE_WITHIN);
        while Instant::now() < give_up {
            if node.local().state == LocalState::Error && host.engine.running().is_empty() {
                return;
            }
            sleep(self.at_pace(LOOK_EVERY)).await;
        }
        let (state, running) = (node.local().state, host.engine.running().len());
        self.found.push(format!("the stranger was removed, and is {state:?} with {running} containers"));
    }
}
