//! All judges that look at the world as a whole, in one place.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use shoal_actors::node::Node;
use shoal_core::pace::Pace;
use shoal_core::store::State;

use super::duties::Duties;
use super::policies::Policies;
use super::reign::{ANSWERED, CUT_OFF, Cut, DONE, Reign, is_cut_off, lost_quorum};
use super::sight::{Sight, Sky, voters, voters_to_be};
use super::slots::Slots;
use super::verdicts::Verdicts;
use super::waiting::{PLACED_AFTER, Waiting};
use crate::containers::Engine;

/// A manager that has been gone for so long cannot be counted on when a seat is taken.
const GONE: Duration = Duration::from_secs(4);

/// The judges.
#[derive(Default)]
pub struct Watch {
    sky: Sky,
    reign: Reign,
    verdicts: Verdicts,
    duties: Duties,
    waiting: Waiting,
    slots: Slots,
    policies: Policies,
    voters: BTreeMap<usize, BTreeSet<usize>>,
}

impl Watch {
    /// Judges of a cluster of this pace.
    #[must_use]
    pub fn new(pace: Pace) -> Self {
        Self {
            sky: Sky::new(pace),
            verdicts: Verdicts::new(pace),
            duties: Duties::new(pace),
            waiting: Waiting::new(pace),
            ..Self::default()
        }
    }

    /// Look at the world.
    pub fn look(&mut self, sight: &Sight<'_>, engines: &[Engine]) -> Vec<String> {
        self.sky.look(sight);
        let mut found = Vec::new();
        let mut leaders = Vec::new();
        let (mut managers, mut standing) = (BTreeMap::new(), Vec::new());
        for (host, node) in sight.nodes.iter().filter(|(host, _)| **host <= sight.hosts) {
            let Some(raft) = node.raft() else {
                self.reign.forget(*host);
                self.voters.remove(host);
                continue;
            };
            let leadership = raft.leadership().borrow().clone();
            found.extend(self.reign.look(*host, leadership.term));
            let Some(state) = sight.states.get(host) else { continue };
            managers.insert(*host, (leadership.term, state.applied(), leadership.is_me));
            let voters = voters(node, state);
            let is_cut = |time| is_cut_off(*host, &voters, &self.sky, time);
            let alone = is_cut(CUT_OFF);
            let cut = Cut { well: self.sky.well(*host, DONE), for_long: alone };
            standing.push((*host, leadership.term, is_cut(ANSWERED).then_some(cut)));
            self.slots.learn(state);
            found.extend(self.policies.look(state));
            if leadership.is_me {
                leaders.push((leadership.term, *host, node, state, alone.then_some(voters)));
            }
        }
        found.extend(self.reign.caught_up(&managers));
        for (host, term, cut) in standing {
            found.extend(self.reign.stands(host, term, cut));
        }
        // Of two who believe to lead the one of the older term is deposed, and does not know it yet.
        leaders.sort_by_key(|(term, host, ..)| (*term, *host));
        for (_, host, node, state, unheard_by) in &leaders {
            found.extend(self.leads(*host, node, state, unheard_by.as_ref()));
        }
        match leaders.last() {
            Some((term, host, _, state, _)) => {
                found.extend(self.verdicts.look((*host, *term), state, &self.sky, sight.hosts));
                found.extend(self.duties.look(*host, *term, state));
                if self.sky.well(*host, PLACED_AFTER) {
                    found.extend(self.waiting.look(*host, *term, state));
                } else {
                    self.waiting.nobody_leads();
                }
            }
            None => {
                self.duties.nobody_leads();
                self.waiting.nobody_leads();
                self.verdicts.nobody_leads();
            }
        }
        let running: Vec<_> = engines.iter().flat_map(Engine::running).collect();
        found.extend(self.slots.look(&running));
        found
    }

    /// What this host's manager had promised before it lost its seat is damaged: it begins in no term, and votes for nobody.
    pub fn forgets(&mut self, host: usize) {
        self.reign.forget(host);
    }

    /// One who believes to lead; `unheard_by`: the voters, if it is cut off from a majority of them.
    fn leads(
        &mut self,
        host: usize,
        node: &Node,
        state: &State,
        unheard_by: Option<&BTreeSet<usize>>,
    ) -> Vec<String> {
        let mut found = Vec::new();
        // While a seat is taken, those who are left must agree as well.
        let left = voters_to_be(node, state);
        if let Some(voters) = unheard_by.filter(|_| self.sky.well(host, GONE)) {
            found.push(format!("h{host} leads {voters:?}, and has heard no majority of them for long"));
        }
        if let Some(before) = self.voters.insert(host, left.clone())
            && lost_quorum(&before, &left, |voter| self.sky.dead(voter, GONE))
        {
            found.push(format!(
                "h{host} took a seat: of {left:?} too few are there, before it was {before:?}"
            ));
        }
        found
    }
}
