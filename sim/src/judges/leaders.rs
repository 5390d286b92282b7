//! One leader in a term.

use std::collections::BTreeMap;

/// Who led in which term.
#[derive(Default)]
pub struct Leaders(BTreeMap<u64, usize>);

impl Leaders {
    /// Look at one manager; `leads`: the term in which it believes to lead, if it does.
    pub fn look(&mut self, host: usize, leads: Option<u64>) -> Vec<String> {
        let Some(term) = leads else { return Vec::new() };
        let first = *self.0.entry(term).or_insert(host);
        if first == host {
            return Vec::new();
        }
        vec![format!("h{first} and h{host} both lead in term {term}")]
    }

    /// Terms in which somebody led.
    #[must_use]
    pub fn terms(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_leaders_in_a_term_are_found() {
        let mut leaders = Leaders::default();
        assert!(leaders.look(1, Some(1)).is_empty() && leaders.look(1, Some(1)).is_empty());
        assert!(leaders.look(2, None).is_empty() && leaders.look(2, Some(2)).is_empty());
        assert_eq!(leaders.look(2, Some(1)), ["h1 and h2 both lead in term 1"]);
    }
}
