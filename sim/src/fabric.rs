//! What joins the hosts, at either depth: the same faults for both.

use std::net::SocketAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use shoal_actors::clock::Clock;
use shoal_actors::node::MembershipFactory;
use shoal_core::pace::Pace;
use shoal_net::Wire;

use crate::links::Links;
use crate::members::Members;
use crate::trace::Trace;
use crate::udp::Network;
use crate::wires::{Weather, Wires};

/// How much of what ships is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Depth {
    /// All: QUIC, TLS and gossip over simulated UDP.
    Full,
    /// The actors and their messages; lines and membership by their contracts.
    Fast,
}

/// In a worse storm than this, members are taken for dead by mistake.
const STORM_LOSS: f64 = 0.1;

/// The network of one simulation. Cheap to clone.
#[derive(Clone)]
pub enum Fabric {
    /// Packets.
    Full(Network, Pace),
    /// Messages, and who is a member.
    Fast(Links, Members),
}

impl Fabric {
    /// A network that follows from the seed. Must be made inside the runtime.
    #[must_use]
    pub fn new(depth: Depth, seed: u64, pace: Pace, trace: Trace) -> Self {
        match depth {
            Depth::Full => Self::Full(Network::new(seed, trace), pace),
            Depth::Fast => {
                let links = Links::new(seed, pace, trace);
                Self::Fast(links.clone(), Members::new(seed ^ 1, pace, links))
            }
        }
    }

    /// How quickly whoever is joined by it beats.
    #[must_use]
    pub fn pace(&self) -> Pace {
        match self {
            Self::Full(_, pace) => *pace,
            Self::Fast(_, members) => members.pace(),
        }
    }

    /// What carries the connections of a node at this address.
    #[must_use]
    pub fn bind(&self, addr: SocketAddr, clock: Clock, rng_seed: [u8; 32]) -> Wire {
        match self {
            Self::Full(network, _) => {
                Wire::Udp { socket: network.bind(addr), rng_seed: Some(rng_seed), thread: None }
            }
            Self::Fast(links, _) => Wire::Other(links.bind(addr, clock)),
        }
    }

    /// What takes gossip's place, if anything does.
    #[must_use]
    pub fn membership(&self) -> Option<MembershipFactory> {
        match self {
            Self::Full(..) => None,
            Self::Fast(_, members) => {
                let members = members.clone();
                Some(Arc::new(move |config| members.join(&config)))
            }
        }
    }

    /// The process at this address lies by gossip, where that is not the real one.
    pub fn lie(&self, addr: SocketAddr, key: &str, value: String) {
        if let Self::Fast(_, members) = self {
            members.say(addr, key, value);
        }
    }

    /// The process at this address is gone, and said nothing.
    pub fn unbind(&self, addr: SocketAddr) {
        match self {
            Self::Full(network, _) => network.unbind(addr),
            Self::Fast(links, members) => {
                links.unbind(addr);
                members.gone(addr);
            }
        }
    }

    /// The process at this address stands still, or goes on.
    pub fn hold(&self, addr: SocketAddr, held: bool) {
        if let Self::Fast(links, members) = self {
            links.hold(addr, held);
            members.hold(addr, held);
        }
    }

    pub(crate) fn wires<T>(&self, work: impl FnOnce(&mut Wires) -> T) -> T {
        match self {
            Self::Full(network, _) => network.wires(work),
            Self::Fast(links, _) => links.wires(work),
        }
    }

    /// Change how the wires behave.
    pub fn set_weather(&self, weather: Weather) {
        if let Self::Fast(_, members) = self {
            members.set_stormy(weather.loss > STORM_LOSS);
        }
        self.wires(|wires| wires.set_weather(weather));
    }

    /// Lines that are open at either end, where this carries lines and not packets.
    #[must_use]
    pub fn lines(&self) -> usize {
        match self {
            Self::Full(..) => 0,
            Self::Fast(links, _) => links.lines(),
        }
    }

    /// Packets or messages that were sent, and how many of them were lost.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        self.wires(|wires| (wires.sent, wires.lost))
    }
}
