//! The leader's detector. Pure: it is told what was heard and when, and asked for verdicts.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::{NodeId, Timestamp};
use crate::pace::Pace;
use crate::put_back::{Bug, is_put_back};

/// When silence means what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DetectorConfig {
    /// A session without a word for so long is silent: the other witnesses are asked.
    pub silence: Duration,
    /// A node that the leader has not heard for so long, but others do, is called unreachable.
    pub unreachable: Duration,
    /// A new leader waits so long for a node's session.
    pub grace: Duration,
    /// A node that has just joined has so long to open its first session.
    pub newborn: Duration,
    /// A session without a word for so long is overdue: if all are at once, the leader may be cut off.
    pub overdue: Duration,
    /// If nobody at all is heard, it is the leader who is cut off, for so long at least.
    pub alone: Duration,
    /// A timer that fires later than this by so much was starved.
    pub starved: Duration,
}

impl DetectorConfig {
    /// Fitting to the time between two heartbeats.
    #[must_use]
    pub fn for_heartbeat(period: Duration, pace: Pace) -> Self {
        let silence = (period * 3).max(pace.of(Duration::from_millis(500)));
        Self {
            silence,
            unreachable: silence * 2,
            grace: silence * 2,
            newborn: pace.of(Duration::from_secs(10)),
            overdue: silence / 2,
            alone: pace.of(Duration::from_secs(10)),
            starved: pace.of(Duration::from_millis(250)),
        }
    }
}

/// What the other two witnesses say of a node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Evidence {
    /// Gossip knows of it, dead or alive.
    pub known: bool,
    /// The leader's own gossip heard of it lately.
    pub gossip_alive: bool,
    /// Live peers that do not suspect it.
    pub peers_hearing: u32,
    /// Live peers that were asked.
    pub peers_asked: u32,
}

/// What the leader makes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Heard.
    Up,
    /// Not heard here, but by others: its tasks stay.
    Unreachable,
    /// Heard by nobody.
    Down,
}

impl Evidence {
    /// Whether anybody hears it.
    fn is_heard(&self) -> bool {
        self.gossip_alive || self.peers_hearing > 0
    }
}

#[derive(Debug, Clone)]
struct Watched {
    heard: Timestamp,
    /// What is left of a new leader's patience; none once the session is open.
    grace: Duration,
    evidence: Option<Evidence>,
    /// Declared down, and not heard since.
    down: bool,
}

/// Watches all nodes while this manager leads, itself among them: its own session is one like the others.
#[derive(Debug, Clone)]
pub struct Detector {
    config: DetectorConfig,
    nodes: BTreeMap<NodeId, Watched>,
    ticked: Timestamp,
    /// When the leader last heard nobody at all: what was not heard until then proves nothing.
    isolated: Timestamp,
    /// Since when it hears sessions alone.
    doubtful: Option<Timestamp>,
}

/// What the leader must think of itself before it judges others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Gossip hears others, and so whom they suspect.
    Connected,
    /// Only sessions are heard: one witness of three. Where that has come about just now, as after a pause of the leader,
    /// the others may be heard again at once.
    Doubtful,
    /// It hears nobody in any way.
    Alone,
}

impl Detector {
    /// A detector that watches nobody yet.
    #[must_use]
    pub fn new(config: DetectorConfig) -> Self {
        Self {
            config,
            nodes: BTreeMap::new(),
            ticked: Timestamp::default(),
            isolated: Timestamp::default(),
            doubtful: None,
        }
    }

    /// From now on silence means what fits to this time between two heartbeats.
    pub fn set_heartbeat(&mut self, period: Duration, pace: Pace) {
        self.config = DetectorConfig::for_heartbeat(period, pace);
    }

    /// A node should open its session: it has a new leader's grace to do so. Returns whether it was not watched before.
    pub fn expect(&mut self, node: NodeId, now: Timestamp) -> bool {
        let before = self.nodes.len();
        self.watch(node, now, self.config.grace);
        self.nodes.len() > before
    }

    /// A node has joined, and should open its first session soon.
    pub fn expect_newborn(&mut self, node: NodeId, now: Timestamp) {
        self.watch(node, now, self.config.newborn);
    }

    fn watch(&mut self, node: NodeId, now: Timestamp, grace: Duration) -> &mut Watched {
        self.nodes.entry(node).or_insert(Watched { heard: now, grace, evidence: None, down: false })
    }

    /// A word from the node's session. Refutes everything.
    pub fn heard(&mut self, node: NodeId, now: Timestamp) {
        let watched = self.watch(node, now, Duration::ZERO);
        watched.heard = watched.heard.max(now);
        watched.grace = Duration::ZERO;
        watched.down = false;
    }

    /// What the other witnesses say now.
    pub fn evidence(&mut self, node: NodeId, evidence: Evidence) {
        if let Some(watched) = self.nodes.get_mut(&node) {
            watched.evidence = Some(evidence);
        }
    }

    /// The node is no member any more.
    pub fn forget(&mut self, node: NodeId) {
        self.nodes.remove(&node);
    }

    /// The watched nodes.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> {
        self.nodes.keys().copied()
    }

    /// The leader's timer fired, `late` after it should have. Whoever leads on a starved host has not listened:
    /// everybody's silence is shortened by that time. A clock that was set back takes all that was heard
    /// along, or else nobody would be silent until it has caught up.
    pub fn on_tick(&mut self, now: Timestamp, late: Duration) {
        let back = self.ticked.since(now);
        self.ticked = now;
        self.isolated = self.isolated.min(now);
        self.doubtful = self.doubtful.map(|since| since.min(now));
        for watched in self.nodes.values_mut() {
            if !back.is_zero() && !is_put_back(Bug::ClockBackNotSeen) {
                let back = u64::try_from(back.as_millis()).unwrap_or(u64::MAX);
                watched.heard = Timestamp(watched.heard.0.saturating_sub(back)).min(now);
            }
            if late >= self.config.starved {
                watched.heard = watched.heard.plus(late).min(now);
            }
        }
    }

    /// When a verdict may change though nothing is heard.
    #[must_use]
    pub fn next_deadline(&self, now: Timestamp) -> Option<Timestamp> {
        let DetectorConfig { silence, unreachable, alone, .. } = self.config;
        let since_isolated = [self.isolated.plus(silence), self.isolated.plus(unreachable)];
        let since_doubtful = self.doubtful.map(|since| since.plus(unreachable));
        self.nodes
            .values()
            .filter(|watched| !watched.down)
            .flat_map(|w| {
                let graced = w.heard.plus(w.grace);
                [w.heard.plus(silence), graced.plus(silence), graced.plus(unreachable), graced.plus(alone)]
            })
            .chain(since_isolated)
            .chain(since_doubtful)
            .filter(|at| *at > now)
            .min()
    }

    /// A verdict with its reason for every node about which there is one. No word means: wait.
    pub fn decide(&mut self, now: Timestamp) -> Vec<(NodeId, Verdict, String)> {
        let standing = self.standing(now);
        if standing == Standing::Alone {
            self.isolated = now;
        }
        self.doubtful = (standing == Standing::Doubtful).then(|| self.doubtful.unwrap_or(now));
        let (config, isolated) = (&self.config, self.isolated.max(self.doubtful.unwrap_or_default()));
        self.nodes
            .iter_mut()
            .filter_map(|(id, watched)| {
                let (verdict, reason) = watched.judge(config, standing, isolated, now)?;
                watched.down = verdict == Verdict::Down;
                Some((*id, verdict, reason))
            })
            .collect()
    }

    /// Nodes that are down already say nothing about the leader. With one other node its end cannot be told
    /// apart from the leader's isolation, and is likelier.
    ///
    /// When the leader is cut off, the nodes fall silent one after the other within a heartbeat's time. The
    /// first is not condemned while gossip still hears the last, for that one does not suspect it; and a session
    /// counts as overdue well before it counts as silent.
    fn standing(&self, now: Timestamp) -> Standing {
        let watched = || self.nodes.values().filter(|watched| !watched.down);
        // One of the watched is the leader itself, which it always hears.
        if watched().count() < 3 {
            return Standing::Connected;
        }
        let by_session = watched().filter(|w| now.since(w.heard) < self.config.overdue).count() > 1;
        let by_gossip = watched().filter(|w| w.evidence.is_some_and(|e| e.gossip_alive)).count() > 1;
        match (by_session, by_gossip) {
            // Whom gossip hears is asked about everybody else, so overdue sessions alone prove nothing.
            (_, true) => Standing::Connected,
            (true, false) => Standing::Doubtful,
            (false, false) => Standing::Alone,
        }
    }
}

impl Watched {
    fn judge(
        &self,
        config: &DetectorConfig,
        standing: Standing,
        isolated: Timestamp,
        now: Timestamp,
    ) -> Option<(Verdict, String)> {
        let silence = now.since(self.heard);
        if silence < config.silence {
            return self.grace.is_zero().then(|| (Verdict::Up, "its session is alive".into()));
        }
        let evidence = self.evidence.unwrap_or_default();
        if self.down {
            // Only its own word brings it back: what gossip hears of it now and then must not make it flap.
            return Some((Verdict::Down, "it has not been back since it fell silent".into()));
        }
        let Evidence { gossip_alive, peers_hearing, peers_asked, .. } = evidence;
        // A new leader's patience is for nodes on their way, not for those that all peers have given up.
        let given_up = evidence.known && !evidence.is_heard() && peers_asked > 0;
        let silence = if given_up { silence } else { silence.saturating_sub(self.grace) };
        if silence < config.silence {
            return None;
        }
        let ms = silence.as_millis();
        if evidence.is_heard() && !is_put_back(Bug::OneWitness) {
            let by = if gossip_alive {
                "gossip hears it".into()
            } else {
                format!("{peers_hearing} of {peers_asked} nodes hear it")
            };
            return (silence >= config.unreachable)
                .then(|| (Verdict::Unreachable, format!("no heartbeat for {ms} ms, but {by}")));
        }
        let connected = now.since(isolated);
        let patient = match standing {
            Standing::Connected => silence.min(connected) >= config.silence,
            Standing::Doubtful => silence.min(connected) >= config.unreachable,
            Standing::Alone => silence >= config.alone,
        };
        if !patient {
            return None;
        }
        let peers =
            if peers_asked == 0 { String::new() } else { format!(", nor does any of {peers_asked} nodes") };
        Some((Verdict::Down, format!("no heartbeat for {ms} ms, gossip does not hear it{peers}")))
    }
}
