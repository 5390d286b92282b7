//! Bugs that are put back on purpose, to prove that the simulator finds them.
//!
//! Each is one switch at the one place where the code does the right thing. The switches exist in builds with the
//! feature `put-back` alone; without it [`is_put_back`] is a constant `false`, and no program that ships has the
//! feature.

#[cfg(feature = "put-back")]
use std::sync::atomic::{AtomicU8, Ordering};

macro_rules! bugs {
    ($($(#[$words:meta])* $bug:ident = $name:literal,)*) => {
        /// A bug that can be put back.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Bug { $($(#[$words])* $bug,)* }

        impl Bug {
            /// Every one.
            pub const ALL: &[Self] = &[$(Self::$bug,)*];

            /// Its name on the command line.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$bug => $name,)* }
            }
        }
    };
}

bugs! {
    // The log, the vote and the snapshot on disk.
    /// A vote is granted and forgotten by a restart, so that a node votes twice in a term (early etcd, Redis Cluster).
    VoteNotPersisted = "vote-not-persisted",
    /// Entries are called durable while they are still on their way to the disk (MongoDB before `j: true`).
    AckBeforeSync = "ack-before-sync",
    /// A damaged record is taken for the end of the log though good ones follow (etcd's WAL repair, LevelDB).
    DamageTakenForTornTail = "damage-taken-for-torn-tail",
    /// The log is purged up to a snapshot that has not reached the disk yet.
    SnapshotNotAwaited = "snapshot-not-awaited",
    /// A snapshot lacks the members of the cluster, who are nowhere else once the log is purged (early etcd).
    SnapshotWithoutMembers = "snapshot-without-members",
    /// A snapshot lacks the tasks that have ended, so that managers who begin from it hold another history.
    SnapshotWithoutEnded = "snapshot-without-ended",
    /// A snapshot lacks the proposals seen lately: one that is sent twice is applied twice on some managers.
    SnapshotWithoutRecent = "snapshot-without-recent",
    // Consensus' shell.
    /// A follower that does not answer counts as one that has the entries: commits without a quorum.
    SilenceCountedAsAck = "silence-counted-as-ack",
    /// A change is called done once the leader took it, before a majority has it (MongoDB with `w: 1`).
    DoneBeforeCommit = "done-before-commit",
    /// A read is called fresh without asking a majority whether the leader still leads (Consul and etcd once).
    ReadWithoutQuorum = "read-without-quorum",
    /// A proposal that was sent twice, because its leader was lost, is applied twice (etcd's clients before leases).
    AppliedTwice = "applied-twice",
    /// Standing for election without asking first: whoever comes back from a split deposes a leader that is well.
    NoPreVote = "no-pre-vote",
    /// A leader that hears no majority goes on as leader.
    LeadsWithoutMajority = "leads-without-majority",
    /// A new leader decides before it has applied what earlier leaders committed.
    LeadsBeforeCaughtUp = "leads-before-caught-up",
    /// Whoever was deposed goes on deciding: nobody tells its scheduler and orchestrator, whose commands name no term
    /// (Kubernetes without leases).
    DeposedGoesOn = "deposed-goes-on",
    /// A manager loses its seat though the others who can be reached are no majority (Swarm).
    DemotionLosesQuorum = "demotion-loses-quorum",
    /// Whoever lost its seat and is given it again votes as if it had never had a log.
    PromisesForgotten = "promises-forgotten",
    /// Of entries that are applied together only the last one's events are told: an assignment is never sent.
    EventsDropped = "events-dropped",
    // The replicated state.
    /// The term of a command means nothing: what a leader decided before it was deposed is passed on, and taken.
    StaleTermTaken = "stale-term-taken",
    /// What is observed moves the version of what is asked for: users' updates are refused (Swarm's "out of sequence").
    StatusMovesVersion = "status-moves-version",
    /// An update made from an old version is taken: one of two users loses his words.
    LostUpdate = "lost-update",
    /// A task's observed state goes back when a late report arrives (Swarm).
    TaskGoesBack = "task-goes-back",
    /// A task that was told to stop is told to run again.
    DesiredGoesBack = "desired-goes-back",
    /// Applying depends on which entries a manager happens to apply together: managers differ.
    TimeOfBatch = "time-of-batch",
    // The scheduler.
    /// Constraints are not looked at.
    ConstraintsIgnored = "constraints-ignored",
    /// Paused and drained nodes get new tasks.
    AvailabilityIgnored = "availability-ignored",
    /// Reserved resources are not compared with what is free (Nomad after a leader change).
    ResourcesIgnored = "resources-ignored",
    /// A host's port is given out twice (Swarm and Nomad).
    HostPortsIgnored = "host-ports-ignored",
    /// The most tasks of a service on a node is not kept.
    MaxReplicasIgnored = "max-replicas-ignored",
    /// A task is placed on a node that went down, or that a user drained, while it was decided.
    PlacementNotChecked = "placement-not-checked",
    /// What was refused at its commit counts as placed for ever.
    RefusalForgotten = "refusal-forgotten",
    // The orchestrator.
    /// A plan is made while the plan before is still on its way: tasks are made twice (Swarm, Kubernetes' ReplicaSets).
    DecidesWhileProposing = "decides-while-proposing",
    /// A node that others still hear counts as lost: its tasks are replaced beside it.
    UnreachableCountsAsLost = "unreachable-counts-as-lost",
    /// A task takes over before its predecessor has stopped (Swarm's "two of one slot").
    SuccessorNotHeldBack = "successor-not-held-back",
    /// The tasks of a node that is down are never replaced.
    LostNeverReplaced = "lost-never-replaced",
    /// A drained node keeps its tasks.
    DrainIgnored = "drain-ignored",
    /// How often a slot was restarted is lost: a crash loop goes on beyond the attempts allowed (Swarm).
    AttemptsForgotten = "attempts-forgotten",
    /// A task that ends is replaced at once, however long the restart policy waits: a crash loop never backs off.
    NoRestartDelay = "no-restart-delay",
    /// An update never ends, though all of its tasks run (Swarm's "update in progress").
    UpdateNeverEnds = "update-never-ends",
    /// An update replaces every task at once, whatever its parallelism.
    UpdateAllAtOnce = "update-all-at-once",
    /// A task that runs is told to stop before the one runs that shall come first.
    PredecessorNotKept = "predecessor-not-kept",
    /// Every change of a service starts its tasks anew, of a label too (Swarm, for constraints).
    EveryChangeReplaces = "every-change-replaces",
    /// A task is forgotten before its node has said that it stopped (Swarm's orphans).
    ForgottenAlive = "forgotten-alive",
    /// Ended tasks are kept for ever (Swarm's task reaper).
    HistoryNotTrimmed = "history-not-trimmed",
    /// Plans do not rely on the version of the service that they were made for.
    PlanForOldVersion = "plan-for-old-version",
    /// A global service gets no task on a node that becomes ready later.
    GlobalMissesNodes = "global-misses-nodes",
    // The dispatcher.
    /// A late request of a node's earlier life takes its session over.
    OldLifeWins = "old-life-wins",
    /// A changed wish for a task that the node knows is never sent: the task is not stopped.
    WishNotSent = "wish-not-sent",
    /// The node is never told that a task is not its own any more.
    RemovalNotSent = "removal-not-sent",
    /// Reports are acknowledged before they are committed, and lost with their leader: nobody compares later (Swarm).
    ReportAckedEarly = "report-acked-early",
    /// Changes that come while a commit is under way are not looked at.
    ChangesMissedWhileBusy = "changes-missed-while-busy",
    // Liveness.
    /// A node is declared dead because its leader alone does not hear it (every system with one heartbeat).
    OneWitness = "one-witness",
    /// A clock that is set back makes every silence look short: nobody is found dead.
    ClockBackNotSeen = "clock-back-not-seen",
    // Identity.
    /// A join token's secret is not looked at, only the digest of the root: one that was rotated still lets in.
    OldTokenAccepted = "old-token-accepted",
    /// A certificate is never renewed.
    NeverRenewed = "never-renewed",
    /// A renewed certificate carries the role of the one before.
    RoleNeverChanges = "role-never-changes",
    /// Nodes that were removed are not refused.
    RemovedNotRefused = "removed-not-refused",
    /// A worker may send what only managers may.
    WorkersMayAll = "workers-may-all",
    // The task runner.
    /// What a manager no longer names stays (a worker that was cut off keeps running what was replaced).
    SurplusKept = "surplus-kept",
    /// Containers that belong to no task stay (Swarm).
    OrphansKept = "orphans-kept",
    /// A task that the node does not remember is taken for one without a container: a second one is made.
    ContainerNotLookedFor = "container-not-looked-for",
    /// A container whose health is checked counts as healthy from its start.
    HealthIgnored = "health-ignored",
    /// A stop that failed counts as done.
    FailedStopCountsAsDone = "failed-stop-counts-as-done",
    /// A task that is not assigned any more is forgotten while its container runs.
    UnassignedNotStopped = "unassigned-not-stopped",
    // The mesh.
    /// A task is stopped while it has traffic (Swarm's requests lost in every update).
    StoppedUndrained = "stopped-undrained",
    /// A task takes traffic before it has said that it runs (Swarm before health checks).
    TrafficTooEarly = "traffic-too-early",
    /// Nodes are not told of changed routes, only of all when their session opens (Swarm's stale names).
    RoutesNotTold = "routes-not-told",
    /// A port that a service has is given to another (Swarm's addresses after an election).
    PortGivenTwice = "port-given-twice",
    /// An address is handed out that somebody has (Swarm after an election).
    AddressGivenTwice = "address-given-twice",
    /// The places of containers that are gone are kept for ever.
    PlacesKept = "places-kept",
    /// An engine that does not answer is taken for one without containers.
    SilenceIsEmpty = "silence-is-empty",
    /// A node that was started again does not make its host ready for the containers that it has.
    NotHeldAgain = "not-held-again",
    // Life of the node.
    /// A node that stops leaves tasks of its own behind.
    TasksLeftAtStop = "tasks-left-at-stop",
}

impl Bug {
    /// The bug of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|bug| bug.name() == name)
    }
}

/// The bug that is put back now, counted from 1; 0 for none.
#[cfg(feature = "put-back")]
static NOW: AtomicU8 = AtomicU8::new(0);

/// Put this bug back, in the whole process, or none.
#[cfg(feature = "put-back")]
pub fn set(bug: Option<Bug>) {
    NOW.store(bug.map_or(0, |bug| bug as u8 + 1), Ordering::Relaxed);
}

/// Whether this bug is put back.
#[cfg(feature = "put-back")]
#[must_use]
#[inline(always)]
pub fn is_put_back(bug: Bug) -> bool {
    NOW.load(Ordering::Relaxed) == bug as u8 + 1
}

/// Whether this bug is put back: never, in this build.
#[cfg(not(feature = "put-back"))]
#[must_use]
#[inline(always)]
pub const fn is_put_back(_: Bug) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bug_is_found_by_its_name() {
        for bug in Bug::ALL {
            assert_eq!(Bug::from_name(bug.name()), Some(*bug));
            assert!(bug.name().chars().all(|c| c.is_ascii_lowercase() || c == '-'), "{}", bug.name());
        }
        assert!(Bug::ALL.len() >= 30 && Bug::from_name("none").is_none());
    }

    #[test]
    #[cfg(not(feature = "put-back"))]
    fn none_is_put_back_in_a_build_that_ships() {
        assert!(Bug::ALL.iter().all(|bug| !is_put_back(*bug)));
    }
}
