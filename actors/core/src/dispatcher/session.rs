//! Sessions: at most one for each node, that of its newest start, alive as long as it is heard.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::{NodeId, Timestamp};
use crate::store::State;

/// Names a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SessionId(pub u64);

/// Why a node's word was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// Removed for good.
    #[error("node {0} was removed from this cluster")]
    Removed(NodeId),
    /// Never joined.
    #[error("node {0} is not a member of this cluster")]
    Unknown(NodeId),
    /// A session of a later start of the node is open.
    #[error("node {node} has a session of incarnation {known}, newer than {offered}")]
    Stale {
        /// The node.
        node: NodeId,
        /// Incarnation of its session.
        known: u64,
        /// Incarnation offered.
        offered: u64,
    },
    /// Another session took its place, or it expired.
    #[error("session {} of node {node} is over", session.0)]
    Over {
        /// The node.
        node: NodeId,
        /// The session.
        session: SessionId,
    },
}

/// A session was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// Its name.
    pub session: SessionId,
    /// The one that it took the place of, whose connection is to be closed.
    pub replaced: Option<SessionId>,
}

#[derive(Debug, Clone)]
struct Session {
    id: SessionId,
    incarnation: u64,
    heard_at: Timestamp,
}

/// The sessions of one leader's term. Times are of any clock that only moves forward.
#[derive(Debug, Clone)]
pub struct Sessions {
    grace: Duration,
    last: u64,
    by_node: BTreeMap<NodeId, Session>,
}

impl Sessions {
    /// No sessions yet. One expires once it has been silent for `grace`.
    #[must_use]
    pub fn new(grace: Duration) -> Self {
        Self { grace, last: 0, by_node: BTreeMap::new() }
    }

    /// Open a session for a start of a node. The same start may open another one: its connection was lost.
    ///
    /// # Errors
    /// The node is not a member, or a later start of it has a session.
    pub fn open(
        &mut self,
        state: &State,
        node: NodeId,
        incarnation: u64,
        now: Timestamp,
    ) -> Result<Opened, SessionError> {
        if state.is_removed(node) {
            return Err(SessionError::Removed(node));
        }
        if state.node(node).is_none() {
            return Err(SessionError::Unknown(node));
        }
        let replaced = match self.by_node.get(&node) {
            Some(open) if open.incarnation > incarnation => {
                return Err(SessionError::Stale { node, known: open.incarnation, offered: incarnation });
            }
            open => open.map(|open| open.id),
        };
        self.last += 1;
        let session = SessionId(self.last);
        self.by_node.insert(node, Session { id: session, incarnation, heard_at: now });
        Ok(Opened { session, replaced })
    }

    /// The node was heard in this session.
    ///
    /// # Errors
    /// The session is over: its sender must open another.
    pub fn heard(&mut self, node: NodeId, session: SessionId, now: Timestamp) -> Result<(), SessionError> {
        match self.by_node.get_mut(&node) {
            Some(open) if open.id == session => {
                open.heard_at = open.heard_at.max(now);
                Ok(())
            }
            _ => Err(SessionError::Over { node, session }),
        }
    }

    /// The session that counts, if the node has one.
    #[must_use]
    pub fn of(&self, node: NodeId) -> Option<SessionId> {
        self.by_node.get(&node).map(|open| open.id)
    }

    /// Nodes that have a session.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = NodeId> {
        self.by_node.keys().copied()
    }

    /// How long the node has been silent; nothing if it has no session.
    #[must_use]
    pub fn silence(&self, node: NodeId, now: Timestamp) -> Option<Duration> {
        self.by_node.get(&node).map(|open| now.since(open.heard_at))
    }

    /// The session's connection is gone. Returns whether it was the one that counts.
    pub fn close(&mut self, node: NodeId, session: SessionId) -> bool {
        let counts = self.of(node) == Some(session);
        if counts {
            self.by_node.remove(&node);
        }
        counts
    }

    /// Close the sessions that have been silent for longer than the grace.
    pub fn expire(&mut self, now: Timestamp) -> Vec<(NodeId, SessionId)> {
        let grace = self.grace;
        let silent: Vec<_> = self
            .by_node
            .iter()
            .filter(|(_, open)| now >= open.heard_at.plus(grace))
            .map(|(node, open)| (*node, open.id))
            .collect();
        for (node, _) in &silent {
            self.by_node.remove(node);
        }
        silent
    }

    /// When the next session expires if nothing is heard until then.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Timestamp> {
        self.by_node.values().map(|open| open.heard_at.plus(self.grace)).min()
    }

    /// The leader itself was starved for this long: nobody could have been heard.
    pub fn excuse(&mut self, starved: Duration) {
        for open in self.by_node.values_mut() {
            open.heard_at = open.heard_at.plus(starved);
        }
    }
}
