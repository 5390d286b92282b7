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

    /// The host is up and no manager: whatever it voted is wiped.
    pub(super) fn forget(&mut self, host: usize) {
        self.terms.remove(&host);
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
    fn a_seat_that_is_taken_although_too_few_are_left_is_found() {
        let (four, three) = ([1, 2, 3, 4].into(), [1, 2, 3].into());
        assert!(lost_quorum(&four, &three, |host| host > 1));
        assert!(!lost_quorum(&four, &three, |host| host > 2));
        assert!(!lost_quorum(&three, &four, |host| host > 1));
    }
}
