//! A seat that is taken and given again while one who knows of neither is away: what chance would hardly ever put in a row.

use std::time::Duration;

use shoal_actors::api::NodeApi as _;
use shoal_actors::node::Node;
use shoal_core::model::{NodeSpec, Role};
use shoal_core::pace::Pace;
use shoal_core::store::{Command, Expect, ObjectId, Write};
use tokio::time::{sleep, timeout};

use crate::fabric::Fabric;
use crate::faults::Recast;
use crate::host::{clock, ip};
use crate::trace::Trace;
use crate::world::{Nodes, VOTERS_MIN};

/// A call that takes longer was made to a node that died under it.
const CALL_MAX: Duration = Duration::from_secs(5);
/// Between two looks at whether a manager has begun or ended: less than it takes to be given a seat.
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// Between two times that somebody asks.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// Those who change roles, whoever is asked for it.
#[derive(Clone)]
pub(crate) struct Roles {
    pub(crate) nodes: Nodes,
    pub(crate) trace: Trace,
    pub(crate) pace: Pace,
}

impl Roles {
    /// Ask the first manager that is up, and is not on that host, for another role of a host's node.
    pub(crate) async fn ask(&self, host: usize, role: Role, but: Option<usize>) {
        let nodes = self.nodes.borrow().clone();
        let manager = nodes.into_iter().find(|(at, node)| Some(*at) != but && node.raft().is_some());
        let Some((_, manager)) = manager else { return };
        let Ok(state) = manager.state() else { return };
        let managers = state.nodes().filter(|node| node.spec.role == Role::Manager).count();
        let name = format!("h{host}");
        let found = state.nodes().find(|node| node.hostname() == name && node.spec.role != role);
        let Some(node) = found.filter(|_| role == Role::Manager || managers >= VOTERS_MIN) else {
            return;
        };
        let expects = vec![Expect::SpecVersion(ObjectId::Node(node.id), node.meta.spec_version)];
        let writes = vec![Write::NodeSpec(node.id, NodeSpec { role, ..node.spec.clone() })];
        let command = Command { at: clock()(), expects, writes, ..Command::default() };
        let told = timeout(self.pace.of(CALL_MAX), manager.propose(command)).await;
        self.trace.note(Some(host), format!("shall become a {role}: {told:?}"));
    }

    /// Ask until the node is what it shall be.
    async fn insist(&self, host: usize, role: Role, but: usize, is: impl Fn(&Node) -> bool) {
        loop {
            self.ask(host, role, Some(but)).await;
            let becomes = async {
                while !self.nodes.borrow().get(&host).is_some_and(&is) {
                    sleep(LOOK_EVERY).await;
                }
            };
            if timeout(self.pace.of(ASK_EVERY), becomes).await.is_ok() {
                return;
            }
        }
    }
}

/// Who hears whom.
pub(crate) struct Ways {
    pub(crate) fabric: Fabric,
    pub(crate) hosts: usize,
}

impl Ways {
    /// Close or open all ways between a host and the others, but for one of them.
    fn alone(&self, host: usize, but: usize, blocked: bool) {
        for other in (1..=self.hosts).filter(|other| *other != host && *other != but) {
            self.fabric.wires(|wires| wires.set_apart((ip(host), ip(other)), blocked));
        }
    }

    /// Let everybody hear them.
    pub(crate) fn open(&self, cast: &Recast) {
        self.alone(cast.away, 0, false);
        self.alone(cast.again, 0, false);
    }

    /// The one that is away hears only the one that has its seat again, and the other way round.
    fn pair(&self, cast: &Recast) {
        self.open(cast);
        self.alone(cast.away, cast.again, true);
        self.alone(cast.again, cast.away, true);
    }
}

/// Until it is aborted.
pub(crate) async fn reseat(cast: Recast, roles: Roles, ways: Ways) {
    let Recast { away, again, new } = cast;
    ways.alone(away, 0, true);
    let has_seat = |node: &Node| {
        let voters = node.raft().map(|raft| raft.voters()).unwrap_or_default();
        node.local().node_id.is_some_and(|id| voters.contains_key(&id))
    };
    roles.insist(new, Role::Manager, away, has_seat).await;
    roles.insist(again, Role::Worker, away, |node| node.raft().is_none()).await;
    roles.insist(again, Role::Manager, away, |node| node.raft().is_some()).await;
    roles.trace.note(Some(again), format!("hears only h{away}"));
    ways.pair(&cast);
    std::future::pending().await
}
