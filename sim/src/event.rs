//! What happened in a run, as things a person has words for: hosts, messages, faults, containers, questions.

use serde::{Deserialize, Serialize};

/// Something that happened, at a virtual time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Virtual microseconds since the run began.
    pub at_us: u64,
    /// What it was.
    pub what: What,
}

/// What happened. Hosts are numbered as in the run, from 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum What {
    /// A host's process started.
    Up {
        /// The host.
        host: usize,
    },
    /// A host's process is gone.
    Down {
        /// The host.
        host: usize,
        /// At once; otherwise it was asked to stop.
        killed: bool,
    },
    /// A host's process stands still, or goes on.
    Held {
        /// The host.
        host: usize,
        /// It stands still.
        held: bool,
    },
    /// A message from one host to another.
    Message {
        /// Who sent it.
        from: usize,
        /// Whom it is for.
        to: usize,
        /// Its kind, or `packet` where every packet is told.
        label: String,
        /// Its size.
        bytes: usize,
        /// Of what it says: two of one size may differ.
        digest: u64,
        /// When it arrived; `None` if it was lost.
        arrived_us: Option<u64>,
    },
    /// A fault began.
    Fault {
        /// Names the fault until it is mended.
        id: u64,
        /// What broke.
        text: String,
        /// The hosts that it touches; none for all of them.
        hosts: Vec<usize>,
    },
    /// A fault is mended.
    Mended {
        /// As the fault was named.
        id: u64,
    },
    /// A host leads.
    Leads {
        /// The host.
        host: usize,
        /// In which term.
        term: u64,
    },
    /// A host leads no longer.
    Follows {
        /// The host.
        host: usize,
    },
    /// A container got on.
    Task {
        /// Where it is.
        host: usize,
        /// The task it runs for.
        task: String,
        /// `prepared`, `started`, `exited`, `stopped` or `removed`.
        step: String,
    },
    /// The person asked for something.
    Person {
        /// Through which host.
        host: usize,
        /// What was asked.
        text: String,
        /// `done`, `refused` or `unknown`.
        answer: String,
    },
    /// A judge says that a promise was broken.
    Broken {
        /// Which judge.
        judge: String,
        /// What was broken.
        text: String,
    },
    /// Anything else.
    Note {
        /// Where, if at one host.
        host: Option<usize>,
        /// What.
        text: String,
    },
}

impl What {
    /// The hosts it names.
    #[must_use]
    pub fn hosts(&self) -> Vec<usize> {
        match self {
            Self::Message { from, to, .. } => vec![*from, *to],
            Self::Fault { hosts, .. } => hosts.clone(),
            Self::Note { host, .. } => host.iter().copied().collect(),
            Self::Mended { .. } | Self::Broken { .. } => Vec::new(),
            Self::Up { host }
            | Self::Down { host, .. }
            | Self::Held { host, .. }
            | Self::Leads { host, .. }
            | Self::Follows { host }
            | Self::Task { host, .. }
            | Self::Person { host, .. } => vec![*host],
        }
    }
}
