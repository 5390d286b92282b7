//! What the managers' logs hold on their disks: one history, of which nothing that was committed is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use shoal_actors::raft::DataKey;
use shoal_actors::raft::reading::{At, COMMITTED, KEY, Record, Reign, SNAPSHOT, Segment, Written};
use shoal_actors::raft::reading::{committed, snapshot_index};
use shoal_core::model::NodeId;
use shoal_core::pace::Pace;
use tokio::time::Instant;

use crate::disk::{Files, SimDisk};

/// The logs are read so often, and whenever a node goes down.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Entries that are remembered, newest first.
const ENTRIES_MAX: usize = 100_000;

/// Who votes: two groups while the second takes the first's place.
type Voters = Vec<BTreeSet<NodeId>>;

/// The log on one host's disk, as far as it was read.
#[derive(Default)]
struct Log {
    key: Vec<u8>,
    segments: BTreeMap<String, Segment>,
    node: Option<NodeId>,
    /// Who wrote them, by index.
    entries: BTreeMap<u64, Reign>,
    voters: BTreeMap<u64, Voters>,
    purged: Option<At>,
    snapshot: u64,
    /// What was committed as this node knows.
    committed: u64,
    noted: Option<At>,
    /// Notes that its disk has lost.
    notes_lost: u64,
    /// What was durable was damaged, and has not come back yet.
    harmed: bool,
}

impl Log {
    fn last(&self) -> u64 {
        let entry = self.entries.last_key_value().map_or(0, |(index, _)| *index);
        entry.max(self.purged.map_or(0, |at| at.index)).max(self.snapshot)
    }

    /// Whether it has this entry, or had it and has all that came of it.
    fn holds(&self, at: At) -> bool {
        self.entries.get(&at.index) == Some(&at.reign)
            || self.purged.is_some_and(|purged| at.index <= purged.index)
            || at.index <= self.snapshot
    }

    fn reign_before(&self, index: u64) -> Option<Reign> {
        let before = index.checked_sub(1)?;
        let purged = self.purged.filter(|at| at.index == before).map(|at| at.reign);
        self.entries.get(&before).copied().or(purged)
    }

    fn purge(&mut self, upto: At) {
        let is_new = self.purged.is_none_or(|before| before.index < upto.index);
        if is_new && self.entries.get(&upto.index) != Some(&upto.reign) {
            // A snapshot took their place: what they said of who votes may never have been committed, and what came and went
            // between two looks may say it now.
            self.voters.clear();
        }
        self.entries = self.entries.split_off(&(upto.index + 1));
        // Who votes is still in force.
        let in_force = self.voters.range(..=upto.index).next_back().map_or(0, |(index, _)| *index);
        self.voters = self.voters.split_off(&in_force);
        self.purged = self.purged.max(Some(upto));
    }

    /// Entries from `since` on are gone. The first of them that was committed.
    fn cut(&mut self, since: u64) -> Option<u64> {
        let first = self.entries.range(since..).next().map(|(index, _)| *index);
        self.entries.split_off(&since);
        self.voters.split_off(&since);
        first.filter(|first| *first <= self.committed && !self.harmed)
    }
}

/// The logs, and what is known of the one history in them.
#[derive(Default)]
pub struct Logs {
    logs: BTreeMap<usize, Log>,
    seen: BTreeMap<usize, (u64, u64)>,
    /// What an entry says, and who wrote the one before it.
    entries: BTreeMap<At, (u64, Option<Reign>)>,
    /// Who wrote them, by index.
    committed: BTreeMap<u64, Reign>,
    /// Nodes that have begun their log anew: where, and what was committed by then.
    anew: BTreeMap<NodeId, (usize, At)>,
    pace: Pace,
    next: Option<Instant>,
    up: BTreeSet<usize>,
}

/// Whether there can be two majorities, one of each group, that have nobody in common.
fn may_disagree(one: &BTreeSet<NodeId>, other: &BTreeSet<NodeId>) -> bool {
    let both = one.intersection(other).count();
    // So many of a majority must be in both.
    let least = |group: &BTreeSet<NodeId>| (group.len() / 2 + 1).saturating_sub(group.len() - both);
    least(one) + least(other) <= both
}

/// Whether every majority of the one has somebody of every majority of the other.
fn is_one_step(before: &Voters, after: &Voters) -> bool {
    before.iter().any(|one| after.iter().any(|other| !may_disagree(one, other)))
}

impl Logs {
    /// Nothing read so far, of a cluster of this pace.
    #[must_use]
    pub fn new(pace: Pace) -> Self {
        Self { pace, ..Self::default() }
    }

    /// Look at the hosts' disks, if it is time; `applied`: up to where each manager that is up has applied its log.
    pub fn look(
        &mut self,
        disks: &[SimDisk],
        applied: &BTreeMap<usize, u64>,
        up: impl Iterator<Item = usize>,
    ) -> Vec<String> {
        let up: BTreeSet<usize> = up.collect();
        let fell = self.up.iter().any(|host| !up.contains(host));
        self.up = up;
        if !fell && self.next.is_some_and(|next| Instant::now() < next) {
            return Vec::new();
        }
        self.look_now(disks, applied)
    }

    /// Look at the hosts' disks.
    pub fn look_now(&mut self, disks: &[SimDisk], applied: &BTreeMap<usize, u64>) -> Vec<String> {
        self.next = Some(Instant::now() + self.pace.of(LOOK_EVERY));
        let mut found = Vec::new();
        for (host, disk) in (1..).zip(disks) {
            let (version, harm) = self.seen.get(&host).copied().unwrap_or((u64::MAX, 0));
            if disk.harm() != harm {
                // Nothing of it is sure until it is read again.
                let log = self.logs.entry(host).or_default();
                *log = Log { key: log.key.clone(), node: log.node, harmed: true, ..Log::default() };
            }
            let (log, notes_lost) = (self.logs.entry(host).or_default(), disk.notes_lost());
            if std::mem::replace(&mut log.notes_lost, notes_lost) != notes_lost {
                // An older one is there.
                log.noted = None;
            }
            let looked = disk.look_at(version, |files| self.read(host, files));
            let version = looked.map_or(version, |(version, broken)| {
                found.extend(broken);
                version
            });
            self.seen.insert(host, (version, disk.harm()));
        }
        found.extend(applied.iter().flat_map(|(host, index)| self.applied(*host, *index)));
        found.extend(self.majority());
        self.forget();
        found
    }

    fn newest(&self) -> Option<At> {
        self.committed.last_key_value().map(|(index, reign)| At { index: *index, reign: *reign })
    }

    fn read(&mut self, host: usize, files: &Files) -> Vec<String> {
        let newest = self.newest();
        let log = self.logs.entry(host).or_default();
        let key = files.get(KEY).cloned().unwrap_or_default();
        if key != log.key {
            // Consensus begins anew there, or a bit of the key has flipped.
            if let Some((node, newest)) = log.node.filter(|_| !log.harmed).zip(newest) {
                self.anew.insert(node, (host, newest));
            }
            *log = Log { key, harmed: log.harmed, ..Log::default() };
        }
        let Ok(bytes) = <[u8; 32]>::try_from(log.key.as_slice()) else { return Vec::new() };
        let key = DataKey::new(bytes);
        log.segments.retain(|name, _| files.contains_key(name));
        log.snapshot = files.get(SNAPSHOT).and_then(|bytes| snapshot_index(bytes)).unwrap_or(0);
        let mut records = Vec::new();
        for (name, bytes) in files.iter().filter(|(name, _)| Segment::is_one(name)) {
            if !log.segments.contains_key(name) {
                let Some(segment) = Segment::open(name, bytes, &key) else { continue };
                log.segments.insert(name.clone(), segment);
            }
            let segment = log.segments.get_mut(name).into_iter();
            records.extend(segment.flat_map(|s| std::iter::from_fn(|| s.next(bytes))));
        }
        let noted = files.get(COMMITTED).and_then(|bytes| committed(bytes, &key));
        let mut found: Vec<String> = records.into_iter().flat_map(|record| self.take(host, record)).collect();
        found.extend(noted.and_then(|at| self.noted(host, at)));
        found
    }

    /// A record was written on this host.
    fn take(&mut self, host: usize, record: Record) -> Vec<String> {
        let log = self.logs.entry(host).or_default();
        let mut found = Vec::new();
        let mut lost = |index: Option<u64>| {
            found.extend(index.map(|index| format!("h{host} lost entry {index}, which is committed")));
        };
        match record {
            Record::Begins { node, purged, last } => {
                log.node = Some(node);
                purged.into_iter().for_each(|upto| log.purge(upto));
                lost(log.cut(last.map_or(0, |at| at.index + 1)));
            }
            Record::Truncated(since) => lost(log.cut(since)),
            Record::Purged(upto) => log.purge(upto),
            Record::Entries(entries) => {
                let first = entries.first().map_or(0, |entry| entry.at.index);
                if log.node.is_some() && first > log.last() + 1 && !log.harmed {
                    return vec![format!("h{host} wrote entry {first} behind entry {}", log.last())];
                }
                // What is written once more as it was is not lost.
                let other = entries.iter().find(|e| log.entries.get(&e.at.index) != Some(&e.at.reign));
                lost(other.and_then(|entry| log.cut(entry.at.index)));
                for entry in entries {
                    found.extend(self.entry(host, entry));
                }
            }
            Record::Other => {}
        }
        found
    }

    fn entry(&mut self, host: usize, Written { at, says, voters }: Written) -> Vec<String> {
        let log = self.logs.entry(host).or_default();
        let mut found = Vec::new();
        let before = log.reign_before(at.index);
        let known = self.entries.entry(at).or_insert((says, before));
        known.1 = known.1.or(before);
        if known.0 != says || before.is_some_and(|before| known.1 != Some(before)) {
            let At { index, reign } = at;
            found.push(format!("h{host} wrote another entry {index} of term {reign} than others did"));
        }
        if let Some(after) = voters {
            // What came with a snapshot may have been a step between the two.
            let whole = |since: u64| {
                let between = log.entries.range(since..at.index).count();
                u64::try_from(between).is_ok_and(|between| between == at.index - since)
            };
            let before = log.voters.range(..at.index).next_back();
            let before = before.filter(|(since, before)| !is_one_step(before, &after) && whole(**since));
            if let Some((since, before)) = before {
                found.push(format!(
                    "with entry {} the voters {after:?} take the place of {before:?}, of entry {since}, at once",
                    at.index
                ));
            }
            log.voters.insert(at.index, after);
        }
        log.entries.insert(at.index, at.reign);
        found
    }

    /// The host's note of the newest committed entry.
    fn noted(&mut self, host: usize, at: At) -> Option<String> {
        let log = self.logs.entry(host).or_default();
        let before = log.noted.replace(at)?;
        (before > at && !log.harmed).then(|| format!("h{host} had committed {before:?} and then {at:?}"))
    }

    /// A manager has applied its log up to here: all of it is committed.
    fn applied(&mut self, host: usize, upto: u64) -> Vec<String> {
        let log = self.logs.entry(host).or_default();
        let mut found = Vec::new();
        if log.last() < upto && !log.harmed {
            found.push(format!("h{host} applied entry {upto}, and its disk ends with {}", log.last()));
        }
        // What came with a snapshot may have other entries behind it until they are purged.
        let news = log.committed.max(log.snapshot).saturating_add(1)..=upto;
        for (index, reign) in
            if news.is_empty() { None } else { Some(log.entries.range(news)) }.into_iter().flatten()
        {
            let first = *self.committed.entry(*index).or_insert(*reign);
            if first != *reign {
                found.push(format!(
                    "entry {index} is committed of term {first}, and on h{host} of term {reign}"
                ));
            }
        }
        log.committed = log.committed.max(upto);
        found
    }

    /// The newest committed entry is on the disks of a majority of those who vote.
    fn majority(&mut self) -> Option<String> {
        let at = self.newest()?;
        let At { index, reign } = at;
        for log in self.logs.values_mut().filter(|log| log.holds(at)) {
            log.harmed = false;
        }
        // Those who voted when it was written, and those who came after: whoever counted it may have known of them. A log
        // that begins with a snapshot lacks those before it.
        let holding = self.logs.values().filter(|log| log.entries.get(&index) == Some(&reign));
        let (voting, log) = holding
            .filter_map(|log| Some((*log.voters.range(..=index).next_back()?.0, log)))
            .max_by_key(|(voting, _)| *voting)?;
        let elections: Vec<_> =
            log.voters.range(voting..).filter_map(|(_, groups)| groups.last().cloned()).collect();
        let voters = elections.first()?;
        // What it has of the time before it began anew it cannot have forgotten.
        let lacks = |(host, before): &(usize, At)| {
            self.logs.get(host).is_some_and(|log| !log.harmed && !log.holds(*before))
        };
        self.anew.retain(|_, begun| lacks(begun));
        // What was written since may have taken its seat, and be committed though all who knew of that are down.
        let keeps_seat = |node: &NodeId| {
            let mut later = self.logs.values().flat_map(|log| log.voters.range(voting..));
            later.all(|(_, groups)| groups.last().is_none_or(|voters| voters.contains(node)))
        };
        // Before it takes part again it is as good as dead, and no danger.
        let takes_part = |(node, (host, _)): &(&NodeId, &(usize, At))| {
            voters.contains(*node)
                && keeps_seat(node)
                && self.logs.get(host).is_some_and(|log| log.node == Some(**node))
        };
        // What a snapshot has passed over may have said who votes now.
        let passed_over = self.logs.values().any(|log| log.committed > index);
        if let Some((_, (host, At { index, reign }))) =
            self.anew.iter().find(takes_part).filter(|_| !passed_over)
        {
            return Some(format!(
                "h{host} votes, and has begun its log anew without entry {index} of term {reign}"
            ));
        }
        let of = |id: &NodeId| self.logs.values().find(|log| log.node == Some(*id) && !log.harmed);
        // A disk that was lost or damaged is no fault of the node's.
        let fail = |voters: &BTreeSet<NodeId>| {
            voters.iter().filter(|id| of(id).is_some_and(|log| !log.holds(at))).count()
        };
        elections.iter().all(|voters| fail(voters) * 2 >= voters.len()).then(|| {
            let (fails, voters) = (fail(voters), voters.len());
            format!(
                "entry {index} of term {reign} is committed, and {fails} of {voters} voters do not hold it"
            )
        })
    }

    fn forget(&mut self) {
        while self.entries.len() > ENTRIES_MAX {
            self.entries.pop_first();
        }
        while self.committed.len() > ENTRIES_MAX {
            self.committed.pop_first();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: u128) -> NodeId {
        NodeId::from_u128(id)
    }

    fn at(term: u64, index: u64) -> At {
        At { index, reign: Reign { term, leader: node(9) } }
    }

    fn group(ids: &[u128]) -> BTreeSet<NodeId> {
        ids.iter().map(|id| node(*id)).collect()
    }

    fn entry(term: u64, index: u64) -> Written {
        Written { at: at(term, index), says: term * 1_000 + index, voters: None }
    }

    fn seats(term: u64, index: u64, groups: &[&[u128]]) -> Written {
        Written { voters: Some(groups.iter().map(|ids| group(ids)).collect()), ..entry(term, index) }
    }

    /// Three voters with the same three entries, all committed.
    fn logs() -> Logs {
        let mut logs = Logs::default();
        for host in 1..=3 {
            let node = node(host as u128);
            assert!(logs.take(host, Record::Begins { node, purged: None, last: None }).is_empty());
            let entries = vec![seats(1, 0, &[&[1, 2, 3]]), entry(1, 1), entry(1, 2)];
            assert!(logs.take(host, Record::Entries(entries)).is_empty());
            assert!(logs.applied(host, 2).is_empty());
        }
        assert_eq!(logs.majority(), None);
        logs
    }

    #[test]
    fn entries_that_were_never_committed_may_be_replaced() {
        let mut logs = logs();
        assert!(logs.take(1, Record::Entries(vec![entry(1, 3), entry(1, 4)])).is_empty());
        assert!(logs.take(2, Record::Entries(vec![entry(2, 3)])).is_empty());
        assert!(logs.take(3, Record::Entries(vec![entry(2, 3)])).is_empty());
        assert!(logs.applied(2, 3).is_empty() && logs.majority().is_none());
        assert!(logs.take(1, Record::Truncated(3)).is_empty());
        assert!(logs.take(1, Record::Entries(vec![entry(2, 3)])).is_empty());
        assert!(logs.take(1, Record::Entries(vec![entry(2, 3), entry(2, 4)])).is_empty());
        assert!(logs.applied(1, 3).is_empty() && logs.majority().is_none());
        // What is in a snapshot is not lost.
        assert!(logs.take(3, Record::Purged(at(2, 3))).is_empty());
        assert!(
            logs.take(3, Record::Begins { node: node(3), purged: Some(at(2, 3)), last: Some(at(2, 3)) })
                .is_empty()
        );
        assert!(logs.take(3, Record::Entries(vec![entry(2, 4)])).is_empty());
        assert!(logs.applied(3, 4).is_empty() && logs.applied(1, 4).is_empty() && logs.majority().is_none());
    }

    #[test]
    fn seats_that_a_snapshot_has_passed_over_say_nothing_of_who_votes() {
        let mut logs = logs();
        // A leader that was cut off took its own seat, and got a snapshot of those who went on without it.
        let leaves = vec![seats(1, 3, &[&[1, 2, 3], &[1, 3]])];
        assert!(logs.take(2, Record::Entries(leaves)).is_empty());
        let later = |from: u64| (from..=9).map(|index| entry(2, index)).collect::<Vec<_>>();
        for host in [1, 3] {
            assert!(logs.take(host, Record::Entries(later(3))).is_empty());
        }
        logs.logs.get_mut(&2).unwrap().snapshot = 8;
        assert!(logs.take(2, Record::Purged(at(2, 8))).is_empty());
        assert!(logs.take(2, Record::Entries(later(9))).is_empty());
        // It and another are a majority.
        for host in [2, 3] {
            assert!(logs.take(host, Record::Entries(vec![entry(3, 10)])).is_empty());
            assert!(logs.applied(host, 10).is_empty());
        }
        assert_eq!(logs.majority(), None);
    }

    #[test]
    fn a_committed_entry_that_goes_or_is_another_is_found() {
        for record in [
            Record::Truncated(2),
            Record::Begins { node: node(1), purged: None, last: Some(at(1, 1)) },
            Record::Entries(vec![entry(2, 2)]),
        ] {
            assert_eq!(logs().take(1, record), ["h1 lost entry 2, which is committed"]);
        }
        let mut harmed = logs();
        harmed.logs.entry(1).or_default().harmed = true;
        assert!(harmed.take(1, Record::Truncated(2)).is_empty());
        let mut two = logs();
        two.take(1, Record::Entries(vec![entry(2, 3)]));
        two.take(2, Record::Entries(vec![entry(3, 3)]));
        two.applied(1, 3);
        assert_eq!(two.applied(2, 3), ["entry 3 is committed of term 2, and on h2 of term 3"]);
        assert_eq!(two.applied(3, 3), ["h3 applied entry 3, and its disk ends with 2"]);
    }

    #[test]
    fn who_votes_is_not_known_where_entries_went_unread() {
        let mut logs = logs();
        logs.anew.insert(node(2), (2, at(1, 2)));
        logs.take(2, Record::Truncated(0));
        logs.take(1, Record::Entries(vec![entry(1, 3)]));
        assert!(logs.applied(1, 3).is_empty());
        assert!(logs.majority().is_some_and(|found| found.contains("begun its log anew")));
        logs.take(1, Record::Purged(at(1, 9)));
        logs.take(1, Record::Entries(vec![entry(1, 10)]));
        logs.applied(1, 10);
        assert_eq!(logs.majority(), None, "entries 4 to 9 may have taken its seat");
    }

    #[test]
    fn who_votes_is_not_known_where_a_snapshot_has_passed_over_entries() {
        let mut logs = logs();
        logs.anew.insert(node(2), (2, at(1, 2)));
        logs.take(2, Record::Truncated(0));
        logs.logs.entry(1).or_default().snapshot = 5;
        logs.applied(1, 5);
        assert_eq!(logs.majority(), None, "entries 3 to 5 may have taken its seat");
        logs.take(1, Record::Entries((3..7).map(|index| entry(1, index)).collect()));
        logs.applied(1, 6);
        assert!(logs.majority().is_some_and(|found| found.contains("begun its log anew")));
    }

    #[test]
    fn whose_seat_was_taken_by_what_nobody_tells_of_any_more_does_not_vote() {
        let mut logs = logs();
        logs.anew.insert(node(2), (2, at(1, 2)));
        logs.take(2, Record::Truncated(0));
        assert!(logs.majority().is_some_and(|found| found.contains("begun its log anew")));
        logs.take(1, Record::Entries(vec![seats(1, 3, &[&[1, 3]])]));
        assert_eq!(logs.majority(), None, "entry 3 may be committed");
    }

    #[test]
    fn two_entries_of_one_term_at_one_place_are_found() {
        let mut logs = logs();
        assert!(logs.take(1, Record::Entries(vec![entry(2, 3)])).is_empty());
        let other = Written { says: 7, ..entry(2, 3) };
        assert_eq!(logs.take(2, Record::Entries(vec![other])).len(), 1);
        // So is the same entry behind another.
        logs.take(3, Record::Entries(vec![entry(3, 3), entry(3, 4)]));
        logs.take(1, Record::Entries(vec![entry(2, 3), entry(3, 4)]));
        assert_eq!(logs.take(1, Record::Entries(vec![entry(3, 4)])).len(), 1);
    }

    #[test]
    fn what_too_few_hold_is_found_unless_their_disks_were_lost() {
        let mut logs = logs();
        logs.take(1, Record::Entries(vec![entry(1, 3)]));
        logs.applied(1, 3);
        assert_eq!(
            logs.majority().as_deref(),
            Some("entry 3 of term 1 is committed, and 2 of 3 voters do not hold it")
        );
        logs.logs.entry(2).or_default().harmed = true;
        assert_eq!(logs.majority(), None);
        logs.take(2, Record::Entries(vec![entry(1, 3)]));
        assert!(logs.majority().is_none() && !logs.logs[&2].harmed);
    }

    #[test]
    fn one_that_votes_and_begins_its_log_anew_is_found() {
        let mut logs = logs();
        logs.read(1, &Files::from([(KEY.to_owned(), vec![1; 32])]));
        assert_eq!(logs.majority(), None, "it does not take part");
        logs.take(1, Record::Begins { node: node(1), purged: None, last: None });
        assert!(logs.majority().is_some_and(|what| what.starts_with("h1 votes, and has begun its log anew")));
        // It is no more once it has all again.
        logs.take(1, Record::Entries(vec![seats(1, 0, &[&[1, 2, 3]]), entry(1, 1), entry(1, 2)]));
        assert_eq!(logs.majority(), None);
        // One that votes no more may do so.
        for host in 1..=2 {
            logs.take(
                host,
                Record::Entries(vec![seats(1, 3, &[&[1, 2, 3], &[1, 2]]), seats(1, 4, &[&[1, 2]])]),
            );
            logs.applied(host, 4);
        }
        logs.read(3, &Files::from([(KEY.to_owned(), vec![1; 32])]));
        assert_eq!(logs.majority(), None);
    }

    #[test]
    fn a_commit_that_goes_back_is_found() {
        let mut logs = logs();
        assert_eq!(logs.noted(1, at(1, 2)), None);
        assert_eq!(logs.noted(2, at(1, 1)), None);
        assert!(logs.noted(1, at(1, 1)).is_some());
    }

    #[test]
    fn voters_change_by_steps_whose_majorities_overlap() {
        let change = |groups: &[&[u128]]| logs().take(1, Record::Entries(vec![seats(1, 3, groups)])).len();
        assert_eq!(change(&[&[1, 2, 3]]), 0);
        assert_eq!(change(&[&[1, 2, 3, 4]]), 0, "one more");
        assert_eq!(change(&[&[1, 2]]), 0, "one less");
        assert_eq!(change(&[&[1, 2, 3], &[3, 4, 5]]), 0, "both at once");
        assert_eq!(change(&[&[1, 2, 4]]), 1, "another in one's place");
        assert_eq!(change(&[&[1, 2, 3, 4, 5]]), 1, "two more at once");
        let mut logs = logs();
        let steps = vec![seats(1, 3, &[&[1, 2, 3], &[3, 4, 5]]), seats(1, 4, &[&[3, 4, 5]])];
        assert!(logs.take(1, Record::Entries(steps)).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn the_disks_are_read_at_each_fall_and_now_and_then() {
        let mut logs = Logs::default();
        let disks = [SimDisk::new(1, Default::default())];
        // It says that it has applied what its disk does not hold.
        let mut look = |up: &[usize]| logs.look(&disks, &BTreeMap::from([(1, 5)]), up.iter().copied()).len();
        assert_eq!((look(&[1, 2]), look(&[1, 2]), look(&[1]), look(&[1])), (1, 0, 1, 0));
        tokio::time::advance(LOOK_EVERY).await;
        assert_eq!(look(&[1]), 1);
    }
}
