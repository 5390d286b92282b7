//! What holds of those who lead: terms never go back on a host, and nobody leads whom no majority can hear.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::sight::Sky;

/// A leader that is cut off from the majority for so long must know it.
pub(super) const CUT_OFF: Duration = Duration::from_secs(5);

/// Terms seen so far.
#[derive(Default)]
pub(super) struct Reign {
    terms: BTreeMap<usize, u64>,
    /// The newest term of any when each was cut off from the majority: whatever it hears of later was said by then.
    cut: BTreeMap<usize, u64>,
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

    /// Look at a manager that is cut off from the majority now, or is not, after [`Reign::caught_up`]: whoever asks first
    /// whether a majority would vote for it does not get on to terms of its own. It may take up late that there was a newer
    /// one before, if its disk was full when it heard so.
    pub(super) fn stands(&mut self, host: usize, term: u64, is_cut: bool, for_long: bool) -> Vec<String> {
        if !is_cut {
            self.cut.remove(&host);
            return Vec::new();
        }
        let known = *self.cut.entry(host).or_insert(self.newest.0);
        let words = || format!("h{host} hears no majority since term {known}, and got to term {term}");
        (for_long && term > known).then(words).into_iter().collect()
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
        self.cut.remove(&host);
        self.beginning.remove(&host);
    }
}

/// Whether one of these voters has been cut off for so long.
#[must_use]
pub(super) fn is_cut_off(host: usize, voters: &BTreeSet<usize>, sky: &Sky, time: Duration) -> bool {
    let apart = voters.iter().filter(|voter| sky.apart(host, **voter, time)).count();
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
        let mut look = |terms: [u64; 2], is_cut, for_long| {
            reign.caught_up(&BTreeMap::from([(1, (terms[0], 0, false)), (2, (terms[1], 0, false))]));
            reign.stands(1, terms[0], is_cut, for_long).len()
        };
        assert_eq!(
            [look([3, 3], true, false), look([3, 3], true, true), look([4, 3], true, true)],
            [0, 0, 1]
        );
        assert_eq!(
            [look([5, 3], false, false), look([5, 3], true, false), look([6, 3], true, true)],
            [0, 0, 1]
        );
    }

    #[test]
    fn a_term_that_was_newest_before_the_cut_may_be_taken_up_after_it_and_no_newer_one() {
        let mut reign = Reign::default();
        let mut look = |terms: [u64; 2], for_long| {
            reign.caught_up(&BTreeMap::from([(1, (terms[0], 0, false)), (2, (terms[1], 0, false))]));
            reign.stands(1, terms[0], true, for_long).len()
        };
        assert_eq!(
            [look([1, 2], false), look([1, 3], true), look([2, 3], true), look([3, 3], true)],
            [0, 0, 0, 1]
        );
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
