//! What happens in a run, as data: for the picture, for comparisons, for people.

use serde::{Deserialize, Serialize};

/// Something that happened, at a virtual time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Virtual microseconds since the start of the run.
    pub at_us: u64,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// What can happen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum What {
    /// A process has started.
    Up {
        /// Its host.
        host: usize,
    },
    /// A process is gone.
    Down {
        /// Its host.
        host: usize,
        /// Killed, or stopped in order.
        killed: bool,
    },
    /// A process stands still, or goes on.
    Held {
        /// Its host.
        host: usize,
        /// Which of both.
        held: bool,
    },
    /// A message, or a packet.
    Message {
        /// Sender.
        from: usize,
        /// Receiver.
        to: usize,
        /// What it is.
        label: String,
        /// Its length.
        bytes: usize,
        /// When it arrived; none if it was lost.
        arrived_us: Option<u64>,
    },
    /// Something breaks.
    Fault {
        /// Names it and its end.
        id: u64,
        /// In words.
        text: String,
        /// Whom it touches; nobody named: all.
        hosts: Vec<usize>,
    },
    /// It is mended.
    Mended {
        /// As when it began.
        id: u64,
    },
    /// A manager leads.
    Leads {
        /// Its host.
        host: usize,
        /// In this term.
        term: u64,
    },
    /// A manager leads no more.
    Follows {
        /// Its host.
        host: usize,
    },
    /// A container goes a step.
    Task {
        /// Its host.
        host: usize,
        /// Its task.
        task: String,
        /// prepared, started, exited, stopped or removed.
        step: String,
    },
    /// A person asks for something.
    Person {
        /// Through this host's manager.
        host: usize,
        /// What.
        text: String,
        /// done, refused or unknown.
        answer: String,
    },
    /// A judge's word.
    Broken {
        /// Which judge.
        judge: String,
        /// What is broken.
        text: String,
    },
    /// Anything else.
    Note {
        /// Where, if somewhere.
        host: Option<usize>,
        /// What.
        text: String,
    },
}
