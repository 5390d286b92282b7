//! Brings consensus up from what is on the disk.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use shoal_core::model::NodeId;
use tokio::sync::{Semaphore, watch};

use super::closable::Closable;
use super::config::{RaftConfig, Timing};
use super::error::{OpenError, StartError};
use super::former::Former;
use super::health::Health;
use super::key::FileKey;
use super::leadership::{self, Leadership};
use super::log_store::{LogShared, LogStore};
use super::machine::{Machine, View};
use super::network::{Factory, Net};
use super::proposal_id::ProposalIds;
use super::proposer::Proposer;
use super::reach::Reach;
use super::read::Reads;
use super::replay::is_fresh;
use super::runtime::Scope;
use super::snapshot::SnapshotStore;
use super::stats::Counters;
use super::types::{LogId, Raft, Seat};
use super::{election, housekeeping, pulse};
use crate::disk::{Disk, FileDisk};

/// Proposals that may be under way at once.
const PROPOSALS_MAX: usize = 4096;
/// Appends of other managers that may wait at once.
const APPENDS_MAX: usize = 64;

/// Everything of one manager's consensus.
pub(super) struct Inner {
    pub(super) me: NodeId,
    pub(super) addr: String,
    pub(super) timing: Timing,
    pub(super) snapshot_interval: u64,
    pub(super) log_keep: u64,
    pub(super) proposals_max: usize,
    pub(super) raft: Raft,
    pub(super) view: Arc<View>,
    pub(super) disk: Arc<Closable>,
    pub(super) log: Arc<LogShared>,
    pub(super) snapshots: Arc<SnapshotStore>,
    pub(super) former: Former,
    pub(super) net: Arc<Net>,
    pub(super) reach: Arc<Reach>,
    pub(super) health: Arc<Health>,
    pub(super) counters: Arc<Counters>,
    pub(super) scope: Scope,
    pub(super) proposer: Proposer,
    pub(super) reads: Reads,
    pub(super) proposal_ids: ProposalIds,
    pub(super) permits: Semaphore,
    pub(super) appends: Semaphore,
    pub(super) seats: tokio::sync::Mutex<()>,
    pub(super) leadership: watch::Sender<Leadership>,
}

impl Inner {
    /// Open the disk and start.
    pub(super) async fn start(config: RaftConfig) -> Result<Arc<Self>, StartError> {
        let settings = Arc::new(config.for_openraft()?);
        let scope = Scope::new(config.tasks.clone(), config.seed);
        let health = Arc::<Health>::default();
        let counters = Arc::<Counters>::default();
        let disk: Arc<dyn Disk> = match &config.disk {
            Some(disk) => Arc::clone(disk),
            None => Arc::new(FileDisk::open(&config.dir).map_err(|source| OpenError::io("", source))?),
        };
        let disk = Arc::new(Closable::new(disk));
        let former = Former::read(&*disk).await.map_err(|source| OpenError::io("former", source))?;
        let (mut log, snapshots, machine, view) = open(&config, disk.clone(), &health, &counters).await?;
        log.has_voted(former.vote());
        let log_shared = log.shared();
        let proposal_ids = ProposalIds::new(config.node_id, log.start_id());
        let reach = Arc::new(Reach::new(config.timing.pace));
        let net = Arc::new(Net {
            transport: Arc::clone(&config.transport),
            reach: Arc::clone(&reach),
            scope: scope.clone(),
            counters: Arc::clone(&counters),
            pace: config.timing.pace,
        });
        let raft = scope
            .enter(Raft::new(config.node_id, settings, Factory(Arc::clone(&net)), log, machine))
            .await
            .map_err(|fatal| StartError::Stopped(fatal.to_string()))?;
        let inner = Arc::new(Self {
            me: config.node_id,
            addr: config.addr,
            timing: config.timing,
            snapshot_interval: config.snapshot_interval.max(1),
            log_keep: config.log_keep,
            proposals_max: PROPOSALS_MAX,
            proposer: Proposer::start(raft.clone(), &scope, Arc::clone(&counters), PROPOSALS_MAX),
            reads: Reads::start(raft.clone(), &scope),
            proposal_ids,
            raft,
            view,
            disk,
            log: log_shared,
            snapshots,
            former,
            net,
            reach,
            health,
            counters,
            scope: scope.clone(),
            permits: Semaphore::new(PROPOSALS_MAX),
            appends: Semaphore::new(APPENDS_MAX),
            seats: tokio::sync::Mutex::default(),
            leadership: watch::Sender::default(),
        });
        scope.spawn(leadership::follow(Arc::clone(&inner)));
        scope.spawn(election::elections(Arc::clone(&inner)));
        scope.spawn(pulse::pulse(Arc::clone(&inner)));
        scope.spawn(housekeeping::keep_house(Arc::clone(&inner)));
        Ok(inner)
    }

    /// Managers and their addresses.
    pub(super) fn voters(&self) -> BTreeMap<NodeId, String> {
        let membership = Arc::clone(&self.raft.metrics().borrow().membership_config);
        let seat = |node: NodeId| membership.membership().get_node(&node).map(|seat| seat.addr.clone());
        membership.voter_ids().map(|node| (node, seat(node).unwrap_or_default())).collect()
    }

    /// Whether a node has a vote, by this one's newest membership.
    pub(super) fn is_voter(&self, node: NodeId) -> bool {
        self.raft.metrics().borrow().membership_config.voter_ids().any(|voter| voter == node)
    }

    /// Whether a vote for one whose log ends there breaks nothing that was promised with a former log.
    pub(super) fn keeps_promises(&self, theirs: Option<LogId>) -> bool {
        self.former.allows(theirs, self.is_voter(self.me))
    }

    /// The address of a manager, or of one that is about to be.
    pub(super) fn address(&self, node: NodeId) -> Option<String> {
        let membership = Arc::clone(&self.raft.metrics().borrow().membership_config);
        membership.membership().get_node(&node).map(|seat| seat.addr.clone())
    }

    /// This node, and whom it heard of lately.
    pub(super) fn reachable(&self) -> BTreeSet<NodeId> {
        let mut reachable = self.reach.reachable();
        reachable.insert(self.me);
        reachable
    }

    /// Why consensus no longer runs, if so.
    pub(super) fn stopped(&self) -> Option<String> {
        let running = self.raft.metrics().borrow().running_state.clone();
        let error = running.err()?;
        Some(self.health.failed().unwrap_or_else(|| error.to_string()))
    }
}

type Opened = (LogStore, Arc<SnapshotStore>, Machine, Arc<View>);

/// Read key, snapshot and log, and see that they belong together.
async fn open(
    config: &RaftConfig,
    disk: Arc<dyn Disk>,
    health: &Arc<Health>,
    counters: &Arc<Counters>,
) -> Result<Opened, StartError> {
    let names = disk.list().await.map_err(|source| OpenError::io("", source))?;
    for temporary in names.iter().filter(|name| name.ends_with(".tmp")) {
        disk.remove(temporary).await.map_err(|source| OpenError::io(temporary, source))?;
    }
    let fresh = is_fresh(&names);
    let keys = config.keys.clone().unwrap_or_else(|| Arc::new(FileKey));
    let key = keys.key(Arc::clone(&disk), fresh).await.map_err(OpenError::from)?;
    let (snapshots, found) =
        SnapshotStore::open(Arc::clone(&disk), key.clone(), Arc::clone(health), Arc::clone(counters)).await?;
    let mut log = LogStore::open(disk, key, config.node_id, Arc::clone(health), Arc::clone(counters)).await?;
    if log.purged() > snapshots.newest() {
        return Err(StartError::Open(OpenError::Corrupt {
            file: "snapshot".into(),
            offset: 0,
            reason: format!(
                "it ends with {:?}, but the log was purged up to {:?}",
                snapshots.newest(),
                log.purged()
            ),
        }));
    }
    if let Some(lost) = log.lost(snapshots.newest()) {
        return Err(StartError::Open(OpenError::Corrupt {
            file: "log".into(),
            offset: 0,
            reason: format!("it ends with {:?}, but {lost} was committed: its end is damaged", log.last()),
        }));
    }
    if config.force_new_cluster {
        if log.last().is_none() && found.is_none() {
            return Err(StartError::NothingToKeep);
        }
        let alone = BTreeMap::from([(config.node_id, Seat { addr: config.addr.clone() })]);
        let ids = BTreeSet::from([config.node_id]);
        let membership = openraft::Membership::new(vec![ids], alone);
        let forced = log.force_membership(membership).await;
        forced.map_err(|source| OpenError::io("log", source))?;
        tracing::warn!(node = %config.node_id, "a new cluster was forced: this node is its only manager");
    }
    let snapshots = Arc::new(snapshots);
    log.purge_behind(Arc::clone(&snapshots));
    let view = Arc::new(View::new());
    let machine = Machine::new(Arc::clone(&view), Arc::clone(&snapshots), Arc::clone(counters), found);
    Ok((log, snapshots, machine, view))
}
