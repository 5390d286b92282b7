//! A member of the gossip: chitchat, tuned, and its view kept at hand.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chitchat::{ChitchatConfig, ChitchatHandle, ChitchatId, FailureDetectorConfig, spawn_chitchat};
use shoal_core::model::{ClusterId, NodeId};
use shoal_core::pace::Pace;
use shoal_core::task::BoxFuture;
use tokio::sync::{mpsc, watch};

use super::hub::{Hub, HubTransport};
use super::{Member, Membership, View};
use crate::endpoint::Endpoint;
use crate::task::Scope;

/// With rounds every 100 ms, phi 4 over a mean that settles a little above: suspected after 0.4–0.5 s.
const GOSSIP_EVERY: Duration = Duration::from_millis(100);
const PHI_THRESHOLD: f64 = 4.0;
const SAMPLES: usize = 200;
const INTERVAL_MAX: Duration = Duration::from_secs(2);
const INTERVAL_FIRST: Duration = Duration::from_millis(250);
const DEAD_KEPT: Duration = Duration::from_secs(24 * 3600);
const VIEW_EVERY: Duration = Duration::from_millis(25);

/// How a member is set up.
#[derive(Debug, Clone)]
pub struct GossipConfig {
    /// This node.
    pub node_id: NodeId,
    /// Its cluster: gossip of another is not heard.
    pub cluster_id: ClusterId,
    /// Grows with each start.
    pub incarnation: u64,
    /// Address of its endpoint, for the others.
    pub addr: SocketAddr,
    /// Nodes to begin with.
    pub seeds: Vec<SocketAddr>,
    /// How often it speaks, and how soon it takes the silent for dead.
    pub pace: Pace,
}

/// Gossip cannot start.
#[derive(Debug, thiserror::Error)]
#[error("gossip cannot start: {0}")]
pub struct GossipError(String);

struct Gossip {
    view: Arc<Mutex<View>>,
    changed: watch::Receiver<u64>,
    says: mpsc::UnboundedSender<(String, String)>,
    scope: Scope,
    handle: Mutex<Option<ChitchatHandle>>,
}

/// Join the gossip.
///
/// # Errors
/// If chitchat cannot be started.
pub async fn start(
    endpoint: &Endpoint,
    config: GossipConfig,
    scope: &Scope,
) -> Result<Arc<dyn Membership>, GossipError> {
    let (hub, queue) = Hub::start(endpoint);
    let chitchat = ChitchatConfig {
        chitchat_id: ChitchatId {
            node_id: config.node_id.to_string().into(),
            generation_id: config.incarnation,
            gossip_advertise_addr: config.addr,
        },
        cluster_id: config.cluster_id.to_string(),
        gossip_interval: config.pace.of(GOSSIP_EVERY),
        listen_addr: config.addr,
        seed_nodes: config.seeds.iter().map(ToString::to_string).collect(),
        failure_detector_config: FailureDetectorConfig::new(
            PHI_THRESHOLD,
            SAMPLES,
            config.pace.of(INTERVAL_MAX),
            config.pace.of(INTERVAL_FIRST),
            DEAD_KEPT,
        ),
        marked_for_deletion_grace_period: Duration::from_secs(3600),
        catchup_callback: None,
        extra_liveness_predicate: None,
    };
    let handle = spawn_chitchat(chitchat, Vec::new(), &HubTransport::new(hub, queue))
        .await
        .map_err(|error| GossipError(error.to_string()))?;
    let view: Arc<Mutex<View>> = Arc::new(Mutex::new(Arc::from([])));
    let (publish, changed) = watch::channel(0);
    // Unbounded, and yet bounded: only this node's own actors speak, a few values each.
    let (says, said) = mpsc::unbounded_channel();
    let inner = handle.chitchat();
    scope.spawn(keep_view(inner, view.clone(), publish, said, config.pace.of(VIEW_EVERY)));
    let gossip = Gossip { view, changed, says, scope: scope.clone(), handle: Mutex::new(Some(handle)) };
    Ok(Arc::new(gossip))
}

async fn keep_view(
    chitchat: Arc<tokio::sync::Mutex<chitchat::Chitchat>>,
    view: Arc<Mutex<View>>,
    publish: watch::Sender<u64>,
    mut said: mpsc::UnboundedReceiver<(String, String)>,
    every: Duration,
) {
    let mut ticker = tokio::time::interval(every);
    ticker.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            value = said.recv() => {
                let Some((key, value)) = value else { return };
                chitchat.lock().await.self_node_state().set(key, value);
            }
            _ = ticker.tick() => {
                let members = look(&*chitchat.lock().await);
                let mut known = view.lock().unwrap_or_else(PoisonError::into_inner);
                if **known != *members {
                    *known = members.into();
                    publish.send_modify(|count| *count += 1);
                }
            }
        }
    }
}

/// All members, the newest incarnation of each.
fn look(chitchat: &chitchat::Chitchat) -> Vec<Member> {
    let live: std::collections::BTreeSet<&ChitchatId> = chitchat.live_nodes().collect();
    let mut members: std::collections::BTreeMap<NodeId, Member> = Default::default();
    for (id, state) in chitchat.node_states() {
        let Ok(node_id) = id.node_id.parse::<NodeId>() else { continue };
        let member = Member {
            node_id,
            incarnation: id.generation_id,
            addr: id.gossip_advertise_addr,
            alive: live.contains(id),
            values: state.key_values().map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
        };
        let newer = members.get(&node_id).is_none_or(|known| known.incarnation < member.incarnation);
        if newer {
            members.insert(node_id, member);
        }
    }
    members.into_values().collect()
}

impl Membership for Gossip {
    fn set_self(&self, key: &str, value: String) {
        let _ = self.says.send((key.to_owned(), value));
    }

    fn view(&self) -> View {
        self.view.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.clone()
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let handle = self.handle.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(handle) = handle {
                handle.abort();
            }
            let _ = &self.scope;
        })
    }
}
