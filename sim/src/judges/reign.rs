//! What holds of those who lead: terms never go back on a host, and nobody leads whom no majority can hear.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::sight::Sky;

/// A leader that is cut off from the majority for so long must know it.
const CUT_OFF: Duration = Duration::from_secs(5);

/// Terms seen so far.
#[derive(Default)]
pub(super) struct Reign {
    terms: BTreeMap<usize, u64>,
    /// The term of each that hears no majority, when it was first seen so.
    alone: BTreeMap<usize, u64>,
    /// The newest term of any, and the newest index that anybody had applied before any was in it.
    newest: (u64, u64),
    applied: u64,
    /// Hosts in no term when they were last looked at: while consensus begins it does not say yet.
    beginning: BTreeSet<usize>,
}

impl Reign {
    /// Look at a manager; `term`: that of its vote, also 0 while it is not known yet.
    pub(super) fn look(&mut self, host: usize, term: u64) -> Vec<String> {
        let begins = term == 0 && self.beginning.insert(host);
        if term > 0 {
            self.beginning.remove(&host);
        }
        if begins {
            return Vec::new();
        }
        let known = self.terms.insert(host, term).unwrap_or_default();
        if known > term {
            vec![format!("h{host} was in term {known} and is in term {term}")]
        } else {
            Vec::new()
        }
    }

    /// Look at a manager that nobody could hear for long, or else (`alone` is false) could: whoever asks first whether a
    /// majority would vote for it does not get on to further terms.
    pub(super) fn stands(&mut self, host: usize, term: u64, alone: bool) -> Vec<String> {
        if !alone || term == 0 {
            self.alone.remove(&host);
            return Vec::new();
        }
        let before = *self.alone.entry(host).or_insert(term);
        let words = || format!("h{host} hears no majority, and got from term {before} to term {term}");
        (term > before).then(words).into_iter().collect()
    }

    /// Look at all managers at once: term, newest applied index, whether it leads as far as it knows. Whoever leads in
    /// the newest term holds all that was applied anywhere before that term began.
    pub(super) fn caught_up(&mut self, managers: &BTreeMap<usize, (u64, u64, bool)>) -> Vec<String> {
        let term = managers.values().map(|(term, ..)| *term).max().unwrap_or_default();
        if term > self.newest.0 {
            self.newest = (term, self.applied);
        }
        let applied = managers.values().map(|(_, applied, _)| *applied).max().unwrap_or_default();
        self.applied = self.applied.max(applied);
        let (newest, least) = self.newest;
        let behind = managers
            .iter()
            .filter(|(_, (term, applied, leads))| *leads && *term == newest && *applied < least);
        let words = |(host, (_, applied, _)): (&usize, &(u64, u64, bool))| {
            format!(
                "h{host} leads in term {newest} with index {applied}, and {least} was applied before that term"
            )
        };
        behind.map(words).collect()
    }

    /// The host is up and no manager: whatever it voted is wiped.
    pub(super) fn forget(&mut self, host: usize) {
        self.terms.remove(&host);
        self.alone.remove(&host);
        self.beginning.remove(&host);
    }
}

/// Whether a leader of these voters is cut off.
#[must_use]
pub(super) fn is_cut_off(leader: usize, voters: &BTreeSet<usize>, sky: &Sky) -> bool {
    let apart = voters.iter().filter(|voter| sky.apart(leader, **voter, CUT_OFF)).count();
    apart > voters.len() / 2
}

/// Whether the voters who are left are enough of those that are up, where before they were.
#[must_use]
pub(super) fn lost_quorum(
    before: &BTreeSet<usize>,
    now: &BTreeSet<usize>,
    is_gone: impl Fn(usize) -> bool,
) -> bool {
    let shrunk = now.len() < before.len() && now.is_subset(before);
    let there = now.iter().filter(|voter| !is_gone(**voter)).count();
    shrunk && there <= now.len() / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_term_that_goes_back_is_found_unless_the_host_was_no_manager_in_between() {
        let mut reign = Reign::default();
        assert!(reign.look(1, 0).is_empty() && reign.look(1, 0).is_empty());
        assert!(reign.look(1, 3).is_empty() && reign.look(1, 0).is_empty() && reign.look(2, 1).is_empty());
        assert_eq!(reign.look(1, 2), ["h1 was in term 3 and is in term 2"]);
        reign.forget(1);
        assert!(reign.look(1, 1).is_empty() && reign.look(1, 0).is_empty());
        assert_eq!(reign.look(1, 0).len(), 1);
    }

    #[test]
    fn a_term_that_grows_where_nobody_is_heard_is_found() {
        let mut reign = Reign::default();
        assert!(reign.stands(1, 3, true).is_empty() && reign.stands(1, 3, true).is_empty());
        assert_eq!(reign.stands(1, 4, true).len(), 1);
        assert!(reign.stands(1, 5, false).is_empty() && reign.stands(1, 6, true).is_empty());
    }

    #[test]
    fn a_leader_that_lacks_what_was_applied_before_its_term_is_found() {
        let mut reign = Reign::default();
        let look = |one, two| BTreeMap::from([(1, one), (2, two)]);
        assert!(reign.caught_up(&look((3, 9, true), (3, 8, false))).is_empty());
        assert!(reign.caught_up(&look((3, 9, true), (4, 8, false))).is_empty());
        assert_eq!(reign.caught_up(&look((3, 12, true), (4, 8, true))).len(), 1);
        assert!(reign.caught_up(&look((4, 9, false), (4, 10, true))).is_empty());
    }

    #[test]
    fn a_seat_that_is_taken_although_too_few_are_left_is_found() {
        let (four, three) = ([1, 2, 3, 4].into(), [1, 2, 3].into());
        assert!(lost_quorum(&four, &three, |host| host > 1));
        assert!(!lost_quorum(&four, &three, |host| host > 2));
        assert!(!lost_quorum(&three, &four, |host| host > 1));
    }
}
