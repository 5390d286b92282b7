//! What people want in a run, and when: drawn before it begins. Whom a wish concerns is said by a number that is taken
//! modulo what is there by then.

use std::time::Duration;

use rand::seq::IndexedRandom as _;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use shoal_core::model::{Availability, Role};

use crate::options::Options;

/// Replicas of one service at most.
pub(crate) const REPLICAS_MAX: u64 = 6;

/// Containers of such an image end with an error soon after their start.
pub const CRASHES: &str = "crash:";

/// One wish in so many is for unrest.
const UNREST_EVERY: u32 = 20;
/// So many other wishes come between two about networks.
const NETWORKS_EVERY: u32 = 4;
/// Containers of their own are rarer than other changes by this.
const RUNS_EVERY: u32 = 3;

/// What a new service is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Shape {
    /// So many replicas anywhere.
    Plain,
    /// Not on this host.
    NotOn(usize),
    /// On managers alone.
    OnManagers,
    /// One on every node.
    Global,
    /// Each takes a port of its host.
    HostPort,
    /// Each reserves a good part of a host.
    Heavy,
    /// One on a node at most.
    Apart,
    /// Each ends with an error soon after its start, and is started again so often.
    Crashing(u64),
    /// The health of each is checked.
    Checked,
    /// Each has its work done soon after its start, and ends well or is started again so often.
    Work {
        /// How it ends.
        code: i64,
        /// How often.
        attempts: u64,
    },
    /// None of them hears its stop signal.
    Deaf,
}

/// How changes of a service roll out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rollout {
    /// As by default: one after the other, and no word about it.
    Unsaid,
    /// So many at once, the new one first if so said; it goes on whatever fails.
    Careful {
        /// At once.
        parallelism: u64,
        /// Whether the new one comes first.
        start_first: bool,
    },
    /// The same, watched for as long as said, with another end if too many fail.
    Watched {
        /// At once.
        parallelism: u64,
        /// Whether the new one comes first.
        start_first: bool,
        /// Whether it goes back to what was before, or stops where it is.
        rolls_back: bool,
        /// Milliseconds between one and the next.
        delay_ms: u64,
        /// Millionths of the tasks that may fail.
        may_fail: u32,
    },
}

/// What is changed of a service, beside its count and its image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Revision {
    /// A label alone.
    Label,
    /// A host on which it shall not run, or on which it would not anyway.
    NotOn(usize),
    /// It becomes what it was before.
    Back,
    /// It comes into a network, or leaves all.
    Network(u64),
    /// An image that is not there.
    Absent(u64),
}

/// Something that somebody asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ask {
    /// A new service.
    Create {
        /// Replicas, if it is not global.
        replicas: u64,
        /// What it is like.
        shape: Shape,
        /// How its changes roll out.
        rollout: Rollout,
    },
    /// Another count.
    Scale {
        /// Which service.
        pick: u64,
        /// How many.
        replicas: u64,
    },
    /// Another image.
    Image {
        /// Which service.
        pick: u64,
        /// Which version.
        version: u64,
    },
    /// Something else of a service changes.
    Revise {
        /// Which service.
        pick: u64,
        /// What.
        what: Revision,
    },
    /// A service goes.
    Remove {
        /// Which.
        pick: u64,
    },
    /// A service as it was before its last change, by somebody who does not know of that: it must be refused.
    Overwrite {
        /// Which.
        pick: u64,
    },
    /// Another availability.
    Available {
        /// Which node.
        pick: u64,
        /// What it becomes.
        availability: Availability,
    },
    /// Another role.
    Role {
        /// Which node, of those with the other role.
        pick: u64,
        /// What it becomes.
        role: Role,
    },
    /// A service is scaled up and down again and again, as fast as it is answered.
    Hurry {
        /// Which.
        pick: u64,
        /// How often.
        rounds: u64,
    },
    /// A service is scaled up and down while somebody else pauses nodes and lets them go on, both as fast as they are answered.
    Unrest {
        /// Which service, and which node first.
        pick: u64,
        /// How often.
        rounds: u64,
    },
    /// Somebody says of a task what it was once: it stays what it is.
    Outdated {
        /// Which.
        pick: u64,
    },
    /// New join tokens.
    RotateTokens,
    /// Certificates that are made from now on are good for so many times as long as the first ones.
    CertLife {
        /// How many.
        times: u32,
    },
    /// A look at everything, as fresh as a majority confirms.
    Read,
    /// A worker sends what only managers may, reports on tasks of others, and lies by gossip.
    Lie {
        /// Which worker.
        pick: u64,
    },
    /// Somebody tries to join with a token that was replaced.
    OldToken,
    /// A machine comes, joins as a worker, tries what only managers may, and is removed while it runs.
    Stranger {
        /// Its seed.
        seed: u64,
    },
    /// Somebody writes at one manager and reads at all, again and again for a while.
    WriteAndRead {
        /// How often.
        rounds: u64,
    },
    /// A new network, for some of the services to come.
    Network {
        /// Which of the names it gets, and whether it names its addresses.
        pick: u64,
    },
    /// A network goes, unless somebody is in it.
    Unnetwork {
        /// Which.
        pick: u64,
    },
    /// Somebody runs a container that is no task, in some networks.
    Run {
        /// Where, and in which.
        pick: u64,
    },
    /// One of those containers is removed, or leaves a network.
    Disturb {
        /// Which.
        pick: u64,
    },
}

/// A wish, and its time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    /// When, after the cluster was formed.
    pub at: Duration,
    /// Which manager is asked.
    pub through: u64,
    /// For what.
    pub ask: Ask,
}

/// How something is asked for that comes, and that it goes.
type Pair = [fn(u64) -> Ask; 2];

/// All wishes of a run, in order.
#[must_use]
pub fn drawn(options: &Options) -> Vec<Wish> {
    let mut rng = ChaCha8Rng::seed_from_u64(options.seed ^ 0x7065);
    let mut all = Vec::new();
    every(options.change_every, options.chaos, &mut rng, |at, rng| {
        all.push(Wish { at, through: rng.random(), ask: ask(rng, options.hosts) });
    });
    let mut rng = ChaCha8Rng::seed_from_u64(options.seed ^ 0x756e);
    every(options.change_every * UNREST_EVERY, options.chaos, &mut rng, |at, rng| {
        let (pick, rounds) = (rng.random(), rng.random_range(1..=5));
        all.push(Wish { at, through: rng.random(), ask: Ask::Unrest { pick, rounds } });
    });
    // What comes and goes: it comes more often than it goes.
    let pairs: [(u64, u32, Pair); 2] = [
        (0x6e65, NETWORKS_EVERY, [|pick| Ask::Network { pick }, |pick| Ask::Unnetwork { pick }]),
        (0x7275, RUNS_EVERY, [|pick| Ask::Run { pick }, |pick| Ask::Disturb { pick }]),
    ];
    for (salt, times, [comes, goes]) in pairs {
        let mut rng = ChaCha8Rng::seed_from_u64(options.seed ^ salt);
        every(options.change_every * times, options.chaos, &mut rng, |at, rng| {
            let pick = rng.random();
            let ask = if rng.random_bool(0.7) { comes(pick) } else { goes(pick) };
            all.push(Wish { at, through: rng.random(), ask });
        });
    }
    all.sort_by_key(|wish| wish.at);
    all
}

fn every(
    mean: Duration,
    until: Duration,
    rng: &mut ChaCha8Rng,
    mut then: impl FnMut(Duration, &mut ChaCha8Rng),
) {
    let mut at = Duration::ZERO;
    loop {
        at += mean.mul_f64(rng.random_range(0.1..2.0));
        if at >= until {
            return;
        }
        then(at, rng);
    }
}

fn ask(rng: &mut ChaCha8Rng, hosts: usize) -> Ask {
    let pick = rng.random();
    match rng.random_range(0..46) {
        0..=6 => Ask::Create {
            replicas: rng.random_range(1..=REPLICAS_MAX),
            shape: shape(rng, hosts),
            rollout: rollout(rng),
        },
        7..=12 => Ask::Scale { pick, replicas: rng.random_range(0..=REPLICAS_MAX) },
        13..=15 => Ask::Image { pick, version: rng.random_range(1..1_000) },
        16..=17 => Ask::Remove { pick },
        18..=20 => Ask::Role { pick, role: if rng.random() { Role::Manager } else { Role::Worker } },
        21..=25 => Ask::Available {
            pick,
            availability: match rng.random_range(0..4) {
                0 => Availability::Drain,
                1 => Availability::Pause,
                _ => Availability::Active,
            },
        },
        26 => Ask::RotateTokens,
        27..=29 => Ask::Read,
        30 => Ask::Lie { pick },
        31 => Ask::Stranger { seed: pick },
        32 => Ask::WriteAndRead { rounds: rng.random_range(5..40) },
        33..=34 => Ask::Overwrite { pick },
        35..=36 => Ask::Hurry { pick, rounds: rng.random_range(2..=8) },
        37 => Ask::Outdated { pick },
        38..=43 => Ask::Revise { pick, what: revision(rng, hosts) },
        44 => Ask::CertLife { times: rng.random_range(1..=3) },
        _ => Ask::OldToken,
    }
}

fn revision(rng: &mut ChaCha8Rng, hosts: usize) -> Revision {
    match rng.random_range(0..7) {
        0..=1 => Revision::Label,
        2 => Revision::NotOn(rng.random_range(1..=hosts * 2)),
        3 => Revision::Back,
        4..=5 => Revision::Network(rng.random()),
        _ => Revision::Absent(rng.random_range(1..1_000)),
    }
}

fn shape(rng: &mut ChaCha8Rng, hosts: usize) -> Shape {
    match rng.random_range(0..17) {
        12..=14 => Shape::Checked,
        15 => Shape::Work { code: rng.random_range(0..=1), attempts: rng.random_range(1..=3) },
        16 => Shape::Deaf,
        0 => Shape::NotOn(rng.random_range(1..=hosts)),
        1 => Shape::OnManagers,
        2 => Shape::Global,
        3 => Shape::HostPort,
        4 => Shape::Heavy,
        5 => Shape::Apart,
        6 => Shape::Crashing(rng.random_range(1..=3)),
        _ => Shape::Plain,
    }
}

fn rollout(rng: &mut ChaCha8Rng) -> Rollout {
    let (parallelism, start_first) = (rng.random_range(0..=3), rng.random());
    match rng.random_range(0..3) {
        0 => Rollout::Unsaid,
        1 => Rollout::Careful { parallelism, start_first },
        _ => Rollout::Watched {
            parallelism,
            start_first,
            rolls_back: rng.random(),
            delay_ms: rng.random_range(0..3_000),
            may_fail: *[0, 100_000, 500_000].choose(rng).unwrap_or(&0),
        },
    }
}
