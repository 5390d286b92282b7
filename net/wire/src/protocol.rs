//! Protocols by ALPN, and the kinds of messages in each.

/// A protocol between nodes: each has connections of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// Joining and renewing: the one protocol that answers callers without a certificate.
    Join,
    /// Consensus between managers.
    Raft,
    /// Proposals and membership changes, from manager to leader.
    Control,
    /// Sessions: from every node to the leader.
    Dispatch,
    /// Membership, among all nodes.
    Gossip,
    /// Traffic of published ports, among all nodes.
    Mesh,
    /// Packets of networks that span nodes.
    Overlay,
}

impl Protocol {
    /// Every protocol.
    pub const ALL: [Self; 7] =
        [Self::Join, Self::Raft, Self::Control, Self::Dispatch, Self::Gossip, Self::Mesh, Self::Overlay];

    /// Names with their major version as offered in TLS, newest first.
    #[must_use]
    pub const fn alpn(self) -> &'static [&'static str] {
        match self {
            Self::Join => &["shoal-join/1"],
            Self::Raft => &["shoal-raft/1"],
            Self::Control => &["shoal-control/1"],
            Self::Dispatch => &["shoal-dispatch/1"],
            Self::Gossip => &["shoal-gossip/1"],
            Self::Mesh => &["shoal-mesh/1"],
            Self::Overlay => &["shoal-overlay/1"],
        }
    }

    /// The protocol that this name belongs to.
    #[must_use]
    pub fn from_alpn(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|p| p.alpn().iter().any(|known| known.as_bytes() == name))
    }
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $tag:literal in $protocol:ident),* $(,)?) => {
        /// The kind of a message. Numbers are never used again.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u16)]
        pub enum Kind { $($(#[$doc])* $name = $tag),* }

        impl Kind {
            /// Every kind.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The protocol that it belongs to.
            #[must_use]
            pub const fn protocol(self) -> Protocol {
                match self { $(Self::$name => Protocol::$protocol),* }
            }

            /// The kind of this number, if it is known.
            #[must_use]
            pub const fn from_tag(tag: u16) -> Option<Self> {
                match tag { $($tag => Some(Self::$name),)* _ => None }
            }

            /// Its name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }
        }
    };
}

kinds! {
    /// The first message on every connection: who speaks (v1::Hello), answered by the same.
    Hello = 1 in Join,
    /// v1::JoinRequest → v1::JoinResponse.
    Join = 2 in Join,
    /// v1::RenewRequest → v1::JoinResponse; needs a certificate.
    Renew = 3 in Join,
    /// openraft's append-entries.
    RaftAppend = 16 in Raft,
    /// openraft's vote.
    RaftVote = 17 in Raft,
    /// openraft's snapshot, in chunks.
    RaftSnapshot = 18 in Raft,
    /// v1::ProposeRequest → v1::ProposeResponse.
    Propose = 32 in Control,
    /// () → v1::ReadIndexResponse.
    ReadIndex = 33 in Control,
    /// v1::SeatRequest → v1::SeatResponse: a manager takes its seat in raft.
    TakeSeat = 34 in Control,
    /// v1::SeatRequest → v1::SeatResponse: a manager gives its seat up, or loses it.
    LeaveSeat = 35 in Control,
    /// A stream: v1::SessionRequest, then v1::ToNode frames one way and v1::FromNode the other.
    Session = 48 in Dispatch,
    /// Frame of a session: v1::ToNode.
    ToNode = 49 in Dispatch,
    /// Frame of a session: v1::FromNode.
    FromNode = 50 in Dispatch,
    /// Frame of a session: the mesh's routes, from the leader.
    Routes = 51 in Dispatch,
    /// v1::AttachRequest → v1::AttachResponse: a node's containers that are no tasks, in networks; any manager answers.
    Attach = 52 in Dispatch,
    /// A stream or datagram with chitchat's own bytes.
    Gossip = 64 in Gossip,
    /// A stream: v1::ConnectRequest, answered by one of v1::connect_answer, then the connection's own bytes both ways.
    Connect = 80 in Mesh,
    /// A stream, one way: packets, each with its length (u32) and its virtio header before it.
    Packets = 96 in Overlay,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_found_by_its_number() {
        for kind in Kind::ALL {
            assert_eq!(Kind::from_tag(*kind as u16), Some(*kind));
        }
        assert_eq!(Kind::from_tag(999), None);
    }

    #[test]
    fn every_protocol_is_found_by_its_name() {
        for protocol in Protocol::ALL {
            for name in protocol.alpn() {
                assert_eq!(Protocol::from_alpn(name.as_bytes()), Some(protocol));
            }
        }
    }
}
