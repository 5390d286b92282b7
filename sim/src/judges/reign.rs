//! What holds of those who lead: terms never go back on a host, and nobody leads whom no majority can hear.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::sight::Sky;

/// A leader that is cut off from the majority for so long must know it.
pub(super) const CUT_OFF: Duration = Duration::from_secs(5);

/// Questions that were asked before one was cut off are answered by then, or never.
pub(super) const ANSWERED: Duration = Duration::from_millis(200);
/// What waited for a host that was not well is done by then.
pub(super) const DONE: Duration = Duration::from_secs(1);

/// How a manager is cut off from the majority.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cut {
    /// Nothing of what it does waits any more.
    pub(super) well: bool,
    /// For so long that it must know.
    pub(super) for_long: bool,
}

/// Terms seen so far.
#[derive(Default)]
pub(super) struct Reign {
    terms: BTreeMap<usize, u64>,
    /// The newest term that each can know of that is cut off from the majority: whatever it hears of later was said by then.
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

    /// Look at a manager, after [`Reign::caught_up`]; `cut`: if it is cut off from the majority, whether it was well when
    /// that began, and whether it has been cut off for long. Whoever asks first whether a majority would vote for it does not
    /// get on to terms of its own. It may take up late that there was a newer one before; and one that waited for its disk, or
    /// stood still, may have been about to stand when it was cut off.
    pub(super) fn stands(&mut self, host: usize, term: u64, cut: Option<Cut>) -> Vec<String> {
        let Some(cut) = cut else {
            self.cut.remove(&host);
            return Vec::new();
        };
        let newest = self.newest.0 + u64::from(!cut.well);
        let known = *self.cut.entry(host).or_insert(newest);
        let words = || format!("h{host} hears no majority since term {known}, and got to term {term}");
        (cut.for_long && term > known).then(words).into_iter().collect()
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

    /// Whether the first of two managers in these terms is found to have got on.
    fn stands(reign: &mut Reign, terms: [u64; 2], cut: Option<(bool, bool)>) -> bool {
        reign.caught_up(&BTreeMap::from([(1, (terms[0], 0, false)), (2, (terms[1], 0, false))]));
        !reign.stands(1, terms[0], cut.map(|(well, for_long)| Cut { well, for_long })).is_empty()
    }

    #[test]
    fn a_term_that_grows_where_nobody_is_heard_is_found() {
        let mut reign = Reign::default();
        let mut look = |terms, cut| stands(&mut reign, terms, cut);
        let (cut, long) = (Some((true, false)), Some((true, true)));
        assert_eq!([look([3, 3], cut), look([3, 3], long), look([4, 3], long)], [false, false, true]);
        assert_eq!([look([5, 3], None), look([5, 3], cut), look([6, 3], long)], [false, false, true]);
    }

    #[test]
    fn a_term_that_was_newest_before_the_cut_may_be_taken_up_after_it_and_no_newer_one() {
        let mut reign = Reign::default();
        let mut look = |terms, for_long| stands(&mut reign, terms, Some((true, for_long)));
        assert_eq!([look([1, 2], false), look([1, 3], true), look([2, 3], true)], [false; 3]);
        assert!(look([3, 3], true));
    }

    #[test]
    fn one_that_waited_for_its_disk_when_it_was_cut_off_may_have_been_about_to_stand_once() {
        let mut reign = Reign::default();
        let mut look = |terms, cut| stands(&mut reign, terms, Some(cut));
        assert_eq!([look([1, 1], (false, false)), look([2, 1], (true, true))], [false; 2]);
        assert!(look([3, 1], (true, true)));
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
